"""Commands for users act for the whole installation."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import update

from pat_service.storage.models import User
from tests.support.commands import Run
from tests.support.directory import ANA, BEN, MALLORY, Directory


def invoke(directory: Directory, *args: str) -> Result:
    return directory.service.app.test_cli_runner().invoke(args=["user", *args])


def ok(directory: Directory, *args: str) -> str:
    done = invoke(directory, *args)
    assert done.exit_code == 0, done.output
    return done.output


def read(directory: Directory, email: str) -> Any:
    (user,) = directory.items(f"users?email={email}", client="everywhere")
    return user


def test_a_home_moves(directory: Directory) -> None:
    assert ok(directory, "home", ANA, "globex") == f"The home of {ANA} is globex.\n"
    assert read(directory, ANA)["homeWorkspaceId"] == directory.globex
    directory.take_event_facts()
    ok(directory, "home", ANA, "globex")
    assert directory.take_event_facts() == [], "an equal home is no change"


def test_an_email_changes(directory: Directory) -> None:
    token = directory.service.token()
    assert ok(directory, "email", ANA, "Ana.M@acme.test") == f"The email of {ANA} is ana.m@acme.test.\n"
    assert read(directory, "ana.m@acme.test")["id"] == directory.user(ANA)
    assert directory.service.open(token).status_code == 200


def test_a_user_is_archived_and_activated_everywhere(directory: Directory) -> None:
    assert ok(directory, "archive", ANA) == f"{ANA} is archived in the whole installation.\n"
    assert directory.service.mint().status_code == 403
    ok(directory, "activate", ANA)
    assert directory.service.mint().status_code == 201


def test_a_user_is_archived_and_activated_in_one_workspace(directory: Directory) -> None:
    """The operator can also undo the decision of a workspace's clients."""
    assert ok(directory, "archive", ANA, "--workspace", "acme") == f"{ANA} is archived in workspace acme.\n"
    assert directory.service.mint().status_code == 403
    ok(directory, "activate", ANA)
    assert directory.service.mint().status_code == 403, "the two levels are independent"
    ok(directory, "activate", ANA, "--workspace", "acme")
    assert directory.service.mint().status_code == 201
    directory.ok("PATCH", f"users/{directory.user(ANA)}", {"status": "archived"})
    ok(directory, "activate", ANA, "--workspace", "acme")
    assert directory.service.mint().status_code == 201


def test_a_workspace_that_never_knew_a_user_gets_no_status(directory: Directory) -> None:
    """A status would end the right of the home's clients to change the email."""
    done = invoke(directory, "archive", MALLORY, "--workspace", "acme")
    assert (done.exit_code, directory.take_event_facts()) == (1, [])
    assert "This workspace has never known the user." in done.output


def test_a_user_is_archived_in_a_workspace_that_they_left(directory: Directory) -> None:
    directory.join(MALLORY, "manager")
    directory.leave(MALLORY, "manager")
    ok(directory, "archive", MALLORY, "--workspace", "acme")


def test_a_user_is_deleted_even_if_several_tenants_know_them(directory: Directory) -> None:
    directory.join(MALLORY, "manager")
    assert ok(directory, "delete", MALLORY) == f"{MALLORY} is deleted.\n"
    assert directory.items(f"users?email={MALLORY}", client="everywhere") == []


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["home", "nobody@acme.test", "acme"], "There is no user 'nobody@acme.test'."),
        (["home", ANA, "nowhere"], "There is no workspace 'nowhere'."),
        (["archive", ANA, "--workspace", "nowhere"], "There is no workspace 'nowhere'."),
        (["activate", "nobody@acme.test"], "There is no user 'nobody@acme.test'."),
        (["delete", "nobody@acme.test"], "There is no user 'nobody@acme.test'."),
        (["email", ANA, BEN], "This email is another user's."),
        (["email", ANA, "no email"], "no email: "),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(directory: Directory, args: list[str], text: str) -> None:
    done = invoke(directory, *args)
    assert done.exit_code == 1
    assert len(done.output.splitlines()) == 1
    assert text in done.output
    assert directory.take_event_facts() == []


def test_a_user_is_created_listed_and_renamed(run: Run, directory: Directory) -> None:
    made = run(
        *("user", "create", "Gia@Acme.test", "--name", "Gia"),
        *("--workspace", "globex", "--workspace", "acme", "--role", "builder"),
    )
    id_ = made.removesuffix(".\n").split()[-1]
    assert made == f"User gia@acme.test is created. The id is {id_}.\n"
    rows = [line.split("\t") for line in run("user", "list").splitlines()]
    [gia] = [row for row in rows if row[0] == "gia@acme.test"]
    assert (gia[1:3], gia[4:]) == (["Gia", "active"], ["globex"])
    assert sorted(gia[3].split(", ")) == ["acme: builder", "globex: builder"]
    assert run("user", "change", id_, "--name", "Gia M") == f"The name of {id_} is Gia M.\n"
    shown = run("user", "show", "GIA@acme.test")
    assert "NAME\tGia M\n" in shown
    assert f"ID\t{id_}\n" in shown
    assert {event.client_id for event in directory.take_events()} == {"(operator)"}


def test_json_has_the_form_of_the_api(run: Run, directory: Directory) -> None:
    made = json.loads(run("user", "create", "gia@acme.test", "--workspace", "acme", "--json"))
    assert made == directory.ok("GET", f"users/{made['id']}", client="everywhere")
    assert made == json.loads(run("user", "show", "gia@acme.test", "--json"))
    assert json.loads(run("user", "list", "--json")) == directory.items("users", client="everywhere")
    assert json.loads(run("user", "change", ANA, "--name", "A", "--json"))["name"] == "A"


def test_users_are_listed_by_workspace_and_status(run: Run) -> None:
    run("user", "archive", BEN)
    for args, emails in (
        (["--workspace", "acme"], {ANA, BEN}),
        (["--status", "archived"], {BEN}),
        (["--workspace", "globex", "--status", "active"], {MALLORY}),
    ):
        assert {line.split("\t")[0] for line in run("user", "list", *args).splitlines()} == emails


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["create", "Ana@ACME.test"], "The user Ana@ACME.test exists."),
        (["create", "ana"], "EMAIL ana: Must be one plain email address"),
        (["create", "gia@acme.test", "--workspace", "nowhere"], "There is no workspace 'nowhere'."),
        (["change", ANA, "--name", ""], "--name : Must be a text of 1 to 200 characters."),
        (["change", "nobody@acme.test", "--name", "N"], "There is no user 'nobody@acme.test'."),
        (["show", "nobody@acme.test"], "There is no user 'nobody@acme.test'."),
        (["list", "--workspace", "nowhere"], "There is no workspace 'nowhere'."),
        (["create", f"{'a' * 10_000}@acme.test"], "Must be at most 254 characters long."),
    ],
)
def test_a_refused_change_of_users_is_one_line(
    run: Run, directory: Directory, args: list[str], text: str
) -> None:
    said = run.refused("user", *args)
    assert text in said
    assert len(said) < 500
    assert directory.take_event_facts() == []


@pytest.mark.parametrize(
    ("args", "question"),
    [
        (["user", "delete", ANA], f"Delete {ANA} (Ana) with grants, tokens, sessions and rows of apps?"),
        (["app", "delete", "orders"], "Delete app orders (Orders) with its grants, tokens and sessions?"),
        (["workspace", "delete", "initech"], "Delete workspace initech (initech) with its memberships,"),
        (
            ["app", "change", "orders", "--workspace", "globex"],
            "Move app orders, end its tokens and sessions",
        ),
    ],
)
def test_a_terminal_asks_before_it_deletes(
    run: Run, run_in_terminal: Callable[..., str], directory: Directory, args: list[str], question: str
) -> None:
    run("workspace", "create", "initech")
    directory.take_events()
    shown = run_in_terminal(*args, typed="n\n")
    assert question in shown
    assert "is deleted" not in shown
    assert directory.take_events() == []
    assert question not in run_in_terminal(*args, "--yes")
    assert directory.take_events() != []


def test_a_terminal_deletes_after_a_yes(run_in_terminal: Callable[..., str]) -> None:
    assert f"{ANA} is deleted.\n" in run_in_terminal("user", "delete", ANA, typed="y\n")


def test_check_counts_the_users_without_a_home(directory: Directory) -> None:
    runner = directory.service.app.test_cli_runner()
    assert "home" not in runner.invoke(args=["check"]).output
    directory.service.change(update(User).values(home_workspace_id=None))
    done = runner.invoke(args=["check"])
    assert done.exit_code == 0
    assert "3 user(s) have no home workspace" in done.output
    assert "user home EMAIL SLUG" in done.output
    ok(directory, "home", ANA, "acme")
    assert "2 user(s) have no home workspace" in runner.invoke(args=["check"]).output
