"""Commands for operators of the console."""

import json
import re
from collections.abc import Callable

import pytest
from click.testing import Result
from flask import Flask

from tests.support.console import CONSOLE_URL, OLGA, OTTO, Browser
from tests.support.people import WORLD, Service, provision

Run = Callable[..., Result]


@pytest.fixture
def console(make_app: Callable[..., Flask]) -> Flask:
    app = make_app(CONSOLE_URL=CONSOLE_URL)
    provision(app, WORLD)
    return app


@pytest.fixture
def run(console: Flask) -> Run:
    runner = console.test_cli_runner()
    return lambda *words: runner.invoke(args=["console", *words])


def test_olga_is_added_and_signs_in_by_the_link(console: Flask, run: Run) -> None:
    done = run("add", "Olga@ACME.test", "--role", "owner")
    assert done.stdout == f"{OLGA} is owner of all workspaces.\n"
    assert "console link olga@acme.test" in done.stderr
    link = run("link", OLGA)
    found = re.fullmatch(rf"{CONSOLE_URL}/sign-in#link=(eyJ[\w-]+\.[\w-]+\.[\w-]+)\n", link.stdout)
    assert found is not None
    assert Browser(Service(console.test_client())).use_link(found[1]).status_code == 303


def test_operators_are_listed_with_their_workspaces(run: Run) -> None:
    run("add", OLGA, "--role", "owner")
    run("add", OTTO, "--role", "operator", "--workspace", "globex", "--workspace", "acme")
    assert run("list").stdout == (
        f"{OLGA}\towner\tall workspaces\tlink\t\n{OTTO}\toperator\tacme, globex\tlink\t\n"
    )
    olga, otto = json.loads(run("list", "--json").stdout)
    assert (olga["workspaces"], otto["workspaces"]) == (None, ["acme", "globex"])
    assert set(otto) == {"email", "role", "workspaces", "oidc", "createdAt", "lastSeenAt"}


def test_the_last_owner_stays(run: Run) -> None:
    run("add", OLGA, "--role", "owner")
    for words in (("remove", OLGA), ("add", OLGA, "--role", "viewer", "--workspace", "acme")):
        done = run(*words)
        assert (done.exit_code, "last owner" in done.stderr) == (1, True)
    run("add", OTTO, "--role", "owner")
    assert run("remove", OLGA).stdout == f"{OLGA} is no operator any more.\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("add", OTTO, "--role", "operator"), "Name the workspaces of this operator"),
        (("add", OTTO, "--role", "owner", "--workspace", "acme"), "An owner has all workspaces"),
        (("add", OTTO, "--role", "viewer", "--workspace", "nowhere"), "There is no workspace 'nowhere'"),
        (("link", OTTO), f"There is no operator '{OTTO}'"),
        (("remove", OTTO), f"There is no operator '{OTTO}'"),
    ],
)
def test_a_refusal_is_one_line(run: Run, words: tuple[str, ...], text: str) -> None:
    done = run(*words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_console_there_is_no_link(make_app: Callable[..., Flask]) -> None:
    runner = make_app().test_cli_runner()
    runner.invoke(args=["console", "add", OLGA, "--role", "owner"])
    done = runner.invoke(args=["console", "link", OLGA])
    assert (done.exit_code, done.stderr) == (1, "Error: There is no console. Set CONSOLE_URL.\n")


def test_in_development_the_link_has_the_servers_port(make_app: Callable[..., Flask]) -> None:
    app = make_app(PUBLIC_URL="")
    runner = app.test_cli_runner()
    runner.invoke(args=["console", "add", OLGA, "--role", "owner"])
    for words, port in (((), 5000), (("--port", "8080"), 8080)):
        done = runner.invoke(args=["console", "link", OLGA, *words])
        assert done.stdout.startswith(f"http://console.localhost:{port}/sign-in#link=")
