"""Retention: purges delete and record long expired rows, and nothing that is still needed."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread
from types import SimpleNamespace
from typing import Any, Final

import pytest
from flask import Flask
from sqlalchemy import delete, func, insert, select, text, update

from pat_service.rules import clients, events, retention
from pat_service.storage.database import transaction
from pat_service.storage.models import (
    ClientSecret,
    Event,
    Session,
    Token,
    User,
    Workspace,
    WorkspaceStatus,
    new_id,
)
from tests.support.people import ORDERS, SUPPORT, WORLD, Service, provision

NOW: Final = datetime.now(UTC)
DAY: Final = timedelta(days=1)
MONTH: Final = 30 * DAY


def purge(
    service: Service, retain: timedelta = MONTH, retain_events: timedelta | None = None
) -> retention.Purged:
    with service.app.app_context():
        return retention.purge(NOW, retain, retain_events)


def age(service: Service, days: float, table: Any = None) -> datetime:
    """Set every row's expiry to this many days ago, and return that moment."""
    then = NOW - timedelta(days=days)
    for one in (Token, Session) if table is None else (table,):
        service.change(update(one).values(expires_at=then))
    return then


def many_sessions(service: Service, number: int) -> None:
    """Copy the only session until there are this many."""
    one = service.rows(select(Session.__table__))[0]._asdict()
    with service.app.app_context(), transaction() as connection:
        connection.execute(insert(Session), [one | {"id": new_id()} for _ in range(number - 1)])


def test_long_expired_rows_are_deleted_and_recorded_once(service: Service) -> None:
    service.frame()
    expired = age(service, 31)
    (session,) = service.rows(select(Session.__table__))
    (token,) = service.rows(select(Token.__table__))
    assert purge(service) == retention.Purged(tokens=1, sessions=1, events=0)
    assert (service.count(Token), service.count(Session)) == (0, 0)
    (ended,) = service.events("session:expired")
    (dead,) = service.events("token:expired")
    for event in (ended, dead):
        assert (event.at, event.code, event.details, event.request_id) == (expired, None, None, None)
        assert (event.client_id, event.app_id, event.token_id) == ("portal", ORDERS, token.id)
        assert (event.user_id, event.workspace_id) == (token.user_id, token.workspace_id)
    assert (ended.session_id, dead.session_id) == (session.id, None)
    assert purge(service) == retention.Purged(0, 0, 0)
    assert len(service.events("session:expired") + service.events("token:expired")) == 2


def test_recently_expired_rows_stay(service: Service) -> None:
    frame = service.frame()
    assert purge(service) == retention.Purged(0, 0, 0)
    assert service.get(frame, "session").status_code == 200
    age(service, 30)
    assert purge(service) == retention.Purged(0, 0, 0), "exactly at the limit"
    age(service, 30 + 1e-9)
    assert purge(service) == retention.Purged(1, 1, 0)


def test_a_token_stays_while_a_frame_of_its_user_and_app_is_open(service: Service) -> None:
    """Revoking the token by its id must still end that frame."""
    service.frame()
    age(service, 31, Token)
    assert purge(service) == retention.Purged(tokens=0, sessions=0, events=0)
    age(service, 31, Session)
    assert purge(service) == retention.Purged(tokens=1, sessions=1, events=0)


@pytest.mark.parametrize(("ended_days_later", "expired"), [(-1, 0), (0, 2), (1, 2)])
def test_a_row_that_was_ended_before_its_expiry_did_not_expire(
    service: Service, ended_days_later: int, expired: int
) -> None:
    service.frame()
    ended_at = age(service, 31) + ended_days_later * DAY
    service.change(update(Session).values(ended_at=ended_at))
    service.change(update(Token).values(revoked_at=ended_at))
    assert purge(service) == retention.Purged(1, 1, 0)
    assert len(service.events("session:expired") + service.events("token:expired")) == expired


def test_the_pause_lasts_longer_than_the_batch(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    clock = itertools.count()
    monkeypatch.setattr(
        "pat_service.rules.retention.time", SimpleNamespace(sleep=pauses.append, monotonic=clock.__next__)
    )
    monkeypatch.setattr(retention, "BATCH_ROWS", 10)
    service.frame()
    many_sessions(service, 15)
    age(service, 31, Session)
    assert purge(service).sessions == 15
    assert pauses == [retention.REST_FACTOR * 1]


def test_many_rows_are_deleted_in_batches_with_pauses(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("pat_service.rules.retention.time.sleep", pauses.append)
    monkeypatch.setattr(retention, "BATCH_ROWS", 10)
    service.frame()
    many_sessions(service, 25)
    age(service, 31, Session)
    with service.statements() as statements:
        assert purge(service).sessions == 25
    assert len([s for s in statements if s.startswith("DELETE FROM sessions")]) == 3
    assert len(pauses) == 2
    assert min(pauses) >= retention.MIN_REST_SECONDS
    recorded = [event.session_id for event in service.events("session:expired")]
    assert len(recorded) == len(set(recorded)) == 25


def test_an_interrupted_purge_records_each_expiry_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 10)
    service.frame()
    many_sessions(service, 25)
    age(service, 31, Session)
    record, runs = events.record_many, iter([True, False])

    def dies(connection: Any, rows: Any) -> None:
        record(connection, rows)
        if not next(runs):
            raise KeyboardInterrupt

    monkeypatch.setattr(events, "record_many", dies)
    with pytest.raises(KeyboardInterrupt):
        purge(service)
    assert (service.count(Session), len(service.events("session:expired"))) == (15, 10)
    monkeypatch.undo()
    assert purge(service).sessions == 15
    recorded = [event.session_id for event in service.events("session:expired")]
    assert len(recorded) == len(set(recorded)) == 25


def test_two_concurrent_purges_record_each_expiry_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 5)
    monkeypatch.setattr(retention, "MIN_REST_SECONDS", 0)
    service.frame()
    many_sessions(service, 60)
    age(service, 31, Session)
    both = [Thread(target=purge, args=(service,)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    recorded = [event.session_id for event in service.events("session:expired")]
    assert len(recorded) == len(set(recorded)) == 60
    assert service.count(Session) == 0


def test_a_purge_leaves_a_token_that_a_mint_replaced(service: Service) -> None:
    service.token()
    age(service, 31)
    token = service.token()
    assert purge(service).tokens == 0
    assert service.open(token).status_code == 200


def test_ana_gets_a_new_token_after_a_purge(service: Service) -> None:
    service.token()
    age(service, 31)
    purge(service)
    assert service.open(service.token()).status_code == 200


def test_retired_secrets_stay_so_that_they_stay_invalid(service: Service) -> None:
    with service.app.app_context():
        clients.rotate(service.app.extensions["pat_service.keyring"], "portal", NOW - 400 * DAY)
    before = service.count(ClientSecret)
    purge(service)
    assert service.count(ClientSecret) == before


# Events.


def test_events_stay_unless_a_retention_is_set(service: Service) -> None:
    service.change(update(Event).values(at=NOW - 3000 * DAY))
    before = service.count(Event)
    purge(service)
    assert service.count(Event) == before


def test_events_are_deleted_after_their_own_retention(service: Service) -> None:
    service.frame()
    old = service.rows(select(Event.id))
    service.change(update(Event).values(at=NOW - 91 * DAY))
    service.token()
    assert purge(service, retain_events=90 * DAY).events == len(old)
    assert [row.type for row in service.rows(select(Event.type))] == ["token:minted", "trail:purged"]


def test_a_purge_keeps_the_events_that_it_records(service: Service) -> None:
    service.frame()
    age(service, 400)
    purge(service, retain_events=90 * DAY)
    assert len(service.events("session:expired") + service.events("token:expired")) == 2


def test_a_replaced_session_is_not_recorded_as_expired(service: Service) -> None:
    service.frame()
    service.change(update(Session).values(replaced_by=new_id()))
    age(service, 31)
    assert purge(service).sessions == 1
    assert service.events("session:expired") == []


def test_the_last_event_stays_so_that_no_id_is_used_twice(service: Service) -> None:
    service.change(update(Event).values(at=NOW - 91 * DAY))
    last = service.rows(select(func.max(Event.id)))[0][0]
    purge(service, retain_events=90 * DAY)
    service.change(delete(Event).where(Event.type == "trail:purged"))
    assert [row.id for row in service.rows(select(Event.id))] == [last]
    service.token()
    assert service.rows(select(func.max(Event.id)))[0][0] == last + 1


def test_a_purge_records_its_numbers_and_cutoff_times_if_it_deleted_something(service: Service) -> None:
    purge(service, retain_events=90 * DAY)
    assert service.events("trail:purged") == []
    service.frame()
    age(service, 31)
    purge(service)
    (first,) = service.events("trail:purged")
    expired_before = (NOW - MONTH).isoformat()
    assert (first.at, first.workspace_id, first.client_id) == (NOW, None, None)
    assert first.details == {"tokens": 1, "sessions": 1, "events": 0, "expired_before": expired_before}
    service.change(update(Event).values(at=NOW - 91 * DAY))
    number = service.count(Event) - 1
    purge(service, retain_events=90 * DAY)
    assert service.events("trail:purged")[-1].details == {
        "tokens": 0,
        "sessions": 0,
        "events": number,
        "expired_before": expired_before,
        "events_before": (NOW - 90 * DAY).isoformat(),
    }


def test_purged_events_leave_the_workspaces_that_have_known_a_user(service: Service) -> None:
    """Events without a user, or of a deleted user or workspace, leave nothing."""
    (ana,) = service.rows(select(User.id).where(User.email == "ana@acme.test"))
    (globex,) = service.rows(select(Workspace.id).where(Workspace.slug == "globex"))
    service.change(delete(Event))
    old = {"at": NOW - 91 * DAY, "type": "member:removed"}
    for user_id, workspace_id in (
        (ana.id, globex.id),
        (ana.id, globex.id),
        (ana.id, new_id()),
        (new_id(), globex.id),
        (None, globex.id),
        (ana.id, None),
    ):
        service.change(insert(Event).values(**old, user_id=user_id, workspace_id=workspace_id))
    service.token()
    assert purge(service, retain_events=90 * DAY).events == 6
    columns = (WorkspaceStatus.workspace_id, WorkspaceStatus.user_id, WorkspaceStatus.status)
    assert [tuple(row) for row in service.rows(select(*columns))] == [(globex.id, ana.id, "active")]


def test_many_events_are_deleted_in_batches(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 4)
    monkeypatch.setattr(retention, "MIN_REST_SECONDS", 0)
    for _ in range(9):
        service.token()
    service.change(update(Event).values(at=NOW - 91 * DAY))
    number = service.count(Event)
    assert purge(service, retain_events=90 * DAY).events == number - 1


# The command.


def test_the_command_reads_the_days_from_the_environment(make_app: Callable[..., Flask]) -> None:
    app = make_app(RETAIN_DAYS="7", RETAIN_EVENT_DAYS="20")
    provision(app, WORLD)
    service = Service(app.test_client())
    service.frame(SUPPORT)
    then = datetime.now(UTC)
    service.change(update(Token).values(expires_at=then - 6 * DAY))
    service.change(update(Session).values(expires_at=then - 8 * DAY))
    first = service.rows(select(func.min(Event.id)))[0][0]
    service.change(update(Event).where(Event.id == first).values(at=then - 21 * DAY))
    done = app.test_cli_runner().invoke(args=["purge"])
    assert (done.exit_code, done.output) == (0, "Deleted 0 token(s), 1 session(s), 1 event(s).\n")
    again = app.test_cli_runner().invoke(args=["purge"])
    assert again.output == "Deleted 0 token(s), 0 session(s), 0 event(s).\n"


def test_the_command_reports_a_missing_schema_in_one_line(service: Service) -> None:
    service.change(text("DROP TABLE sessions"))
    for command in ("purge", "check"):
        done = service.app.test_cli_runner().invoke(args=[command])
        assert done.exit_code == 1
        assert "db upgrade" in done.output
        assert len(done.output.splitlines()) == 1
