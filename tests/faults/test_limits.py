"""Limits are exact across four workers, at the edges of their windows, and across a restart."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import pytest

from tests.faults.installation import Installation, installed
from tests.outside import Caller
from tests.servers import WebServer, redis_server

pytestmark = [pytest.mark.slow, pytest.mark.redis]

WORKERS: Final = 4
MOST: Final = 5
WINDOW: Final = 2.0  # seconds
LIMIT: Final = "5 per 2 second"
CALLERS: Final = 8


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    found = installed(folder, f"sqlite:///{folder / 'pat-service.db'}")
    with redis_server() as url:
        yield found.with_(REDIS_URL=url)


@dataclass(frozen=True)
class Hit:
    """One request. The moment at which it was counted lies between these two."""

    sent: float
    answered: float
    status: int
    retry_after: int


def hit(caller: Caller, token: str) -> Hit:
    sent = time.monotonic()
    answer = caller.exchange(token)
    return Hit(sent, time.monotonic(), answer.status, int(answer.headers["Retry-After"] or 0))


def test_no_window_of_two_seconds_has_a_sixth_and_no_fifth_is_refused(installation: Installation) -> None:
    """Eight callers never rest, for longer than two windows, whatever worker they meet."""
    with installation.with_(OPEN_RATE_LIMIT=LIMIT).serving(WORKERS) as server:
        with Caller(server.port) as caller:
            token = caller.mint().json["personalAccessToken"]
        end = time.monotonic() + 2.5 * WINDOW

        def keep_opening(_: int) -> list[Hit]:
            found = []
            while time.monotonic() < end:
                # A new connection each time, so that each may meet another worker.
                with Caller(server.port) as caller:
                    found.append(hit(caller, token))
            return found

        with ThreadPoolExecutor(CALLERS) as threads:
            hits = [one for found in threads.map(keep_opening, range(CALLERS)) for one in found]
        assert {one.status for one in hits} == {201, 429}
        passed = [one for one in hits if one.status == 201]
        refused = [one for one in hits if one.status == 429]
        assert len(passed) >= 2 * MOST
        for one in passed:
            # Counted for certain in the window that begins with this one.
            end = one.sent + WINDOW
            assert sum(one.sent <= other.sent and other.answered < end for other in passed) <= MOST
        for one in refused:
            begin = one.sent - WINDOW
            possible = sum(begin <= other.answered and other.sent <= one.answered for other in passed)
            assert possible >= MOST, one
            assert 1 <= one.retry_after <= WINDOW + 1
        # Who waits as long as told passes.
        last = max(refused, key=lambda one: one.answered)
        time.sleep(last.retry_after)
        with Caller(server.port) as caller:
            assert hit(caller, token).status == 201


def test_a_restart_forgets_no_hit(installation: Installation) -> None:
    deployed = installation.with_(OPEN_RATE_LIMIT=f"{MOST} per hour")

    def open_(server: WebServer, token: str, times: int) -> list[int]:
        with Caller(server.port) as caller:
            return [caller.exchange(token).status for _ in range(times)]

    with deployed.serving(2) as server:
        with Caller(server.port) as caller:
            token = caller.mint().json["personalAccessToken"]
        assert open_(server, token, 3) == [201] * 3
    with deployed.serving(2) as server:
        assert open_(server, token, 4) == [201, 201, 429, 429]
