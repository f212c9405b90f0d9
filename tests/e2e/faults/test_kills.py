"""`kill -9` in mid-mint, of workers, of all of gunicorn, and of PostgreSQL: what was acknowledged holds."""

import http.client
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event
from typing import Any, Final

import pytest

from tests.e2e.faults.installation import PAIRS, PLACES, Installation, installed, on_postgres
from tests.support.outside import Answer, Caller
from tests.support.servers import Switch, WebServer, children_of, free_port, postgres, redis_server, wait_for
from tests.support.world import basic

pytestmark = pytest.mark.slow

#: How often each kind of kill strikes; `make soak` lets it be more.
KILLS: Final = int(os.environ.get("FAULT_KILLS", "1"))
MINTERS: Final = 6
_chance = Random(7)


class Stand:
    """An installation whose servers can be killed and started again."""

    switch: Switch  # where there is one

    def __init__(self, installation: Installation, folder: Path, stack: ExitStack) -> None:
        self.installation, self.port = installation, free_port()
        self._log, self._stack = folder / "log", stack
        self.web = self.start()

    def start(self) -> WebServer:
        return self._stack.enter_context(self.installation.serving(port=self.port, log=self._log))


@pytest.fixture(scope="module")
def sqlite_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    with ExitStack() as stack:
        installation = installed(folder, f"sqlite:///{folder / 'pat-service.db'}")
        yield Stand(installation, folder, stack)


@pytest.fixture(scope="module")
def postgres_stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    with ExitStack() as stack:
        url = stack.enter_context(postgres(durable=True))
        switch = stack.enter_context(Switch(url))
        installation = stack.enter_context(on_postgres(url, folder))
        redis_url = stack.enter_context(redis_server())
        stand = Stand(installation.with_(REDIS_URL=redis_url), folder, stack)
        stand.switch = switch
        yield stand


# Who is killed


def a_worker(stand: Stand) -> None:
    os.kill(_chance.choice(children_of(stand.web.process.pid)), signal.SIGKILL)


def all_of_gunicorn(stand: Stand) -> None:
    os.killpg(stand.web.process.pid, signal.SIGKILL)
    stand.web.process.wait()
    stand.web = stand.start()


def a_backend(stand: Stand) -> None:
    """PostgreSQL then throws all others out as well, and recovers."""
    pids = stand.installation.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    os.kill(_chance.choice(pids)[0], signal.SIGKILL)


def all_of_postgres(stand: Stand) -> None:
    stand.switch.crash()
    stand.switch.on()


# What was told


@dataclass
class Ledger:
    """What one caller was told of its pair, which nobody else mints for."""

    pair: tuple[str, str]
    token: str = ""
    #: None: asked to be revoked, and not answered.
    revoked: bool | None = False
    #: Mints since that nobody answered, or that were answered with 503.
    lost: int = 0
    minted: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)

    def may_say(self) -> set[str]:
        """What the last acknowledged token may answer when it is tried."""
        says = {False: {"served"}, True: {"token_revoked"}, None: {"served", "token_revoked"}}[self.revoked]
        # A lost mint may have been done: one of them supersedes the token, and a second makes it unknown.
        return says | set(("token_superseded", "token_invalid")[: self.lost])


def keep_minting(port: int, ledger: Ledger, over: Event) -> None:
    email, slug = ledger.pair
    with Caller(port) as caller:
        while not over.is_set():
            status, told = attempt(lambda: caller.mint(email=email, appSlug=slug))
            assert status in (201, 503, None), told
            if status != 201:
                ledger.lost += 1
                time.sleep(0.05)
                continue
            ledger.token, ledger.revoked, ledger.lost = told["personalAccessToken"], False, 0
            ledger.minted.append(told["tokenId"])
            if len(ledger.minted) % 3 == 0:
                status, told = attempt(lambda id_=told["tokenId"]: revoke(caller, id_))  # type: ignore[misc]
                assert status in (200, 204, 503, None), told
                ledger.revoked = True if status in (200, 204) else None
                if ledger.revoked:
                    ledger.dead.append(ledger.token)


def revoke(caller: Caller, token_id: str) -> Answer:
    return caller.call("DELETE", f"/api/ext/personal-access-tokens/{token_id}", basic("portal"))


def attempt(call: Callable[[], Answer]) -> tuple[int | None, Any]:
    """Return the status and what was told; no status where the connection ended first."""
    try:
        answer = call()
    except (OSError, http.client.HTTPException):
        return None, None
    return answer.status, answer.json if answer.text else None


def wait_until_all_go_on(ledgers: list[Ledger]) -> None:
    before = [len(ledger.minted) for ledger in ledgers]
    wait_for(lambda: all(len(now.minted) > then for now, then in zip(ledgers, before, strict=True)))


def strike(stand: Stand, kill: Callable[[Stand], None]) -> None:
    """Kill while many mint and revoke, and compare what then is with what each was told."""
    ledgers = [Ledger(pair) for pair in PAIRS[:MINTERS]]
    over = Event()
    with ThreadPoolExecutor(MINTERS) as threads:
        at_work = [threads.submit(keep_minting, stand.port, ledger, over) for ledger in ledgers]
        try:
            for _ in range(KILLS):
                wait_until_all_go_on(ledgers)
                time.sleep(0.5 + _chance.random() / 2)
                kill(stand)
        finally:
            over.set()
        for work in at_work:
            work.result()
    with Caller(stand.port) as caller:
        wait_for(lambda: attempt(lambda: caller.mint(email=PAIRS[-1][0], appSlug=PAIRS[-1][1]))[0] == 201)
        for ledger in ledgers:
            place = PLACES[ledger.pair[1]]
            assert caller.exchange(ledger.token, place).code in ledger.may_say(), ledger
            assert "served" not in {caller.exchange(token, place).code for token in ledger.dead[-10:]}
    told = {id_ for ledger in ledgers for id_ in ledger.minted}
    kept = {
        row[0] for row in stand.installation.rows("SELECT token_id FROM events WHERE type = 'token:minted'")
    }
    assert told <= {str(id_) for id_ in kept}


@pytest.mark.parametrize("kill", [a_worker, all_of_gunicorn])
def test_what_was_acknowledged_outlives_the_kill_of_those_who_write_sqlite(
    sqlite_stand: Stand, kill: Callable[[Stand], None]
) -> None:
    strike(sqlite_stand, kill)
    assert sqlite_stand.installation.rows("PRAGMA integrity_check") == [("ok",)]
    assert sqlite_stand.installation.rows("PRAGMA foreign_key_check") == []


@pytest.mark.postgres
@pytest.mark.parametrize("kill", [a_worker, all_of_gunicorn, a_backend, all_of_postgres])
def test_what_was_acknowledged_outlives_the_kill_of_workers_and_of_postgresql(
    postgres_stand: Stand, kill: Callable[[Stand], None]
) -> None:
    strike(postgres_stand, kill)
