"""The service on PostgreSQL, and the faults that only a database server has."""

import contextlib
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import time_machine
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from werkzeug.test import TestResponse

from pat_service.cli import upgrade_schema
from pat_service.rules import openings as openings_rule
from pat_service.rules import tokens
from pat_service.rules.directory import reach
from pat_service.storage import database, prepared
from pat_service.storage.database import db
from pat_service.storage.models import Event, Session, Token, User
from tests.support.people import (
    ACCESS_LOSSES,
    MINT,
    ORDERS,
    SECRETS,
    SUPPORT,
    WORLD,
    Service,
    basic,
    build_on,
    changed,
    make_secret,
    problem_of,
    provision,
)
from tests.support.servers import fresh_database, wait_for

pytestmark = pytest.mark.postgres


@pytest.fixture
def app(postgres_app: Flask) -> Flask:
    return postgres_app


# The usual requests


def test_ana_mints_opens_reads_and_ends_a_session(service: Service) -> None:
    frame = service.frame()
    facts = service.get(frame, "session")
    assert facts.status_code == 200
    assert facts.json["user"]["email"] == "ana@acme.test"  # type: ignore[index]
    assert 3590 <= facts.json["expiresIn"] <= 3600  # type: ignore[index]
    assert service.get(frame, "pages/index").status_code == 200
    assert service.client.delete(f"/embed-apps/{ORDERS}/session", headers=frame.bearer).status_code == 204
    assert service.get(frame, "session").json["code"] == "session_revoked"  # type: ignore[index]
    assert [row.type for row in service.rows(select(Event.type).order_by(Event.id))][-4:] == [
        *("token:minted", "session:opened", "session:ended", "session:refused")
    ]


def test_emails_compare_as_on_sqlite(service: Service) -> None:
    provision(
        service.app,
        {"users": [{"email": "JOSÉ@acme.test", "workspaces": {"acme": "end-user"}}]}
        | changed("apps", "orders", users=["jose\u0301@ACME.test"]),
    )
    for spelling in ("josé@acme.test", "JOSE\u0301@Acme.Test"):
        assert service.mint(email=spelling).status_code == 201
    assert service.mint(email="jose@acme.test").status_code == 404


def test_provisioning_a_file_again_changes_nothing(app: Flask) -> None:
    def rows() -> dict[str, list[str]]:
        with app.app_context(), database.reading() as connection:
            return {
                table.name: sorted(repr(tuple(row)) for row in connection.execute(select(table)))
                for table in db.metadata.sorted_tables
                if table.name != "events"
            }

    before = rows()
    provision(app, WORLD)
    assert rows() == before


# Refusals


def test_times_are_stored_in_utc_whatever_the_servers_time_zone(service: Service, postgres_url: str) -> None:
    now = datetime(2026, 11, 22, 23, 59, 59, 123456, tzinfo=UTC)
    with time_machine.travel(now, tick=False):
        service.token(patExpiry=1)
    (token,) = service.rows(select(Token.created_at, Token.expires_at))
    assert (token.created_at, token.expires_at) == (now, now + timedelta(seconds=1))
    assert token.created_at.utcoffset() == timedelta(0)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SHOW timezone").fetchone() == ("Asia/Kolkata",)
        seen = connection.execute("SELECT created_at AT TIME ZONE 'UTC' FROM tokens").fetchone()
    assert seen == (now.replace(tzinfo=None),)


@pytest.mark.parametrize("loss", ACCESS_LOSSES.values(), ids=ACCESS_LOSSES.keys())
def test_lost_access_takes_effect_at_once_and_can_return(service: Service, loss: dict[str, Any]) -> None:
    frame, token = service.frame(), service.token()
    provision(service.app, loss)
    assert service.get(frame, "session").json["code"] == "access_revoked"  # type: ignore[index]
    assert service.refusal(token) == "access_revoked"
    provision(service.app, WORLD)
    assert service.get(frame, "session").status_code == 200
    assert service.open(token).status_code == 200


#: Texts that make the driver fail.
UNFIT = ["\0", "a\0b", "\ud800", "\udfff", "a\ud83d", "\udcff"]


@pytest.mark.parametrize("raw", [b"\x00", b"por\x00tal", b"\xed\xa0\x80", b"\xff", b"portal\x00"])
def test_credentials_that_no_database_stores_are_wrong_credentials(service: Service, raw: bytes) -> None:
    for pair in (raw + b":" + SECRETS["portal"].encode(), b"portal:" + raw):
        header = {"Authorization": "Basic " + b64encode(pair).decode()}
        answer = service.client.post(MINT, json={}, headers=header)
        assert (answer.status_code, answer.json["code"]) == (401, "invalid_client")  # type: ignore[index]


@pytest.mark.parametrize("unfit", ["%00", "%FF", "%ED%A0%80", "a%00b", ORDERS + "%00", ORDERS[:-3] + "%00"])
def test_addresses_that_no_database_stores_make_nothing_fail(service: Service, unfit: str) -> None:
    frame = service.frame()
    as_json = {"Accept": "application/json"}
    for path in (
        f"/embed-apps/{unfit}?personal-access-token={service.token()}",
        f"/embed-apps/{ORDERS}?personal-access-token={unfit}",
        f"/embed-apps/{unfit}/session",
        f"/embed-apps/{ORDERS}/pages/{unfit}",
        f"/embed-apps/{ORDERS}/data/{unfit}",
        f"/embed-apps/{ORDERS}/pages/index?page={unfit}&status={unfit}&q={unfit}",
    ):
        answer = service.client.get(path, headers=frame.bearer | as_json)
        assert answer.status_code < 500, (path, answer.text)
    assert service.get(frame, "session").status_code == 200


@pytest.mark.parametrize("unfit", UNFIT)
def test_forms_that_no_database_stores_make_nothing_fail(service: Service, unfit: str) -> None:
    frame = service.frame(SUPPORT)
    for body in (
        {"subject": f"A {unfit}", "topic": "delivery", "message": "Where is it?"},
        {"subject": "A box", "topic": unfit, "message": "Where is it?"},
        {"subject": "A box", "topic": "delivery", "message": f"Where {unfit} is it?"},
    ):
        encoded = "&".join(
            f"{name}={''.join(f'%{byte:02X}' for byte in value.encode('utf-8', 'surrogatepass'))}"
            for name, value in body.items()
        )
        answer = service.post(
            frame, "pages/create", data=encoded, content_type="application/x-www-form-urlencoded"
        )
        assert answer.status_code in (200, 400, 422), answer.text


# Concurrency


def at_once(threads: int, times: int, do: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(do, range(times)))


def test_concurrent_provisioning_leaves_one_result_or_an_error(app: Flask) -> None:
    document = {
        "workspaces": [{"slug": "new"}],
        "users": [{"email": "new@acme.test", "workspaces": {"new": "admin"}}],
        "clients": [{"id": "new", "secret": make_secret("new")}],
    }

    def run(_: int) -> str:
        try:
            provision(app, document)
        except DBAPIError as error:
            return type(error).__name__
        return "done"

    outcomes = Counter(at_once(6, 6, run))
    assert outcomes["done"] >= 1
    assert set(outcomes) <= {"done", "IntegrityError", "OperationalError"}
    service = Service(app.test_client())
    assert len(service.rows(select(User.id).where(User.email == "new@acme.test"))) == 1
    provision(app, document)


def test_a_deletion_and_an_opening_do_not_deadlock(
    service: Service, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ana's first token is minted and opened while she is being deleted."""
    lock, use, used = reach.lock_tokens, tokens.use_token, threading.Event()
    waits = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    openings: list[Future[TestResponse]] = []

    def lock_and_let_another_mint(*args: Any) -> reach.LockedTokens:
        locked = lock(*args)
        if not openings:
            token = service.token(singleUse=True)  # opened in several steps, between which there is a pause
            body = {"appId": ORDERS, "accessToken": token}
            other = service.app.test_client()
            openings.append(threads.submit(lambda: other.post("/api/ext/users/session", json=body)))
            assert used.wait(10)
        return locked

    def use_and_pause(*args: Any) -> bool:
        found = use(*args)
        if not used.is_set():
            used.set()
            with psycopg.connect(postgres_url, autocommit=True) as other:  # until Ana's row is locked
                wait_for(lambda: other.execute(waits).fetchone() == (1,))
        return found

    monkeypatch.setattr(reach, "lock_tokens", lock_and_let_another_mint)
    monkeypatch.setattr(openings_rule, "use_token", use_and_pause)
    service.app.config["MAX_SESSIONS_PER_TOKEN"] = 100  # so that an opening is more than one statement
    (ana,) = service.rows(select(User.id).where(User.email == "ana@acme.test"))
    with ThreadPoolExecutor(1) as threads:
        answer = service.client.delete(f"/api/ext/users/{ana.id}", headers=basic("manager"))
    assert answer.status_code == 204, answer.text
    assert openings[0].result().status_code in (201, 401)
    assert service.rows(select(Session.id)) == []


def test_a_migration_waits_for_another_one_longer_than_the_statement_timeout(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two releases may start at the same time."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", 300)
    with fresh_database(postgres_server) as empty:
        app = build_on(empty, tmp_path)
        with psycopg.connect(empty) as other, ThreadPoolExecutor(1) as threads:
            other.execute("SELECT pg_advisory_xact_lock(7226110)")

            def upgrade() -> None:
                with app.app_context():
                    upgrade_schema()

            upgraded = threads.submit(upgrade)
            time.sleep(1)
            assert not upgraded.done()
            other.rollback()
            upgraded.result()
        with app.app_context():
            db.engine.dispose()


# The server is unavailable


def unavailable(answer: TestResponse) -> None:
    assert (answer.status_code, answer.get_json()["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    for word in ("postgres", "psycopg", "SELECT", "127.0.0.1", "connection"):
        assert word not in answer.text


def test_requests_succeed_after_the_server_ended_all_connections(
    service: Service, postgres_server: str
) -> None:
    frame = service.frame()
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname <> current_database() AND datname IS NOT NULL"
        ).fetchall()
    assert ended
    assert service.get(frame, "session").status_code == 200
    assert service.mint().status_code == 201


def test_a_mint_gives_up_on_a_locked_row_and_changes_nothing(
    app: Flask, postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", 300)
    impatient = Service(build_on(postgres_url, tmp_path).test_client())
    token = impatient.token()
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT * FROM tokens FOR UPDATE")
        unavailable(impatient.mint())
        other.rollback()
    assert impatient.open(token).status_code == 200  # not replaced
    assert impatient.mint().status_code == 201
    with impatient.app.app_context():
        db.engine.dispose()


def test_without_a_free_connection_the_answer_is_503(
    app: Flask, postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", 300)
    small = Service(build_on(postgres_url, tmp_path, WEB_THREADS="1").test_client())
    with small.app.app_context():
        with contextlib.ExitStack() as connections:
            for _ in range(3):
                connections.enter_context(db.engine.connect())
            unavailable(small.mint())
        assert small.mint().status_code == 201
        db.engine.dispose()


def test_without_a_schema_the_answer_is_503_and_commands_say_what_to_do(
    postgres_server: str, tmp_path: Path
) -> None:
    with fresh_database(postgres_server) as empty:
        app = build_on(empty, tmp_path)
        unavailable(Service(app.test_client()).mint())
        done = app.test_cli_runner().invoke(args=["client", "list"])
        assert (done.exit_code, done.stdout) == (1, "")
        assert "db upgrade" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        with app.app_context():
            db.engine.dispose()


def test_connections_that_end_at_once_are_a_503(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool then raises an error that is not the driver's."""

    class Ended:
        def register(self, *_: object) -> None:
            pass

        def poll(self, _timeout: int) -> list[int]:
            return [1]

    with monkeypatch.context() as patched:
        patched.setattr("pat_service.storage.database.select.poll", Ended)
        problem_of(service.mint(), 503, "unavailable")
        problem_of(service.mint(endSessions=True), 503, "unavailable")
    assert service.mint().status_code == 201


def test_a_read_is_repeated_if_the_server_ends_the_connection(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = service.frame()
    ended: list[Any] = []

    def execute(connection: Any, compiled: Any, values: Any) -> Any:
        if not ended:
            ended.append(connection)
            connection.close()
            raise psycopg.errors.AdminShutdown("terminating connection due to administrator command")
        return directly(connection, compiled, values)

    directly = prepared.execute
    monkeypatch.setattr(prepared, "execute", execute)
    assert service.facts(frame)["user"]["email"] == "ana@acme.test"
    assert len(ended) == 1


def test_check_reads_the_emails_of_all_users(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pat_service.rules.directory.emails.READ_ROWS", 2)
    changed = update(User).where(User.email == "mallory@globex.test").values(email="mallory@globex.test ")
    Service(app.test_client()).change(changed)
    done = app.test_cli_runner().invoke(args=["check"])
    assert done.exit_code == 0, done.output
    assert "has the email mallory@globex.test , which no request can name" in done.stdout
