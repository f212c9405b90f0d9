"""Commands for workspaces follow the rules of the API."""

import json

import pytest

from tests.support.commands import Run
from tests.support.directory import Directory


def test_a_workspace_is_created_shown_changed_and_deleted(run: Run, directory: Directory) -> None:
    made = run("workspace", "create", "initech", "--origin", "https://p.example")
    id_ = made.removesuffix(".\n").split()[-1]
    assert made == f"Workspace initech is created. Its id is {id_}.\n"
    assert run("workspace", "show", "initech").splitlines()[:-1] == [
        *("SLUG\tinitech", "NAME\tinitech", "ORIGINS\thttps://p.example", "APPS_URL\t"),
        f"ID\t{id_}",
    ]
    changed = run("workspace", "change", "initech", "--slug", "initrode", "--name", "Initrode")
    assert changed == "Workspace initrode is changed.\n"
    assert "initrode\tInitrode\thttps://p.example\n" in run("workspace", "list")
    assert run("workspace", "delete", "initrode") == "Workspace initrode is deleted.\n"
    assert [(fact[0], fact[1]) for fact in directory.take_event_facts()] == [
        (f"workspace:{verb}", "(operator)") for verb in ("created", "changed", "deleted")
    ]


def test_a_deletion_notes_clients_that_reach_nothing_now(run: Run) -> None:
    run("workspace", "create", "initech")
    for client, *workspaces in (("lonely", "initech"), ("both", "initech", "acme"), ("gone", "initech")):
        run("client", "create", client, *(text for slug in workspaces for text in ("--workspace", slug)))
    run("client", "revoke", "gone")
    done = run.runner.invoke(args=["workspace", "delete", "initech"])
    assert done.exit_code == 0
    assert done.stderr == "Note: client lonely reaches no workspace now. client revoke lonely ends it.\n"


def test_json_has_the_form_of_the_api(run: Run, directory: Directory) -> None:
    made = json.loads(run("workspace", "create", "initech", "--name", "Initech", "--json"))
    assert made == json.loads(run("workspace", "show", "initech", "--json"))
    assert made in directory.items("workspaces", client="everywhere")
    assert json.loads(run("workspace", "list", "--json")) == directory.items(
        "workspaces", client="everywhere"
    )
    assert json.loads(run("workspace", "change", "initech", "--name", "I", "--json"))["name"] == "I"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["create", "acme"], "This slug is taken; choose another."),
        (["create", ""], "SLUG : Must be a slug"),
        (["create", "initech", "--name", "\x1b[31m"], r"--name \x1b[31m: Must not contain control"),
        (["create", "initech", "--origin", "null"], "null: Must be an exact origin"),
        (["change", "acme", "--slug", "globex"], "This slug is taken; choose another."),
        (["change", "nowhere", "--name", "N"], "There is no workspace 'nowhere'."),
        (["show", "nowhere"], "There is no workspace 'nowhere'."),
        (["delete", "nowhere"], "There is no workspace 'nowhere'."),
        (["delete", "acme"], "There are apps in this workspace; move or delete them first."),
    ],
)
def test_a_refusal_is_one_line(run: Run, directory: Directory, args: list[str], text: str) -> None:
    assert text in run.refused("workspace", *args)
    assert directory.take_event_facts() == []


def test_a_change_of_nothing_is_a_usage_error(run: Run) -> None:
    said = run.refused("workspace", "change", "acme", code=2)
    assert "Name at least one of --slug, --name, --apps-url." in said


def test_a_workspace_gets_an_own_address(run: Run, directory: Directory) -> None:
    url = "https://{app}.apps.portal.example"
    run("workspace", "change", "acme", "--apps-url", f"{url}:443")
    assert f"APPS_URL\t{url}\n" in run("workspace", "show", "acme")
    assert "Another workspace has this address" in run.refused(
        "workspace", "create", "initech", "--apps-url", url
    )
    refused = run.refused("workspace", "change", "acme", "--apps-url", "https://apps.portal.example")
    assert "Must have {app} as the host's first label" in refused
    run("workspace", "change", "acme", "--apps-url", "")
    assert "APPS_URL\t\n" in run("workspace", "show", "acme")
