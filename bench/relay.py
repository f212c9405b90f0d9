"""The relay with idle WebSockets: memory, CPU, and questions to the service. `python -m bench relay`."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from tests.support.servers import PROJECT, free_port, wait_for

SOCKETS: Final = 1000
SECONDS: Final = 30.0
HANDSHAKE: Final = (
    "GET /ws HTTP/1.1\r\nHost: sales--{viewer}.embed.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Cookie: __Host-pat-{viewer}=1\r\n\r\n"
)
#: The app and the service in one process. It counts the service's answers.
OTHERS: Final = """
import asyncio, sys

asked = 0
app, service = map(int, sys.argv[1:])

async def answer(reader, writer):
    global asked
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            if head.startswith(b"GET /asked"):
                text = str(asked)
            else:
                asked, text = asked + 1, ""
            upstream = f"X-Embed-Upstream: http://127.0.0.1:{app}\\r\\n"
            body = f"Content-Length: {len(text)}\\r\\n\\r\\n{text}"
            writer.write(f"HTTP/1.1 200 OK\\r\\n{upstream}{body}".encode())
    except (EOFError, OSError):
        writer.close()

async def switch(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 101 S\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n")
    await reader.read()
    writer.close()

async def main():
    await asyncio.start_server(answer, "127.0.0.1", service)
    await (await asyncio.start_server(switch, "127.0.0.1", app, backlog=1024)).serve_forever()

asyncio.run(main())
"""


@contextmanager
def _process(*command: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, *command], cwd=PROJECT, env=os.environ | environ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _asked(port: int) -> int:
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/asked")
    number = int(connection.getresponse().read())
    connection.close()
    return number


def _listens(port: int) -> bool:
    async def connect() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    try:
        asyncio.run(connect())
    except OSError:
        return False
    return True


async def _open(port: int, viewer: int) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HANDSHAKE.format(viewer=viewer).encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 101 "):
        raise RuntimeError(answer)
    return writer


async def _measure(pid: int, port: int, service: int, sockets: int, seconds: float) -> list[str]:
    empty = _resident_mb(pid)
    begun, cpu = time.perf_counter(), _cpu_seconds(pid)
    writers = [await _open(port, viewer) for viewer in range(sockets)]
    opening, opening_cpu = time.perf_counter() - begun, _cpu_seconds(pid) - cpu
    await asyncio.sleep(5)
    before, cpu = _asked(service), _cpu_seconds(pid)
    await asyncio.sleep(seconds)
    asked, cpu = _asked(service) - before, _cpu_seconds(pid) - cpu
    full = _resident_mb(pid)
    for writer in writers:
        writer.close()
    return [
        f"sockets, each of another viewer: {sockets}",
        f"to open one: {1000 * opening / sockets:.2f} ms, {1000 * opening_cpu / sockets:.2f} ms of CPU",
        f"memory: {empty:.1f} MB empty, and {1000 * (full - empty) / sockets:.1f} KB for each socket",
        f"CPU, idle: {1000 * cpu / seconds:.1f} ms a second",
        f"questions to the service: {asked / seconds:.0f} a second",
    ]


def measure(sockets: int = SOCKETS, seconds: float = SECONDS) -> None:
    """Print the figures of this machine. The service and the app are stubs in another process."""
    app, service, port = free_port(), free_port(), free_port()
    settings = {
        "RELAY_LISTEN": f"http://127.0.0.1:{port}",
        "RELAY_SERVICE": f"http://127.0.0.1:{service}",
        "RELAY_UPSTREAMS": f"http://127.0.0.1:{app}",
    }
    with _process("-c", OTHERS, str(app), str(service)) as others, _process("relay.py", **settings) as relay:
        wait_for(lambda: _listens(service), others)
        wait_for(lambda: _listens(port), relay)
        lines = asyncio.run(_measure(relay.pid, port, service, sockets, seconds))
    sys.stdout.write("\n".join([*lines, ""]))
