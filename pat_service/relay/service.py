"""The relay's questions to the service: may this viewer keep this socket?"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import h11

from pat_service.relay.heads import Headers, identity_in

PATH: Final = b"/internal/embed-socket"
ANSWER_SECONDS: Final = 5.0
#: Fewer than the threads of a worker (8), so that viewers' requests find one.
MAX_CONNECTIONS: Final = 4
READ_BYTES: Final = 65_536
#: Codes of refusals that say nothing about the viewer.
_NO_VERDICT: Final = frozenset({"unavailable"})

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NoAnswer(Exception):
    """The service gave no verdict. The text says why, for the log."""


@dataclass(frozen=True)
class Grant:
    """The viewer may use the app at `upstream`. `cookies` are for the next question."""

    upstream: str
    identity: Headers = field(repr=False)
    cookies: list[bytes] = field(repr=False)

    @property
    def rights(self) -> tuple[str, bytes | None]:
        """Return what an open socket was opened with: its app and the viewer's role."""
        return self.upstream, dict(self.identity).get(b"x-forwarded-groups")


@dataclass(frozen=True)
class Refusal:
    """The viewer may not use the app. `status` is 401 or 403."""

    status: int
    code: str


class Service:
    """Asks the service at the first of these addresses that answers: `http://host:port` or `unix:/path`."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: list[Streams] = []

    async def ask(self, question: Headers) -> Grant | Refusal:
        """Return the verdict, or raise NoAnswer after 5 s at the latest."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._slots:
                status, headers = await self._fetch(question)
        except TimeoutError:
            raise NoAnswer(f"no answer within {ANSWER_SECONDS:.0f} s") from None
        except (OSError, EOFError, h11.ProtocolError) as error:
            raise NoAnswer(type(error).__name__) from None
        return _verdict(status, headers)

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    async def _fetch(self, question: Headers) -> tuple[int, Headers]:
        # An instance may have closed an idle connection, or be restarting. A GET can be repeated.
        broken = (OSError, EOFError, h11.RemoteProtocolError)
        while self._idle:
            with suppress(*broken):
                return await self._exchange(self._idle.pop(), question)
        *others, last = self._addresses
        for address in others:
            with suppress(*broken):
                return await self._exchange(await connect(address), question)
        return await self._exchange(await connect(last), question)

    async def _exchange(self, streams: Streams, question: Headers) -> tuple[int, Headers]:
        reader, writer = streams
        connection = h11.Connection(h11.CLIENT)
        try:
            request = h11.Request(method=b"GET", target=PATH, headers=question)
            writer.write(connection.send(request) + connection.send(h11.EndOfMessage()))
            while not isinstance(event := connection.next_event(), h11.Response):
                await _receive(connection, event, reader)
            response = event
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                await _receive(connection, event, reader)
        except BaseException:
            writer.close()
            raise
        if connection.our_state is connection.their_state is h11.DONE:
            self._idle.append(streams)
        else:
            writer.close()
        return response.status_code, list(response.headers)


async def _receive(connection: h11.Connection, event: object, reader: asyncio.StreamReader) -> None:
    if event is h11.NEED_DATA:
        data = await reader.read(READ_BYTES)
        connection.receive_data(data)
    elif isinstance(event, h11.ConnectionClosed):
        raise EOFError


def _verdict(status: int, headers: Headers) -> Grant | Refusal:
    values: Mapping[bytes, bytes] = dict(headers)
    upstream = values.get(b"x-embed-upstream", b"").decode("latin-1")
    code = values.get(b"x-embed-code", b"").decode("latin-1")
    if status == 200 and upstream:
        sent = [value.partition(b";")[0] for name, value in headers if name == b"set-cookie"]
        # The service also deletes cookies of dead sessions, by an empty value.
        cookies = [pair for pair in sent if pair.partition(b"=")[2]]
        return Grant(upstream, identity_in(headers), cookies)
    if status in (401, 403) and code not in _NO_VERDICT:
        return Refusal(status, code)
    raise NoAnswer(f"status {status} {code}".strip())


async def connect(address: str) -> Streams:
    """Connect to `http://host:port`, `https://host` or `unix:/path`."""
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    url = urlsplit(address)
    secure = url.scheme == "https"
    return await asyncio.open_connection(
        url.hostname, url.port or (443 if secure else 80), ssl=secure or None
    )
