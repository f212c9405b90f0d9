"""What would start and then not be safe does not start; `check` tells the same without starting."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from pat_service.storage import readiness
from tests.support.http_calls import call
from tests.support.people import KEY, PUBLIC_URL
from tests.support.servers import PROJECT, free_port, gunicorn, wait_for

BEHIND = "pat-service: the schema is behind: run `flask --app app db upgrade`"


def flask(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "flask", "--app", "app", *command, **environ)


def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    settings = {"PATH": os.environ["PATH"], "SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL}
    return subprocess.run(
        [sys.executable, *args],
        cwd=PROJECT,
        env=settings | {"PORT": str(free_port())} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def database(schema: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(schema, tmp_path / "pat.db"))


def told(database: Path | str, redis_url: str | None = None) -> list[tuple[str, bool]]:
    url = database if isinstance(database, str) else f"sqlite:///{database}"
    return [(finding.text, finding.transient) for finding in readiness.list_findings(url, redis_url)]


# What is loaded

#: For commands, for the demo, and for the stores that this worker does not have.
SPARED = ("alembic", "demo", "flask_migrate", "mako", "pat_service.cli", "psycopg", "redis")
LOADED = f"""
import sys
from app import create_app

client = create_app().test_client()
assert client.get("/readyz").status_code == 200
print(*sys.modules.keys() & set({SPARED}))
"""


def test_a_worker_on_sqlite_loads_nothing_that_it_does_not_use(database: Path) -> None:
    done = run("-c", LOADED, DATABASE_URL=f"sqlite:///{database}", SERVER_SOFTWARE="gunicorn")
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


COLLECTOR = """
import gc

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{gc.isenabled()} {gc.get_freeze_count() > 0}".encode()]
"""


@pytest.mark.slow
def test_a_worker_that_is_loaded_collects_its_garbage_and_passes_over_what_was_loaded(
    database: Path, tmp_path: Path
) -> None:
    (tmp_path / "collector.py").write_text(COLLECTOR)
    environ = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "DATABASE_URL": f"sqlite:///{database}"}
    with gunicorn(environ | {"PYTHONPATH": str(tmp_path)}, workers=1, app="collector:app") as server:
        assert call(server, "GET", "/").text == "True True"


RELOADED = """
import gc
import runpy
import weakref

class Loaded:
    pass

hooks = runpy.run_path("gunicorn.conf.py")
loaded = Loaded()
loaded.itself, kept = loaded, weakref.ref(loaded)
hooks["when_ready"](None)
del loaded
hooks["on_reload"](None)
print(kept(), gc.isenabled(), gc.get_freeze_count() > 0)
"""


def test_a_reload_leaves_nothing_of_the_one_before(database: Path) -> None:
    done = run("-c", RELOADED, DATABASE_URL=f"sqlite:///{database}")
    assert (done.returncode, done.stdout) == (0, "None True True\n"), done.stderr


# What is found


def test_nothing_is_found_where_all_is_well(database: Path) -> None:
    assert told(database) == []


def test_an_old_schema_is_found_and_a_newer_one_is_none(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        for version, found in (("0001", [(BEHIND[13:], False)]), ("9999", [])):
            connection.execute("UPDATE alembic_version SET version_num=?", [version])
            connection.commit()
            assert told(database) == found
    connection.close()


def test_a_database_that_is_not_there_is_not_made_by_asking(tmp_path: Path) -> None:
    assert told(tmp_path / "none.db") == [(BEHIND[13:], False)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["folder", "file"])
def test_a_file_that_cannot_be_written_is_found(
    database: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As it is for a user who is not root, who may write everywhere."""
    only_reads = database.parent if where == "folder" else database

    def access(path: Path, mode: int) -> bool:
        return path != only_reads or not mode & os.W_OK

    monkeypatch.setattr(os, "access", access)
    ((text, transient),) = told(database)
    assert str(only_reads) in text
    assert text.startswith("DATABASE_URL must name a file ")
    assert not transient


def test_a_folder_that_is_none_is_found(tmp_path: Path) -> None:
    ((text, transient),) = told(tmp_path / "none" / "pat.db")
    assert (str(tmp_path / "none") in text, transient) == (True, False)
    (tmp_path / "pat.db").mkdir()
    ((text, transient),) = told(tmp_path / "pat.db")
    assert (str(tmp_path / "pat.db") in text, transient) == (True, False)


def test_what_is_away_may_come_back_and_is_told_without_its_password(database: Path) -> None:
    port = free_port()
    found = readiness.list_findings(
        f"postgresql://ana:correct-horse@127.0.0.1:{port}/pat", f"redis://:correct-horse@127.0.0.1:{port}"
    )
    assert [(finding.text, finding.transient) for finding in found] == [
        ("DATABASE_URL names a database that does not answer", True),
        ("REDIS_URL names a store that does not answer", True),
    ]
    assert told(database, f"redis://127.0.0.1:{port}") == [(found[1].text, True)]


# The start and the commands


@pytest.mark.slow
def test_the_start_and_the_check_say_the_same_in_one_line(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    started = run("-m", "gunicorn", DATABASE_URL=url)
    assert (started.returncode, started.stdout, started.stderr) == (1, "", f"{BEHIND}\n")
    checked = make_app(DATABASE_URL=url).test_cli_runner().invoke(args=["check"])
    assert (checked.exit_code, checked.stdout, checked.stderr) == (1, "", f"{BEHIND}\n")


def test_the_check_finds_what_only_several_workers_need(make_app: Callable[..., Flask]) -> None:
    runner = make_app(WEB_CONCURRENCY="2").test_cli_runner()
    done = runner.invoke(args=["check"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("pat-service: REDIS_URL must be set for 2 worker processes")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_number_of_workers_that_is_none_has_a_line_of_ours() -> None:
    done = run("config.py", WEB_CONCURRENCY="x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pat-service: WEB_CONCURRENCY must be a whole number from 1 to 256\n"


@pytest.mark.slow
def test_an_upgrade_of_a_database_that_is_away_says_so_in_one_line() -> None:
    url = f"postgresql://ana:correct-horse@127.0.0.1:{free_port()}/pat"
    done = flask("db", "upgrade", DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: The database does not answer: ")
    assert len(done.stderr.splitlines()) == 1
    assert "correct-horse" not in done.stderr


@pytest.fixture
def lonely(database: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """One worker without Redis, on a schema that a newer release has brought up."""
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num='9999'")
    connection.close()
    environ = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "DATABASE_URL": f"sqlite:///{database}"}
    log = tmp_path / "log"
    with gunicorn(environ, workers=1, log=log) as server:
        yield server.process, server.port, log


@pytest.mark.slow
def test_a_worker_more_does_not_serve_where_it_would_count_on_its_own(
    lonely: tuple[subprocess.Popen[bytes], int, Path],
) -> None:
    process, port, log = lonely
    process.send_signal(signal.SIGTTIN)
    wait_for(lambda: "No more workers: REDIS_URL must be set for 2" in log.read_text())
    assert log.read_text().count("Booting worker") == 1
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200")
    # A reload is no worker more: the new one takes the place of the old.
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: log.read_text().count("Booting worker") == 2 and "Worker exiting" in log.read_text())
    assert process.poll() is None


def test_what_only_development_does_without_is_found_where_a_deployment_is_meant(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_app(PUBLIC_URL="", SECRET_KEY="").test_cli_runner()
    assert runner.invoke(args=["check"]).exit_code == 0
    done = runner.invoke(args=["check", "--deploy"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "pat-service: SECRET_KEY must be set outside development",
        "pat-service: PUBLIC_URL must be set outside development",
        "pat-service: DATABASE_URL must be set for a deployment: postgresql://…, or for SQLite its file, "
        "such as sqlite:////var/lib/pat-service/pat-service.db",
    ]


def test_a_database_that_nobody_named_stops_a_release_and_no_start(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    app = make_app()
    assert app.extensions["pat_service.findings"]() == []
    assert app.test_cli_runner().invoke(args=["check"]).exit_code == 0
    done = app.test_cli_runner().invoke(args=["check", "--deploy"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("pat-service: DATABASE_URL must be set for a deployment: postgresql://")
    named = make_app(DATABASE_URL=f"sqlite:///{tmp_path / 'pat-service.db'}").test_cli_runner()
    assert named.invoke(args=["check", "--deploy"]).exit_code == 0
