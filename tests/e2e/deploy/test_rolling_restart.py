"""A restart under load loses no request."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deploy.conftest import installed_or_skipped
from tests.e2e.deploy.load import Load, minting
from tests.support import servers
from tests.support.people import MINT, basic
from tests.support.servers import WebServer, free_port, gunicorn, paused, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.redis]

#: The number of restarts: make rolling RESTARTS=50.
RESTARTS = int(os.environ.get("RESTARTS", "1"))


def workers_of(server: WebServer) -> set[int]:
    found = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return {int(pid) for pid in found.split()}


def is_pending(pid: int, signal_: signal.Signals) -> bool:
    """Return whether the signal is pending for a stopped process."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return bool(pending >> (signal_ - 1) & 1)


@pytest.mark.timeout(60 + 60 * RESTARTS)
def test_replacing_workers_under_load_loses_no_request(installation: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with gunicorn(installation, workers=1, log=log) as server, Load(server.port) as load:
        for _ in range(RESTARTS):
            before = workers_of(server)
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda before=before: len(workers_of(server)) == 1 and not workers_of(server) & before)  # type: ignore[misc]
            answered = load.answered
            wait_for(lambda answered=answered: load.answered > answered + 20)  # type: ignore[misc]
    assert load.failures == []
    assert "Traceback" not in log.read_text()


@pytest.mark.timeout(60 + 60 * RESTARTS)
def test_restarting_two_instances_behind_nginx_in_turn_loses_no_request(
    installation: dict[str, str], tmp_path: Path
) -> None:
    @contextlib.contextmanager
    def instance(name: str) -> Iterator[None]:
        with gunicorn(installation, workers=1, at=tmp_path / f"{name}.sock", log=tmp_path / name):
            yield

    with contextlib.ExitStack() as stack:
        running = {name: contextlib.ExitStack() for name in ("1", "2")}
        for name, own in running.items():
            stack.push(own)
            own.enter_context(instance(name))
        proxy = stack.enter_context(installed_or_skipped(servers.nginx)(tmp_path))
        with Load(proxy.port, tls=True) as load:
            for _ in range(RESTARTS):
                for name, own in running.items():
                    own.close()
                    answered = load.answered
                    wait_for(lambda answered=answered: load.answered > answered + 20)  # type: ignore[misc]
                    own.enter_context(instance(name))
        assert load.failures == []
        assert load.answered > 40
        assert "no live upstreams" not in proxy.error_log.read_text()


def test_a_connection_accepted_by_the_kernel_is_answered_before_the_worker_stops(
    installation: dict[str, str], tmp_path: Path
) -> None:
    """These requests are still unread when the signal comes."""
    body = str(minting()).replace("'", '"')
    request = (
        f"POST {MINT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {basic('portal')['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    port = free_port()
    with (
        gunicorn(installation, workers=1, port=port, log=tmp_path / "log") as server,
        contextlib.ExitStack() as stack,
    ):
        (worker,) = workers_of(server)
        with paused(worker):
            senders = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                for _ in range(40)
            ]
            for sender in senders:
                sender.sendall(request)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "Handling signal: term" in (tmp_path / "log").read_text())
            # The master has closed its sockets and signalled the worker by then.
            wait_for(lambda: is_pending(worker, signal.SIGTERM))
        answers = [sender.makefile("rb").read() for sender in senders]
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 201"}
        assert all(b"Connection: close" in answer for answer in answers)
        assert server.process.wait(30) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
