"""The relay with the real service: opening, renewal, revocation, and a service that is killed."""

import asyncio
import http.client
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from pat_service.relay.service import Service
from pat_service.relay.sockets import Relay
from tests.support.asynchronous import run_async
from tests.support.people import KEY, PORTAL, WORLD, basic, build_on, provision
from tests.support.servers import WebServer, children_of, free_port, gunicorn
from tests.support.upstreams import SALES, SETTINGS

pytestmark = pytest.mark.slow

CHECK, GRACE, WAIT = 0.1, 5.0, 20.0


@dataclass
class Frame:
    """Ana's frame of Sales in a browser: its host, its session, and the cookie."""

    host: str
    jwt: str
    cookie: str
    token_id: str


@dataclass
class World:
    """The service, the relay and an app. `seen` has the identities that the app got."""

    service_port: int
    relay_port: int
    environ: dict[str, str]
    seen: list[str | None]

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, list[str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.service_port, timeout=WAIT)
        sent = {"Content-Type": "application/json", "X-Forwarded-Proto": "https"} | headers
        connection.request(method, path, json.dumps(body) if body else None, sent)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text or b"null"), answer.headers.get_all("Set-Cookie") or []

    def open(self, former: Frame | None = None) -> Frame:
        """Mint and open Ana's frame, or renew its session."""
        mint = {"email": "ana@acme.test", "appSlug": "sales", "sessionExpiry": 60, "patExpiry": 60}
        path = "/api/ext/users/personal-access-token"
        status, minted, _ = self.call("POST", path, mint, Host="embed.example", **basic("portal"))
        assert status == 201, minted
        address = urlsplit(minted["redirectUrl"])
        body = {"accessToken": parse_qs(address.query)["personal-access-token"][0], "parentOrigin": PORTAL}
        body |= {"session": former.jwt} if former else {}
        headers = {"Host": address.netloc} | ({"Cookie": former.cookie} if former else {})
        status, opened, cookies = self.call("POST", f"/embed-apps/{SALES}/frame", body, **headers)
        assert status == 200, opened
        return Frame(address.netloc, opened["session"], cookies[0].partition(";")[0], minted["tokenId"])

    def look(self, frame: Frame) -> int:
        """Request the session, as the frame's script does after a renewal."""
        headers = {"Host": frame.host, "Authorization": f"Bearer {frame.jwt}", "Cookie": frame.cookie}
        return self.call("GET", f"/embed-apps/{SALES}/session", **headers)[0]

    def revoke(self, frame: Frame) -> int:
        path = f"/api/ext/personal-access-tokens/{frame.token_id}"
        return self.call("DELETE", path, Host="embed.example", **basic("portal"))[0]

    def socket(self, frame: Frame) -> connect:
        return connect(
            f"ws://{frame.host}/ws",
            host="127.0.0.1",
            port=self.relay_port,
            origin=f"https://{frame.host}",  # type: ignore[arg-type]
            additional_headers={"Cookie": frame.cookie},
            proxy=None,
        )


def app_of(seen: list[str | None]) -> Callable[[ServerConnection], Awaitable[None]]:
    async def echo(connection: ServerConnection) -> None:
        assert connection.request
        seen.append(connection.request.headers.get("X-Forwarded-Email"))
        async for message in connection:
            await connection.send(message)

    return echo


@asynccontextmanager
async def world(schema: Path, folder: Path) -> AsyncIterator[World]:
    database = Path(shutil.copy(schema, folder / "pat.db"))
    seen: list[str | None] = []
    async with serve(app_of(seen), "127.0.0.1", 0) as app:
        upstream = f"http://127.0.0.1:{port_of(app)}"
        url = f"sqlite:///{database}"
        built = build_on(url, folder, **SETTINGS)
        sales = {"id": SALES, "slug": "sales", "name": "Sales", "workspace": "acme", "upstream": upstream}
        provision(built, WORLD)
        provision(built, {"apps": [sales | {"allowed_origins": [PORTAL], "users": ["ana@acme.test"]}]})
        port = free_port()
        relay = Relay(
            Service(f"http://127.0.0.1:{port}"),
            frozenset({upstream}),
            10,
            check_seconds=CHECK,
            grace_seconds=GRACE,
        )
        server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
        environ = SETTINGS | {"SECRET_KEY": KEY, "DATABASE_URL": url, "PATH": os.environ["PATH"]}
        yield World(port, port_of(server), environ, seen)
        server.close()
        await relay.stop()


def port_of(server: Any) -> int:
    return next(iter(server.sockets)).getsockname()[1]


async def echoes(socket: Any) -> bool:
    await socket.send("hello")
    return await asyncio.wait_for(socket.recv(), WAIT) == "hello"


def kill(server: WebServer) -> None:
    for pid in (server.process.pid, *children_of(server.process.pid)):
        os.kill(pid, signal.SIGKILL)
    server.process.wait()


def test_a_socket_lives_through_renewals_and_a_kill_and_ends_by_a_revocation(
    schema: Path, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with world(schema, tmp_path) as here:
            with gunicorn(here.environ, workers=1, port=here.service_port) as first:
                frame = await asyncio.to_thread(here.open)
                async with here.socket(frame) as socket:
                    for _ in range(3):
                        frame = await asyncio.to_thread(here.open, frame)
                        assert await asyncio.to_thread(here.look, frame) == 200
                        await asyncio.sleep(3 * CHECK)
                        assert await echoes(socket)
                    await asyncio.to_thread(kill, first)
                    with pytest.raises(InvalidStatus, match="503"):
                        await here.socket(frame)
                    assert await echoes(socket)
                    with gunicorn(here.environ, workers=1, port=here.service_port):
                        await asyncio.sleep(2 * CHECK)
                        assert await echoes(socket)
                        async with here.socket(frame) as second:
                            assert await echoes(second)
                            assert await asyncio.to_thread(here.revoke, frame) == 204
                            for each in (socket, second):
                                await asyncio.wait_for(each.wait_closed(), WAIT)
                                assert each.close_code == 1008
                        with pytest.raises(InvalidStatus, match="401"):
                            await here.socket(frame)
            assert here.seen == ["ana@acme.test"] * 2

    run_async(scenario())
