"""`kill -9` during mints, of workers, of all of gunicorn, and of PostgreSQL: acknowledged writes survive."""

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
from tests.support.http_calls import Answer, HttpConnection
from tests.support.people import basic
from tests.support.servers import (
    PostgresSwitch,
    WebServer,
    children_of,
    free_port,
    postgres,
    redis_server,
    wait_for,
)

pytestmark = pytest.mark.slow

#: The number of kills of each kind. `make soak` uses more.
KILLS: Final = int(os.environ.get("FAULT_KILLS", "1"))
MINTERS: Final = 6
_chance = Random(7)


class Rig:
    """An installation whose servers can be killed and restarted."""

    switch: PostgresSwitch  # set only if the database is PostgreSQL

    def __init__(self, installation: Installation, folder: Path, stack: ExitStack) -> None:
        self.installation, self.port = installation, free_port()
        self._log, self._stack = folder / "log", stack
        self.web = self.start()

    def start(self) -> WebServer:
        return self._stack.enter_context(self.installation.serving(port=self.port, log=self._log))


@pytest.fixture(scope="module")
def sqlite_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("rig")
    with ExitStack() as stack:
        installation = installed(folder, f"sqlite:///{folder / 'pat-service.db'}")
        yield Rig(installation, folder, stack)


@pytest.fixture(scope="module")
def postgres_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("rig")
    with ExitStack() as stack:
        url = stack.enter_context(postgres(durable=True))
        switch = stack.enter_context(PostgresSwitch(url))
        installation = stack.enter_context(on_postgres(url, folder))
        redis_url = stack.enter_context(redis_server())
        rig = Rig(installation.with_(REDIS_URL=redis_url), folder, stack)
        rig.switch = switch
        yield rig


# Victims


def a_worker(rig: Rig) -> None:
    os.kill(_chance.choice(children_of(rig.web.process.pid)), signal.SIGKILL)


def all_of_gunicorn(rig: Rig) -> None:
    os.killpg(rig.web.process.pid, signal.SIGKILL)
    rig.web.process.wait()
    rig.web = rig.start()


def a_backend(rig: Rig) -> None:
    """PostgreSQL then closes all other connections and recovers."""
    pids = rig.installation.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    os.kill(_chance.choice(pids)[0], signal.SIGKILL)


def all_of_postgres(rig: Rig) -> None:
    rig.switch.crash()
    rig.switch.on()


# Acknowledgements


@dataclass
class Ledger:
    """The answers that one caller got for its user and app. No other caller mints for them."""

    pair: tuple[str, str]
    token: str = ""
    #: None: a revocation was requested and not answered.
    revoked: bool | None = False
    #: Later mints without an answer, or answered with 503.
    lost: int = 0
    minted: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)

    def may_say(self) -> set[str]:
        """Return the answers that the last acknowledged token may give."""
        says = {False: {"served"}, True: {"token_revoked"}, None: {"served", "token_revoked"}}[self.revoked]
        # A lost mint may have happened: one supersedes the token, and a second makes it unknown.
        return says | set(("token_superseded", "token_invalid")[: self.lost])


def keep_minting(port: int, ledger: Ledger, over: Event) -> None:
    email, slug = ledger.pair
    with HttpConnection(port) as caller:
        while not over.is_set():
            status, answer = attempt(lambda: caller.mint(email=email, appSlug=slug))
            assert status in (201, 503, None), answer
            if status != 201:
                ledger.lost += 1
                time.sleep(0.05)
                continue
            ledger.token, ledger.revoked, ledger.lost = answer["personalAccessToken"], False, 0
            ledger.minted.append(answer["tokenId"])
            if len(ledger.minted) % 3 == 0:
                status, answer = attempt(lambda id_=answer["tokenId"]: revoke(caller, id_))  # type: ignore[misc]
                assert status in (200, 204, 503, None), answer
                ledger.revoked = True if status in (200, 204) else None
                if ledger.revoked:
                    ledger.dead.append(ledger.token)


def revoke(caller: HttpConnection, token_id: str) -> Answer:
    return caller.call("DELETE", f"/api/ext/personal-access-tokens/{token_id}", basic("portal"))


def attempt(call: Callable[[], Answer]) -> tuple[int | None, Any]:
    """Return status and answer. There is no status if the connection ended first."""
    try:
        answer = call()
    except (OSError, http.client.HTTPException):
        return None, None
    return answer.status, answer.json if answer.text else None


def wait_until_all_go_on(ledgers: list[Ledger]) -> None:
    before = [len(ledger.minted) for ledger in ledgers]
    wait_for(lambda: all(len(now.minted) > then for now, then in zip(ledgers, before, strict=True)))


def strike(rig: Rig, kill: Callable[[Rig], None]) -> None:
    """Kill while many callers mint and revoke, then compare the database with their answers."""
    ledgers = [Ledger(pair) for pair in PAIRS[:MINTERS]]
    over = Event()
    with ThreadPoolExecutor(MINTERS) as threads:
        running = [threads.submit(keep_minting, rig.port, ledger, over) for ledger in ledgers]
        try:
            for _ in range(KILLS):
                wait_until_all_go_on(ledgers)
                time.sleep(0.5 + _chance.random() / 2)
                kill(rig)
        finally:
            over.set()
        for work in running:
            work.result()
    with HttpConnection(rig.port) as caller:
        wait_for(lambda: attempt(lambda: caller.mint(email=PAIRS[-1][0], appSlug=PAIRS[-1][1]))[0] == 201)
        for ledger in ledgers:
            place = PLACES[ledger.pair[1]]
            assert caller.exchange(ledger.token, place).code in ledger.may_say(), ledger
            assert "served" not in {caller.exchange(token, place).code for token in ledger.dead[-10:]}
    acknowledged = {id_ for ledger in ledgers for id_ in ledger.minted}
    recorded = {
        row[0] for row in rig.installation.rows("SELECT token_id FROM events WHERE type = 'token:minted'")
    }
    assert acknowledged <= {str(id_) for id_ in recorded}


@pytest.mark.parametrize("kill", [a_worker, all_of_gunicorn])
def test_acknowledged_writes_survive_a_kill_of_the_service_on_sqlite(
    sqlite_rig: Rig, kill: Callable[[Rig], None]
) -> None:
    strike(sqlite_rig, kill)
    assert sqlite_rig.installation.rows("PRAGMA integrity_check") == [("ok",)]
    assert sqlite_rig.installation.rows("PRAGMA foreign_key_check") == []


@pytest.mark.postgres
@pytest.mark.parametrize("kill", [a_worker, all_of_gunicorn, a_backend, all_of_postgres])
def test_acknowledged_writes_survive_a_kill_of_workers_and_of_postgresql(
    postgres_rig: Rig, kill: Callable[[Rig], None]
) -> None:
    strike(postgres_rig, kill)
