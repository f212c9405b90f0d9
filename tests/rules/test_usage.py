"""Counts by hour: each hour once, from events, by tenant."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import delete, insert, select, update

from pat_service.rules import retention, usage
from pat_service.rules.callers import OPERATOR, Caller
from pat_service.rules.usage import UsageFilter
from pat_service.storage.models import App, Event, HourlyCount, Session
from tests.support.people import LEDGER, ORDERS, Service

HOUR: Final = timedelta(hours=1)
NOW: Final = datetime(2026, 11, 30, 12, 4, 59, tzinfo=UTC)
NOON: Final = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def service(each_service: Service) -> Service:
    each_service.change(delete(Event))
    each_service.change(delete(HourlyCount))
    return each_service


def record(service: Service, at: datetime, type_: str = "token:minted", **columns: Any) -> None:
    workspaces = {row.id: row.workspace_id for row in service.rows(select(App.id, App.workspace_id))}
    app_id = columns.pop("app_id", ORDERS)
    row = {"at": at, "type": type_, "app_id": app_id, "workspace_id": workspaces.get(app_id)} | columns
    service.change(insert(Event).values(**row))


def count(service: Service, now: datetime, most: int | None = None) -> int:
    with service.app.app_context():
        return usage.count_hours(now, most)


def read(service: Service, caller: Caller = OPERATOR, **ids: Any) -> usage.Usage:
    with service.app.app_context():
        return usage.read(caller, UsageFilter(NOON - usage.SHOWN, **ids))


def test_an_hour_is_counted_five_minutes_after_its_end(service: Service) -> None:
    record(service, NOON - timedelta(seconds=1))
    count(service, NOW)
    assert read(service).by_hour == {}
    count(service, NOW + timedelta(seconds=1))
    assert read(service).by_hour == {NOON - HOUR: {"token:minted": 1}}


def test_an_hour_is_counted_once(service: Service) -> None:
    record(service, NOON - 2 * HOUR)
    for _ in range(2):
        count(service, NOON)
        record(service, NOON - 2 * HOUR)
    assert read(service).total("token:minted") == 1


def test_a_refusal_counts_as_often_as_its_event_says(service: Service) -> None:
    refusal = {"type_": "session:open-refused", "code": "token_expired"}
    record(service, NOON - 2 * HOUR, **refusal, details={"times": 7})
    record(service, NOON - 2 * HOUR, **refusal)
    # Only refusals are summed up in one event.
    record(service, NOON - 2 * HOUR, "session:opened", details={"times": 9})
    count(service, NOON)
    counts = read(service)
    assert counts.by_cause == {("session:open-refused", "token_expired"): 8}
    assert counts.by_app == {ORDERS: {"session:open-refused": 8, "session:opened": 1}}


def test_other_events_are_not_counted(service: Service) -> None:
    record(service, NOON - 2 * HOUR, "app:changed")
    count(service, NOON)
    assert read(service).by_hour == {}


def test_the_newest_hours_come_first_and_the_rest_later(service: Service) -> None:
    for hours in range(2, 7):
        record(service, NOON - hours * HOUR)
    assert count(service, NOON, 3) == 2
    assert min(read(service).by_hour) == NOON - 4 * HOUR
    assert count(service, NOON, 3) == 0
    assert read(service).total("token:minted") == 5


def test_a_caller_reads_its_own_workspaces(service: Service) -> None:
    record(service, NOON - 2 * HOUR)
    record(service, NOON - 2 * HOUR, app_id=LEDGER)
    record(service, NOON - 2 * HOUR, "token:mint-refused", app_id=None, code="app_not_found")
    count(service, NOON)
    portal = Caller("portal", frozenset(), all_workspaces=False)
    assert read(service, portal).by_app == {ORDERS: {"token:minted": 1}}
    assert read(service, portal, app_id=LEDGER).by_app == {}
    assert set(read(service).by_app) == {ORDERS, LEDGER, ""}


def test_live_sessions_are_sampled_at_the_end_of_the_hour(service: Service) -> None:
    for _ in range(3):
        service.frame()
    opened = NOON - timedelta(minutes=30)
    service.change(update(Session).values(created_at=opened, expires_at=opened + 2 * HOUR))
    first = select(Session.id).order_by(Session.id).limit(1).scalar_subquery()
    service.change(update(Session).where(Session.id == first).values(ended_at=opened))
    record(service, opened)
    service.change(delete(Event).where(Event.at > NOON))
    count(service, NOON + timedelta(minutes=5))
    assert read(service).by_hour[NOON - HOUR] == {"token:minted": 1, usage.LIVE: 2}


def test_a_purge_counts_an_hour_before_it_deletes_from_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    monkeypatch.setattr(retention, "MIN_REST_SECONDS", 0)
    for minutes in range(5):
        record(service, NOON - 3 * HOUR + timedelta(minutes=minutes))
    record(service, NOON)
    with service.app.app_context():
        retention.purge(NOON + HOUR, timedelta(days=30), 2 * HOUR)
    count(service, NOON + HOUR)
    assert len(service.events("token:minted")) == 1
    assert read(service).by_hour[NOON - 3 * HOUR] == {"token:minted": 5}


def test_a_purge_deletes_old_counts(service: Service) -> None:
    record(service, NOON - 2 * HOUR)
    count(service, NOON)
    with service.app.app_context():
        usage.purge(NOON + usage.KEPT)
    assert service.rows(select(HourlyCount.hour)) == []


def test_a_trail_without_events_has_nothing_to_count(service: Service) -> None:
    assert count(service, NOON) == 0
