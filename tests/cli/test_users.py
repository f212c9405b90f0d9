"""Commands for users act for the whole installation."""

from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import update

from pat_service.storage.models import User
from tests.support.directory import ANA, BEN, MALLORY, Directory


def run(directory: Directory, *args: str) -> Result:
    return directory.service.app.test_cli_runner().invoke(args=["user", *args])


def ok(directory: Directory, *args: str) -> str:
    done = run(directory, *args)
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
    done = run(directory, "archive", MALLORY, "--workspace", "acme")
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
    done = run(directory, *args)
    assert done.exit_code == 1
    assert len(done.output.splitlines()) == 1
    assert text in done.output
    assert directory.take_event_facts() == []


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
