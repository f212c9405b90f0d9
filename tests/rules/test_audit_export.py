"""Following the audit trail: by command, and on PostgreSQL, where ids become visible out of order."""

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import func, insert, select, text, update

from pat_service.errors import InvalidClient, Unavailable
from pat_service.rules import audit_export, clients, retention
from pat_service.rules.callers import Caller
from pat_service.storage.database import transaction
from pat_service.storage.models import Event, Session, Token, new_id
from tests.support.people import (
    KEY,
    ORDERS,
    PUBLIC_URL,
    Service,
    basic,
    changed,
    long_lived_service,
    problem_of,
    provision,
)
from tests.support.servers import gunicorn, wait_for

EVENTS: Final = "/api/ext/events"
EXPORT: Final = "/api/ext/events/export"
INSERT: Final = "INSERT INTO events (type, at) VALUES ('app:held', now()) RETURNING id"


def command(service: Service, *args: str) -> Result:
    return service.app.test_cli_runner().invoke(args=["events", *args])


def lines(service: Service, *args: str) -> list[dict[str, Any]]:
    done = command(service, *args)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


# On the command line.


def test_the_command_prints_what_the_export_shows(service: Service) -> None:
    provision(service.app, changed("clients", "everywhere", scopes=["audit"]))
    service.frame()
    exported = service.client.get(EXPORT, headers=basic("everywhere")).text
    assert command(service).stdout == exported
    assert lines(service)[-1]["type"] == "session:opened"


def test_the_command_takes_filters(service: Service) -> None:
    service.frame()
    service.frame(email="ben@acme.test")
    minted = lines(service, "--type", "token:minted")
    assert {line["type"] for line in minted} == {"token:minted"}
    assert len(minted) == 2
    anas = lines(service, "--user", "ANA@acme.test", "--app", "orders", "--type", "session:opened")
    assert [(line["userId"], line["appId"]) for line in anas] == [(minted[0]["userId"], ORDERS)]
    assert lines(service, "--app", "ledger", "--type", "session:opened") == []
    assert lines(service, "--after", minted[-1]["id"])[0]["type"] == "session:opened"
    assert lines(service, "--since", "2999-01-01T00:00:00Z") == []
    assert lines(service, "--since", "2020-01-01T00:00:00+02:00") == lines(service)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--user", "nobody@acme.test"], "nobody@acme.test"),
        (["--user", "p\udcffrtal@x"], "no user"),
        (["--app", "nothing"], "nothing"),
        (["--app", "\0"], "no app"),
        (["--since", "yesterday"], "2026-11-22T10:15:00Z"),
        (["--since", "2026-11-22"], "2026-11-22T10:15:00Z"),
        (["--after", "-1"], "--after"),
        (["--after", "x"], "--after"),
    ],
)
def test_the_command_names_the_wrong_option(service: Service, args: list[str], word: str) -> None:
    done = command(service, *args)
    assert done.exit_code in (1, 2)
    assert done.stdout == ""
    assert word in done.stderr


def test_the_command_follows_until_it_is_interrupted(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = lines(service)[-1]["id"]
    export = audit_export.export
    naps: list[float] = []

    def busy(*args: Any) -> Any:
        if len(naps) == 3:
            raise Unavailable
        return export(*args)

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 5:
            raise KeyboardInterrupt
        if len(naps) in (2, 3):
            service.token()

    monkeypatch.setattr("pat_service.cli.audit.time.sleep", sleep)
    monkeypatch.setattr(audit_export, "export", busy)
    followed = lines(service, "--after", last, "--follow")
    assert [line["type"] for line in followed] == ["token:minted"] * 2
    assert naps == [1] * 5


# Under gunicorn.


@pytest.mark.slow
def test_a_worker_survives_lost_followers_and_broken_streams(schema: Path, tmp_path: Path) -> None:
    with long_lived_service(schema, tmp_path) as service:
        provision(service.app, changed("clients", "everywhere", scopes=["audit"]))
        row = {"type": "app:thing", "at": datetime.now(UTC), "details": {"long": "x" * 500}}
        with service.app.app_context(), transaction() as connection:
            connection.execute(insert(Event), [row] * 20_000)
        number = len(all_ids(service))
        database = f"sqlite:///{tmp_path / 'pat-service.db'}"
        environ = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "DATABASE_URL": database}
        with gunicorn(environ, workers=1, threads=2) as server:

            @contextmanager
            def following() -> Iterator[http.client.HTTPResponse]:
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
                with closing(connection):
                    connection.request("GET", EXPORT, headers=basic("everywhere"))
                    with connection.getresponse() as answer:
                        yield answer

            for _ in range(6):  # more followers than threads
                with following() as answer:
                    assert answer.read(1000).startswith(b'{"id"')
            with following() as answer:
                answer.read(1000)
                service.change(text("ALTER TABLE events RENAME TO elsewhere"))
                with pytest.raises(http.client.IncompleteRead):
                    answer.read()
            service.change(text("ALTER TABLE elsewhere RENAME TO events"))
            for _ in range(3):
                with following() as answer:
                    assert len(answer.read().splitlines()) == number


# On PostgreSQL.


@pytest.fixture
def large(postgres_app: Flask) -> Service:
    """The service on PostgreSQL, with an auditor of everything."""
    provision(postgres_app, changed("clients", "everywhere", scopes=["mint", "audit"]))
    return Service(postgres_app.test_client())


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def export(service: Service, cursor: str = "0") -> list[str]:
    """Return the ids that the export shows."""
    answer = Service(service.app.test_client()).client.get(
        EXPORT, query_string={"cursor": cursor}, headers=basic("everywhere")
    )
    assert answer.status_code == 200, answer.text
    return [json.loads(line)["id"] for line in answer.text.splitlines()]


def waits(answer: Future[Any], url: str) -> bool:
    """Return whether the export waits for writers."""
    looked = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'active'"
        " AND query LIKE 'SELECT virtualtransaction%%' AND query_start > %s"
    )
    with psycopg.connect(url, autocommit=True) as other:
        now = other.execute("SELECT clock_timestamp()").fetchone()
        wait_for(lambda: answer.done() or other.execute(looked, now).fetchone() == (1,))
    return not answer.done()


def all_ids(service: Service) -> list[str]:
    return [str(row.id) for row in service.rows(select(Event.id).order_by(Event.id))]


@pytest.mark.postgres
@pytest.mark.parametrize("older", ["the one that is held", "the one that commits"])
@pytest.mark.parametrize("commits", [True, False])
def test_an_export_misses_no_event_that_is_being_written(
    large: Service, postgres_url: str, pool: ThreadPoolExecutor, older: str, commits: bool
) -> None:
    """A follower relies on the order of ids, not on the order in which transactions began."""
    begin = "SELECT pg_current_xact_id()"
    with psycopg.connect(postgres_url) as held, psycopg.connect(postgres_url) as committed:
        for connection in (held, committed) if older == "the one that is held" else (committed, held):
            connection.execute(begin)
        (lower,) = held.execute(INSERT).fetchone() or ()
        (higher,) = committed.execute(INSERT).fetchone() or ()
        assert lower < higher
        committed.commit()
        answer = pool.submit(export, large)
        assert waits(answer, postgres_url)
        held.commit() if commits else held.rollback()
        shown = answer.result(10)
    assert shown == all_ids(large)
    assert (str(lower) in shown) is commits


@pytest.mark.postgres
def test_an_export_waits_only_for_earlier_writers(
    large: Service, postgres_url: str, pool: ThreadPoolExecutor
) -> None:
    with psycopg.connect(postgres_url) as first, psycopg.connect(postgres_url) as second:
        (early,) = first.execute(INSERT).fetchone() or ()
        answer = pool.submit(export, large)
        assert waits(answer, postgres_url)
        (late,) = second.execute(INSERT).fetchone() or ()
        first.commit()
        shown = answer.result(10)
        assert str(late) not in shown
        second.commit()
    assert export(large, shown[-1]) == [str(early), str(late)]


@pytest.mark.postgres
def test_an_export_that_waits_too_long_is_unavailable(
    large: Service, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_export, "WRITERS_TIMEOUT_MS", 100)
    with psycopg.connect(postgres_url) as held:
        held.execute(INSERT)
        answer = large.client.get(EXPORT, headers=basic("everywhere"))
        problem_of(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert large.client.get(EVENTS, headers=basic("everywhere")).status_code == 200
        assert large.mint().status_code == 201, "a mint does not wait for an export"
    assert export(large) == all_ids(large)


@pytest.mark.postgres
def test_an_export_does_not_wait_for_readers_or_other_tables(large: Service, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT count(*) FROM events")
        other.execute("UPDATE workspaces SET name = name")
        assert export(large) == all_ids(large)
        other.rollback()


@pytest.mark.postgres
def test_a_follower_misses_nothing_of_many_writers(large: Service, pool: ThreadPoolExecutor) -> None:
    def write(number: int) -> None:
        mine = Service(large.app.test_client())
        for _ in range(15):
            if number % 2:
                mine.mint(email="ben@acme.test", appSlug="support")
            assert mine.mint(email="ben@acme.test").status_code == 201

    writers = [pool.submit(write, number) for number in range(6)]
    got = export(large)
    while not all(writer.done() for writer in writers):
        got += export(large, got[-1])
    for writer in writers:
        writer.result()
    got += export(large, got[-1])
    assert got == all_ids(large)
    assert len(got) > 90


@pytest.mark.postgres
def test_a_purge_skips_a_token_that_a_mint_locks(large: Service, postgres_url: str) -> None:
    large.token()
    large.token(email="ben@acme.test")
    now = datetime.now(UTC)
    large.change(update(Token).values(expires_at=now - timedelta(days=31)))
    with psycopg.connect(postgres_url) as mint:
        (anas,) = mint.execute("SELECT id FROM tokens ORDER BY id LIMIT 1 FOR UPDATE").fetchone() or ()
        with large.app.app_context():
            assert retention.purge(now, timedelta(days=30)).tokens == 1
        fresh = (new_id(), now + timedelta(days=1), anas)
        mint.execute("UPDATE tokens SET id = %s, expires_at = %s WHERE id = %s", fresh)
        mint.commit()
    with large.app.app_context():
        assert retention.purge(now, timedelta(days=30)).tokens == 0
    assert [row.id for row in large.rows(select(Token.id))] == [fresh[0]]
    assert len(large.rows(select(Event.id).where(Event.type == "token:expired"))) == 1


@pytest.mark.postgres
def test_concurrent_purges_record_each_expiry_once(
    large: Service, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 20)
    monkeypatch.setattr(retention, "MIN_REST_SECONDS", 0)
    large.frame()
    now = datetime.now(UTC)
    one = large.rows(select(Session.__table__))[0]._asdict() | {"expires_at": now - timedelta(days=31)}
    with large.app.app_context(), transaction() as connection:
        connection.execute(insert(Session), [one | {"id": new_id()} for _ in range(400)])

    def purge(_: int) -> int:
        with large.app.app_context():
            return retention.purge(now, timedelta(days=30), timedelta(days=90)).sessions

    assert sum(pool.map(purge, range(4))) == 400
    recorded = large.rows(select(Event.session_id).where(Event.type == "session:expired"))
    assert len(recorded) == len(set(recorded)) == 400
    assert large.rows(select(func.count()).select_from(Session)) == [(1,)]


@pytest.mark.parametrize("type_", ["minted", "\udcff", "token:\x1b[31m", ""])
def test_the_command_refuses_an_unknown_type(service: Service, type_: str) -> None:
    done = service.app.test_cli_runner().invoke(args=["events", "--type", type_])
    assert done.exit_code == 2
    assert "such as token:minted" in done.output


def test_a_stream_ends_once_its_client_is_revoked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_export, "BATCH_ROWS", 2)
    for _ in range(3):
        service.mint()
    with service.app.app_context():
        auditor = Caller("auditor", frozenset({"audit"}), all_workspaces=True)
        batches = audit_export.export(auditor, audit_export.EventFilter(), 0)
        assert len(next(batches)) == 2
        clients.revoke("auditor", datetime.now(UTC))
        with pytest.raises(InvalidClient):
            next(batches)
