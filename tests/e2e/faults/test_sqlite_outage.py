"""SQLite locked, full or read-only: writes get 503 in time, then recovery."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from flask import Flask

from tests.e2e.faults.installation import CROWD, SHORT_TIMEOUTS, STATEMENT_TIMEOUT, Installation, installed
from tests.support import servers
from tests.support.http_calls import Answer, HttpConnection, run_concurrently
from tests.support.people import WORLD, Service, database_folder, problem_of, provision
from tests.support.servers import WebServer, children_of, small_disk, wait_for, within

pytestmark = pytest.mark.slow

#: The latest acceptable answer in seconds, whatever fails.
BOUND: Final = 10
THREADS: Final = 8


@dataclass
class Rig:
    installation: Installation
    web: WebServer
    disk: Path | None


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("rig")
    log = folder / "log"
    with small_disk(3) as disk:
        installation = installed(folder, f"sqlite:///{(disk or folder) / 'pat-service.db'}")
        hasty = installation.with_(STATEMENT_TIMEOUT=STATEMENT_TIMEOUT)
        with hasty.serving(1, threads=THREADS, log=log, app=SHORT_TIMEOUTS) as web:
            yield Rig(installation, web, disk)
    text = log.read_text()
    assert "WORKER TIMEOUT" not in text
    assert "Traceback" not in text


# Faults


@contextlib.contextmanager
def locked(rig: Rig) -> Iterator[None]:
    """Another process holds the write lock."""
    with closing(sqlite3.connect(rig.installation.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


def full(rig: Rig) -> AbstractContextManager[None]:
    if rig.disk is None:
        pytest.skip("this user may mount no disk to fill")
    return servers.full(rig.disk)


Fault = Callable[[Rig], AbstractContextManager[None]]


def ask(rig: Rig, token: str, jwt: str, number: int) -> tuple[bool, Answer]:
    """Send one kind of request; return whether it writes, and its answer."""
    with HttpConnection(rig.web.port) as caller:
        kinds: list[tuple[bool, Callable[[], Answer]]] = [
            (True, lambda: caller.mint(email=CROWD[number % len(CROWD)], appSlug="place0")),
            (True, lambda: caller.open(token, Accept="application/json")),
            (True, lambda: caller.exchange(token)),
            (False, lambda: caller.facts(jwt)),
        ]
        writes, kind = kinds[number % len(kinds)]
        return writes, kind()


@pytest.mark.parametrize("fault", [locked, full])
def test_a_database_that_refuses_writes_still_serves_reads_and_then_recovers(rig: Rig, fault: Fault) -> None:
    with HttpConnection(rig.web.port) as caller:
        token = caller.mint().json["personalAccessToken"]
        jwt = caller.exchange(token).json["signedPat"]
    workers = children_of(rig.web.process.pid)
    with fault(rig):
        if fault is full:
            wait_for(lambda: ask(rig, token, jwt, 0)[1].status == 503)  # the journal had some room left
        with within(BOUND):
            answers = run_concurrently(THREADS, lambda number: ask(rig, token, jwt, number))
        for writes, answer in answers:
            if not writes:
                assert answer.status == 200, answer.text
                continue
            assert (answer.status, answer.code) == (503, "unavailable"), answer.text
            assert 1 <= int(answer.headers["Retry-After"]) <= 61
            assert "sqlite" not in answer.text.lower()
    wait_for(lambda: {ask(rig, token, jwt, number)[1].status for number in range(8)} == {200, 201})
    assert children_of(rig.web.process.pid) == workers
    assert rig.installation.rows("PRAGMA integrity_check") == [("ok",)]


def test_a_read_only_file_still_serves_reads(make_app: Callable[..., Flask]) -> None:
    """A disk with a fault is mounted read-only."""
    app = make_app()
    provision(app, WORLD)
    writer = Service(app.test_client())
    frame, token = writer.frame(), writer.token()
    file = database_folder(app) / "pat-service.db"
    service = Service(make_app(DATABASE_URL=f"sqlite:///file:{file}?mode=ro&uri=true").test_client())
    service.facts(frame)
    for answer in (service.mint(), service.open(token, Accept="application/json")):
        problem_of(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
