"""The files of SQLite are private: they hold names, emails and the rows of apps."""

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask import Flask

from pat_service.cli import upgrade_schema
from pat_service.storage import readiness
from pat_service.storage.database import reading, transaction


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def test_a_new_database_is_private_with_its_journals(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    app = make_app(DATABASE_URL=f"sqlite:///{tmp_path / 'new' / 'pat.db'}")
    with app.app_context():
        upgrade_schema()
        with transaction() as connection:
            connection.exec_driver_sql("DELETE FROM events")
            assert modes(tmp_path / "new") == {"pat.db": 0o600, "pat.db-wal": 0o600, "pat.db-shm": 0o600}


@pytest.fixture
def open_to_all(schema: Path, tmp_path: Path) -> Iterator[Path]:
    """A database that an older release created, with journals that another process keeps open."""
    file = tmp_path / "old" / "pat.db"
    file.parent.mkdir()
    file.write_bytes(schema.read_bytes())
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("DELETE FROM events")
        connection.commit()
        assert set(modes(file.parent).values()) == {0o644}
        yield file


def test_an_existing_database_becomes_private_with_its_journals(
    make_app: Callable[..., Flask], open_to_all: Path
) -> None:
    app = make_app(DATABASE_URL=f"sqlite:///{open_to_all}")
    with app.app_context(), reading() as connection:
        connection.exec_driver_sql("SELECT 1")
    assert len(modes(open_to_all.parent)) == 3
    assert set(modes(open_to_all.parent).values()) == {0o600}


def test_the_check_before_a_start_makes_the_files_private(open_to_all: Path) -> None:
    assert readiness.list_findings(f"sqlite:///{open_to_all}", None, {}) == []
    assert set(modes(open_to_all.parent).values()) == {0o600}


def test_a_file_of_another_user_stays_as_it_is(
    make_app: Callable[..., Flask], open_to_all: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", refuse)
    app = make_app(DATABASE_URL=f"sqlite:///{open_to_all}")
    with app.app_context(), reading() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    assert set(modes(open_to_all.parent).values()) == {0o644}
