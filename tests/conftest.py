"""Fixtures for every test. Tests share one app; each starts with a fresh copy of its database."""

import gc
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from hypothesis import HealthCheck, settings

from app import create_app
from config import Config
from pat_service.cli import upgrade_schema
from pat_service.embed import ancestors
from pat_service.observability.lines import LINES
from pat_service.rules import callers, events
from pat_service.storage.database import db
from tests.support.directory import directory, tenants  # noqa: F401 - fixtures
from tests.support.fast_apps import compile_addresses_later
from tests.support.people import KEY, PUBLIC_URL, Service, prepare_for_tests
from tests.support.servers import NO_USER_LIMIT, TooSlow, postgres
from tests.support.shared_fixtures import (  # noqa: F401 - fixtures
    app_and_snapshot,
    clock,
    each_service,
    limited,
    make_shared,
    postgres_app,
    postgres_schema,
    postgres_url,
    shared,
    shared_app,
    shared_postgres_app,
)

# Set no deadline: a slow machine must not fail a test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
compile_addresses_later()


def pytest_collection_finish() -> None:
    """Let the garbage collector skip the 6,000 tests and their modules, which stay until the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rerun a slow test once, and only after a timeout: a wrong result fails at once."""
    too_slow = [TooSlow, TimeoutError, subprocess.TimeoutExpired, "Failed: Timeout"]
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("flaky"):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=too_slow))


@pytest.fixture(autouse=True)
def _clear_worker_memory() -> None:
    """Clear the state that a worker keeps between requests."""
    ancestors._known.clear()
    events._refusals.clear()
    for module in (events, callers):
        module._breaker.reset()


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of an SQLite file with the schema of the migrations. Tests copy it."""
    folder = tmp_path_factory.mktemp("schema")
    app = create_app(_config(folder, {}))
    with app.app_context():
        upgrade_schema()
        db.engine.dispose()
    return folder / "pat-service.db"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL for `fresh_database`. A test that stops or fills its server starts its own."""
    with postgres() as url:
        yield url


def _config(folder: Path, environ: dict[str, str]) -> Config:
    own = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "USER_MINT_RATE_LIMIT": NO_USER_LIMIT}
    return Config.from_environment(own | environ, folder)


@pytest.fixture
def make_app(schema: Path, tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    """Build an app from environment variables, on this test's database."""
    made: list[Flask] = []
    shutil.copy(schema, tmp_path / "pat-service.db")

    def make(**environ: str) -> Flask:
        app = create_app(_config(tmp_path, environ))
        prepare_for_tests(app)
        made.append(app)
        return app

    yield make
    for app in made:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def request_lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Return the request lines that were logged since the test began."""
    written = io.StringIO()
    monkeypatch.setattr(LINES, "stream", written)
    return lambda: [
        line for line in map(json.loads, written.getvalue().splitlines()) if line["event"] == "request"
    ]


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


@pytest.fixture
def service(client: FlaskClient) -> Service:
    return Service(client)
