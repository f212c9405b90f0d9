"""SQLite that is locked, full or read-only: what writes is 503 in time, and then all goes on."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from flask import Flask

from tests.e2e.faults.installation import CROWD, HASTY, STATEMENT_TIMEOUT, Installation, installed
from tests.support.outside import Answer, Caller, at_once
from tests.support.servers import WebServer, children_of, small_disk, wait_for, within
from tests.support.world import WORLD, Service, folder_of, problem_of, provision

pytestmark = pytest.mark.slow

#: Every answer comes within so many seconds, whatever fails.
BOUND: Final = 10
THREADS: Final = 8


@dataclass
class Stand:
    installation: Installation
    web: WebServer
    disk: Path | None


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    log = folder / "log"
    with small_disk(3) as disk:
        installation = installed(folder, f"sqlite:///{(disk or folder) / 'pat-service.db'}")
        hasty = installation.with_(STATEMENT_TIMEOUT=STATEMENT_TIMEOUT)
        with hasty.serving(1, threads=THREADS, log=log, app=HASTY) as web:
            yield Stand(installation, web, disk)
    text = log.read_text()
    assert "WORKER TIMEOUT" not in text
    assert "Traceback" not in text


# What fails, and how


@contextlib.contextmanager
def locked(stand: Stand) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    with closing(sqlite3.connect(stand.installation.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


@contextlib.contextmanager
def full(stand: Stand) -> Iterator[None]:
    if stand.disk is None:
        pytest.skip("this user may mount no disk to fill")
    filler = stand.disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


Fault = Callable[[Stand], AbstractContextManager[None]]


def ask(stand: Stand, token: str, jwt: str, number: int) -> tuple[bool, Answer]:
    """Send one kind of request, and return whether it writes, with its answer."""
    with Caller(stand.web.port) as caller:
        kinds: list[tuple[bool, Callable[[], Answer]]] = [
            (True, lambda: caller.mint(email=CROWD[number % len(CROWD)], appSlug="place0")),
            (True, lambda: caller.open(token, Accept="application/json")),
            (True, lambda: caller.exchange(token)),
            (False, lambda: caller.facts(jwt)),
        ]
        writes, kind = kinds[number % len(kinds)]
        return writes, kind()


@pytest.mark.parametrize("fault", [locked, full])
def test_while_nothing_can_be_written_what_reads_is_served_and_then_all_goes_on(
    stand: Stand, fault: Fault
) -> None:
    with Caller(stand.web.port) as caller:
        token = caller.mint().json["personalAccessToken"]
        jwt = caller.exchange(token).json["signedPat"]
    workers = children_of(stand.web.process.pid)
    with fault(stand):
        if fault is full:
            wait_for(lambda: ask(stand, token, jwt, 0)[1].status == 503)  # the journal had some room left
        with within(BOUND):
            answers = at_once(THREADS, lambda number: ask(stand, token, jwt, number))
        for writes, answer in answers:
            if not writes:
                assert answer.status == 200, answer.text
                continue
            assert (answer.status, answer.code) == (503, "unavailable"), answer.text
            assert 1 <= int(answer.headers["Retry-After"]) <= 61
            assert "sqlite" not in answer.text.lower()
    wait_for(lambda: {ask(stand, token, jwt, number)[1].status for number in range(8)} == {200, 201})
    assert children_of(stand.web.process.pid) == workers
    assert stand.installation.rows("PRAGMA integrity_check") == [("ok",)]


def test_of_a_file_that_cannot_be_written_what_reads_is_served(make_app: Callable[..., Flask]) -> None:
    """As where a disk is mounted read-only, since it was found faulty."""
    app = make_app()
    provision(app, WORLD)
    writer = Service(app.test_client())
    frame, token = writer.frame(), writer.token()
    file = folder_of(app) / "pat-service.db"
    service = Service(make_app(DATABASE_URL=f"sqlite:///file:{file}?mode=ro&uri=true").test_client())
    service.facts(frame)
    for answer in (service.mint(), service.open(token, Accept="application/json")):
        problem_of(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
