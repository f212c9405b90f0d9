"""Fixtures that share one app between tests, since building an app takes longer than most tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from shutil import copy

import pytest
import time_machine
from flask import Flask

from pat_service.storage.database import db
from tests.support.people import Service, changed, long_lived_service, provision, restore_database


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
    counters = app.extensions["pat_service.limiter"].storage
    counters._hits.clear()
    counters._ends.clear()
    return app


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
