"""PostgreSQL that is stopped, silent, slow, full or read-only: 503 in time, and then all goes on."""

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

from tests.e2e.faults.installation import CROWD, HASTY, STATEMENT_TIMEOUT, installed
from tests.support.outside import Answer, Caller, at_once, mint
from tests.support.servers import (
    Line,
    Switch,
    WebServer,
    children_of,
    gunicorn,
    postgres,
    redis_server,
    small_disk,
    standing_still,
    wait_for,
    within,
)

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

#: Every answer comes within so many seconds, whatever fails.
BOUND: Final = 10
WORKERS: Final = 2
THREADS: Final = 8
#: As many as one worker can serve at once, since one may get them all.
CALLERS: Final = THREADS


@dataclass
class Stand:
    """The service, the server below it, the line between them, and a role that is no superuser."""

    web: WebServer
    line: Line
    switch: Switch
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
        """End the service's connections, and wait until they have ended."""
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
def stand(tmp_path_factory: pytest.TempPathFactory, disk: Path | None) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    with contextlib.ExitStack() as stack:
        admin_url = stack.enter_context(postgres())
        switch = stack.enter_context(Switch(admin_url))
        line = stack.enter_context(Line(int(admin_url.rpartition(":")[2].partition("/")[0])))
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
        web = stack.enter_context(gunicorn(environ, workers=WORKERS, threads=THREADS, log=log, app=HASTY))
        yield Stand(web, line, switch, admin_url, "pat")
        assert "Traceback" not in log.read_text()
    assert "WORKER TIMEOUT" not in log.read_text() if log.exists() else True


# What fails, and how


@contextlib.contextmanager
def stopped(stand: Stand) -> Iterator[None]:
    stand.switch.off()
    try:
        yield
    finally:
        stand.switch.on()


@contextlib.contextmanager
def silent(stand: Stand) -> Iterator[None]:
    """The way to it is gone: whatever is sent seems to arrive, and nothing comes back."""
    stand.line.silent = True
    try:
        yield
    finally:
        stand.line.silent = False


@contextlib.contextmanager
def frozen(stand: Stand) -> Iterator[None]:
    """It is there, and all of its processes stand still."""
    with standing_still(*stand.switch.pids):
        yield


@contextlib.contextmanager
def locked(stand: Stand) -> Iterator[None]:
    """Somebody holds what every request needs."""
    with psycopg.connect(stand.admin_url, dbname=stand.database) as other:
        other.execute("LOCK TABLE clients, tokens, sessions, apps IN ACCESS EXCLUSIVE MODE")
        try:
            yield
        finally:
            other.rollback()


@contextlib.contextmanager
def cut(stand: Stand) -> Iterator[None]:
    """Connections end while statements are under way."""
    over = threading.Event()

    def cut_again_and_again() -> None:
        while not over.wait(0.2):
            stand.line.cut()

    with locked(stand):
        thread = threading.Thread(target=cut_again_and_again)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextlib.contextmanager
def crowded(stand: Stand) -> Iterator[None]:
    """No connection is left for the service."""
    stand.sql("ALTER ROLE service CONNECTION LIMIT 0")
    stand.disconnect()
    try:
        yield
    finally:
        stand.sql("ALTER ROLE service CONNECTION LIMIT -1")


@contextlib.contextmanager
def read_only(stand: Stand) -> Iterator[None]:
    """As a replica is, or a server that its provider keeps from filling its disk."""
    stand.sql("ALTER ROLE service SET default_transaction_read_only = on")
    stand.disconnect()
    try:
        yield
    finally:
        # Those who are connected keep what they came with.
        stand.sql("ALTER ROLE service RESET default_transaction_read_only")


Fault = Callable[[Stand], AbstractContextManager[None]]
# What is asked


def ask(stand: Stand, token: str, jwt: str, number: int) -> tuple[str, Answer, float]:
    """Send one of the kinds of requests, and return which, with its answer and how long that took."""
    begun = time.monotonic()
    with Caller(stand.web.port) as caller:
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
    # What the frame's script may have to say, a timeout among it, is no answer to this.
    text = re.sub(r'<script[^>]* id="embed-texts">.*?</script>', "", answer.text)
    for word in ("postgres", "psycopg", "SELECT", "127.0.0.1", "timeout"):
        assert word not in text


def all_goes_on(stand: Stand, token: str, jwt: str) -> bool:
    answers = at_once(2 * THREADS, lambda number: ask(stand, token, jwt, number))
    return {answer.status for _, answer, _ in answers} <= {200, 201, 401}


def suffer(
    stand: Stand,
    fault: AbstractContextManager[None],
    *,
    callers: int = CALLERS,
    times: int = 1,
    reads: bool = False,
) -> None:
    # A worker whom nobody has asked since the last fault may not know yet that it is over.
    wait_for(lambda: {answer.status for answer in at_once(2 * THREADS, lambda _: mint(stand.web))} == {201})
    with Caller(stand.web.port) as caller:
        token = caller.mint().json["personalAccessToken"]
        jwt = caller.exchange(token).json["signedPat"]
    wait_for(lambda: all_goes_on(stand, token, jwt))
    workers = children_of(stand.web.process.pid)
    with fault:
        for _ in range(times):
            with within(BOUND):
                answers = at_once(callers, lambda number: ask(stand, token, jwt, number))
            for kind, answer, _ in answers:
                if reads and kind in READS:
                    assert answer.status == READS[kind]
                else:
                    refused(kind, answer)
    wait_for(lambda: all_goes_on(stand, token, jwt))
    assert children_of(stand.web.process.pid) == workers
    wait_for(lambda: {state for state, _ in stand.backends()} <= {"idle"})
    assert len(stand.backends()) <= WORKERS * (THREADS + 2)


@pytest.mark.parametrize("fault", [stopped, locked, cut, crowded])
def test_while_the_database_does_not_serve_all_is_503_in_time_and_then_all_goes_on(
    stand: Stand, fault: Fault
) -> None:
    suffer(stand, fault(stand))


@pytest.mark.parametrize("fault", [silent, frozen])
def test_a_silent_database_is_waited_for_by_few_and_all_are_told_in_time(stand: Stand, fault: Fault) -> None:
    """Three times as many as there are threads call, three times in a row."""
    suffer(stand, fault(stand), callers=3 * WORKERS * THREADS, times=3)


def test_while_the_database_is_read_only_what_reads_is_served_and_then_all_goes_on(stand: Stand) -> None:
    suffer(stand, read_only(stand), reads=True)


def test_while_the_disk_is_full_nothing_fails_but_with_503_and_then_all_goes_on(
    stand: Stand, disk: Path | None
) -> None:
    """What still finds room in the pages that are there is done."""
    if disk is None:
        pytest.skip("this user may mount no disk to fill")
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    workers = children_of(stand.web.process.pid)
    try:
        with Caller(stand.web.port) as caller:
            mints = (caller.mint(attributes={"ballast": "x" * 3000}) for _ in range(1000))
            failed = list(itertools.islice((answer for answer in mints if answer.status != 201), 5))
    finally:
        filler.unlink()
    assert len(failed) == 5
    for answer in failed:
        refused("mint", answer)
    wait_for(lambda: mint(stand.web).status == 201)
    assert children_of(stand.web.process.pid) == workers
