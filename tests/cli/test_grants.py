"""Commands for grants follow the rules of the API."""

import json

import pytest

from tests.support.commands import Run
from tests.support.directory import ANA, BEN, MALLORY, Directory
from tests.support.people import ORDERS


def test_a_grant_is_added_and_removed(run: Run, directory: Directory) -> None:
    for _ in range(2):
        assert run("grant", "add", BEN, "support") == f"{BEN} has a grant of app support.\n"
    assert directory.service.mint(email=BEN, appSlug="support").status_code == 201
    assert "EFFECTIVE\tyes\n" in run("grant", "show", BEN, "support")
    assert run("grant", "remove", BEN, "support") == f"{BEN} has no grant of app support any more.\n"
    assert directory.service.mint(email=BEN, appSlug="support").status_code == 403
    assert [(fact[0], fact[1]) for fact in directory.take_event_facts()] == [
        ("grant:added", "(operator)"),
        ("grant:removed", "(operator)"),
    ], "an equal grant is no change"


def test_a_grant_without_effect_is_noted(run: Run) -> None:
    done = run.runner.invoke(args=["grant", "add", MALLORY, "orders"])
    assert done.exit_code == 0
    assert "the grant has no effect yet" in done.stderr
    assert "EFFECTIVE\tno\n" in run("grant", "show", MALLORY, "orders")


def test_grants_are_listed(run: Run, directory: Directory) -> None:
    run("user", "archive", BEN)
    listed = [line.split("\t")[:4] for line in run("grant", "list", "orders").splitlines()]
    assert sorted(listed) == [[ANA, "Ana", "active", "yes"], [BEN, "Ben", "archived", "no"]]
    as_json = json.loads(run("grant", "list", "orders", "--json"))
    assert as_json == directory.items(f"apps/{ORDERS}/grants")
    [anas] = [grant for grant in as_json if grant["user"]["email"] == ANA]
    assert json.loads(run("grant", "show", ANA, "orders", "--json")) == anas
    assert json.loads(run("grant", "add", ANA, "orders", "--json")) == anas


def test_the_apps_of_a_user_are_listed(run: Run, directory: Directory) -> None:
    for app in ("orders", "support"):
        run("grant", "add", MALLORY, app)
    run("member", "add", MALLORY, "acme", "--role", "end-user")
    run("grant", "remove", MALLORY, "support")
    assert run("grant", "list", "--user", MALLORY).splitlines().count("orders\tyes") == 1
    assert "support" not in run("grant", "list", "--user", MALLORY)
    run("user", "archive", MALLORY)
    assert "orders\tno" in run("grant", "list", "--user", MALLORY).splitlines()
    as_json = json.loads(run("grant", "list", "--user", MALLORY, "--json"))
    assert json.loads(run("grant", "show", MALLORY, "orders", "--json")) in as_json


@pytest.mark.parametrize("args", [[], ["orders", "--user", ANA]])
def test_a_list_needs_an_app_or_a_user(run: Run, args: list[str]) -> None:
    assert "Name either an APP or --user." in run.refused("grant", "list", *args, code=2)


@pytest.mark.parametrize("verb", ["show", "remove", "add"])
@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((ANA, "nothing"), "There is no app 'nothing'."),
        (("nobody@acme.test", "orders"), "There is no user 'nobody@acme.test'."),
    ],
)
def test_an_unknown_name_is_refused(run: Run, verb: str, names: tuple[str, str], text: str) -> None:
    assert text in run.refused("grant", verb, *names)


@pytest.mark.parametrize("verb", ["show", "remove"])
def test_a_missing_grant_is_refused(run: Run, verb: str) -> None:
    assert f"{MALLORY} has no grant of app orders." in run.refused("grant", verb, MALLORY, "orders")
