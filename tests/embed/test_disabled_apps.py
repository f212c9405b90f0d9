"""An app that cannot be imported is disabled alone: the mint, other apps and every command go on."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from pat_service.storage.models import Session, Token
from tests.support.people import ORDERS, WORLD, Service, changed, problem_of, provision

DESK = "99999999-2222-4333-8444-555555555555"
REASON = "broken-desk/__init__.py, line 2: ModuleNotFoundError: No module named 'x_y'"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "apps" / "broken-desk"
    (folder / "templates").mkdir(parents=True)
    (folder / "templates" / "index.html").write_text("never")
    (folder / "__init__.py").write_text('"""Desk."""\nimport x_y\n')
    return tmp_path / "apps"


@pytest.fixture
def service(make_app: Callable[..., Flask], place: Path, caplog: pytest.LogCaptureFixture) -> Service:
    with caplog.at_level(logging.ERROR):
        service = Service(make_app(APPS_PATH=str(place)).test_client())
    provision(service.app, WORLD)
    desk = {"id": DESK, "slug": "desk", "name": "Desk", "template": "broken-desk"}
    provision(service.app, changed("apps", "orders", **desk))
    return service


def test_ana_cannot_open_a_disabled_app_and_keeps_her_token(service: Service) -> None:
    minted = service.mint(appSlug="desk", singleUse=True)
    assert minted.status_code == 201
    token = str(minted.get_json()["personalAccessToken"])
    for _ in range(2):
        answer = service.open(token, DESK, Accept="application/json")
        problem_of(answer, 503, "app_unavailable")
        assert answer.headers["Retry-After"] == "300"
        assert service.count(Session) == 0
    assert service.rows(Token.__table__.select())[0].first_used_at is None
    page = service.open(token, DESK)
    assert page.status_code == 503
    assert "This app is out of service" in page.text
    assert "Try again" not in page.text.partition("<body>")[2].partition('id="embed-retry" hidden')[0]


def test_a_host_gets_the_code_at_the_handover(service: Service) -> None:
    token = service.token(appSlug="desk")
    path = f"/embed-apps/{DESK}/frame"
    waiting = service.client.get(path, query_string={"parent": "http://portal.example"})
    assert waiting.status_code == 200
    nonce = waiting.headers["Content-Security-Policy"].partition("nonce-")[2].partition("'")[0]
    body = {"accessToken": token, "parentOrigin": "http://portal.example", "nonce": nonce}
    problem_of(service.client.post(path, json=body), 503, "app_unavailable")


def test_other_apps_go_on(service: Service) -> None:
    assert service.open(service.token(), ORDERS).status_code == 200


def test_the_log_and_check_name_the_app_in_one_line(
    service: Service, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"app broken-desk is disabled: {place}/{REASON}"
    logged = [record.getMessage() for record in caplog.get_records("setup")]
    assert [line for line in logged if "broken-desk" in line] == [text]
    runner = service.app.test_cli_runner()
    done = runner.invoke(args=["check"])
    assert done.exit_code == 1
    assert done.stderr == f"pat-service: {text}\n"
    assert "Current key" in done.stdout
    for command in (["app", "list"], ["user", "list"], ["version"], ["db", "upgrade"]):
        assert runner.invoke(args=command).exit_code == 0, command


@pytest.mark.parametrize("args", [["--app", "desk"], ["--workspace", "acme"], []])
def test_the_doctor_names_the_app(service: Service, place: Path, args: list[str]) -> None:
    done = service.app.test_cli_runner().invoke(args=["doctor", "--offline", *args])
    assert done.exit_code == 1
    assert f"App broken-desk is disabled: {place}/{REASON}." in done.stdout
    assert "1 problem(s)" in done.stdout


def test_the_doctor_is_silent_about_other_apps(service: Service) -> None:
    done = service.app.test_cli_runner().invoke(args=["doctor", "--offline", "--app", "orders"])
    assert done.exit_code == 0
    assert "disabled" not in done.stdout


def test_two_own_apps_of_one_name_stop_the_start(make_app: Callable[..., Flask], place: Path) -> None:
    (place.parent / "more" / "broken-desk" / "templates").mkdir(parents=True)
    folders = f"{place}:{place.parent / 'more'}"
    with pytest.raises(Exception, match=r"^APPS_PATH cannot be used: two apps are named broken-desk: "):
        make_app(APPS_PATH=folders)


def test_check_warns_of_a_folder_that_everybody_may_change(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    done = make_app(APPS_PATH=str(tmp_path / "open")).test_cli_runner().invoke(args=["check"])
    assert done.exit_code == 0
    assert f"pat-service: every user of this machine can change {tmp_path / 'open'}" in done.stderr


def test_check_names_an_app_without_a_folder(make_app: Callable[..., Flask]) -> None:
    app = make_app()
    provision(app, WORLD)
    provision(app, changed("apps", "orders", id=DESK, slug="desk", template="gone"))
    done = app.test_cli_runner().invoke(args=["check"])
    assert done.exit_code == 0
    assert "App desk has nothing to show: there is no apps/gone/templates/index.html" in done.output


def test_hints_name_the_folder_of_own_apps(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    app = make_app(APPS_PATH=str(tmp_path))
    provision(app, WORLD)
    provision(app, changed("apps", "orders", id=DESK, slug="desk", template="gone"))
    runner = app.test_cli_runner()
    missing = f"{tmp_path}/gone/templates/index.html"
    for args in (["check"], ["doctor", "--offline", "--app", "desk"]):
        assert f"there is no {missing}" in runner.invoke(args=args).output
    made = runner.invoke(args=["app", "create", "memos", "--workspace", "acme", "--template", "gone"])
    assert f"add {missing}." in made.stderr
