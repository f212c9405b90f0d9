"""Fixtures that share one app between tests, since building an app takes longer than most tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from shutil import copy

import psycopg
import pytest
import time_machine
from flask import Flask
from sqlalchemy import text

from pat_service.cli import upgrade_schema
from pat_service.storage.database import db, transaction
from tests.support.people import (
    WORLD,
    Service,
    build_on,
    changed,
    long_lived_service,
    provision,
    restore_database,
)
from tests.support.servers import fresh_database


@pytest.fixture(scope="session")
def app_and_snapshot(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flask, Path]]:
    """An app with the people of `tests.support.people`, and a copy of its initial database."""
    folder = tmp_path_factory.mktemp("shared")
    with long_lived_service(schema, folder) as service:
        with service.app.app_context():
            db.engine.dispose()
        yield service.app, Path(copy(folder / "pat-service.db", folder / "as-it-was"))


@pytest.fixture(name="app")
def shared_app(app_and_snapshot: tuple[Flask, Path]) -> Flask:
    """The shared app on a restored database. A test that changes the app itself uses `make_app`."""
    app, as_it_was = app_and_snapshot
    restore_database(app, as_it_was)
    _clear_counters(app)
    return app


def _clear_counters(app: Flask) -> None:
    counters = app.extensions["pat_service.limiter"].storage
    counters._hits.clear()
    counters._ends.clear()


@pytest.fixture(scope="session")
def shared(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for tests that change nothing other tests depend on."""
    with long_lived_service(schema, tmp_path_factory.mktemp("shared")) as service:
        provision(service.app, changed("clients", "portal", mint_limit="1000000 per minute"))
        yield service


@pytest.fixture(scope="session")
def limited(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the default limits. Its counters are empty only for tests that use `clock`."""
    contracts = {"OPEN_RATE_LIMIT": "", "FAILURE_RATE_LIMIT": ""}
    with long_lived_service(schema, tmp_path_factory.mktemp("limited"), **contracts) as service:
        provision(service.app, changed("clients", "portal", mint_limit=None))
        yield service


@pytest.fixture(scope="session")
def postgres_schema(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database with the schema of the migrations, for `fresh_database`."""
    with fresh_database(postgres_server) as url:
        app = build_on(url, tmp_path_factory.mktemp("schema"))
        with app.app_context():
            upgrade_schema()
            db.engine.dispose()
        yield url.rpartition("/")[2]


@pytest.fixture(scope="module")
def postgres_url(postgres_server: str, postgres_schema: str) -> Iterator[str]:
    """A database with the schema, in another time zone than UTC."""
    with fresh_database(postgres_server, postgres_schema) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(f"ALTER DATABASE {name} SET timezone TO 'Asia/Kolkata'")
        yield url


@pytest.fixture(scope="module")
def shared_postgres_app(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = build_on(postgres_url, tmp_path_factory.mktemp("instance"), WEB_THREADS="20")
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def postgres_app(shared_postgres_app: Flask) -> Flask:
    """The service on PostgreSQL, with its people and without a token."""
    with shared_postgres_app.app_context(), transaction() as connection:
        connection.execute(text("TRUNCATE workspaces, users, apps, clients, events, released_slugs CASCADE"))
    provision(shared_postgres_app, WORLD)
    _clear_counters(shared_postgres_app)
    return shared_postgres_app


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgres, pytest.mark.slow])])
def each_service(request: pytest.FixtureRequest) -> Service:
    """The service on each database, with its people and without a token."""
    app: Flask = request.getfixturevalue("app" if request.param == "sqlite" else "postgres_app")
    return Service(app.test_client())


MakeService = Callable[..., Service]


@pytest.fixture(scope="module")
def make_shared(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeService]:
    """Build services with the people of `tests.support.people` from environment variables."""
    with ExitStack() as stack:
        yield lambda **environ: stack.enter_context(
            long_lived_service(schema, tmp_path_factory.mktemp("shared"), **environ)
        )


#: Each test with limits starts after every window of the tests before has passed.
_times = (datetime(2026, 11, 2, 12, tzinfo=UTC) + timedelta(days=3 * number) for number in count())


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that the test moves."""
    with time_machine.travel(next(_times), tick=False) as clock:
        yield clock
