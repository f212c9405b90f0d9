"""Limits are exact across four workers, at the edges of their windows, and across a restart."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import pytest

from tests.e2e.faults.installation import Installation, installed
from tests.support.http_calls import HttpConnection
from tests.support.people import make_secret
from tests.support.servers import WebServer, redis_server

pytestmark = [pytest.mark.slow, pytest.mark.redis]

WORKERS: Final = 4
MOST: Final = 5
WINDOW: Final = 2.0  # seconds
CALLERS: Final = 8
SECRET: Final = make_secret("s")
COUNTED: Final = [
    {"id": id_, "secret": SECRET, "workspaces": ["acme"], "mint_limit": limit}
    for id_, limit in (("hasty", f"{MOST} per {WINDOW:.0f} seconds"), ("steady", f"{MOST} per hour"))
]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    found = installed(folder, f"sqlite:///{folder / 'pat-service.db'}", {"clients": COUNTED})
    with redis_server() as url:
        yield found.with_(REDIS_URL=url)


@pytest.fixture(scope="module")
def server(installation: Installation) -> Iterator[WebServer]:
    with installation.serving(WORKERS) as server:
        yield server


@dataclass(frozen=True)
class Hit:
    """One request, which the service counted between `sent` and `answered`."""

    sent: float
    answered: float
    status: int
    retry_after: int


def hit(server: WebServer, client: str) -> Hit:
    # A new connection each time may reach another worker.
    with HttpConnection(server.port) as caller:
        sent = time.monotonic()
        answer = caller.mint(client, SECRET)
        return Hit(sent, time.monotonic(), answer.status, int(answer.headers["Retry-After"] or 0))


def test_any_two_seconds_allow_exactly_five_hits(server: WebServer) -> None:
    """Eight callers send without a pause for longer than two windows."""
    end = time.monotonic() + 2.5 * WINDOW

    def keep_minting(_: int) -> list[Hit]:
        found = []
        while time.monotonic() < end:
            found.append(hit(server, "hasty"))
        return found

    with ThreadPoolExecutor(CALLERS) as threads:
        hits = [one for found in threads.map(keep_minting, range(CALLERS)) for one in found]
    assert {one.status for one in hits} == {201, 429}
    passed = [one for one in hits if one.status == 201]
    refused = [one for one in hits if one.status == 429]
    assert len(passed) >= 2 * MOST
    for one in passed:
        # These hits are certainly in the window that begins with this hit.
        end = one.sent + WINDOW
        assert sum(one.sent <= other.sent and other.answered < end for other in passed) <= MOST
    for one in refused:
        begin = one.sent - WINDOW
        assert sum(begin <= other.answered and other.sent <= one.answered for other in passed) >= MOST, one
        assert 1 <= one.retry_after <= WINDOW + 1
    # A caller that waits for Retry-After passes.
    time.sleep(max(refused, key=lambda one: one.answered).retry_after)
    assert hit(server, "hasty").status == 201


def test_a_restart_forgets_no_hit(server: WebServer, installation: Installation) -> None:
    assert [hit(server, "steady").status for _ in range(3)] == [201] * 3
    with installation.serving(1) as another:
        assert [hit(another, "steady").status for _ in range(4)] == [201, 201, 429, 429]
    assert hit(server, "steady").status == 429
