"""gunicorn's threaded worker, without its three endless waits.

gunicorn's worker gives a thread to every connection, and waits for a request without a limit. Its main loop
waits for the other side to close. Eight idle or half-dead connections can stop it. See docs/operate/proxy.md.
"""

import errno
import math
import socket
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn import util
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

#: Bytes to read at once from a sender that already has its answer.
DRAIN_BYTES: Final = 65536
#: Largest unread body to skip before the next request. gunicorn's own limit is double.
SKIPPED_BODY_BYTES: Final = 32768


def _write_problem(app: Any, client: socket.socket, status: int, _reason: str, _text: str) -> None:
    """Answer an unreadable request. gunicorn's own text would repeat the request, with its token."""
    # Imported late: the master loads this module and would keep old code after a reload.
    from pat_service.http import unreadable

    util.write_nonblock(client, unreadable.answer(app, status))


def _can_reach_next_request(body: Body) -> bool:
    """Return whether the unread body has a known end and is short enough to skip."""
    if body.failed:
        return False
    if isinstance(body.reader, ChunkedReader):
        return body.reader.parser is None
    return bool(body.reader.length <= SKIPPED_BODY_BYTES)


class Worker(ThreadWorker):  # type: ignore[misc]
    """Uses threads for requests only. Idle connections wait in the poller, at most `keepalive` seconds."""

    #: Limit from a request's first byte to its last.
    receive_seconds = 30.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Connections that have or await a thread, oldest first → the time when the thread began.
        self._busy: dict[TConn, float] = {}

    def load_wsgi(self) -> None:
        """Load the service, which then also answers unreadable requests."""
        super().load_wsgi()
        util.write_error = partial(_write_problem, self.wsgi)

    def enqueue_req(self, conn: TConn) -> None:
        """Give the connection a thread once it has sent something."""
        if conn.initialized or conn.data_ready:
            self._busy[conn] = math.inf
            super().enqueue_req(conn)
        else:
            self._await(conn, self.on_pending_socket_readable)

    def handle(self, conn: TConn) -> Any:
        """Read a request and answer it, in a thread."""
        self._busy[conn] = time.monotonic()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Answer a request, with `Connection: close` if no other can follow.

        gunicorn promises to keep the connection, then closes it if too much of the body is unread. A proxy
        can then lose another user's request.
        """
        asked_to_close = req.should_close

        def should_close() -> bool:
            if conn not in self._busy or not _can_reach_next_request(req.body):
                req.force_close()
            return bool(asked_to_close())

        req.should_close = should_close
        return super().handle_request(req, conn)

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        """Keep the connection for the next request, or close it without waiting for the other side."""
        self._busy.pop(conn, None)
        if fs.cancelled() or fs.exception() or fs.result():
            super().finish_request(conn, fs)
            return
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            self._await(conn, self._hang_up)
        except OSError:
            self.nr_conns -= 1
            conn.close()

    def murder_keepalived(self, force: bool = False) -> None:
        """Close connections that are idle for too long, after a last check for new data."""
        now = time.monotonic()
        if not force and any(
            waiting and waiting[0].timeout <= now for waiting in (self.keepalived_conns, self.pending_conns)
        ):
            self.wait_for_and_dispatch_events(timeout=0)
        super().murder_keepalived(force)

    def murder_pending(self) -> None:
        """Close connections that wait for too long, and stop reading requests that arrive too slowly."""
        super().murder_pending()
        late = time.monotonic() - self.receive_seconds
        while self._busy and (conn := next(iter(self._busy))) and self._busy[conn] < late:
            del self._busy[conn]
            # Its thread sees the end of the input; an answer can still go out.
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RD)

    def set_accept_enabled(self, enabled: bool) -> None:
        """On a stop, accept the connections that wait in the kernel, since they would otherwise be lost."""
        super().set_accept_enabled(enabled)
        if enabled or self.alive:
            return
        soon = time.monotonic() + STOP_KEEPALIVE_LINGER
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, soon)
        while self.sockets:
            listener = self.sockets.pop()
            before = None
            while before != self.nr_conns:
                before = self.nr_conns
                self.accept(listener)
            # Closed at once, so that a new connection is refused and can try another instance.
            listener.close()

    def _await(self, conn: TConn, callback: Any) -> None:
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + (self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(callback, conn))

    def _hang_up(self, conn: TConn, client: socket.socket) -> None:
        """Read until the other side closes, so that no reset cuts off the answer."""
        try:
            if client.recv(DRAIN_BYTES):
                return
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                return
        self.poller.unregister(client)
        self.pending_conns.remove(conn)
        self.nr_conns -= 1
        conn.close()
