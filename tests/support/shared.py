"""Fixtures of one app for many tests, on a database that each finds as new.

A new app for each test would cost more than most of the tests.
"""

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
from tests.support.world import Service, lasting_service, only, provision, renew


@pytest.fixture(scope="session")
def standing(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flask, Path]]:
    """An app with the people of `tests.support.world`, and its database as it was before any test."""
    folder = tmp_path_factory.mktemp("standing")
    with lasting_service(schema, folder) as service:
        with service.app.app_context():
            db.engine.dispose()
        yield service.app, Path(copy(folder / "pat-service.db", folder / "as-it-was"))


@pytest.fixture
def app(standing: tuple[Flask, Path]) -> Flask:
    """In place of the one of tests/conftest.py, for `client` and `service`."""
    app, as_it_was = standing
    renew(app, as_it_was)
    counters = app.extensions["pat_service.limiter"].storage
    counters._hits.clear()
    counters._ends.clear()
    return app


@pytest.fixture(scope="session")
def lasting(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for tests that leave its world as they found it."""
    with lasting_service(schema, tmp_path_factory.mktemp("lasting")) as service:
        provision(service.app, only("clients", "portal", mint_limit="1000000 per minute"))
        yield service


@pytest.fixture(scope="session")
def limited(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One with the contract's own limits; its counters start anew with `clock` alone."""
    contracts = {"OPEN_RATE_LIMIT": "", "FAILURE_RATE_LIMIT": ""}
    with lasting_service(schema, tmp_path_factory.mktemp("limited"), **contracts) as service:
        provision(service.app, only("clients", "portal", mint_limit=None))
        yield service


Make = Callable[..., Service]


@pytest.fixture(scope="module")
def make_lasting(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Build a service with its people, with these variables in its environment."""
    with ExitStack() as stack:
        yield lambda **environ: stack.enter_context(
            lasting_service(schema, tmp_path_factory.mktemp("lasting"), **environ)
        )


#: A test with limits has a time of its own, when all windows of those before are over.
_times = (datetime(2026, 11, 2, 12, tzinfo=UTC) + timedelta(days=3 * number) for number in count())


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands until the test moves it."""
    with time_machine.travel(next(_times), tick=False) as clock:
        yield clock
