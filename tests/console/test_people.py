"""People in the console: search, memberships, grants, status and sessions."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from sqlalchemy import delete, select

from pat_service.storage.models import Grant, Member, User, Workspace, WorkspaceStatus
from tests.console.test_roles import ANA, MALLORY
from tests.support.console import OLGA, OTTO, VERA, Browser
from tests.support.pages import read
from tests.support.people import SUPPORT, WORLD, Service, provision

SignIn = Callable[[str], Browser]
#: The mark of an app that the person may open.
MAY_OPEN: Final = '<span class="badge ok">may open</span>'


@pytest.fixture(autouse=True)
def _as_it_was(console: Service) -> Iterator[None]:
    yield
    added = User.email.in_(("nora@acme.test", "anna@acme.test"))
    console.change(delete(User).where(added))
    console.change(delete(WorkspaceStatus))
    provision(console.app, WORLD)


def roles_of(console: Service, email: str) -> dict[str, str]:
    statement = (
        select(Workspace.slug, Member.role)
        .join(Member, Member.workspace_id == Workspace.id)
        .join(User, User.id == Member.user_id)
        .where(User.email == email)
    )
    return dict(console.rows(statement))


def statuses_of(console: Service, email: str) -> dict[str, str]:
    statement = (
        select(Workspace.slug, WorkspaceStatus.status)
        .join(WorkspaceStatus, WorkspaceStatus.workspace_id == Workspace.id)
        .join(User, User.id == WorkspaceStatus.user_id)
        .where(User.email == email)
    )
    return dict(console.rows(statement))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["ana@acme.test", "ben@acme.test"]),
        ("q=ANA", ["ana@acme.test"]),
        ("q=en%40acme", ["ben@acme.test"]),
        ("q=Ben", ["ben@acme.test"]),
        ("q=%25", []),
        ("q=_", []),
        ("status=archived", []),
        ("workspace=acme", ["ana@acme.test", "ben@acme.test"]),
        ("workspace=globex", []),
    ],
)
def test_otto_finds_people_of_acme_by_a_part_of_email_or_name(
    sign_in: SignIn, query: str, found: list[str]
) -> None:
    page = read(sign_in(OTTO).get(f"/people?{query}").text)
    for email in ("ana@acme.test", "ben@acme.test", "mallory@globex.test"):
        assert (email in page) == (email in found), email
    assert ("Nobody matches" in page) == (not found)


def test_olga_finds_everyone(sign_in: SignIn) -> None:
    assert "mallory@globex.test" in sign_in(OLGA).get("/people?q=mall").text


def test_otto_adds_nora_to_acme(console: Service, sign_in: SignIn) -> None:
    otto = sign_in(OTTO)
    answer = otto.post("/people", email="Nora@acme.test", name="Nora", workspace="acme", role="builder")
    assert answer.status_code == 303
    assert roles_of(console, "nora@acme.test") == {"acme": "builder"}
    assert "Nora" in otto.get(answer.headers["Location"]).text
    (event,) = console.events("member:added")
    assert event.client_id == f"operator:{OTTO}"


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"email": "nobody", "workspace": "acme"}, 400, "Must be one plain email address"),
        ({"email": "n\0@acme.test", "workspace": "acme"}, 400, "control characters"),
        ({"email": "nora@acme.test"}, 400, "Must name at least one: you are limited to workspaces."),
        ({"email": "nora@acme.test", "workspace": "globex"}, 404, "No such workspace in your workspaces."),
        ({"email": "nora@acme.test", "workspace": "acme", "role": "king"}, 400, "Must be one of admin"),
        ({"email": "nora@acme.test", "workspace": "acme", "name": "n" * 201}, 400, "1 to 200 characters"),
        ({"email": "ana@acme.test", "workspace": "acme"}, 409, "This user exists: open them in the list"),
    ],
)
def test_a_refused_person_shows_the_form_again(
    console: Service, sign_in: SignIn, fields: dict[str, Any], status: int, text: str
) -> None:
    answer = sign_in(OTTO).post("/people", **({"role": "end-user"} | fields))
    assert answer.status_code == status
    assert text in read(answer.text)
    assert "this client" not in read(answer.text).lower()
    assert not console.rows(select(User.id).where(User.email == "nora@acme.test"))


def test_mallory_is_nobody_for_otto_until_she_joins_acme(console: Service, sign_in: SignIn) -> None:
    otto = sign_in(OTTO)
    path = f"/people/{MALLORY(console)}"
    assert otto.get(path).status_code == 404
    assert otto.post("/people", email="mallory@globex.test", workspace="acme").status_code == 303
    page = read(otto.get(path).text)
    assert "mallory@globex.test" in page
    assert "globex ·" not in page
    refused = otto.post(path, name="Mal", email="mallory@globex.test")
    assert refused.status_code == 409
    assert "Only operators of this person's home workspace can change the name" in read(refused.text)
    assert 'value="Mal"' in refused.text


def test_otto_changes_anas_name_and_email(console: Service, sign_in: SignIn) -> None:
    otto, path = sign_in(OTTO), f"/people/{ANA(console)}"
    assert otto.post(path, name="Anna", email="anna@acme.test").status_code == 303
    assert console.rows(select(User.name).where(User.email == "anna@acme.test"))[0][0] == "Anna"
    assert otto.post(path, name="", email="anna@acme.test").status_code == 400
    assert otto.post(path, name="Ana", email="ben@acme.test").status_code == 409
    assert otto.post(path, name="Ana", email="ana@acme.test").status_code == 303


def test_otto_archives_ana_in_his_workspaces_alone(console: Service, sign_in: SignIn) -> None:
    otto, path = sign_in(OTTO), f"/people/{ANA(console)}"
    frame = console.frame()
    assert otto.post(f"{path}/status", status="archived").status_code == 303
    assert statuses_of(console, "ana@acme.test") == {"acme": "archived"}
    assert console.rows(select(User.status).where(User.email == "ana@acme.test"))[0][0] == "active"
    assert console.get(frame, "session").status_code == 401
    assert "archived here" in read(otto.get(path).text)
    otto.post(f"{path}/status", status="active", workspace="acme")
    assert statuses_of(console, "ana@acme.test") == {"acme": "active"}
    assert console.get(frame, "session").status_code == 200


def test_olga_archives_ana_in_the_installation_or_in_one_workspace(console: Service, sign_in: SignIn) -> None:
    olga, path = sign_in(OLGA), f"/people/{ANA(console)}"
    olga.post(f"{path}/status", status="archived")
    assert console.rows(select(User.status).where(User.email == "ana@acme.test"))[0][0] == "archived"
    assert statuses_of(console, "ana@acme.test") == {}
    olga.post(f"{path}/status", status="active")
    olga.post(f"{path}/status", status="archived", workspace="acme")
    assert statuses_of(console, "ana@acme.test") == {"acme": "archived"}
    assert {event.client_id for event in console.events("user:changed")} == {f"operator:{OLGA}"}


def test_otto_archives_nobody_in_a_workspace_of_others(console: Service, sign_in: SignIn) -> None:
    path = f"/people/{ANA(console)}/status"
    assert sign_in(OTTO).post(path, status="archived", workspace="globex").status_code == 404
    assert sign_in(OTTO).post(path, status="gone").status_code == 400
    assert statuses_of(console, "ana@acme.test") == {}


def test_otto_changes_anas_role_and_removes_her(console: Service, sign_in: SignIn) -> None:
    otto, path = sign_in(OTTO), f"/people/{ANA(console)}"
    assert otto.post(f"{path}/memberships", workspace="acme", role="admin").status_code == 303
    assert roles_of(console, "ana@acme.test") == {"acme": "admin"}
    assert otto.post(f"{path}/memberships", workspace="acme", role="king").status_code == 400
    answer = otto.post(f"{path}/memberships/remove", workspace="acme")
    assert answer.headers["Location"] == "/people"
    assert roles_of(console, "ana@acme.test") == {}
    assert otto.get(path).status_code == 404


def test_otto_gives_ben_an_app_and_takes_it_away(console: Service, sign_in: SignIn) -> None:
    otto = sign_in(OTTO)
    ben = console.rows(select(User.id).where(User.email == "ben@acme.test"))[0][0]
    path = f"/people/{ben}"
    granted = select(Grant.app_id).where(Grant.user_id == ben, Grant.app_id == SUPPORT)
    assert otto.post(f"{path}/grants", app="support").status_code == 303
    assert console.rows(granted)
    assert otto.get(path).text.count(MAY_OPEN) == 2
    assert otto.post(f"{path}/grants/remove", app="support").status_code == 303
    assert not console.rows(granted)
    assert otto.post(f"{path}/grants/remove", app="support").status_code == 404
    assert otto.post(f"{path}/grants", app="nothing").status_code == 404


def test_a_grant_without_a_membership_shows_no_access(console: Service, sign_in: SignIn) -> None:
    olga = sign_in(OLGA)
    olga.post(f"/people/{ANA(console)}/memberships/remove", workspace="acme")
    page = olga.get(f"/people/{ANA(console)}").text
    assert "no access" in page
    assert MAY_OPEN not in page


def test_end_everything_names_the_numbers_and_ends_them(console: Service, sign_in: SignIn) -> None:
    otto, path = sign_in(OTTO), f"/people/{ANA(console)}"
    otto.post(f"{path}/end")
    frames = [console.frame(), console.frame(SUPPORT)]
    assert "Revoke 2 tokens and end 2 sessions?" in read(otto.get(path).text)
    assert otto.post(f"{path}/end").status_code == 303
    assert "Tokens revoked: 2. Sessions ended: 2." in otto.get(path).text
    assert [console.get(frame, "session").status_code for frame in frames] == [401, 401]
    assert "End everything" not in otto.get(path).text


def test_vera_sees_people_without_a_button(console: Service, sign_in: SignIn) -> None:
    vera = sign_in(VERA)
    console.frame()
    page = vera.get(f"/people/{ANA(console)}").text.partition("<main")[2]
    assert "ana@acme.test" in page
    assert "<form" not in page
    assert "<button" not in page
    assert "Add a person" not in vera.get("/people").text
