"""Redis that is away, silent, slow, full, or another one by now: 503 in time, and no mint slips through."""

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
from tests.support.outside import Answer, Caller, at_once, mint
from tests.support.servers import Line, WebServer, children_of, redis_server, standing_still, wait_for, within

pytestmark = [pytest.mark.slow, pytest.mark.redis]

#: Every answer comes within so many seconds, whatever fails.
BOUND: Final = 10
WORKERS: Final = 2
CALLERS: Final = 16
TOKEN: Final = "pat_" + "ab" * 32 + "a3d79768"  # well-formed, so that the limiter is asked


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@dataclass
class Stand:
    installation: Installation
    web: WebServer
    line: Line
    store: redis.Redis

    def settings(self, **settings: Any) -> None:
        for name, value in settings.items():
            self.store.config_set(name.replace("_", "-"), value)

    def disconnect(self) -> None:
        self.store.client_kill_filter(_type="normal", skipme=True)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    installation = installed(folder, f"sqlite:///{folder / 'pat-service.db'}")
    log = folder / "log"
    with redis_server() as url, Line(port_of(url)) as line:
        deployed = installation.with_(REDIS_URL=f"redis://127.0.0.1:{line.port}/0")
        with deployed.serving(WORKERS, log=log) as web, closing(redis.Redis.from_url(url)) as store:
            yield Stand(deployed, web, line, store)
        text = log.read_text()
        assert "Traceback" not in text
        assert "WORKER TIMEOUT" not in text


# What fails, and how


@contextlib.contextmanager
def refusing(stand: Stand) -> Iterator[None]:
    """Nobody is there."""
    there, stand.line.target = stand.line.target, 1
    stand.line.cut()
    try:
        yield
    finally:
        stand.line.target = there


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
    facts: Any = stand.store.info("server")
    with standing_still(facts["process_id"]):
        yield


@contextlib.contextmanager
def slow(stand: Stand) -> Iterator[None]:
    """Each answer takes longer than anybody waits."""
    stand.line.delay = 4
    try:
        yield
    finally:
        stand.line.delay = 0


@contextlib.contextmanager
def full(stand: Stand) -> Iterator[None]:
    stand.settings(maxmemory_policy="noeviction", maxmemory=1)
    try:
        yield
    finally:
        stand.settings(maxmemory=0)


@contextlib.contextmanager
def locked_up(stand: Stand) -> Iterator[None]:
    """It has a password now, which nobody has told the service."""
    stand.settings(requirepass="correct-horse")
    stand.disconnect()
    try:
        yield
    finally:
        stand.settings(requirepass="")


@contextlib.contextmanager
def failing_over(stand: Stand) -> Iterator[None]:
    """It becomes the replica of another that takes over; those who are connected stay so."""
    with redis_server() as successor, closing(redis.Redis.from_url(successor)) as other:
        there = stand.line.target
        stand.store.replicaof("127.0.0.1", port_of(successor))
        wait_for(lambda: other.info("replication")["connected_slaves"] == 1)  # type: ignore[index]
        yield
        stand.line.target = port_of(successor)
        with Caller(stand.web.port) as caller:
            wait_for(lambda: {caller.mint().status for _ in range(CALLERS)} == {201})
        stand.store.replicaof("NO", "ONE")
        stand.line.target = there
    stand.line.cut()


@contextlib.contextmanager
def loading(stand: Stand) -> Iterator[None]:
    """It has just started, and reads what it kept."""
    there = stand.line.target
    folder = Path(os.fsdecode(stand.store.config_get("dir")["dir"]))  # type: ignore[index]
    # It looks up from its reading every two megabytes.
    stand.store.mset({f"ballast{number}": os.urandom(2**21) for number in range(20)})
    stand.store.save()
    with redis_server("--dir", str(folder), "--key-load-delay", "500000", ready=b"-LOADING") as url:
        stand.line.target = port_of(url)
        stand.line.cut()
        yield
        stand.line.target = there
    stand.line.cut()


Fault = Callable[[Stand], AbstractContextManager[None]]


def ask(stand: Stand, number: int) -> Answer:
    with Caller(stand.web.port) as caller:
        kinds: list[Callable[[], Answer]] = [
            caller.mint,
            lambda: caller.mint(secret="w" * 40),
            lambda: caller.open(TOKEN),
            lambda: caller.exchange(TOKEN),
        ]
        return kinds[number % len(kinds)]()


@pytest.mark.parametrize("fault", [refusing, silent, frozen, slow, full, locked_up, failing_over, loading])
def test_while_redis_does_not_serve_all_is_503_in_time_and_then_all_goes_on(
    stand: Stand, fault: Fault
) -> None:
    # A worker whom nobody has asked since the last fault may not know yet that it is over.
    wait_for(lambda: {answer.status for answer in at_once(CALLERS, lambda _: mint(stand.web))} == {201})
    workers = children_of(stand.web.process.pid)
    before = stand.installation.rows("SELECT id FROM tokens")
    with fault(stand):
        with within(BOUND):
            answers = at_once(CALLERS, lambda number: ask(stand, number))
        for number, answer in enumerate(answers):
            assert answer.status == 503, answer.text
            assert 1 <= int(answer.headers["Retry-After"]) <= 61
            assert number % 4 == 2 or answer.code == "unavailable"
            assert "edis" not in answer.text
        # Nothing was done.
        assert stand.installation.rows("SELECT id FROM tokens") == before
    wait_for(
        lambda: (
            Counter(answer.status for answer in at_once(CALLERS, lambda number: ask(stand, number)))
            == {201: CALLERS // 4, 401: 3 * CALLERS // 4}
        )
    )
    assert children_of(stand.web.process.pid) == workers
