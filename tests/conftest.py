"""Fixtures of every test: an app on a database of its own, with the people of `tests.support.world`."""

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
from tests.support.directory import directory  # noqa: F401 - a fixture
from tests.support.servers import TooSlow, postgres
from tests.support.shared import clock, lasting, limited, make_lasting, standing  # noqa: F401 - fixtures
from tests.support.world import KEY, PUBLIC_URL, Service, hurry, lasting_service

# A busy machine is no failure: no test of the suite looks at a clock.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run once more what was too slow where servers run, and tell of it; never a fact that does not hold."""
    too_slow = [TooSlow, TimeoutError, subprocess.TimeoutExpired, "Failed: Timeout"]
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("flaky"):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=too_slow))


@pytest.fixture(autouse=True)
def _forget() -> None:
    """What a worker remembers between requests must not pass from test to test."""
    ancestors._known.clear()
    events._refusals.clear()
    for module in (events, callers):
        module._breaker.reset()


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the schema of the migrations, to be copied."""
    folder = tmp_path_factory.mktemp("schema")
    app = create_app(_config(folder, {}))
    with app.app_context():
        upgrade_schema()
        db.engine.dispose()
    return folder / "pat-service.db"


@pytest.fixture(scope="session")
def peopled(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the people of `tests.support.world`, to be copied where the key is KEY."""
    folder = tmp_path_factory.mktemp("peopled")
    with lasting_service(schema, folder):
        return folder / "pat-service.db"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """What `fresh_database` takes. A test that turns its server off, or fills it, has one of its own."""
    with postgres() as url:
        yield url


def _config(folder: Path, environ: dict[str, str]) -> Config:
    return Config.from_environment({"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL} | environ, folder)


@pytest.fixture
def make_app(schema: Path, tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    """Build an app with these variables in its environment, on this test's database."""
    made: list[Flask] = []
    shutil.copy(schema, tmp_path / "pat-service.db")

    def make(**environ: str) -> Flask:
        app = create_app(_config(tmp_path, environ))
        hurry(app)
        made.append(app)
        return app

    yield make
    for app in made:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def request_lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Return what the log says of the requests since the test began, a line each."""
    written = io.StringIO()
    monkeypatch.setattr(LINES, "stream", written)
    return lambda: [
        line for line in map(json.loads, written.getvalue().splitlines()) if line["event"] == "request"
    ]


@pytest.fixture
def app(make_app: Callable[..., Flask], peopled: Path, tmp_path: Path) -> Flask:
    """The service with its people."""
    shutil.copy(peopled, tmp_path / "pat-service.db")
    return make_app(OPEN_RATE_LIMIT="10000 per minute", FAILURE_RATE_LIMIT="10000 per minute")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


@pytest.fixture
def service(client: FlaskClient) -> Service:
    return Service(client)
