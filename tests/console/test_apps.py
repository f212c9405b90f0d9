"""The pages of apps: origins, people, settings, and code for host pages."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import delete, select

from pat_service.console import snippets
from pat_service.storage.models import App, Event, Grant, User
from tests.support.console import OLGA, OTTO, Browser
from tests.support.people import (
    LEDGER,
    MINT,
    ORDERS,
    PORTAL,
    PUBLIC_URL,
    SECRETS,
    SUPPORT,
    WORLD,
    Service,
    basic,
    provision,
)
from tests.support.servers import PROJECT

SignIn = Callable[[str], Browser]


@pytest.fixture
def world(console: Service) -> Iterator[Service]:
    """The console, whose apps are as before after the test."""
    yield console
    ids = [app["id"] for app in WORLD["apps"]]
    console.change(delete(App).where(App.id.not_in(ids)))
    provision(console.app, WORLD)


def read_app(service: Service, app_id: str = ORDERS) -> Any:
    return service.rows(select(App.__table__).where(App.id == app_id))[0]


def last_event(service: Service) -> Any:
    return service.events()[-1]


def test_otto_finds_an_app_by_its_slug(console: Service, sign_in: SignIn) -> None:
    text = sign_in(OTTO).get("/apps?slug=ORDERS").text
    assert f"/apps/{ORDERS}" in text
    assert f"/apps/{SUPPORT}" not in text
    assert "No app matches" in sign_in(OTTO).get("/apps?slug=nothing").text


@pytest.mark.parametrize(
    "query",
    ["slug=%00", "cursor=x", "workspace=1", "cursor=%00", f"slug={'a' * 501}"],
    ids=lambda text: text[:9],
)
def test_a_wrong_filter_is_refused(sign_in: SignIn, query: str) -> None:
    assert sign_in(OTTO).get(f"/apps?{query}").status_code == 400


def test_otto_allows_an_origin_and_removes_it(world: Service, sign_in: SignIn) -> None:
    browser = sign_in(OTTO)
    browser.post(f"/apps/{ORDERS}/origins", origin="HTTPS://Shop.Example:443")
    assert read_app(world).allowed_origins == [PORTAL, "https://shop.example"]
    event = last_event(world)
    assert (event.type, event.client_id) == ("app:changed", f"operator:{OTTO}")
    browser.post(f"/apps/{ORDERS}/origins/remove", origin="https://shop.example")
    assert read_app(world).allowed_origins == [PORTAL]


def test_a_wrong_origin_is_shown_again_with_the_reason(world: Service, sign_in: SignIn) -> None:
    answer = sign_in(OTTO).post(f"/apps/{ORDERS}/origins", origin="https://shop.example/<path>")
    assert answer.status_code == 400
    assert 'value="https://shop.example/&lt;path&gt;"' in answer.text
    assert "Must be an exact origin" in answer.text
    assert read_app(world).allowed_origins == [PORTAL]


@pytest.mark.parametrize(
    ("typed", "tone", "text"),
    [
        ("https://shop.example", "ok", "https://shop.example can be added."),
        (PORTAL, "warn", "is allowed already"),
        ("*", "warn", "Every site"),
        ("http://shop.example", "warn", "Without https"),
        ("http://localhost:3000", "ok", "can be added"),
        ("https://[::1]", "bad", "IPv6"),
        ("shop.example", "bad", "Must be an exact origin"),
        ("", "plain", ""),
    ],
)
def test_an_origin_is_judged_while_otto_types(sign_in: SignIn, typed: str, tone: str, text: str) -> None:
    answer = sign_in(OTTO).get(f"/apps/{ORDERS}/origins/check", query_string={"origin": typed})
    assert answer.status_code == 200
    assert f'class="verdict {tone}"' in answer.text
    assert text in unescape(answer.text)
    assert "<html" not in answer.text


def test_otto_grants_support_to_ben_and_takes_it_back(world: Service, sign_in: SignIn) -> None:
    browser = sign_in(OTTO)
    browser.post(f"/apps/{SUPPORT}/people", email="BEN@acme.test")
    assert last_event(world).type == "grant:added"
    assert "ben@acme.test" in browser.get(f"/apps/{SUPPORT}").text
    ben = world.rows(select(User.id).where(User.email == "ben@acme.test"))[0].id
    browser.post(f"/apps/{SUPPORT}/people/remove", user=ben)
    assert world.rows(select(Grant).where(Grant.app_id == SUPPORT, Grant.user_id == ben)) == []


@pytest.mark.parametrize("email", ["nobody@acme.test", "mallory@globex.test", "not an email"])
def test_only_people_whom_otto_sees_get_a_grant(world: Service, sign_in: SignIn, email: str) -> None:
    before = world.count(Grant)
    answer = sign_in(OTTO).post(f"/apps/{SUPPORT}/people", email=email)
    assert answer.status_code in (400, 404)
    assert f'value="{email}"' in answer.text
    assert world.count(Grant) == before


def test_a_grant_without_effect_says_why(world: Service, sign_in: SignIn) -> None:
    provision(
        world.app,
        {"users": [{"email": "ben@acme.test", "status": "archived", "workspaces": {"acme": "builder"}}]},
    )
    assert "no: archived" in sign_in(OLGA).get(f"/apps/{ORDERS}").text


def test_otto_renames_an_app_and_cannot_name_an_upstream(world: Service, sign_in: SignIn) -> None:
    browser = sign_in(OTTO)
    browser.post(f"/apps/{ORDERS}", name="Sales", slug="orders")
    assert read_app(world).name == "Sales"
    # The field counts for owners alone.
    browser.post(f"/apps/{ORDERS}", name="Sales", slug="orders", kind="upstream", upstream="http://10.0.0.7")
    assert read_app(world).upstream is None


def test_an_upstream_without_hosts_of_apps_is_refused_on_the_form(world: Service, sign_in: SignIn) -> None:
    fields: dict[str, Any] = {
        "name": "Orders",
        "slug": "orders",
        "kind": "upstream",
        "upstream": "http://10.0.0.7:8501",
    }
    answer = sign_in(OLGA).post(f"/apps/{ORDERS}", **fields)
    assert answer.status_code == 409
    assert "{app}" in unescape(answer.text)
    assert 'value="http://10.0.0.7:8501"' in answer.text


def test_all_wrong_fields_of_a_new_app_are_named_at_once(world: Service, sign_in: SignIn) -> None:
    acme = read_app(world).workspace_id
    fields = {"workspace": acme, "slug": "No Slug", "name": "a" * 201, "origins": "portal.example"}
    answer = sign_in(OTTO).post("/apps/new", **fields)
    assert answer.status_code == 400
    assert answer.text.count('aria-invalid="true"') == 3
    assert 'value="No Slug"' in answer.text


def test_otto_adds_an_app_and_deletes_it(world: Service, sign_in: SignIn) -> None:
    browser, acme = sign_in(OTTO), read_app(world).workspace_id
    answer = browser.post(
        "/apps/new", workspace=acme, slug="stock", template="orders", origins=f"{PORTAL}\n{PORTAL}"
    )
    app_id = answer.headers["Location"].split("/")[-2]
    assert answer.headers["Location"].endswith("/embed")
    assert read_app(world, app_id).allowed_origins == [PORTAL]
    browser.post(f"/apps/{app_id}/remove")
    assert world.rows(select(App.id).where(App.id == app_id)) == []
    assert last_event(world).type == "app:deleted"


def test_an_app_of_another_tenant_has_no_code(sign_in: SignIn) -> None:
    assert sign_in(OTTO).get(f"/apps/{LEDGER}/embed").status_code == 404


# ---- Code ----


def snippet(service: Service, key: str, app: Any = None) -> str:
    """Return a snippet for Orders, or for `app`."""
    kinds = snippets.PAGES if key in snippets.PAGES else snippets.BACK_ENDS
    with service.app.test_request_context():
        return snippets.render(kinds, key, app or read_app(service)).text


@pytest.mark.parametrize("key", [*snippets.PAGES, *snippets.BACK_ENDS])
def test_a_snippet_has_the_apps_values_and_no_secret(console: Service, sign_in: SignIn, key: str) -> None:
    parameter = "page" if key in snippets.PAGES else "back-end"
    text = unescape(sign_in(OTTO).get(f"/apps/{ORDERS}/embed?{parameter}={key}").text)
    assert snippet(console, key) in text
    assert PUBLIC_URL in snippet(console, key)
    assert "orders" in snippet(console, key)
    assert not [secret for secret in SECRETS.values() if secret in text]


@pytest.mark.parametrize("key", snippets.BACK_ENDS)
def test_a_back_end_on_a_laptop_needs_no_name_below_localhost(
    console: Service, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setitem(console.app.config, "PUBLIC_URL", "http://{app}.embed.localhost:5000")
    assert "http://127.0.0.1:5000/api/ext/" in snippet(console, key)


def test_the_iframe_is_that_of_the_docs(console: Service) -> None:
    documented = (PROJECT / "docs/host/bare-iframe.md").read_text()
    assert snippet(console, "iframe") in documented


def test_a_hostile_name_stays_inside_its_attribute(console: Service) -> None:
    app = SimpleNamespace(id=ORDERS, slug="orders", name='"><script>alert(1)</script>', upstream=None)
    assert "<script>alert" not in snippet(console, "iframe", app)


def test_the_python_back_end_mints(console: Service) -> None:
    def post(url: str, *, json: Any, auth: tuple[str, str], **_: Any) -> Any:
        answer = console.client.post(url.removeprefix(PUBLIC_URL), json=json, headers=basic(*auth))
        return SimpleNamespace(status_code=answer.status_code, text=answer.text, headers=answer.headers)

    names: dict[str, Any] = {"__name__": "portal"}
    environ = {
        "PORTAL_KEY": "a key of the portal",
        "PAT_CLIENT_ID": "portal",
        "PAT_CLIENT_SECRET": SECRETS["portal"],
    }
    with patch.dict("os.environ", environ), patch("requests.post", post):
        exec(snippet(console, "python"), names)
        client = names["app"].test_client()
        assert client.post("/embed-token", json={"app": "orders"}).status_code == 401
        with client.session_transaction() as session:
            session["email"] = "ana@acme.test"
        assert client.post("/embed-token", data={"app": "orders"}).status_code == 403
        answer = client.post("/embed-token", json={"app": "orders"})
    assert answer.status_code == 201
    assert answer.json["redirectUrl"].startswith(f"{PUBLIC_URL}/embed-apps/{ORDERS}")


def test_the_curl_command_mints(console: Service) -> None:
    _, user, pair, json_, body, url = shlex.split(snippet(console, "curl").replace("\\\n", " "))
    assert (user, pair, json_) == ("--user", "$PAT_CLIENT_ID:$PAT_CLIENT_SECRET", "--json")
    assert url == PUBLIC_URL + MINT
    assert console.mint(json.loads(body)).status_code == 201


@pytest.mark.parametrize(
    ("key", "check"),
    [
        ("node", ["node", "--check", "server.mjs"]),
        ("php", ["php", "-l", "a.php"]),
        ("ruby", ["ruby", "-c", "a.rb"]),
    ],
)
def test_the_other_back_ends_can_be_parsed(
    console: Service, tmp_path: Path, key: str, check: list[str]
) -> None:
    if which(check[0]) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{check[0]} is not installed")
    (tmp_path / check[-1]).write_text(snippet(console, key))
    subprocess.run(check, cwd=tmp_path, check=True, capture_output=True, timeout=60)


def test_an_app_without_origins_says_so(world: Service, sign_in: SignIn) -> None:
    sign_in(OTTO).post(f"/apps/{ORDERS}/origins/remove", origin=PORTAL)
    assert "No page may frame this app yet" in sign_in(OTTO).get(f"/apps/{ORDERS}").text
    assert "Add the origin of your page" in sign_in(OTTO).get(f"/apps/{ORDERS}/embed").text
    assert [event.type for event in world.rows(select(Event.type)) if event.type == "app:changed"]
