"""PostgreSQL stopped, silent, slow, full or read-only: 503 in time, then recovery."""

import contextlib
import itertools
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.e2e.faults.installation import CROWD, SHORT_TIMEOUTS, STATEMENT_TIMEOUT, installed
from tests.support.http_calls import Answer, HttpConnection, mint, run_concurrently
from tests.support.servers import (
    FaultyLine,
    PostgresSwitch,
    WebServer,
    children_of,
    full,
    gunicorn,
    paused,
    postgres,
    redis_server,
    small_disk,
    wait_for,
    within,
)

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

#: The latest acceptable answer in seconds, whatever fails.
BOUND: Final = 10
WORKERS: Final = 2
THREADS: Final = 8
#: As many requests as one worker can serve at once, because one worker may get them all.
CALLERS: Final = THREADS


@dataclass
class Rig:
    """The service, its database server, the link between them, and a role without superuser rights."""

    web: WebServer
    line: FaultyLine
    switch: PostgresSwitch
    admin_url: str
    database: str

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            admin.execute(statement.encode())

    def backends(self) -> list[tuple[str, str]]:
        with psycopg.connect(self.admin_url) as admin:
            statement = "SELECT state, wait_event_type FROM pg_stat_activity WHERE datname = %s"
            return admin.execute(statement, [self.database]).fetchall()

    def disconnect(self) -> None:
        """Terminate the service's connections, and wait until they are closed."""
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s",
                [self.database],
            )


@pytest.fixture(scope="module")
def disk() -> Iterator[Path | None]:
    with small_disk(40) as folder:
        yield folder


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, disk: Path | None) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("rig")
    with contextlib.ExitStack() as stack:
        admin_url = stack.enter_context(postgres())
        switch = stack.enter_context(PostgresSwitch(admin_url))
        line = stack.enter_context(FaultyLine(int(admin_url.rpartition(":")[2].partition("/")[0])))
        where = ""
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute("CREATE ROLE service LOGIN")
            if disk is not None:
                (disk / "space").mkdir()
                shutil.chown(disk / "space", *[os.stat(switch.data).st_uid] * 2)
                admin.execute(f"CREATE TABLESPACE small LOCATION '{disk / 'space'}'".encode())
                where = "TABLESPACE small"
            admin.execute(f"CREATE DATABASE pat OWNER service {where}".encode())
        url = f"postgresql://service@127.0.0.1:{line.port}/pat"
        environ = installed(folder, url).environ
        environ |= {"REDIS_URL": stack.enter_context(redis_server()), "STATEMENT_TIMEOUT": STATEMENT_TIMEOUT}
        log = folder / "log"
        web = stack.enter_context(
            gunicorn(environ, workers=WORKERS, threads=THREADS, log=log, app=SHORT_TIMEOUTS)
        )
        yield Rig(web, line, switch, admin_url, "pat")
        assert "Traceback" not in log.read_text()
    assert "WORKER TIMEOUT" not in log.read_text() if log.exists() else True


# Faults


@contextlib.contextmanager
def stopped(rig: Rig) -> Iterator[None]:
    rig.switch.off()
    try:
        yield
    finally:
        rig.switch.on()


def silent(rig: Rig) -> AbstractContextManager[None]:
    """The link drops everything: requests seem to arrive, and nothing comes back."""
    return rig.line.changed(silent=True)


@contextlib.contextmanager
def frozen(rig: Rig) -> Iterator[None]:
    """The server is up, but all of its processes are stopped."""
    with paused(*rig.switch.pids):
        yield


@contextlib.contextmanager
def locked(rig: Rig) -> Iterator[None]:
    """Another transaction locks what every request needs."""
    with psycopg.connect(rig.admin_url, dbname=rig.database) as other:
        other.execute("LOCK TABLE clients, tokens, sessions, apps IN ACCESS EXCLUSIVE MODE")
        try:
            yield
        finally:
            other.rollback()


@contextlib.contextmanager
def cut(rig: Rig) -> Iterator[None]:
    """Connections are terminated while statements run."""
    over = threading.Event()

    def cut_again_and_again() -> None:
        while not over.wait(0.2):
            rig.line.cut()

    with locked(rig):
        thread = threading.Thread(target=cut_again_and_again)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextlib.contextmanager
def changed_role(rig: Rig, change: str, reset: str) -> Iterator[None]:
    rig.sql(f"ALTER ROLE service {change}")
    rig.disconnect()
    try:
        yield
    finally:
        # Open connections keep the setting they started with.
        rig.sql(f"ALTER ROLE service {reset}")


def crowded(rig: Rig) -> AbstractContextManager[None]:
    """No connection is left for the service."""
    return changed_role(rig, "CONNECTION LIMIT 0", "CONNECTION LIMIT -1")


def read_only(rig: Rig) -> AbstractContextManager[None]:
    """A replica is read-only, and so is a server whose provider protects a full disk."""
    setting = "default_transaction_read_only"
    return changed_role(rig, f"SET {setting} = on", f"RESET {setting}")


Fault = Callable[[Rig], AbstractContextManager[None]]
# Requests


def ask(rig: Rig, token: str, jwt: str, number: int) -> tuple[str, Answer, float]:
    """Send one kind of request; return its name, its answer and its duration."""
    begun = time.monotonic()
    with HttpConnection(rig.web.port) as caller:
        kinds: dict[str, Callable[[], Answer]] = {
            "mint": lambda: caller.mint(email=CROWD[number % len(CROWD)], appSlug="place0"),
            "page": lambda: caller.open(token),
            "open": lambda: caller.open(token, Accept="application/json"),
            "exchange": lambda: caller.exchange(token),
            "session": lambda: caller.facts(jwt),
            "nobody": lambda: caller.mint(secret="w" * 40),
        }
        kind = list(kinds)[number % len(kinds)]
        return kind, kinds[kind](), time.monotonic() - begun


READS: Final = {"session": 200, "nobody": 401}


def refused(kind: str, answer: Answer) -> None:
    assert answer.status == 503, (kind, answer.status, answer.text)
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    if kind == "page":
        assert answer.headers["Content-Type"].startswith("text/html")
    else:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.code == "unavailable"
    # A timeout inside the frame's script is not the answer under test.
    text = re.sub(r'<script[^>]* id="embed-texts"[^>]*>.*?</script>', "", answer.text)
    for word in ("postgres", "psycopg", "SELECT", "127.0.0.1", "timeout"):
        assert word not in text


def is_recovered(rig: Rig, token: str, jwt: str) -> bool:
    answers = run_concurrently(2 * THREADS, lambda number: ask(rig, token, jwt, number))
    return {answer.status for _, answer, _ in answers} <= {200, 201, 401}


def check_outage(
    rig: Rig,
    fault: AbstractContextManager[None],
    *,
    callers: int = CALLERS,
    times: int = 1,
    reads: bool = False,
) -> None:
    # An idle worker may not know yet that the last fault is over. One connection reaches one worker.
    with HttpConnection(rig.web.port) as caller:
        wait_for(lambda: caller.mint().status == 201)
        token = caller.mint().json["personalAccessToken"]
        jwt = caller.exchange(token).json["signedPat"]
    wait_for(lambda: is_recovered(rig, token, jwt))
    workers = children_of(rig.web.process.pid)
    with fault:
        for _ in range(times):
            with within(BOUND):
                answers = run_concurrently(callers, lambda number: ask(rig, token, jwt, number))
            for kind, answer, _ in answers:
                if reads and kind in READS:
                    assert answer.status == READS[kind]
                else:
                    refused(kind, answer)
    wait_for(lambda: is_recovered(rig, token, jwt))
    assert children_of(rig.web.process.pid) == workers
    wait_for(lambda: {state for state, _ in rig.backends()} <= {"idle"})
    assert len(rig.backends()) <= WORKERS * (THREADS + 2)


@pytest.mark.parametrize("fault", [stopped, locked, cut, crowded])
def test_a_database_outage_answers_503_in_time_and_then_recovers(rig: Rig, fault: Fault) -> None:
    check_outage(rig, fault(rig))


@pytest.mark.parametrize("fault", [silent, frozen])
def test_only_a_few_requests_wait_for_a_silent_database(rig: Rig, fault: Fault) -> None:
    """Three times as many callers as threads, three times in a row."""
    check_outage(rig, fault(rig), callers=3 * WORKERS * THREADS, times=3)


def test_a_read_only_database_still_serves_reads_and_then_recovers(rig: Rig) -> None:
    check_outage(rig, read_only(rig), reads=True)


def test_a_full_disk_answers_503_at_worst_and_then_recovers(rig: Rig, disk: Path | None) -> None:
    """A write that fits into existing pages succeeds."""
    if disk is None:
        pytest.skip("this user may mount no disk to fill")
    workers = children_of(rig.web.process.pid)
    with full(disk), HttpConnection(rig.web.port) as caller:
        mints = (caller.mint(attributes={"ballast": "x" * 3000}) for _ in range(1000))
        failed = list(itertools.islice((answer for answer in mints if answer.status != 201), 5))
    assert len(failed) == 5
    for answer in failed:
        refused("mint", answer)
    wait_for(lambda: mint(rig.web).status == 201)
    assert children_of(rig.web.process.pid) == workers
