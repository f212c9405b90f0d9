"""A slow line: a TCP proxy that delays what it passes on, and notes each HTTP request."""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_REQUEST = re.compile(rb"(GET|POST|HEAD|DELETE|OPTIONS) (\S+) HTTP/1\.1\r\n")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_CONDITION = re.compile(rb"\r\nif-(none-match|modified-since):", re.IGNORECASE)
_RELEASED = re.compile(r"\.[0-9a-f]{12}\.min\.\w+\Z")
_CHUNK = 1 << 16
_HOST = "127.0.0.1"


def source_of(address: str) -> str:
    """Return the path of an address, without what a release adds to the name of a file."""
    return _RELEASED.sub("", urlsplit(address).path)


@dataclass
class Exchange:
    """A request and its answer, as the browser sees them. Times are `time.monotonic()`."""

    method: str
    path: str
    #: Whether the browser asks if its copy is still current.
    revalidates: bool
    began: float
    #: When the browser opened the connection, if this is the connection's first request.
    connected: float | None
    status: int = 0
    #: The size of the whole answer.
    size: int = 0
    ended: float = 0.0
    #: Set when the answer may pass.
    may_pass: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def name(self) -> str:
        """The method, and the last part of the path: `GET frame.js`."""
        return f"{self.method} {source_of(self.path).rpartition('/')[2]}"


@dataclass
class Line:
    """A running line. Delays may change at any time.

    `delay` is for each direction, `connect_delay` for each new connection, in seconds. While `holds`, every
    answer waits for `release`.
    """

    port: int
    delay: float = 0.0
    connect_delay: float = 0.0
    holds: bool = False
    exchanges: list[Exchange] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop, repr=False)

    def take(self) -> list[Exchange]:
        """Return the exchanges since the last call."""
        taken, self.exchanges = self.exchanges, []
        return taken

    def release(self) -> list[Exchange]:
        """Let the answers to these requests pass, and return the exchanges since the last call."""
        taken = self.take()
        for exchange in taken:
            self._loop.call_soon_threadsafe(exchange.may_pass.set)
        return taken


@contextlib.contextmanager
def line(target: int) -> Iterator[Line]:
    """Run a line to a port of this machine."""
    ready = threading.Event()
    made: list[tuple[Line, asyncio.Event]] = []

    async def serve() -> None:
        stopped = asyncio.Event()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await _Connection(running, reader, writer).run(target)

        server = await asyncio.start_server(accept, _HOST, 0, limit=_CHUNK)
        running = Line(server.sockets[0].getsockname()[1])
        made.append((running, stopped))
        ready.set()
        await stopped.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    running, stopped = made[0]
    try:
        yield running
    finally:
        running._loop.call_soon_threadsafe(stopped.set)
        thread.join()


class _Connection:
    def __init__(self, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.line, self.reader, self.writer = line, reader, writer
        self.opened: float | None = time.monotonic()
        self.usable = self.opened + line.connect_delay
        self.exchange: Exchange | None = None

    async def run(self, target: int) -> None:
        reader, writer = await asyncio.open_connection(_HOST, target, limit=_CHUNK)
        try:
            await asyncio.gather(
                self._pass(self.reader, writer, outward=True), self._pass(reader, self.writer, outward=False)
            )
        finally:
            for each in (writer, self.writer):
                each.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, outward: bool) -> None:
        """Pass bytes on after the delay, in their order."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._send(waiting, sink, outward))
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if outward:
                    self._note_request(data)
                waiting.put_nowait((max(time.monotonic(), self.usable) + self.line.delay, data))
        waiting.put_nowait((0.0, b""))
        await sender

    async def _send(
        self, waiting: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter, outward: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await waiting.get()
                if not data:
                    break
                await asyncio.sleep(due - time.monotonic())
                if self.exchange and not outward:
                    await self.exchange.may_pass.wait()
                sink.write(data)
                await sink.drain()
                if not outward:
                    self._note_answer(data)
        sink.close()

    def _note_request(self, data: bytes) -> None:
        if found := _REQUEST.match(data):
            self.exchange = Exchange(
                found[1].decode(),
                found[2].decode(),
                _CONDITION.search(data.partition(b"\r\n\r\n")[0]) is not None,
                time.monotonic(),
                self.opened,
            )
            self.opened = None
            if not self.line.holds:
                self.exchange.may_pass.set()
            self.line.exchanges.append(self.exchange)

    def _note_answer(self, data: bytes) -> None:
        if exchange := self.exchange:
            if not exchange.size and (found := _STATUS.match(data)):
                exchange.status = int(found[1])
            exchange.size += len(data)
            exchange.ended = time.monotonic()
