"""The relay itself: opens a client's WebSocket to its app, passes bytes on, and cuts what was revoked."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import h11

from pat_service.relay import heads
from pat_service.relay.frames import FrameBoundary, close_frame
from pat_service.relay.heads import (
    END_OF_HEAD,
    MAX_HEAD_BYTES,
    Headers,
    Refused,
    Upgrade,
    add_cookies,
)
from pat_service.relay.service import Grant, NoAnswer, Refusal, Service, Streams, connect

HEAD_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 10.0
#: Time to deliver what was sent before a socket is closed.
CLOSE_SECONDS: Final = 2.0
#: A revoked socket is cut within 5 s, and the question itself takes time.
CHECK_SECONDS: Final = 4.5
#: How long sockets live without an answer of the service.
GRACE_SECONDS: Final = 30.0
#: Of one viewer in one app. Browsers open at most 255 for a page.
MAX_SOCKETS_PER_HOST: Final = 100
CHUNK_BYTES: Final = 65_536

#: Codes of a WebSocket's end (RFC 6455 and IANA).
GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
TRY_AGAIN_LATER: Final = 1013

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Viewer:
    """Open sockets that the same cookies opened. One question answers for all of them."""

    host: str
    question: Headers = field(repr=False)
    rights: tuple[str, bytes | None]
    answered: float
    #: Each open socket's end: the code with which it is to be closed.
    ends: set[asyncio.Future[int]] = field(default_factory=set)

    def end(self, code: int) -> None:
        for end in self.ends:
            if not end.done():
                end.set_result(code)

    def accept(self, grant: Grant, now: float) -> None:
        self.answered = now
        # The cookie of a renewed session spares the service the way to it. The others stay: another frame of
        # this viewer may have sent the newest one, and end earlier.
        self.question = add_cookies(self.question, grant.cookies)


class Relay:
    """Serves clients' connections. `upstreams` are the only addresses that it connects to."""

    def __init__(
        self,
        service: Service,
        upstreams: frozenset[str],
        max_sockets: int,
        *,
        check_seconds: float = CHECK_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._service = service
        self._upstreams = upstreams
        self._max_sockets = max_sockets
        self._check_seconds = check_seconds
        self._grace_seconds = grace_seconds
        self._clients: set[asyncio.Task[None]] = set()
        self._per_host: Counter[str] = Counter()
        self._viewers: dict[object, _Viewer] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._answers = True
        self._stopping = False

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end, in a task of its own."""
        if len(self._clients) >= 2 * self._max_sockets:
            # Too many even for an answer.
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._stopping or len(self._clients) > self._max_sockets:
                raise Refused(503, "Too many sockets are open.", Retry_After="5")
            upgrade = await _read_upgrade(reader)
            with self._count(upgrade.host):
                await self._open(upgrade, (reader, writer))
        except Refused as refused:
            writer.write(refused.answer())
            await _linger(reader, writer)
        except (OSError, EOFError):
            # The client is gone.
            pass
        except Exception:
            _log.exception("A socket failed")
        finally:
            await _close(writer)

    async def stop(self) -> None:
        """End every socket with "going away", and return when they have ended."""
        self._stopping = True
        for viewer in self._viewers.values():
            viewer.end(GOING_AWAY)
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=2 * CLOSE_SECONDS)
            for task in late:
                task.cancel()
        self._service.close()

    @contextmanager
    def _count(self, host: str) -> Iterator[None]:
        if self._per_host[host] >= MAX_SOCKETS_PER_HOST:
            raise Refused(429, "Too many sockets of this app are open.", Retry_After="5")
        self._per_host[host] += 1
        try:
            yield
        finally:
            self._per_host[host] -= 1
            if not self._per_host[host]:
                del self._per_host[host]

    async def _open(self, upgrade: Upgrade, client: Streams) -> None:
        question = upgrade.question()
        grant = await self._grant(upgrade.host, question)
        with self._watched(upgrade.host, question, grant) as end:
            app, switch = await _reach_app(grant, upgrade)
            try:
                client[1].write(switch)
                await _relay(client, app, end)
            finally:
                await asyncio.gather(_close(app[1]), _close(client[1]))

    async def _grant(self, host: str, question: Headers) -> Grant:
        """Return the service's grant, or raise Refused."""
        try:
            answer = await self._ask(question)
        except NoAnswer:
            raise Refused(503, "pat-service does not answer.", Retry_After="5") from None
        if isinstance(answer, Refusal):
            _log.info("Refused a socket at %s: %s %s", host, answer.status, answer.code)
            raise Refused(answer.status, "This session opens no socket.", X_Embed_Code=answer.code)
        if answer.upstream not in self._upstreams:
            _log.error("RELAY_UPSTREAMS does not have %s, the address of %s", answer.upstream, host)
            raise Refused(502, "The relay may not connect to this app.")
        return answer

    async def _ask(self, question: Headers) -> Grant | Refusal:
        try:
            answer = await self._service.ask(question)
        except NoAnswer as error:
            if self._answers:
                _log.warning("The service does not answer: %s", error)
            self._answers = False
            raise
        if not self._answers:
            _log.warning("The service answers again")
        self._answers = True
        return answer

    @contextmanager
    def _watched(self, host: str, question: Headers, grant: Grant) -> Iterator[asyncio.Future[int]]:
        """Yield a future that is done when the socket must close."""
        loop = asyncio.get_running_loop()
        key = (*(pair for pair in question if pair[0] != b"x-forwarded-uri"), grant.rights)
        viewer = self._viewers.get(key)
        if viewer is None:
            viewer = self._viewers[key] = _Viewer(host, question, grant.rights, loop.time())
            watch = loop.create_task(self._watch(viewer, lambda: self._viewers.pop(key)))
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)
        viewer.answered = loop.time()
        end: asyncio.Future[int] = loop.create_future()
        viewer.ends.add(end)
        try:
            yield end
        finally:
            viewer.ends.discard(end)

    async def _watch(self, viewer: _Viewer, forget: Callable[[], object]) -> None:
        """Ask about the viewer until a refusal ends all its sockets, or none is left."""
        clock = asyncio.get_running_loop().time
        code = None
        while code is None:
            left = viewer.answered + self._grace_seconds - clock()
            await asyncio.sleep(max(0.0, min(self._check_seconds, left)))
            if not viewer.ends:
                break
            code = await self._check(viewer)
        # Without a pause after the last look at `ends`, so that no socket joins in between.
        forget()
        if code is not None:
            viewer.end(code)

    async def _check(self, viewer: _Viewer) -> int | None:
        """Return the code to close the viewer's sockets with, or None if they may go on."""
        clock = asyncio.get_running_loop().time
        try:
            answer = await self._ask(viewer.question)
        except NoAnswer:
            if clock() - viewer.answered < self._grace_seconds:
                return None
            _log.warning("Cut %d sockets at %s: no answer of the service", len(viewer.ends), viewer.host)
            return TRY_AGAIN_LATER
        if isinstance(answer, Refusal):
            _log.info("Cut %d sockets at %s: %s", len(viewer.ends), viewer.host, answer.code)
            return POLICY_VIOLATION
        if answer.rights != viewer.rights:
            _log.info(
                "Cut %d sockets at %s: the app's address or the role changed", len(viewer.ends), viewer.host
            )
            return GOING_AWAY
        viewer.accept(answer, clock())
        return None


async def _read_upgrade(reader: asyncio.StreamReader) -> Upgrade:
    """Return the client's request, or raise Refused. A connection without a request raises EOFError."""
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(END_OF_HEAD)
    except TimeoutError:
        raise Refused(408, f"The head of a request must arrive within {HEAD_SECONDS:.0f} s.") from None
    except asyncio.LimitOverrunError:
        head = b""
    if not 0 < len(head) <= MAX_HEAD_BYTES:
        raise Refused(431, f"The head of a request must be at most {MAX_HEAD_BYTES} bytes long.")
    return heads.parse_upgrade(head)


async def _reach_app(grant: Grant, upgrade: Upgrade) -> tuple[Streams, bytes]:
    """Open the WebSocket of the app. Return its connection, and its answer for the client."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            app = await connect(grant.upstream)
            try:
                return app, await _shake_hands(app, grant, upgrade)
            except BaseException:
                app[1].close()
                raise
    except (OSError, EOFError, asyncio.LimitOverrunError, h11.ProtocolError) as error:
        _log.warning("The app at %s does not answer: %s", grant.upstream, type(error).__name__)
        raise Refused(502, "The app does not answer.") from None


async def _shake_hands(app: Streams, grant: Grant, upgrade: Upgrade) -> bytes:
    reader, writer = app
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
    request = h11.Request(method=b"GET", target=upgrade.target, headers=upgrade.for_app(grant.identity))
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    connection.receive_data(await reader.readuntil(END_OF_HEAD))
    response = connection.next_event()
    if heads.is_switch(response):
        return heads.switch(response)
    status = response.status_code if isinstance(response, h11.Response) else 0
    raise Refused(status if 400 <= status < 600 else 502, "The app refuses this WebSocket.")


async def _relay(client: Streams, app: Streams, end: asyncio.Future[int]) -> None:
    """Pass bytes on in both directions until a side closes, or `end` says with which code to close."""
    boundary = FrameBoundary()
    pumps = [
        asyncio.create_task(_pump(client[0], app[1])),
        asyncio.create_task(_pump(app[0], client[1], boundary.feed)),
    ]
    events: list[asyncio.Future[Any]] = [*pumps, end]
    try:
        await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
    if end.done() and boundary.is_between_frames:
        client[1].write(close_frame(end.result()))


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    follow: Callable[[bytes], None] | None = None,
) -> None:
    while data := await reader.read(CHUNK_BYTES):
        if follow:
            follow(data)
        writer.write(data)
        await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read what the client still sends, since closing at once could destroy the answer on its way."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            writer.write_eof()
            while await reader.read(CHUNK_BYTES):
                pass


async def _close(writer: asyncio.StreamWriter) -> None:
    """Deliver what was written, for a short time, and close."""
    writer.close()
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await writer.wait_closed()
    except OSError:
        pass
    finally:
        writer.transport.abort()
