"""Origins that may not frame an app: counted by day, bounded, and listed by tenant."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import delete, select, update

from pat_service.errors import Conflict
from pat_service.rules import embed_problems
from pat_service.rules.callers import OPERATOR
from pat_service.rules.embed_problems import DAY, MAX_UNVERIFIED, ProblemFilter
from pat_service.storage.models import App, RefusedOrigin
from tests.support.people import LEDGER, ORDERS, PORTAL, Service

NOW: Final = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
NEW: Final = "https://new.example"


@pytest.fixture
def service(each_service: Service) -> Service:
    each_service.change(delete(RefusedOrigin))
    return each_service


def count(
    service: Service, origin: str = NEW, at: datetime = NOW, app_id: str = ORDERS, *, verified: bool = True
) -> bool:
    with service.app.app_context():
        return embed_problems.count_origin(app_id, origin, at, verified=verified)


def read(service: Service, **chosen: Any) -> list[tuple[str, int, int]]:
    today = embed_problems.start_of_day(NOW)
    period = {"since": today - DAY, "until": today + DAY}
    with service.app.app_context():
        rows = embed_problems.list_origins(OPERATOR, ProblemFilter(**(period | chosen)))
    return [(row.origin, row.verified, row.unverified) for row in rows]


def test_attempts_of_two_days_are_summed_and_kept_apart_by_proof(service: Service) -> None:
    assert count(service)
    assert count(service, at=NOW - DAY)
    assert count(service, verified=False)
    assert service.count(RefusedOrigin) == 3
    assert read(service) == [(NEW, 2, 1)]
    assert read(service, since=embed_problems.start_of_day(NOW)) == [(NEW, 1, 1)]
    assert read(service, app_id=LEDGER) == read(service, cause="token_used") == []


def test_an_allowed_origin_is_neither_counted_nor_listed(service: Service) -> None:
    assert not count(service, PORTAL)
    assert count(service)
    service.change(update(App).where(App.id == ORDERS).values(allowed_origins=[PORTAL, NEW]))
    assert read(service) == []
    service.change(update(App).where(App.id == ORDERS).values(allowed_origins=["*"]))
    assert not count(service, "https://other.example")


def test_a_full_day_takes_known_origins_and_the_next_day_new_ones(service: Service) -> None:
    for number in range(MAX_UNVERIFIED):
        assert count(service, f"https://s{number}.example", verified=False)
    assert not count(service, verified=False)
    assert count(service, "https://s0.example", verified=False)
    assert count(service, at=NOW + timedelta(seconds=2), verified=False)


def test_an_unknown_app_has_no_origins(service: Service) -> None:
    assert not count(service, app_id="99999999-2222-4333-8444-555555555555")


def test_only_an_origin_with_proof_can_be_allowed(service: Service) -> None:
    count(service, verified=False)
    with service.app.app_context():
        with pytest.raises(Conflict):
            embed_problems.allow_origin(OPERATOR, ORDERS, NEW, NOW)
        embed_problems.count_origin(ORDERS, NEW, NOW, verified=True)
        with pytest.raises(Conflict):
            embed_problems.allow_origin(OPERATOR, ORDERS, NEW, NOW + 40 * DAY)
        embed_problems.allow_origin(OPERATOR, ORDERS, NEW, NOW)
    assert service.rows(select(App.allowed_origins).where(App.id == ORDERS))[0][0] == [PORTAL, NEW]


def test_a_purge_deletes_what_is_older_than_thirty_days(service: Service) -> None:
    count(service)
    count(service, at=NOW - 32 * DAY)
    with service.app.app_context():
        embed_problems.purge(NOW)
    assert service.count(RefusedOrigin) == 1
