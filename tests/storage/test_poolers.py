"""The service behind PgBouncer with its defaults, and on databases with unusual settings."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text

from pat_service.cli import upgrade_schema
from pat_service.storage import database, readiness
from pat_service.storage.database import db
from tests.support.crowd import use_at_once
from tests.support.people import ORDERS, WORLD, Service, build_on, provision
from tests.support.servers import FaultyLine, free_port, fresh_database, pgbouncer, within

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

MODES = ["session", "transaction"]
#: What people add to PgBouncer's settings after it has refused `options`.
DROPPING = {"ignore_startup_parameters": "options"}


@contextmanager
def serving(url: str, folder: Path, **environ: str) -> Iterator[Service]:
    """A service with its schema and people, both made through this URL."""
    app = build_on(url, folder, **environ)
    with app.app_context():
        upgrade_schema()
        upgrade_schema()  # the first run's lock is free again
    provision(app, WORLD)
    yield Service(app.test_client())
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def fresh(postgres_server: str) -> Iterator[str]:
    with fresh_database(postgres_server) as url:
        yield url


def alter(url: str, setting: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{connection.info.dbname}" SET {setting}')


def driver_of(service: Service) -> Any:
    with service.app.app_context(), db.engine.connect() as connection:
        return connection.connection.dbapi_connection


def check(app: Flask) -> tuple[int, list[str]]:
    done = app.test_cli_runner().invoke(args=["check"])
    return done.exit_code, (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize("settings", [{}, DROPPING], ids=["options refused", "options dropped"])
@pytest.mark.parametrize("mode", MODES)
def test_a_service_behind_pgbouncer_migrates_and_serves(
    fresh: str, tmp_path: Path, mode: str, settings: dict[str, str]
) -> None:
    with pgbouncer(
        fresh, mode, default_pool_size="4" if mode == "transaction" else "20", **settings
    ) as pooled:
        with serving(pooled, tmp_path) as service:
            assert use_at_once(service) == {200}
            assert service.client.get("/readyz").status_code == 200
            frame = service.frame()
            assert (
                service.client.delete(f"/embed-apps/{ORDERS}/session", headers=frame.bearer).status_code
                == 204
            )
            assert service.get(frame, "session").json["code"] == "session_revoked"  # type: ignore[index]
            assert driver_of(service).prepare_threshold is None
            status, lines = check(service.app)
            assert (status, lines[0]) == (
                0,
                "PostgreSQL is behind a pooler; prepared statements are off. It drops statement_timeout, "
                "lock_timeout, idle_in_transaction_session_timeout: each writing transaction sets them",
            )
        with psycopg.connect(pooled, autocommit=True) as other:
            # No setting stays in a session that PgBouncer gives to others.
            shown = [
                other.execute(f"SHOW {name}").fetchone() for name in ("statement_timeout", "lock_timeout")
            ]
            assert shown == [("0",), ("0",)]


def test_an_upgrade_leaves_no_setting_in_a_session_of_the_pool(fresh: str, tmp_path: Path) -> None:
    with pgbouncer(fresh, "transaction", default_pool_size="4") as pooled, ExitStack() as stack:
        with build_on(pooled, tmp_path).app_context():
            upgrade_schema()
        # Each open transaction has a session of its own.
        others = [stack.enter_context(psycopg.connect(pooled)) for _ in range(4)]
        assert [other.execute("SHOW lock_timeout").fetchone() for other in others] == [("0",)] * 4


@pytest.mark.parametrize("mode", MODES)
def test_a_mint_behind_pgbouncer_gives_up_on_a_locked_row(
    fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", 300)
    with pgbouncer(fresh, mode) as pooled, serving(pooled, tmp_path) as service:
        token = service.token()
        with psycopg.connect(fresh) as other:
            other.execute("SELECT * FROM tokens FOR UPDATE")
            assert service.mint().status_code == 503
            assert service.mint(endSessions=True).status_code == 503
            # The server gave up, and not this side: the circuit breaker is closed.
            assert service.client.get("/readyz").status_code == 200
            other.rollback()
        assert service.open(token).status_code == 200
        assert service.mint().status_code == 201


@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.parametrize(
    "setting",
    [
        "datestyle = 'SQL, MDY'",
        "default_transaction_isolation = 'serializable'",
        "timezone = 'Asia/Kolkata'",
        "client_encoding = 'latin1'",
    ],
)
def test_other_defaults_of_the_database_do_no_harm(
    fresh: str, tmp_path: Path, mode: str | None, setting: str
) -> None:
    alter(fresh, setting)

    def run(url: str) -> None:
        with serving(url, tmp_path) as service:
            assert use_at_once(service) == {200}
            provision(service.app, {"users": [{"email": "lea@acme.test", "name": "Lea — 北"}]})

    if mode is None:
        run(fresh)
        return
    with pgbouncer(fresh, mode) as pooled:
        run(pooled)


def test_a_direct_connection_keeps_its_prepared_statements_and_round_trips(
    fresh: str, tmp_path: Path
) -> None:
    with serving(fresh, tmp_path) as service:
        driver = driver_of(service)
        assert (driver.prepare_threshold, driver.begin, driver.describe_pooler()) == (5, ("BEGIN",), None)
        assert driver.execute("SHOW statement_timeout").fetchone() == ("5s",)


@pytest.mark.parametrize(
    ("parameter", "threshold"),
    [("prepare_threshold=0", None), ("prepare_threshold=9", 9), ("pgbouncer=true", None)],
)
def test_the_url_overrides_prepared_statements(
    fresh: str, tmp_path: Path, parameter: str, threshold: int | None
) -> None:
    with serving(f"{fresh}?{parameter}", tmp_path) as service:
        assert driver_of(service).prepare_threshold == threshold
        assert use_at_once(service) == {200}


@pytest.mark.parametrize("by", ["url", "environment"])
def test_options_choose_the_schema_of_service_migrations_and_commands(
    fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    with psycopg.connect(fresh, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA own")
        if by == "environment":
            monkeypatch.setenv("PGOPTIONS", "-csearch_path=own")
        with serving(fresh + ("?options=-csearch_path%3Down" if by == "url" else ""), tmp_path) as service:
            service.token()
            assert check(service.app)[0] == 0
        monkeypatch.delenv("PGOPTIONS", raising=False)
        found = connection.execute(
            "SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_name = 'tokens'"
        )
        assert found.fetchall() == [("own",)]


@pytest.mark.parametrize("settings", [{}, DROPPING], ids=["refused", "dropped"])
def test_a_pooler_that_drops_options_of_the_url_is_refused_by_name(
    fresh: str, tmp_path: Path, settings: dict[str, str]
) -> None:
    with pgbouncer(fresh, "transaction", **settings) as pooled:
        app = build_on(f"{pooled}?options=-csearch_path%3Down", tmp_path)
        line = (
            "DATABASE_URL names a pooler that drops search_path; set it by ALTER ROLE … SET, and remove it "
            "from the URL"
        )
        assert check(app) == (1, [f"pat-service: {line}"])
        assert app.test_cli_runner().invoke(args=["client", "list"]).stderr == f"Error: {line}\n"
        assert app.test_cli_runner().invoke(args=["db", "upgrade"]).stderr == f"Error: {line}\n"
        assert Service(app.test_client()).mint().status_code == 503


@pytest.mark.parametrize(
    ("change", "text", "transient"),
    [
        (
            "?sslmode=no-verify",
            'DATABASE_URL has a parameter that libpq refuses: invalid sslmode value: "no-verify"',
            False,
        ),
        (
            "?connect_timeout=soon",
            "DATABASE_URL has a parameter that libpq refuses: bad value for connect_timeout: 'soon'",
            False,
        ),
        (
            "?sslmode=require",
            "DATABASE_URL names a server that refuses the service: server does not support SSL, but SSL was "
            "required",
            True,
        ),
        ("x", 'DATABASE_URL names a server that refuses the service: database "', True),
    ],
)
def test_the_reason_of_a_refused_connection_is_named(
    fresh: str, tmp_path: Path, change: str, text: str, transient: bool
) -> None:
    app = build_on(f"{fresh}{change}", tmp_path)
    (finding,) = readiness.list_findings(f"{fresh}{change}", None, {})
    assert finding.text.startswith(text)
    assert finding.transient is transient
    assert check(app) == (1, [f"pat-service: {finding.text}"])
    assert app.test_cli_runner().invoke(args=["client", "list"]).stderr == f"Error: {finding.text}\n"
    assert Service(app.test_client()).mint().status_code == 503


def test_a_silent_host_before_another_opens_the_circuit_breaker(fresh: str, tmp_path: Path) -> None:
    """Otherwise every request would wait for its time-out."""
    with FaultyLine(1) as line:
        line.silent = True
        url = f"postgresql://postgres@127.0.0.1:{line.port},127.0.0.1:{free_port()}/pat"
        service = Service(build_on(url, tmp_path).test_client())
        assert service.mint().status_code == 503
        with within(1):
            assert [service.mint().status_code for _ in range(3)] == [503] * 3


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_is_refused_in_one_line(
    postgres_server: str, tmp_path: Path, encoding: str
) -> None:
    name = f"other_{encoding.lower()}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
        try:
            app = build_on(
                postgres_server.replace("/postgres", f"/{name}").replace(f"//{name}", "//postgres"), tmp_path
            )
            line = (
                f"DATABASE_URL names a database in {encoding}, not UTF8; create one with "
                "`createdb --encoding UTF8 --template template0`"
            )
            assert check(app) == (1, [f"pat-service: {line}"])
            for command in (["db", "upgrade"], ["client", "list"]):
                done = app.test_cli_runner().invoke(args=command)
                assert (done.exit_code, done.stderr) == (1, f"Error: {line}\n")
            answer = app.test_client().get("/readyz")
            assert (answer.status_code, answer.json["checks"]["database"]) == (503, "unfit")  # type: ignore[index]
            with app.app_context():
                db.engine.dispose()
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_url_may_name_several_hosts(fresh: str, tmp_path: Path) -> None:
    before, _, name = fresh.rpartition("/")
    server = before.partition("@")[2]
    url = f"postgresql://postgres@127.0.0.1:{free_port()},{server}/{name}?target_session_attrs=read-write"
    with serving(url, tmp_path) as service:
        assert service.mint().status_code == 201
        with service.app.app_context(), db.engine.connect() as connection:
            assert connection.scalar(text("SELECT current_database()")) == name
