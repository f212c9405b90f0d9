"""The service on a developer's machine. Its tests share one app, and each starts with new files."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copy, rmtree

import pytest
from flask import Flask

from pat_service.storage.database import db
from tests.support.people import Service, long_lived_service, restore_database


@pytest.fixture(scope="session")
def app_and_files(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flask, Path]]:
    """An app, and a folder with the database and the secrets of a loaded demo."""
    folder = tmp_path_factory.mktemp("demo")
    with long_lived_service(schema, folder, PUBLIC_URL="") as service:
        service.app.instance_path = str(folder / "instance")
        restore_database(service.app, schema)
        done = service.app.test_cli_runner().invoke(args=["demo", "load"])
        assert done.exit_code == 0, done.output
        with service.app.app_context():
            db.engine.dispose()
        loaded = tmp_path_factory.mktemp("loaded")
        copy(folder / "pat-service.db", loaded)
        copy(folder / "instance/demo.json", loaded)
        yield service.app, loaded


@pytest.fixture
def app(app_and_files: tuple[Flask, Path], schema: Path) -> Flask:
    """The app before a `demo load`, with a database without users."""
    app, _ = app_and_files
    restore_database(app, schema)
    rmtree(app.instance_path, ignore_errors=True)
    counters = app.extensions["pat_service.limiter"].storage
    counters._hits.clear()
    counters._ends.clear()
    return app


@pytest.fixture
def loaded(app: Flask, app_and_files: tuple[Flask, Path]) -> Service:
    """The service after a `demo load`."""
    _, files = app_and_files
    restore_database(app, files / "pat-service.db")
    Path(app.instance_path).mkdir()
    copy(files / "demo.json", app.instance_path)
    return Service(app.test_client())
