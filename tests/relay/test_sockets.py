"""The relay between a WebSocket client and an app, with a stub in place of the service."""

import asyncio
import contextlib
import json
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from pat_service.relay import service, sockets
from pat_service.relay.service import Service
from pat_service.relay.sockets import Relay
from tests.relay.test_heads import head
from tests.support.asynchronous import run_async
from tests.support.servers import free_port, program

SITE = "embed.example"
CHECK, GRACE = 0.05, 0.6
WAIT = 20.0


@dataclass
class World:
    """A relay, a stub of the service and an app that echoes. The stub knows sessions by their cookies."""

    port: int = 0
    app_url: str = ""
    #: The answer for each cookie: a status and headers.
    verdicts: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    #: Bytes that the stub sends in place of an answer.
    instead: bytes | None = None
    #: The heads that the app got.
    seen: list[dict[str, str]] = field(default_factory=list)
    open_at_app: set[ServerConnection] = field(default_factory=set)
    refusal_of_app: int | None = None
    relay: Relay = field(init=False)
    stub: asyncio.Server = field(init=False)

    def admit(self, person: str, upstream: str | None = None, role: str = "viewer", **more: str) -> str:
        """Let the person in, and return the cookie."""
        cookie = f"__Host-pat-{person}=1"
        self.verdicts[cookie] = (
            200,
            {
                "X-Embed-Upstream": upstream or self.app_url,
                "X-Forwarded-Email": f"{person}@acme.test",
                "X-Forwarded-Groups": role,
                "X-Embed-Jwt": f"jwt-{len(self.asked)}",
            }
            | {name.replace("_", "-"): value for name, value in more.items()},
        )
        return cookie

    def refuse(self, person: str, status: int = 401, code: str = "session_revoked") -> None:
        self.verdicts[f"__Host-pat-{person}=1"] = status, {"X-Embed-Code": code}

    def open(self, person: str, **headers: str) -> connect:
        fields = {"Cookie": f"__Host-pat-{person}=1; theme=dark"} | headers
        return connect(
            f"ws://sales--{person}.{SITE}/ws?room=1",
            host="127.0.0.1",
            port=self.port,
            origin=f"https://sales--{person}.{SITE}",  # type: ignore[arg-type]
            additional_headers=fields,
            proxy=None,
        )

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                assert lines[0] == "GET /internal/embed-socket HTTP/1.1"
                fields = dict(line.lower().split(": ", 1) for line in lines[1:-2])
                self.asked.append(fields)
                cookies = fields["cookie"].replace("__host", "__Host").split("; ")
                known = [self.verdicts[each] for each in cookies if each in self.verdicts]
                invalid = 401, {"X-Embed-Code": "session_invalid"}
                status, headers = next((each for each in known if each[0] == 200), [*known, invalid][0])
                if self.instead is not None:
                    writer.write(self.instead)
                    continue
                headers = headers | {"set-cookie": "__Host-pat-dead=; Max-Age=0"}
                shown = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                writer.write(f"HTTP/1.1 {status} X\r\n{shown}Content-Length: 2\r\n\r\nok".encode())
        writer.close()

    async def refuse_at_app(self, _: ServerConnection, request: Request) -> Response | None:
        self.seen.append({name.lower(): value for name, value in request.headers.raw_items()})
        if self.refusal_of_app is None:
            return None
        return Response(self.refusal_of_app, "No", request.headers.__class__(), b"")

    async def echo(self, connection: ServerConnection) -> None:
        self.open_at_app.add(connection)
        try:
            async for message in connection:
                await connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            self.open_at_app.discard(connection)

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT):
            while not happened():
                await asyncio.sleep(0.01)

    async def checks(self, number: int = 3) -> None:
        """Wait until the relay has asked this number of further times."""
        wanted = len(self.asked) + number
        await self.until(lambda: len(self.asked) >= wanted)


@contextlib.asynccontextmanager
async def running(max_sockets: int = 50, allowed: str | None = None) -> AsyncIterator[World]:
    world = World()
    world.stub = await asyncio.start_server(world.answer, "127.0.0.1", 0)
    app = await serve(world.echo, "127.0.0.1", 0, process_request=world.refuse_at_app)
    world.app_url = f"http://127.0.0.1:{port_of(app)}"
    relay = world.relay = Relay(
        Service(f"http://127.0.0.1:{port_of(world.stub)}"),
        frozenset({allowed or world.app_url}),
        max_sockets,
        check_seconds=CHECK,
        grace_seconds=GRACE,
    )
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    world.port = port_of(server)
    try:
        yield world
    finally:
        server.close()
        await relay.stop()
        app.close()
        world.stub.close()
        await app.wait_closed()


def port_of(server: Any) -> int:
    return next(iter(server.sockets)).getsockname()[1]


def run(scenario: Callable[[World], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), running(**options) as world:
            await scenario(world)

    run_async(main())


async def status_of(opening: connect) -> tuple[int, dict[str, str]]:
    with pytest.raises(InvalidStatus) as refused:
        await opening
    response = refused.value.response
    return response.status_code, {name.lower(): value for name, value in response.headers.raw_items()}


async def echoes(socket: ClientConnection, text: str = "hello") -> bool:
    await socket.send(text)
    return await asyncio.wait_for(socket.recv(), WAIT) == text


async def code_at_end(socket: ClientConnection) -> int | None:
    await asyncio.wait_for(socket.wait_closed(), WAIT)
    return socket.close_code


# Opening


def test_ana_talks_to_the_app_as_herself() -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        forged = {"X-Forwarded-Email": "boss@acme.test", "X-Embed-Upstream": "http://10.0.0.1"}
        async with world.open("ana", **forged) as socket:
            for message in ("text", b"\x00\xff", "x" * 300_000):
                await socket.send(message)
                assert await socket.recv() == message
            await asyncio.wait_for(await socket.ping(), WAIT)
        [seen] = world.seen
        assert seen["host"] == f"sales--ana.{SITE}"
        assert seen["x-forwarded-email"] == "ana@acme.test"
        assert seen["cookie"] == "theme=dark"
        assert "x-embed-upstream" not in seen
        assert "boss" not in json.dumps(seen)

    run(scenario)


def test_a_viewer_who_is_refused_gets_the_reason_and_the_app_gets_nothing() -> None:
    async def scenario(world: World) -> None:
        world.refuse("ben", 403, "app_forbidden")
        status, headers = await status_of(world.open("ben"))
        assert (status, headers["x-embed-code"]) == (403, "app_forbidden")
        assert (await status_of(world.open("mallory")))[0] == 401
        assert world.seen == []

    run(scenario)


def test_the_relay_connects_only_to_listed_addresses(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        assert (await status_of(world.open("ana")))[0] == 502
        assert world.seen == []
        assert f"RELAY_UPSTREAMS does not have {world.app_url}" in caplog.text

    run(scenario, allowed="http://10.0.0.7:8501")


@pytest.mark.parametrize(("status", "shown"), [(403, 403), (500, 500), (302, 502), (200, 502)])
def test_an_app_may_refuse_a_socket(status: int, shown: int) -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        world.refusal_of_app = status
        found, headers = await status_of(world.open("ana"))
        assert found == shown
        assert "x-embed-code" not in headers

    run(scenario)


def test_an_app_that_is_down_is_a_bad_gateway() -> None:
    async def scenario(world: World) -> None:
        world.admit("ana", upstream="http://127.0.0.1:1")
        assert (await status_of(world.open("ana")))[0] == 502

    run(scenario, allowed="http://127.0.0.1:1")


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A certificate for localhost, in `tmp_path`."""
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(chain)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False])
def test_an_app_with_tls_is_reached_only_if_its_certificate_is_trusted(
    certificate: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "chain.pem"))

    async def scenario(world: World) -> None:
        async with serve(world.echo, "localhost", 0, ssl=certificate) as app:
            address = f"https://localhost:{port_of(app)}"
            world.relay._upstreams = frozenset({address})
            world.admit("ana", upstream=address)
            if trusted:
                async with world.open("ana") as socket:
                    assert await echoes(socket)
            else:
                assert (await status_of(world.open("ana")))[0] == 502

    run(scenario)


# Revocation


def test_a_revoked_socket_is_cut_and_others_are_not() -> None:
    async def scenario(world: World) -> None:
        for person in ("ana", "ben"):
            world.admit(person)
        async with world.open("ana") as anas, world.open("ana") as second, world.open("ben") as bens:
            await world.checks()
            world.refuse("ana")
            assert await code_at_end(anas) == await code_at_end(second) == 1008
            await world.until(lambda: len(world.open_at_app) == 1)
            await world.checks()
            assert await echoes(bens)
            assert (await status_of(world.open("ana")))[0] == 401

    run(scenario)


def test_one_question_answers_for_all_sockets_of_a_session() -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(world.open("ana"))
            await world.checks(2)
            before = len(world.asked)
            await asyncio.sleep(10 * CHECK)
            assert len(world.asked) - before <= 11
        await asyncio.sleep(3 * CHECK)
        after = len(world.asked)
        await asyncio.sleep(5 * CHECK)
        assert len(world.asked) == after

    run(scenario)


def test_a_client_that_reads_nothing_is_cut_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", 0.2)

    async def scenario(world: World) -> None:
        cookie = world.admit("mallory")
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port, limit=1024)
        writer.write(head(f"Cookie: {cookie}"))
        await reader.readuntil(b"\r\n\r\n")
        # The echo fills every buffer on the way back.
        message = Frame(Opcode.BINARY, b"x" * 500_000).serialize(mask=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    writer.write(message)
                    await writer.drain()
        world.refuse("mallory")
        await world.until(lambda: not world.open_at_app)
        await world.until(lambda: not world.relay._clients)
        writer.transport.abort()

    run(scenario)


HALF_A_FRAME = b"\x82\x7e\x01\x00" + b"x" * 10


async def send_half_a_frame(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + HALF_A_FRAME)
    await reader.read()
    writer.close()


def test_a_cut_within_a_frame_adds_nothing_to_it() -> None:
    async def scenario(world: World) -> None:
        app = await asyncio.start_server(send_half_a_frame, "127.0.0.1", 0)
        world.app_url = f"http://127.0.0.1:{port_of(app)}"
        world.relay._upstreams = frozenset({world.app_url})
        cookie = world.admit("ana")
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(head(f"Cookie: {cookie}"))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(HALF_A_FRAME)) == HALF_A_FRAME
        world.refuse("ana")
        assert await reader.read() == b""
        writer.close()
        app.close()

    run(scenario)


# Renewal and changes


def test_a_renewed_session_goes_on_by_its_successors_cookie() -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        async with world.open("ana") as socket:
            await world.checks(1)
            later = world.admit("ana2")
            world.admit("ana", Set_Cookie=f"{later}; Path=/; Secure; HttpOnly")
            await world.until(lambda: later.lower() in world.asked[-1]["cookie"])
            # The first session may be purged now.
            world.refuse("ana")
            await world.checks()
            assert await echoes(socket)
            world.refuse("ana2")
            assert await code_at_end(socket) == 1008

    run(scenario)


@pytest.mark.parametrize("change", [{"role": "editor"}, {"upstream": "http://10.0.0.9"}])
def test_a_new_role_or_address_ends_sockets_which_then_open_anew(change: dict[str, str]) -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        async with world.open("ana") as socket:
            world.admit("ana", **change)
            assert await code_at_end(socket) == 1001

    run(scenario)


# The service does not answer


def break_down(world: World) -> None:
    for cookie in world.verdicts:
        world.verdicts[cookie] = 403, {"X-Embed-Code": "unavailable"}


def test_other_answers_of_the_service_are_no_verdict() -> None:
    async def scenario(world: World) -> None:
        cookie = world.admit("ana")
        async with world.open("ana") as socket:
            for status in (200, 302, 404, 429, 500, 503):
                world.verdicts[cookie] = status, {}
                new_status, headers = await status_of(world.open("ana"))
                assert (new_status, headers["retry-after"]) == (503, "5")
                await world.checks(2)
                world.admit("ana")
                await world.checks(2)
                assert await echoes(socket)
            await asyncio.sleep(GRACE)
            assert await echoes(socket)

    run(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Embed-Upstream: http://app\r\nContent-Length: 5\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
    ids=["silent", "half", "garbage", "huge"],
)
def test_a_broken_answer_of_the_service_is_no_verdict(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ANSWER_SECONDS", 0.1)

    async def scenario(world: World) -> None:
        world.admit("ana")
        async with world.open("ana") as socket:
            world.instead = answer
            assert (await status_of(world.open("ana")))[0] == 503
            await world.checks(1)
            assert await echoes(socket)
            world.instead = None
            async with world.open("ana") as another:
                assert await echoes(another)
            assert await echoes(socket)
            world.instead = answer
            assert await code_at_end(socket) == 1013

    run(scenario)


def test_another_instance_is_asked_while_one_restarts() -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        # No server of another test gets this port.
        closed = f"http://127.0.0.1:{free_port()}"
        world.relay._service = Service(closed, f"http://127.0.0.1:{port_of(world.stub)}")
        async with world.open("ana") as socket:
            await world.checks()
            assert await echoes(socket)

    run(scenario)


def test_without_an_answer_sockets_live_for_the_grace_period(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        async with world.open("ana") as socket:
            break_down(world)
            await world.checks()
            assert await echoes(socket)
            assert await code_at_end(socket) == 1013
            world.admit("ana")
            async with world.open("ana") as again:
                assert await echoes(again)

    with caplog.at_level(logging.INFO):
        run(scenario)
    messages = [record.getMessage() for record in caplog.records if record.name == sockets.__name__]
    assert messages == [
        "The service does not answer: status 403 unavailable",
        f"Cut 1 sockets at sales--ana.{SITE}: no answer of the service",
        "The service answers again",
    ]


# Limits


def test_the_number_of_sockets_is_limited() -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        async with world.open("ana") as first, world.open("ana") as second:
            assert (await status_of(world.open("ana")))[0] == 503
            assert await echoes(first)
            await second.close()
            await world.until(lambda: len(world.relay._clients) == 1)
            async with world.open("ana") as third:
                assert await echoes(third)

    run(scenario, max_sockets=2)


def test_a_flood_of_connections_ends_without_answers() -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        async with world.open("ana") as socket:
            idle = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(10)]
            # Those beyond the limit have an answer, as long as this costs little.
            answers = await asyncio.gather(*(reader.read() for reader, _ in idle[3:]), return_exceptions=True)
            assert all(not answer or isinstance(answer, OSError) for answer in answers)
            assert len(world.relay._clients) <= 4
            assert await echoes(socket)
            for _, writer in idle:
                writer.close()

    run(scenario, max_sockets=2)


def test_one_viewer_cannot_use_up_the_sockets_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MAX_SOCKETS_PER_HOST", 1)

    async def scenario(world: World) -> None:
        for person in ("ana", "mallory"):
            world.admit(person)
        async with world.open("mallory"):
            assert (await status_of(world.open("mallory", X="1")))[0] == 429
            async with world.open("ana") as socket:
                assert await echoes(socket)

    run(scenario)


async def raw(world: World, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), WAIT)
    writer.close()
    return answer


def test_a_huge_head_is_refused() -> None:
    async def scenario(world: World) -> None:
        for filling in (b"x" * 20_000, b"x" * 1_000_000):
            answer = await raw(world, b"GET / HTTP/1.1\r\nX: " + filling + b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 431 ")
        assert world.asked == []

    run(scenario)


def test_a_slow_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HEAD_SECONDS", 0.1)

    async def scenario(world: World) -> None:
        assert (await raw(world, b"GET / HTTP/1.1\r\nHost: a")).startswith(b"HTTP/1.1 408 ")
        assert (await raw(world, b"")).startswith(b"HTTP/1.1 408 ")

    run(scenario)


def test_a_hidden_second_request_reaches_only_the_open_socket() -> None:
    async def scenario(world: World) -> None:
        world.refuse("mallory")
        hidden = b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"
        answer = await raw(world, head("Cookie: __Host-pat-mallory=1") + hidden)
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert world.seen == []
        # The app refuses the handshake, and never gets what follows.
        cookie = world.admit("mallory")
        world.refusal_of_app = 403
        answer = await raw(world, head(f"Cookie: {cookie}") + hidden)
        assert answer.count(b"HTTP/1.1") == 1
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert len(world.seen) == 1

    run(scenario)


# The end


def test_a_stop_closes_every_socket_as_going_away() -> None:
    async def scenario(world: World) -> None:
        world.admit("ana")
        async with world.open("ana") as first, world.open("ana") as second:
            await world.relay.stop()
            assert await code_at_end(first) == await code_at_end(second) == 1001
            assert not world.relay._clients
            assert (await status_of(world.open("ana")))[0] == 503

    run(scenario)
