"""Clients in the console: create, change, rotate, revoke."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import delete, select

from pat_service.http.authentication import utcnow
from pat_service.storage.models import Client, ClientSecret, Token
from tests.support.console import OLGA, Browser
from tests.support.pages import read
from tests.support.people import MINT_BODY, Service, basic

SignIn = Callable[[str], Browser]

NEW: Final[dict[str, Any]] = {
    "id": "shop",
    "scope": ["mint", "audit"],
    "reach": "some",
    "workspace": ["acme"],
    "mint_limit": "600 per minute",
    "highest_role": "builder",
}


@pytest.fixture(autouse=True)
def _as_it_was(console: Service) -> Iterator[None]:
    yield
    console.change(delete(Client).where(Client.id == "shop"))
    console.change(delete(Token).where(Token.client_id == "shop"))


def secret_of(page: str) -> str:
    found = re.search(r"<code>(pcs_[^<]+|[^<]{30,})</code>", page.partition('class="secret"')[2])
    assert found is not None
    return found[1]


def mint(console: Service, secret: str) -> int:
    answer = console.client.post(
        "/api/ext/users/personal-access-token", json=MINT_BODY, headers=basic("shop", secret)
    )
    return answer.status_code


def test_olga_creates_a_client_whose_secret_shows_once(console: Service, sign_in: SignIn) -> None:
    olga = sign_in(OLGA)
    page = olga.post("/clients", **NEW)
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-store"
    secret = secret_of(page.text)
    assert f'data-copy="{secret}"' in page.text
    assert mint(console, secret) == 201
    for path in ("/clients", "/clients/shop", "/audit"):
        assert secret not in olga.get(path).text
    row = console.rows(select(Client.__table__).where(Client.id == "shop"))[0]
    assert (row.scopes, row.all_workspaces) == (["audit", "mint"], False)
    assert (row.mint_limit, row.highest_role) == ("600 per minute", "builder")
    (event,) = console.events("client:created")
    assert (event.client_id, event.details["by"]) == ("shop", f"operator:{OLGA}")
    assert "used" in read(olga.get("/clients/shop").text)


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"id": "portal"}, 409, "The id 'portal' is taken"),
        ({"id": "no spaces"}, 409, "is not a client id"),
        ({"id": "s" * 501}, 400, "at most 500 characters"),
        ({"scope": []}, 400, "Choose at least one scope."),
        ({"scope": ["everything"]}, 400, "Choose at least one scope."),
        ({"workspace": []}, 400, "Choose at least one workspace, or all of them."),
        ({"workspace": ["nowhere"]}, 409, "There is no workspace 'nowhere'."),
        ({"reach": ""}, 400, "Choose at least one workspace"),
        ({"mint_limit": "often"}, 409, "Must be a limit such as 10 per minute."),
        ({"highest_role": "king"}, 400, "The highest role must be one of"),
        ({"mint_limit": "1\0"}, 400, "control characters"),
    ],
)
def test_a_refused_client_is_not_created(
    console: Service, sign_in: SignIn, fields: dict[str, Any], status: int, text: str
) -> None:
    answer = sign_in(OLGA).post("/clients", **(NEW | fields))
    assert answer.status_code == status
    assert text in read(answer.text)
    assert not console.rows(select(Client.id).where(Client.id == "shop"))


def test_olga_changes_scopes_workspaces_and_limit(console: Service, sign_in: SignIn) -> None:
    olga = sign_in(OLGA)
    olga.post("/clients", **NEW)
    changes: dict[str, Any] = {
        "scope": ["mint"],
        "reach": "all",
        "mint_limit": "",
        "highest_role": "end-user",
    }
    assert olga.post("/clients/shop", **changes).status_code == 303
    row = console.rows(select(Client.__table__).where(Client.id == "shop"))[0]
    assert (row.scopes, row.all_workspaces, row.mint_limit) == (["mint"], True, None)
    assert row.highest_role == "end-user"
    (event,) = console.events("client:changed")
    assert event.details["by"] == f"operator:{OLGA}"
    assert event.details["after"]["workspaces"] is None
    refused = olga.post("/clients/shop", **(changes | {"mint_limit": "often"}))
    assert refused.status_code == 409
    assert 'value="often"' in refused.text
    assert (
        olga.post("/clients/shop", **(changes | {"reach": "some", "workspace": "globex"})).status_code == 303
    )


def test_a_rotated_secret_works_beside_the_old_one_for_the_overlap(console: Service, sign_in: SignIn) -> None:
    olga = sign_in(OLGA)
    old = secret_of(olga.post("/clients", **NEW).text)
    page = olga.post("/clients/shop/rotate", overlap="1h")
    new = secret_of(page.text)
    assert "Earlier secrets end in an hour." in read(page.text)
    assert (mint(console, old), mint(console, new)) == (201, 201)
    ends = console.rows(select(ClientSecret.expires_at).where(ClientSecret.client_id == "shop"))
    assert [end for (end,) in ends if end and end <= utcnow() + timedelta(hours=1)]
    newest = secret_of(olga.post("/clients/shop/rotate", overlap="0").text)
    assert [mint(console, secret) for secret in (old, new, newest)] == [401, 401, 201]
    assert olga.post("/clients/shop/rotate", overlap="1y").status_code == 400
    assert {event.details["by"] for event in console.events("client:rotated")} == {f"operator:{OLGA}"}


def test_a_revoked_client_takes_its_tokens_with_it_if_olga_says_so(console: Service, sign_in: SignIn) -> None:
    olga = sign_in(OLGA)
    secret = secret_of(olga.post("/clients", **NEW).text)
    assert mint(console, secret) == 201
    assert "Also revoke 1 token and end 0 sessions" in read(olga.get("/clients/shop/revoke").text)
    assert olga.post("/clients/shop/revoke", tokens="1").status_code == 303
    page = read(olga.get("/clients/shop").text)
    assert "Tokens revoked: 1. Sessions ended: 0." in page
    assert "This client was revoked on" in page
    assert mint(console, secret) == 401
    assert olga.post("/clients/shop/rotate", overlap="0").status_code == 409
    assert olga.post("/clients/shop/revoke").status_code == 409
    again = olga.post("/clients/shop", scope="mint", reach="all", highest_role="end-user")
    assert again.status_code == 409


def test_a_revoked_clients_tokens_stay_if_olga_says_so(console: Service, sign_in: SignIn) -> None:
    olga = sign_in(OLGA)
    secret = secret_of(olga.post("/clients", **NEW).text)
    mint(console, secret)
    olga.post("/clients/shop/revoke")
    assert console.rows(select(Token.revoked_at).where(Token.client_id == "shop"))[0][0] is None


@pytest.mark.parametrize("id_", ["gone", "%00", "%FF", "..%2F", "a" * 3000, "%3Cscript%3E"])
def test_an_unknown_client_is_not_found(sign_in: SignIn, id_: str) -> None:
    olga = sign_in(OLGA)
    assert olga.get(f"/clients/{id_}").status_code == 404
    assert olga.get(f"/clients/{id_}/revoke").status_code == 404
    assert olga.post(f"/clients/{id_}/rotate", overlap="0").status_code == 404
