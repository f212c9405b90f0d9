"""An unsafe service does not start; `check` prints the same findings without a start."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from flask import Flask

from pat_service.storage import readiness
from tests.support.people import KEY, PUBLIC_URL
from tests.support.servers import PROJECT, free_port, gunicorn, wait_for

#: The row of the service's own migrations, whose names are digits.
OURS = "WHERE version_num = (SELECT min(version_num) FROM alembic_version)"
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


def findings(database: Path | str, redis_url: str | None = None) -> list[tuple[str, bool]]:
    url = database if isinstance(database, str) else f"sqlite:///{database}"
    return [(finding.text, finding.transient) for finding in readiness.list_findings(url, redis_url, {})]


# Imports

#: Modules of the commands, the demo, and stores that this worker does not use.
UNUSED = ("alembic", "demo", "flask_migrate", "mako", "pat_service.cli", "psycopg", "redis")
LOADED = f"""
import sys
from app import create_app

client = create_app().test_client()
assert client.get("/readyz").status_code == 200
print(*sys.modules.keys() & set({UNUSED}))
"""


def test_a_worker_on_sqlite_imports_only_what_it_uses(database: Path) -> None:
    done = run("-c", LOADED, DATABASE_URL=f"sqlite:///{database}", SERVER_SOFTWARE="gunicorn")
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


# Findings


def test_a_healthy_installation_has_no_finding(database: Path) -> None:
    assert findings(database) == []


def test_an_old_schema_is_a_finding_and_a_newer_one_is_not(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        for version, found in (("0001", [(BEHIND[13:], False)]), ("9999", [])):
            connection.execute(f"UPDATE alembic_version SET version_num=? {OURS}", [version])
            connection.commit()
            assert findings(database) == found
    connection.close()


def test_a_check_does_not_create_a_missing_database(tmp_path: Path) -> None:
    assert findings(tmp_path / "none.db") == [(BEHIND[13:], False)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read_only", ["folder", "file"])
def test_a_read_only_file_is_a_finding(
    database: Path, monkeypatch: pytest.MonkeyPatch, read_only: str
) -> None:
    """Simulated, since root can write everywhere."""
    path = database.parent if read_only == "folder" else database
    monkeypatch.setattr(os, "access", lambda p, mode: p != path or not mode & os.W_OK)
    ((text, transient),) = findings(database)
    assert text.startswith("DATABASE_URL must name a file ")
    assert (str(path) in text, transient) == (True, False)


def test_a_missing_folder_or_a_folder_in_place_of_the_file_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "pat.db").mkdir()
    for file, named in ((tmp_path / "none" / "pat.db", "none"), (tmp_path / "pat.db", "pat.db")):
        ((text, transient),) = findings(file)
        assert (str(tmp_path / named) in text, transient) == (True, False)


def test_an_unavailable_store_is_transient_and_its_password_is_not_shown(database: Path) -> None:
    port = free_port()
    found = readiness.list_findings(
        f"postgresql://ana:correct-horse@127.0.0.1:{port}/pat", f"redis://:correct-horse@127.0.0.1:{port}", {}
    )
    assert [(finding.text, finding.transient) for finding in found] == [
        ("DATABASE_URL names a database that does not answer", True),
        ("REDIS_URL names a store that does not answer", True),
    ]
    assert findings(database, f"redis://127.0.0.1:{port}") == [(found[1].text, True)]


# The start and the commands


@pytest.mark.slow
def test_the_start_and_the_check_print_the_same_line(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    started = run("-m", "gunicorn", DATABASE_URL=url)
    assert (started.returncode, started.stdout, started.stderr) == (1, "", f"{BEHIND}\n")
    checked = make_app(DATABASE_URL=url).test_cli_runner().invoke(args=["check"])
    assert (checked.exit_code, checked.stdout, checked.stderr) == (1, "", f"{BEHIND}\n")


def test_the_check_requires_redis_for_several_workers(make_app: Callable[..., Flask]) -> None:
    runner = make_app(WEB_CONCURRENCY="2").test_cli_runner()
    done = runner.invoke(args=["check"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("pat-service: REDIS_URL must be set for 2 worker processes")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_an_invalid_number_of_workers_stops_the_start_with_our_line() -> None:
    done = run("config.py", WEB_CONCURRENCY="x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pat-service: WEB_CONCURRENCY must be a whole number from 1 to 256\n"


@pytest.mark.slow
def test_an_upgrade_of_an_unavailable_database_fails_in_one_line() -> None:
    url = f"postgresql://ana:correct-horse@127.0.0.1:{free_port()}/pat"
    done = flask("db", "upgrade", DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: The database does not answer: ")
    assert len(done.stderr.splitlines()) == 1
    assert "correct-horse" not in done.stderr


@pytest.fixture
def single_worker(database: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """One worker without Redis, on the schema of a newer release."""
    with sqlite3.connect(database) as connection:
        connection.execute(f"UPDATE alembic_version SET version_num='9999' {OURS}")
    connection.close()
    environ = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "DATABASE_URL": f"sqlite:///{database}"}
    log = tmp_path / "log"
    with gunicorn(environ, workers=1, log=log) as server:
        yield server.process, server.port, log


@pytest.mark.slow
def test_without_redis_a_second_worker_never_serves(
    single_worker: tuple[subprocess.Popen[bytes], int, Path],
) -> None:
    process, port, log = single_worker
    process.send_signal(signal.SIGTTIN)
    wait_for(lambda: "No more workers: REDIS_URL must be set for 2" in log.read_text())
    assert log.read_text().count("Booting worker") == 1
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200")
    # A reload replaces the worker and adds none.
    process.send_signal(signal.SIGHUP)
    wait_for(lambda: log.read_text().count("Booting worker") == 2 and "Worker exiting" in log.read_text())
    assert process.poll() is None


def test_check_deploy_requires_settings_that_development_can_omit(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    def check(app: Flask, *options: str) -> list[str]:
        done = app.test_cli_runner().invoke(args=["check", *options])
        assert (done.exit_code == 0) == (done.stderr == "")
        return [line.removeprefix("pat-service: ") for line in done.stderr.splitlines()]

    no_database = (
        "DATABASE_URL must be set for a deployment: postgresql://…, or a SQLite file, "
        "such as sqlite:////var/lib/pat-service/pat-service.db"
    )
    for unset, missing in (({"PUBLIC_URL": "", "SECRET_KEY": ""}, ["SECRET_KEY", "PUBLIC_URL"]), ({}, [])):
        app = make_app(**unset)
        assert check(app) == []
        expected = [f"{name} must be set outside development" for name in missing]
        assert check(app, "--deploy") == [*expected, no_database]
    assert check(make_app(DATABASE_URL=f"sqlite:///{tmp_path / 'pat-service.db'}"), "--deploy") == []


# The debugger


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "environ"),
    [
        (["-m", "flask", "--app", "app", "run"], {"FLASK_DEBUG": "1"}),
        (["-m", "flask", "--app", "app", "run", "--debug"], {}),
        (["-m", "flask", "--app", "app", "--debug", "run"], {}),
        (["-m", "flask", "--app", "app", "check", "--deploy"], {"FLASK_DEBUG": "true"}),
        (["-m", "gunicorn"], {"FLASK_DEBUG": "1"}),
        (["-m", "gunicorn"], {"FLASK_DEBUG": "1", "PUBLIC_URL": "http://localhost"}),
        (["config.py"], {"FLASK_DEBUG": "1"}),
        (["-c", "from app import create_app; create_app().run(port=0)"], {"FLASK_DEBUG": "1"}),
    ],
    ids=str,
)
def test_no_deployment_starts_with_a_debugger(
    database: Path, command: list[str], environ: dict[str, str]
) -> None:
    done = run(*command, DATABASE_URL=f"sqlite:///{database}", **environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pat-service: FLASK_DEBUG must be unset outside development")
    assert len(done.stderr.splitlines()) == 1


def test_check_deploy_names_the_debugger_of_a_developer(
    make_app: Callable[..., Flask],
) -> None:
    for value, named in (("1", True), ("0", False), ("", False)):
        runner = make_app(PUBLIC_URL="http://localhost:5000", FLASK_DEBUG=value).test_cli_runner()
        assert ("FLASK_DEBUG must be unset" in runner.invoke(args=["check", "--deploy"]).stderr) == named
        assert runner.invoke(args=["check"]).exit_code == 0


def test_the_reloader_watches_the_folders_of_apps_path(
    make_app: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apps").mkdir()
    monkeypatch.setenv("FLASK_RUN_EXTRA_FILES", "/srv/notes.txt")
    for _ in range(2):
        make_app(APPS_PATH=str(tmp_path / "apps"), PUBLIC_URL="http://localhost:5000", FLASK_DEBUG="1")
        assert os.environ["FLASK_RUN_EXTRA_FILES"] == f"/srv/notes.txt:{tmp_path / 'apps'}"


@pytest.mark.parametrize(("reloaded", "lines"), [("false", 1), ("true", 0)])
def test_the_address_is_printed_once(
    make_app: Callable[..., Flask],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reloaded: str,
    lines: int,
) -> None:
    """With --debug, the process that serves starts after the one that watches."""
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", reloaded)
    with click.Context(click.Command("run"), info_name="run") as context:
        context.params["port"] = 5600
        make_app(PUBLIC_URL="http://localhost:5600")
    assert capsys.readouterr().out.count("Open http://localhost:5600/") == lines
