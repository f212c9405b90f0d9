"""Commands for members follow the rules of the API."""

import json

import pytest

from tests.support.commands import Run
from tests.support.directory import ANA, MALLORY, Directory


def test_a_member_is_added_changed_and_removed(run: Run, directory: Directory) -> None:
    for role in ("builder", "builder", "end-user"):
        said = run("member", "add", MALLORY, "acme", "--role", role)
        assert said == f"{MALLORY} is a member of workspace acme: {role}.\n"
    assert run("member", "show", MALLORY, "acme").splitlines() == [
        *(f"EMAIL\t{MALLORY}", "NAME\tMallory", "ROLE\tend-user", "STATUS\tactive"),
        f"USER ID\t{directory.user(MALLORY)}",
    ]
    assert run("member", "remove", MALLORY, "acme") == f"{MALLORY} is no longer a member of workspace acme.\n"
    assert [(fact[0], fact[1]) for fact in directory.take_event_facts()] == [
        (f"member:{verb}", "(operator)") for verb in ("added", "changed", "removed")
    ], "an equal role is no change"


def test_members_are_listed(run: Run, directory: Directory) -> None:
    listed = [line.split("\t")[:4] for line in run("member", "list", "acme").splitlines()]
    assert sorted(listed) == [
        ["ana@acme.test", "Ana", "end-user", "active"],
        ["ben@acme.test", "Ben", "builder", "active"],
    ]
    as_json = json.loads(run("member", "list", "acme", "--json"))
    assert as_json == directory.items(f"workspaces/{directory.acme}/members")
    [ana] = [member for member in as_json if member["user"]["email"] == ANA]
    assert json.loads(run("member", "show", ANA, "acme", "--json")) == ana
    assert json.loads(run("member", "add", ANA, "acme", "--role", "end-user", "--json")) == ana


@pytest.mark.parametrize("verb", [["show"], ["remove"], ["add", "--role", "admin"]])
@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((ANA, "nowhere"), "There is no workspace 'nowhere'."),
        (("nobody@acme.test", "acme"), "There is no user 'nobody@acme.test'."),
    ],
)
def test_an_unknown_name_is_refused(run: Run, verb: list[str], names: tuple[str, str], text: str) -> None:
    assert text in run.refused("member", verb[0], *names, *verb[1:])


@pytest.mark.parametrize("verb", ["show", "remove"])
def test_a_user_of_another_workspace_is_no_member(run: Run, verb: str) -> None:
    assert f"{MALLORY} is not a member of workspace acme." in run.refused("member", verb, MALLORY, "acme")


def test_a_role_is_required_and_known(run: Run) -> None:
    """Without a role, a repeated command could take a role away."""
    assert "--role" in run.refused("member", "add", ANA, "acme", code=2)
    assert "king" in run.refused("member", "add", ANA, "acme", "--role", "king", code=2)
