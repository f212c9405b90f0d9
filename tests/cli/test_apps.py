"""Commands for apps follow the rules of the API."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine

from pat_service.storage.models import Grant
from tests.support.commands import Run
from tests.support.directory import ANA, Directory
from tests.support.people import ORDERS, PORTAL

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_an_app_is_created_shown_changed_and_deleted(run: Run, directory: Directory) -> None:
    with time_machine.travel(NOON, tick=False):
        made = run("app", "create", "quote", "--workspace", "acme", "--origin", "https://P.example:443")
    id_ = made.removesuffix(".\n").split()[-1]
    assert made == f"App quote is created. Its id is {id_}.\n"
    assert run("app", "show", "quote").splitlines() == [
        *("SLUG\tquote", "NAME\tquote", "WORKSPACE\tacme", "TEMPLATE\tquote"),
        *("ORIGINS\thttps://p.example", "UPSTREAM\t", "START\t", "PERMISSIONS\t"),
        *(f"ID\t{id_}", "CREATED\t2026-11-22T12:00:00Z"),
    ]
    changed = run("app", "change", "quote", "--slug", "quotes", "--name", "Quotes", "--template", "orders")
    assert changed == "App quotes is changed.\n"
    assert "quotes\tQuotes\tacme\torders\thttps://p.example\t\n" in run("app", "list")
    assert run("app", "delete", "quotes") == "App quotes is deleted.\n"
    assert "quotes" not in run("app", "list")
    assert [(fact[0], fact[1]) for fact in directory.take_event_facts()] == [
        (f"app:{verb}", "(operator)") for verb in ("created", "changed", "deleted")
    ]


def test_json_has_the_form_of_the_api(run: Run, directory: Directory) -> None:
    made = json.loads(run("app", "create", "quote", "--workspace", "acme", "--json"))
    assert made == json.loads(run("app", "show", "quote", "--json"))
    assert made == directory.ok("GET", f"apps/{made['id']}")
    [listed] = json.loads(run("app", "list", "--workspace", "globex", "--json"))
    assert listed == directory.ok("GET", f"apps/{listed['id']}", client="everywhere")
    assert json.loads(run("app", "change", "quote", "--name", "Quote", "--json"))["name"] == "Quote"


def test_a_move_ends_the_grants_of_an_app(run: Run, directory: Directory) -> None:
    assert run("app", "change", "orders", "--workspace", "globex") == "App orders is changed.\n"
    assert directory.service.rows(Grant.__table__.select().where(Grant.app_id == ORDERS)) == []
    directory.take_event_facts()
    run("app", "change", "orders", "--workspace", "globex")
    assert directory.take_event_facts() == [], "an equal workspace is no move"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["create", "orders", "--workspace", "acme"], "The slug or the id is taken; choose another."),
        (["create", "Quote", "--workspace", "acme"], "SLUG Quote: Must be a slug"),
        (["create", "quote", "--workspace", "nowhere"], "There is no workspace 'nowhere'."),
        (["create", "quote", "--workspace", "acme", "--name", ""], "--name : Must be a text of 1 to 200"),
        (["create", "quote", "--workspace", "acme", "--origin", "p.example"], "p.example: Must be an exact"),
        (["create", "quote", "--workspace", "acme", "--template", "../x"], "--template ../x: Must be a slug"),
        (["show", "nothing"], "There is no app 'nothing'."),
        (["delete", "nothing"], "There is no app 'nothing'."),
        (["change", "orders", "--slug", "ledger"], "This slug is taken; choose another."),
        (["change", "orders", "--workspace", "nowhere"], "There is no workspace 'nowhere'."),
        (["list", "--workspace", "nowhere"], "There is no workspace 'nowhere'."),
    ],
)
def test_a_refusal_is_one_line(run: Run, directory: Directory, args: list[str], text: str) -> None:
    assert text in run.refused("app", *args)
    assert directory.take_event_facts() == []


def test_a_change_of_nothing_is_a_usage_error(run: Run) -> None:
    said = run.refused("app", "change", "orders", code=2)
    options = "--slug, --name, --template, --upstream, --start, --permissions, --workspace"
    assert f"Name at least one of {options}." in said


def test_an_app_without_files_is_noted(run: Run) -> None:
    done = run.runner.invoke(args=["app", "create", "memos", "--workspace", "acme"])
    assert done.exit_code == 0
    assert done.stderr == "Note: memos cannot open yet: add apps/memos/templates/index.html.\n"


def test_each_app_needs_a_slug_that_can_be_a_host(make_shared: Any) -> None:
    run = Run(make_shared(PUBLIC_URL="https://{app}.apps.example").app)
    for slug, text in (("a_b", "inner dashes"), ("a--b", "Must not contain --")):
        assert text in run.refused("app", "create", slug, "--workspace", "acme")
        assert text in run.refused("app", "change", "orders", "--slug", slug)


def test_an_app_of_a_command_opens(run: Run, directory: Directory) -> None:
    """The directory of a new tenant, by commands alone."""
    run("workspace", "create", "initech")
    run("user", "create", "gia@initech.test", "--workspace", "initech")
    run("app", "create", "memos", "--workspace", "initech", "--template", "orders", "--origin", PORTAL)
    run("grant", "add", "gia@initech.test", "memos")
    minted = directory.service.mint(client="everywhere", email="gia@initech.test", appSlug="memos")
    assert minted.status_code == 201
    assert directory.service.mint(client="everywhere", email=ANA, appSlug="memos").status_code == 403


# Apps that run elsewhere


@pytest.fixture
def app_hosts(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(directory.service.app.config, "PUBLIC_URL", "https://{app}.embed.example")


@pytest.mark.usefixtures("app_hosts")
def test_an_upstream_app_is_created_listed_and_changed(run: Run, directory: Directory) -> None:
    create = ("app", "create", "sales", "--workspace", "acme", "--upstream", "HTTP://10.0.0.7:08501")
    run(*create, "--start", "/a", "--permissions", "fullscreen, camera")
    shown = dict(line.split("\t", 1) for line in run("app", "show", "sales").splitlines())
    assert (shown["TEMPLATE"], shown["UPSTREAM"]) == ("upstream", "http://10.0.0.7:8501")
    assert (shown["START"], shown["PERMISSIONS"]) == ("/a", "camera, fullscreen")
    assert "sales\tsales\tacme\tupstream\t\thttp://10.0.0.7:8501\n" in run("app", "list")
    run("app", "change", "sales", "--permissions", "", "--start", "/")
    sales = json.loads(run("app", "show", "sales", "--json"))
    assert (sales["start"], sales["permissions"]) == ("/", [])
    run("app", "change", "sales", "--template", "orders", "--yes")
    assert json.loads(run("app", "show", "sales", "--json"))["upstream"] is None


@pytest.mark.usefixtures("app_hosts")
@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--upstream", "10.0.0.7:8501"], "--upstream 10.0.0.7:8501: Must be a scheme"),
        (["--upstream", "http://169.254.169.254"], "Must not be a link-local"),
        (["--upstream", "http://embed.example"], "upstream: Must be the app's own address"),
        (["--upstream", "http://a", "--start", "//b"], "--start //b: Must be a path"),
        (["--upstream", "http://a", "--permissions", "camera,usb"], "usb: Must be one of camera"),
        (["--upstream", "http://a", "--template", "orders"], "template: Must be absent"),
        (["--start", "/a"], "start: Needs an upstream"),
        (["--template", "upstream"], "template: Must not be upstream"),
    ],
)
def test_a_refused_upstream_is_one_line(run: Run, directory: Directory, args: list[str], text: str) -> None:
    assert text in run.refused("app", "create", "sales", "--workspace", "acme", *args)
    assert directory.take_event_facts() == []


def test_an_upstream_without_app_hosts_is_refused_and_noted(
    run: Run, directory: Directory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = "needs {app} in PUBLIC_URL, such as https://{app}.embed.example"
    assert text in run.refused("app", "change", "orders", "--upstream", "http://10.0.0.7:8501")
    file = tmp_path / "sales.toml"
    file.write_text('apps = [{slug = "sales", workspace = "acme", upstream = "http://10.0.0.7:8501"}]')
    assert json.loads(run("provision", str(file), "--json"))["notes"] == [
        f"sales cannot open yet: its upstream {text}"
    ]
    checked = run.runner.invoke(args=["check"])
    assert checked.exit_code == 1
    assert f"pat-service: sales cannot open: an upstream {text}" in checked.stderr.splitlines()
    assert "nothing to show" not in checked.stdout
    monkeypatch.setitem(directory.service.app.config, "PUBLIC_URL", "https://{app}.embed.example")
    assert json.loads(run("provision", str(file), "--json"))["notes"] == []
    checked = run.runner.invoke(args=["check"])
    assert checked.exit_code == 1
    assert "sales cannot open: with TRUSTED_PROXIES=0 the service believes nothing" in checked.stderr
    monkeypatch.setitem(directory.service.app.config, "TRUSTED_PROXIES", 1)
    assert "sales" not in run("check")
    monkeypatch.setitem(directory.service.app.config, "SESSION_RATE_LIMIT", "120 per minute")
    assert "lower than 150 requests, which the first page of sales may need" in run("check")
