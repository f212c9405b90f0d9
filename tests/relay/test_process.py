"""`python relay.py` as a process, with a service that is killed and starts again."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from tests.support.asynchronous import run_async
from tests.support.servers import PROJECT, free_port, wait_for

pytestmark = pytest.mark.slow

#: Lets everyone in, with the upstream that is its second argument.
SERVICE = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("X-Embed-Upstream", sys.argv[2])
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.flush()

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@contextlib.contextmanager
def process(*command: str, log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        started = subprocess.Popen(
            [sys.executable, *command],
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"]} | environ,
            stdout=out,
            stderr=out,
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


def test_open_sockets_survive_a_kill_of_the_service(tmp_path: Path) -> None:
    app_port, service_port, relay_port = free_port(), free_port(), free_port()
    app_url, log = f"http://127.0.0.1:{app_port}", tmp_path / "log"
    service = ("-c", SERVICE, str(service_port), app_url)
    address = f"ws://sales--ana.embed.example:{relay_port}/ws"

    async def scenario(relay: subprocess.Popen[bytes], served: subprocess.Popen[bytes]) -> None:
        async with (
            serve(echo, "127.0.0.1", app_port),
            connect(address, host="127.0.0.1", proxy=None) as opened,
        ):
            served.kill()
            served.wait()
            with pytest.raises(InvalidStatus, match="503"):
                await connect(address, host="127.0.0.1", proxy=None)
            # The relay asks at least once more.
            await asyncio.sleep(5)
            await opened.send("still here")
            assert await opened.recv() == "still here"
            with process(*service, log=log) as again:
                await asyncio.to_thread(wait_for, lambda: listens(service_port), again)
                async with connect(address, host="127.0.0.1", proxy=None) as second:
                    await second.send("new")
                    assert await second.recv() == "new"
                    relay.send_signal(signal.SIGTERM)
                    for each in (opened, second):
                        await asyncio.wait_for(each.wait_closed(), 20)
                        assert each.close_code == 1001
                    assert await asyncio.to_thread(relay.wait, 20) == 0

    settings = {
        "RELAY_LISTEN": f"http://127.0.0.1:{relay_port}",
        "RELAY_SERVICE": f"http://127.0.0.1:{service_port}",
        "RELAY_UPSTREAMS": app_url,
    }
    with (
        process(*service, log=log) as served,
        process("relay.py", log=log, **settings) as relay,
    ):
        wait_for(lambda: listens(service_port), served)
        wait_for(lambda: listens(relay_port), relay)
        run_async(scenario(relay, served))
    text = log.read_text()
    assert "The service does not answer: ConnectionRefusedError" in text
    assert "The relay has stopped" in text
    assert "Traceback" not in text


def start(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "relay.py"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"]} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_relay_that_cannot_start_says_why_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = [
            ({}, "RELAY_UPSTREAMS must list"),
            ({"RELAY_UPSTREAMS": "x", "RELAY_MAX_SOCKETS": "-1"}, "RELAY_MAX_SOCKETS must be a whole number"),
            (
                {"RELAY_UPSTREAMS": "http://app", "RELAY_LISTEN": f"http://127.0.0.1:{port}"},
                "RELAY_LISTEN cannot be used",
            ),
        ]
        for environ, line in cases:
            done = start(**environ)
            assert done.returncode == 1
            assert done.stderr.startswith(f"pat-service: {line}")
            assert len(done.stderr.splitlines()) == 1


def test_a_relay_takes_the_place_of_a_killed_one_at_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "relay.sock"
    settings = {"RELAY_LISTEN": f"unix:{path}", "RELAY_UPSTREAMS": "http://app"}
    for _ in range(2):
        with process("relay.py", log=tmp_path / "log", **settings) as relay:
            wait_for(lambda: answer_at(path).startswith(b"HTTP/1.1 426 "), relay)


def answer_at(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) != 0:
            return b""
        probe.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return probe.recv(1000)
