"""An app's page holds nothing that opens another app or the launcher."""

import re
from typing import Any, Final

import jwt
import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from pat_service.storage.models import Session, Token, Workspace
from tests.support.api_calls import EXCHANGE
from tests.support.people import ORDERS, PORTAL, SUPPORT, Service, boot, problem_of
from tests.support.shared_fixtures import MakeService

JSON: Final = {"Accept": "application/json"}
BOTH_URLS: Final = ["https://embed.example", "https://{app}.embed.example"]


class Place:
    """The service at one PUBLIC_URL, with its hosts."""

    def __init__(self, service: Service, public_url: str) -> None:
        self.service = service
        self.own_hosts = "{app}" in public_url
        (row,) = service.rows(select(Workspace.id).where(Workspace.slug == "acme"))
        self.launcher = f"/embed-workspaces/{row.id}"

    def host(self, path: str) -> str:
        if not self.own_hosts or path.startswith(self.launcher):
            return "embed.example"
        return f"{'orders' if ORDERS in path else 'support'}.embed.example"

    def call(self, method: str, path: str, host: str | None = None, **options: Any) -> TestResponse:
        headers = JSON | {"Host": host or self.host(path)} | options.pop("headers", {})
        return self.service.client.open(path, method=method, headers=headers, **options)

    def token(self, **fields: Any) -> str:
        return self.service.token(**{"client": "manager", "appSlug": None, "workspaceSlug": "acme"} | fields)

    def launch(self) -> str:
        answer = self.call("GET", self.launcher, query_string={"personal-access-token": self.token()})
        session: str = boot(answer)["session"]
        return session

    def status(self, session: str, path: str) -> tuple[int, str]:
        answer = self.call("GET", f"{path}/session", headers={"Authorization": f"Bearer {session}"})
        return answer.status_code, (answer.get_json() or {}).get("code", "served")

    def enter(self, session: str, app_id: str = ORDERS) -> TestResponse:
        headers = {"Authorization": f"Bearer {session}"}
        return self.call("POST", f"{self.launcher}/apps/{app_id}", headers=headers)


@pytest.fixture(scope="module", params=BOTH_URLS)
def place(request: pytest.FixtureRequest, make_shared: MakeService) -> Place:
    return Place(make_shared(PUBLIC_URL=request.param), request.param)


APP: Final = f"/embed-apps/{ORDERS}"
OTHER: Final = f"/embed-apps/{SUPPORT}"


def navigate(place: Place, way: str, token: str) -> TestResponse:
    given = {"personal-access-token": token}
    if way == "form":
        return place.call("POST", APP, data=given)
    return place.call("GET", APP, query_string=given)


@pytest.mark.parametrize("way", ["address", "form"])
def test_a_workspace_token_never_loads_an_apps_page(place: Place, way: str) -> None:
    token = place.token()
    answer = navigate(place, way, token)
    assert answer.status_code == 303
    assert answer.data == b""
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    address = answer.headers["Location"]
    assert re.fullmatch(rf"{APP}\?code=otc_[0-9a-f]{{72}}", address)
    page = place.call("GET", address)
    assert page.status_code == 200
    assert token not in page.text
    session = boot(page)["session"]
    assert jwt.decode(session, options={"verify_signature": False})["aud"] == f"embed:{ORDERS}"
    assert place.status(session, APP) == (200, "served")
    assert place.status(session, OTHER) == (401, "session_invalid")
    assert place.status(session, place.launcher) == (401, "session_invalid")
    problem_of(place.enter(session, SUPPORT), 401, "session_invalid")
    problem_of(place.call("GET", address), 401, "token_invalid")


def test_a_move_keeps_the_hosts_preferences_and_drops_the_token(place: Place) -> None:
    query = {
        "personal-access-token": place.token(),
        "theme": "dark",
        "locale": "es",
        "parent": PORTAL,
        "code": "",
    }
    address = place.call("GET", APP, query_string=query).headers["Location"]
    assert address.endswith("&theme=dark&locale=es&parent=http%3A%2F%2Fportal.example")
    assert "pat_" not in address
    assert '<html lang="en" data-theme="dark">' in place.call("GET", address).text


@pytest.mark.parametrize("way", ["address", "form"])
def test_a_single_use_workspace_token_is_repeated_by_the_same_navigation(place: Place, way: str) -> None:
    token = place.token(singleUse=True)
    first, second = (navigate(place, way, token).headers["Location"] for _ in range(2))
    problem_of(place.call("GET", first), 401, "session_revoked")
    session = boot(place.call("GET", second))["session"]
    assert place.status(session, APP) == (200, "served")
    problem_of(navigate(place, way, token), 401, "token_used")
    assert place.status(session, APP) == (200, "served")


def test_a_launchers_session_opens_no_app(place: Place) -> None:
    session = place.launch()
    assert place.status(session, place.launcher) == (200, "served")
    for path in (APP, OTHER):
        assert place.status(session, path) == (401, "session_invalid")
        for rest in ("pages/index", "pages/list", "data/orders.csv"):
            answer = place.call("GET", f"{path}/{rest}", headers={"Authorization": f"Bearer {session}"})
            problem_of(answer, 401, "session_invalid")
        problem_of(place.call("POST", path, data={"session": session}), 401, "token_missing")
    ending = place.call("DELETE", f"{APP}/session", headers={"Authorization": f"Bearer {session}"})
    problem_of(ending, 401, "session_invalid")
    assert place.status(session, place.launcher) == (200, "served")


@pytest.mark.parametrize("way", ["a program", "a code"])
def test_an_apps_session_from_a_workspace_token_is_valid_only_there(place: Place, way: str) -> None:
    if way == "a program":
        body = {"appId": ORDERS, "accessToken": place.token()}
        session = (place.call("POST", EXCHANGE, json=body).get_json() or {})["signedPat"]
    else:
        body = {"accessToken": place.enter(place.launch()).get_json()["code"], "parentOrigin": PORTAL}
        session = (place.call("POST", f"{APP}/frame", json=body).get_json() or {})["session"]
    assert place.status(session, APP) == (200, "served")
    assert place.status(session, OTHER) == (401, "session_invalid")
    assert place.status(session, place.launcher) == (401, "session_invalid")
    problem_of(place.enter(session), 401, "session_invalid")
    (row,) = place.service.rows(
        select(Session.app_id, Session.workspace_token).order_by(Session.id.desc()).limit(1)
    )
    assert row == (ORDERS, True)


def test_an_apps_page_never_takes_a_workspace_token(place: Place) -> None:
    """Not at the start, and not at a renewal."""
    former = boot(place.call("GET", APP, query_string={"personal-access-token": place.service.token()}))
    token = place.token(singleUse=True)
    for extra in ({}, {"nonce": "n" * 22}, {"session": former["session"]}):
        body = {"accessToken": token, "parentOrigin": PORTAL, "ancestorOrigins": [PORTAL]} | extra
        problem_of(place.call("POST", f"{APP}/frame", json=body), 401, "token_invalid")
    (row,) = place.service.rows(select(Token.first_used_at).where(Token.app_id.is_(None)))
    assert row.first_used_at is None
    assert place.status(former["session"], APP) == (200, "served")


def test_a_code_is_refused_at_another_apps_host_and_stays_unused(place: Place) -> None:
    code = (place.enter(place.launch()).get_json() or {})["code"]
    if place.own_hosts:
        body = {"accessToken": code, "parentOrigin": PORTAL}
        for host in ("support.embed.example", "nothing.embed.example"):
            problem_of(place.call("GET", f"{APP}?code={code}", host), 401, "token_invalid")
            problem_of(place.call("POST", f"{APP}/frame", host, json=body), 401, "token_invalid")
        problem_of(place.call("GET", f"{APP}?code={code}", "embed.example"), 404, "not_found")
    assert place.call("GET", f"{APP}?code={code}").status_code == 200


def test_a_prefetch_or_a_tab_uses_no_code(place: Place) -> None:
    code = (place.enter(place.launch()).get_json() or {})["code"]
    for headers in (
        {"Sec-Purpose": "prefetch"},
        {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"},
    ):
        problem_of(place.call("GET", f"{APP}?code={code}", headers=headers), 403, "not_framed")
    assert place.call("HEAD", f"{APP}?code={code}").status_code == 405
    assert place.call("GET", f"{APP}?code={code}").status_code == 200
