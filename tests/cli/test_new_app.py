"""`app new` writes an app that works, and that a team can keep outside this project."""

import subprocess
import sys
from errno import EACCES
from pathlib import Path

import pytest
from flask.testing import FlaskCliRunner
from sqlalchemy.exc import OperationalError

from tests.support.people import Service, changed, provision
from tests.support.servers import PROJECT


def files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_a_new_app_has_the_shape_of_an_app(runner: FlaskCliRunner, tmp_path: Path) -> None:
    done = runner.invoke(args=["app", "new", "order-desk", "--path", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert f"APPS_PATH={tmp_path}" in done.output
    pages = {"templates/index.html", "templates/result.html"}
    others = {"__init__.py", "order-desk.toml", "static/order-desk.css", "tests/test_order-desk.py"}
    assert files(tmp_path / "order-desk") == pages | others
    written = "".join(file.read_text() for file in (tmp_path / "order-desk").rglob("*.*"))
    assert "NAME" not in written
    assert "TITLE" not in written
    assert 'name = "Order desk"' in written


@pytest.mark.parametrize("name", ["../out", "Desk", "", ".", "a/b", "x" * 65, "desk\n", "pat_\x1b[2J"])
def test_a_name_that_no_app_can_have_is_refused(runner: FlaskCliRunner, tmp_path: Path, name: str) -> None:
    (tmp_path / "place").mkdir()
    done = runner.invoke(args=["app", "new", "--path", str(tmp_path / "place"), "--", name])
    assert done.exit_code == 1
    assert "Must be a slug" in done.output
    assert list(tmp_path.rglob("*.*")) == []


def test_an_existing_app_is_not_overwritten(runner: FlaskCliRunner, tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    done = runner.invoke(args=["app", "new", "desk", "--path", str(tmp_path)])
    assert (done.exit_code, done.output) == (1, f"Error: {tmp_path / 'desk'} exists already.\n")
    assert files(tmp_path) == set()


def test_a_folder_that_does_not_take_the_app_is_named(
    runner: FlaskCliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    done = runner.invoke(args=["app", "new", "desk", "--path", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output == f"Error: {tmp_path / 'desk'} cannot be written: Permission denied.\n"


def test_the_name_of_another_app_is_refused(runner: FlaskCliRunner, service: Service, tmp_path: Path) -> None:
    provision(service.app, changed("apps", "support", slug="desk"))
    for name, text in (
        ("orders", "make its folder by hand"),
        ("desk", "app of the directory; choose another"),
        ("upstream", "the name of apps that run elsewhere; choose another"),
    ):
        done = runner.invoke(args=["app", "new", name, "--path", str(tmp_path)])
        assert done.exit_code == 1
        assert text in done.output
        assert len(done.output.splitlines()) == 1
    assert files(tmp_path) == set()


def test_a_new_app_needs_no_database(
    runner: FlaskCliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail() -> None:
        raise OperationalError("SELECT", {}, Exception("no such table: apps"))

    monkeypatch.setattr("pat_service.rules.directory.apps.list_templates", fail)
    assert runner.invoke(args=["app", "new", "desk", "--path", str(tmp_path)]).exit_code == 0


@pytest.mark.slow
def test_a_new_app_passes_its_own_test_outside_this_project(runner: FlaskCliRunner, tmp_path: Path) -> None:
    runner.invoke(args=["app", "new", "order-desk", "--path", str(tmp_path)])
    for command in (
        ["pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "order-desk"],
        ["ruff", "check", "--isolated", "--no-cache", "--select", "B,E4,F,UP", "order-desk"],
        ["ruff", "format", "--isolated", "--no-cache", "--line-length", "110", "--check", "order-desk"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            # The plugin that dash installs here ends pytest with a deprecation.
            env={
                "PYTHONPATH": str(PROJECT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTEST_ADDOPTS": "-p no:dash",
            },
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
