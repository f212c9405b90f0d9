"""Redis stopped, silent, slow, full or replaced: 503 in time, and no mint passes uncounted."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from tests.e2e.faults.installation import Installation, installed
from tests.support.http_calls import Answer, HttpConnection, mint, run_concurrently
from tests.support.servers import FaultyLine, WebServer, children_of, paused, redis_server, wait_for, within

pytestmark = [pytest.mark.slow, pytest.mark.redis]

#: The latest acceptable answer in seconds, whatever fails.
BOUND: Final = 10
WORKERS: Final = 2
CALLERS: Final = 16
TOKEN: Final = "pat_" + "ab" * 32 + "a3d79768"  # well-formed, so that the limiter counts it


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@dataclass
class Rig:
    installation: Installation
    web: WebServer
    line: FaultyLine
    store: redis.Redis

    def settings(self, **settings: Any) -> None:
        for name, value in settings.items():
            self.store.config_set(name.replace("_", "-"), value)

    def disconnect(self) -> None:
        self.store.client_kill_filter(_type="normal", skipme=True)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("rig")
    installation = installed(folder, f"sqlite:///{folder / 'pat-service.db'}")
    log = folder / "log"
    with redis_server() as url, FaultyLine(port_of(url)) as line:
        deployed = installation.with_(REDIS_URL=f"redis://127.0.0.1:{line.port}/0")
        with deployed.serving(WORKERS, log=log) as web, closing(redis.Redis.from_url(url)) as store:
            yield Rig(deployed, web, line, store)
        text = log.read_text()
        assert "Traceback" not in text
        assert "WORKER TIMEOUT" not in text


# Faults


@contextlib.contextmanager
def refusing(rig: Rig) -> Iterator[None]:
    """No server listens."""
    with rig.line.changed(target=1):
        rig.line.cut()
        yield


def silent(rig: Rig) -> AbstractContextManager[None]:
    """The link drops everything: requests seem to arrive, and nothing comes back."""
    return rig.line.changed(silent=True)


def frozen(rig: Rig) -> AbstractContextManager[None]:
    facts: Any = rig.store.info("server")
    return paused(facts["process_id"])


def slow(rig: Rig) -> AbstractContextManager[None]:
    """Each answer takes longer than the service waits."""
    return rig.line.changed(delay=4)


@contextlib.contextmanager
def full(rig: Rig) -> Iterator[None]:
    rig.settings(maxmemory_policy="noeviction", maxmemory=1)
    try:
        yield
    finally:
        rig.settings(maxmemory=0)


@contextlib.contextmanager
def locked_up(rig: Rig) -> Iterator[None]:
    """Redis now wants a password that the service does not have."""
    rig.settings(requirepass="correct-horse")
    rig.disconnect()
    try:
        yield
    finally:
        rig.settings(requirepass="")


@contextlib.contextmanager
def failing_over(rig: Rig) -> Iterator[None]:
    """Redis becomes a replica after a failover. Open connections stay."""
    with redis_server() as successor, closing(redis.Redis.from_url(successor)) as other:
        there = rig.line.target
        rig.store.replicaof("127.0.0.1", port_of(successor))
        wait_for(lambda: other.info("replication")["connected_slaves"] == 1)  # type: ignore[index]
        yield
        rig.line.target = port_of(successor)
        with HttpConnection(rig.web.port) as caller:
            wait_for(lambda: {caller.mint().status for _ in range(CALLERS)} == {201})
        rig.store.replicaof("NO", "ONE")
        rig.line.target = there
    rig.line.cut()


@contextlib.contextmanager
def loading(rig: Rig) -> Iterator[None]:
    """Redis has just started and loads its data."""
    folder = Path(os.fsdecode(rig.store.config_get("dir")["dir"]))  # type: ignore[index]
    # Redis serves other commands every two megabytes while it loads.
    rig.store.mset({f"ballast{number}": os.urandom(2**21) for number in range(20)})
    rig.store.save()
    with (
        redis_server("--dir", str(folder), "--key-load-delay", "500000", ready=b"-LOADING") as url,
        rig.line.changed(target=port_of(url)),
    ):
        rig.line.cut()
        yield
    rig.line.cut()


Fault = Callable[[Rig], AbstractContextManager[None]]


def ask(rig: Rig, number: int) -> Answer:
    with HttpConnection(rig.web.port) as caller:
        kinds: list[Callable[[], Answer]] = [
            caller.mint,
            lambda: caller.mint(secret="w" * 40),
            lambda: caller.open(TOKEN),
            lambda: caller.exchange(TOKEN),
        ]
        return kinds[number % len(kinds)]()


@pytest.mark.parametrize("fault", [refusing, silent, frozen, slow, full, locked_up, failing_over, loading])
def test_a_redis_outage_answers_503_in_time_and_then_recovers(rig: Rig, fault: Fault) -> None:
    # An idle worker may not know yet that the fault is over.
    wait_for(
        lambda: {answer.status for answer in run_concurrently(CALLERS, lambda _: mint(rig.web))} == {201}
    )
    workers = children_of(rig.web.process.pid)
    before = rig.installation.rows("SELECT id FROM tokens")
    with fault(rig):
        with within(BOUND):
            answers = run_concurrently(CALLERS, lambda number: ask(rig, number))
        for number, answer in enumerate(answers):
            assert answer.status == 503, answer.text
            assert 1 <= int(answer.headers["Retry-After"]) <= 61
            assert number % 4 == 2 or answer.code == "unavailable"
            assert "edis" not in answer.text
        # No mint happened.
        assert rig.installation.rows("SELECT id FROM tokens") == before
    wait_for(
        lambda: (
            Counter(answer.status for answer in run_concurrently(CALLERS, lambda number: ask(rig, number)))
            == {201: CALLERS // 4, 401: 3 * CALLERS // 4}
        )
    )
    assert children_of(rig.web.process.pid) == workers
