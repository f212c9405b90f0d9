"""A closed loop of clients in one thread: each connection awaits an answer before its next request.

It uses raw sockets, because an HTTP library would cost more than the measured server.
"""

import os
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

READ: Final = 65536
#: Seconds after which a server without an answer has failed.
PATIENCE: Final = 30


@dataclass
class Run:
    """The result of one slice of time. Times are in seconds, and `cpu` is the server's."""

    seconds: float
    cpu: float
    latencies: list[float] = field(repr=False)
    statuses: Counter[int]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def cpu_each(self) -> float:
        return self.cpu / max(1, len(self.latencies))

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = port
        self.began = 0.0
        self._buffer = b""
        self._wanted = -1

    def send(self, request: bytes) -> None:
        self._buffer, self._wanted = b"", -1
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def received(self) -> int | None:
        """Take the received bytes, and return the status once the answer is complete."""
        part = self.socket.recv(READ)
        if not part:
            raise ConnectionError("the server closed the connection during an answer")
        self._buffer += part
        if self._wanted < 0:
            head, found, _ = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return None
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._wanted = len(head) + 4 + int(length)
        return int(self._buffer[9:12]) if len(self._buffer) >= self._wanted else None


def run(port: int, requests: Iterator[bytes], connections: int, seconds: float, workers: list[int]) -> Run:
    """Load the server on `port` for this many seconds. `workers` are the processes to measure."""
    clients = [_Connection(port) for _ in range(connections)]
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    selector = selectors.DefaultSelector()
    try:
        cpu_before, began = cpu_of(workers), time.perf_counter()
        end = began + seconds
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.send(next(requests))
        waiting = len(clients)
        while waiting:
            ready = selector.select(PATIENCE)
            if not ready:
                raise TimeoutError("the server stopped answering")
            for key, _ in ready:
                client = key.data
                status = client.received()
                if status is None:
                    continue
                now = time.perf_counter()
                latencies.append(now - client.began)
                statuses[status] += 1
                if now < end:
                    client.send(next(requests))
                else:
                    waiting -= 1
                    selector.unregister(client.socket)
        return Run(time.perf_counter() - began, cpu_of(workers) - cpu_before, latencies, statuses)
    finally:
        selector.close()
        for client in clients:
            client.socket.close()


_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of(processes: list[int]) -> float:
    """Return the processor time of these processes, in seconds."""
    total = 0
    for process in processes:
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def children_of(parent: int) -> list[int]:
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return [int(text) for text in file.read().split()]
