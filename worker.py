"""gunicorn's worker with threads, which no sender holds up and which leaves nobody waiting when it stops.

gunicorn's own gives a thread to whoever connects, waits for a request without end, and waits for the other
side to hang up in its main loop: eight silent or half-dead connections stop it. See docs/operate/proxy.md.
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

#: How much may still come from a sender who has had the last answer, in bytes a step.
DRAIN: Final = 65536
#: How much of an unread body is passed over for the next request, in bytes; gunicorn's own limit is double.
PASSED_OVER: Final = 32768


def _write_problem(client: socket.socket, status: int, _reason: str, _text: str) -> None:
    """Answer what gunicorn cannot read without its text: that repeats what was sent, a token too."""
    # Only here: the master loads this module, and would keep the service's from before a reload.
    from pat_service.http import unreadable

    util.write_nonblock(client, unreadable.answer(status))


util.write_error = _write_problem


def _is_next_in_sight(body: Body) -> bool:
    """Tell whether it is known where the next request begins, and not far from what has been read."""
    if body.failed:
        return False
    if isinstance(body.reader, ChunkedReader):
        return body.reader.parser is None
    return bool(body.reader.length <= PASSED_OVER)


class Worker(ThreadWorker):  # type: ignore[misc]
    """Threads are for requests; whoever sends nothing waits in the poller, `keepalive` seconds at most."""

    #: How long a request may take to arrive, in seconds, from its first byte to its last.
    receive_seconds = 30.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Connections for the threads, in their order, and when each got one.
        self._at_work: dict[TConn, float] = {}

    def enqueue_req(self, conn: TConn) -> None:
        """Give the connection a thread once it has sent something."""
        if conn.initialized or conn.data_ready:
            self._at_work[conn] = math.inf
            super().enqueue_req(conn)
        else:
            self._await(conn, self.on_pending_socket_readable)

    def handle(self, conn: TConn) -> Any:
        """Read a request and answer it: this runs in a thread."""
        self._at_work[conn] = time.monotonic()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Answer a request; where no other can follow on this connection, the answer says so.

        gunicorn promises to keep it, and then closes it if too much of the body was left unread. By then a
        proxy may have put somebody else's request on it, which is lost.
        """
        asked_to_close = req.should_close

        def should_close() -> bool:
            if conn not in self._at_work or not _is_next_in_sight(req.body):
                req.force_close()
            return bool(asked_to_close())

        req.should_close = should_close
        return super().handle_request(req, conn)

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        """Keep the connection for the next request, or see it closed without waiting for that here."""
        self._at_work.pop(conn, None)
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
        """Close what was idle for too long; but first look who has sent something while nobody looked."""
        now = time.monotonic()
        if not force and any(
            waiting and waiting[0].timeout <= now for waiting in (self.keepalived_conns, self.pending_conns)
        ):
            self.wait_for_and_dispatch_events(timeout=0)
        super().murder_keepalived(force)

    def murder_pending(self) -> None:
        """Close what has waited too long, and stop waiting for requests that take too long to arrive."""
        super().murder_pending()
        late = time.monotonic() - self.receive_seconds
        while self._at_work and (conn := next(iter(self._at_work))) and self._at_work[conn] < late:
            del self._at_work[conn]
            # For its thread this is the end of what was sent. An answer that is being made still goes out.
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RD)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Once it is to stop, take what the kernel has accepted for it, which would be lost, and no more."""
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
            # At once: whoever comes now is refused, and can go to another instance.
            listener.close()

    def _await(self, conn: TConn, then: Any) -> None:
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + (self.cfg.keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(then, conn))

    def _hang_up(self, conn: TConn, client: socket.socket) -> None:
        """Read what still comes, so that no reset cuts the answer off, until the other side closes."""
        try:
            if client.recv(DRAIN):
                return
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                return
        self.poller.unregister(client)
        self.pending_conns.remove(conn)
        self.nr_conns -= 1
        conn.close()
