"""Workspace tokens: the launcher with its apps, and the sessions of both."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
import time_machine
from flask import Flask
from sqlalchemy import delete, select, update
from werkzeug.test import TestResponse

from pat_service.storage.models import App, Grant, Member, Session, Token, Workspace
from tests.support.people import (
    ACCESS_LOSSES,
    LEDGER,
    ORDERS,
    PORTAL,
    PUBLIC_URL,
    SUPPORT,
    WORLD,
    Frame,
    Service,
    boot,
    changed,
    problem_of,
    provision,
)

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
ELSEWHERE = "https://elsewhere.example"
JSON = {"Accept": "application/json"}


def workspace(service: Service, slug: str = "acme") -> str:
    found: str = service.rows(select(Workspace.id).where(Workspace.slug == slug))[0][0]
    return found


def mint(service: Service, **fields: Any) -> TestResponse:
    fields = {"client": "manager", "appSlug": None, "workspaceSlug": "acme"} | fields
    return service.mint(**fields)


def token(service: Service, **fields: Any) -> str:
    answer = mint(service, **fields)
    assert answer.status_code == 201, answer.text
    found: str = answer.get_json()["personalAccessToken"]
    return found


@dataclass
class Launcher:
    """An open launcher with its session."""

    service: Service
    path: str
    response: TestResponse

    @property
    def jwt(self) -> str:
        found: str = boot(self.response)["session"]
        return found

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.jwt}"}

    def enter(self, app_id: str = ORDERS) -> TestResponse:
        """Exchange the session for a one-time code of an app."""
        return self.service.client.post(f"{self.path}/apps/{app_id}", headers=self.bearer)

    def app(self, app_id: str = ORDERS, **headers: str) -> Frame:
        """Open an app by a navigation with a code."""
        entered = self.enter(app_id)
        assert entered.status_code == 201, entered.text
        code = entered.get_json()["code"]
        page = self.service.client.get(f"/embed-apps/{app_id}?code={code}", headers=headers)
        assert page.status_code == 200, page.text
        return Frame(page, app_id, boot(page)["session"])

    def ask(self, rest: str = "session") -> TestResponse:
        return self.service.client.get(f"{self.path}/{rest}", headers=self.bearer)


def launch(service: Service, **fields: Any) -> Launcher:
    path = f"/embed-workspaces/{workspace(service)}"
    answer = service.client.get(path, query_string={"personal-access-token": token(service, **fields)})
    assert answer.status_code == 200, answer.text
    return Launcher(service, path, answer)


def apps_in(answer: TestResponse) -> list[str]:
    return re.findall(r'class="launch"[^>]* value="([^"]+)"', answer.text)


def directive(answer: TestResponse, name: str) -> str:
    policy = answer.headers["Content-Security-Policy"]
    return next(part.split(" ", 1)[1] for part in policy.split("; ") if part.startswith(f"{name} "))


# ---- Mint ----


def test_a_workspace_mint_returns_the_launchers_address(service: Service) -> None:
    fields = {"personalAccessToken", "redirectUrl", "tokenId", "expiresIn", "sessionExpiresIn"}
    for named in ({}, {"workspaceSlug": None, "workspaceId": workspace(service)}):
        minted = mint(service, **named).get_json()
        assert set(minted) == fields
        start = f"{PUBLIC_URL}/embed-workspaces/{workspace(service)}?personal-access-token=pat_"
        assert minted["redirectUrl"].startswith(start)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        *(({"client": client}, 403, "scope_missing") for client in ("portal", "rival")),
        *(({"workspaceSlug": slug}, 404, "not_found") for slug in ("globex", "nothing")),
        ({"workspaceSlug": None, "workspaceId": LEDGER}, 404, "not_found"),
        *(({"email": who}, 404, "user_not_found") for who in ("mallory@globex.test", "nobody@acme.test")),
    ],
)
def test_a_workspace_mint_is_refused_like_an_app_mint(
    shared: Service, fields: dict[str, Any], status: int, code: str
) -> None:
    before = shared.count(Token)
    problem_of(mint(shared, **fields), status, code)
    assert shared.count(Token) == before


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"appSlug": "orders"}, {"appSlug", "workspaceSlug"}),
        ({"appId": ORDERS}, {"appId", "workspaceSlug"}),
        ({"workspaceId": LEDGER}, {"workspaceId", "workspaceSlug"}),
        ({"workspaceSlug": None}, {"appId", "appSlug"}),
        *(({"workspaceSlug": slug}, {"workspaceSlug"}) for slug in (1, "a\0")),
        ({"workspaceSlug": None, "workspaceId": "acme"}, {"workspaceId"}),
    ],
)
def test_a_mint_names_one_app_or_one_workspace(
    shared: Service, fields: dict[str, Any], named: set[str]
) -> None:
    assert set(problem_of(mint(shared, **fields), 400, "invalid_payload")["errors"]) == named


def test_a_client_with_only_the_workspace_scope_mints_for_no_app(service: Service) -> None:
    provision(service.app, changed("clients", "manager", scopes=["mint:workspace"]))
    assert mint(service).status_code == 201
    problem_of(service.mint(client="manager"), 403, "scope_missing")


@pytest.mark.parametrize("loss", ["she is archived", "she leaves the workspace"])
def test_only_active_members_get_a_workspace_token(service: Service, loss: str) -> None:
    provision(service.app, changed("clients", "manager", workspaces=None))
    provision(service.app, ACCESS_LOSSES[loss])
    problem_of(mint(service), 403, "app_forbidden")


def test_a_workspace_token_replaces_no_app_token(service: Service) -> None:
    of_app = service.token()
    first = token(service)
    second = token(service)
    bens = token(service, email="ben@acme.test")
    path = f"/embed-workspaces/{workspace(service)}"

    def status(text: str) -> int:
        return service.client.get(path, query_string={"personal-access-token": text}).status_code

    assert [status(first), status(second), status(bens)] == [401, 200, 200]
    assert service.open(of_app).status_code == 200
    answer = service.client.get(path, query_string={"personal-access-token": first}, headers=JSON)
    problem_of(answer, 401, "token_superseded")
    assert service.refusal(first) == "token_superseded"
    assert len(service.rows(select(Token.id).where(Token.app_id.is_(None)))) == 2


# ---- The launcher ----


def test_the_launcher_shows_only_the_apps_that_ana_may_open(service: Service) -> None:
    assert apps_in(launch(service).response) == [ORDERS, SUPPORT]
    assert apps_in(launch(service, email="ben@acme.test").response) == [ORDERS]
    service.change(delete(Grant))
    without_grants = launch(service).response
    assert apps_in(without_grants) == []
    assert "No apps yet" in without_grants.text


def test_the_launcher_has_a_policy_of_its_own(service: Service) -> None:
    launcher = launch(service).response
    assert directive(launcher, "frame-ancestors") == PORTAL
    assert directive(launcher, "form-action") == "'none'"
    assert directive(launcher, "frame-src") == "'self'"
    assert directive(launcher, "default-src") == "'none'"
    assert launcher.headers["Cache-Control"] == "no-store, no-transform"
    assert not {"X-Frame-Options", "Set-Cookie"} & set(launcher.headers.keys())
    frame = service.frame().response
    assert directive(frame, "form-action") == "'none'"
    assert "frame-src" not in frame.headers["Content-Security-Policy"]
    provision(service.app, changed("workspaces", "acme", allowed_origins=[]))
    assert directive(launch(service).response, "frame-ancestors") == "'none'"
    provision(service.app, changed("workspaces", "acme", allowed_origins=[PORTAL, ELSEWHERE]))
    assert directive(launch(service, allowedOrigins=[ELSEWHERE]).response, "frame-ancestors") == ELSEWHERE


def test_each_app_keeps_its_own_frame_ancestors(service: Service) -> None:
    provision(service.app, changed("apps", "orders", allowed_origins=[ELSEWHERE]))
    launcher = launch(service)
    assert directive(launcher.app(ORDERS).response, "frame-ancestors") == ELSEWHERE
    assert directive(launcher.app(SUPPORT).response, "frame-ancestors") == PORTAL
    narrow = launch(service, allowedOrigins=[PORTAL])
    assert directive(narrow.app(ORDERS).response, "frame-ancestors") == "'none'"


def test_a_launcher_opens_a_session_for_each_app(service: Service) -> None:
    launcher = launch(service)
    frames = [launcher.app(app_id) for app_id in (ORDERS, SUPPORT)]
    for frame in frames:
        assert boot(frame.response)["base"] == f"/embed-apps/{frame.app_id}"
        facts = service.facts(frame)
        assert (facts["user"]["email"], facts["app"]["id"]) == ("ana@acme.test", frame.app_id)
    assert "app" not in launcher.ask().get_json()
    assert service.count(Session) == 3
    assert [event.app_id for event in service.events("session:opened")] == [None, ORDERS, SUPPORT]


def test_a_workspace_token_opens_an_app_directly(service: Service) -> None:
    text = token(service)
    moved = service.open(text)
    assert moved.status_code == 303
    answer = service.client.get(moved.headers["Location"])
    assert answer.status_code == 200
    assert "All apps" not in answer.text
    exchanged = service.client.post("/api/ext/users/session", json={"appId": SUPPORT, "accessToken": text})
    assert exchanged.status_code == 201
    assert [event.app_id for event in service.events("session:opened")] == [ORDERS, SUPPORT]


def test_a_form_opens_the_launcher_without_a_token_in_its_address(service: Service) -> None:
    path = f"/embed-workspaces/{workspace(service)}"
    answer = service.client.post(path, data={"personal-access-token": token(service)})
    assert answer.status_code == 200
    assert apps_in(answer) == [ORDERS, SUPPORT]


def test_the_jwt_names_the_workspace(service: Service) -> None:
    claims = jwt.decode(launch(service).jwt, options={"verify_signature": False})
    assert claims["aud"] == f"embed-workspace:{workspace(service)}"
    assert claims["wid"] == workspace(service)
    assert set(claims) == {"iss", "aud", "sub", "jti", "wid", "iat", "nbf", "exp"}


def test_an_app_ends_without_its_launcher(service: Service) -> None:
    launcher = launch(service)
    frame, other = launcher.app(ORDERS), launcher.app(SUPPORT)
    ended = service.client.delete(f"/embed-apps/{ORDERS}/session", headers=frame.bearer)
    assert ended.status_code == 204
    problem_of(service.get(frame, "session"), 401, "session_revoked")
    assert service.get(other, "session").status_code == 200
    assert launcher.ask().status_code == 200


# ---- What it does not open ----


def test_a_token_opens_only_its_own_app_or_workspace(service: Service) -> None:
    provision(service.app, changed("clients", "manager", workspaces=None))
    provision(
        service.app, changed("users", "ana@acme.test", workspaces={"acme": "end-user", "globex": "admin"})
    )
    acme, globex = (f"/embed-workspaces/{workspace(service, slug)}" for slug in ("acme", "globex"))
    for path, text in (
        *((acme, service.token()), (globex, token(service))),
        *((acme, token(service, workspaceSlug="globex")), ("/embed-workspaces/nothing", token(service))),
        *((f"/embed-workspaces/{LEDGER}", token(service)), ("/embed-workspaces/%00", token(service))),
        *((f"/embed-apps/{LEDGER}", token(service)), ("/embed-apps/nothing", token(service))),
    ):
        answer = service.client.get(path, query_string={"personal-access-token": text}, headers=JSON)
        problem_of(answer, 401, "token_invalid")


def test_an_app_session_is_invalid_at_the_launcher_and_at_other_apps(service: Service) -> None:
    frame = service.frame()
    for target in (f"/embed-workspaces/{workspace(service)}", f"/embed-apps/{SUPPORT}"):
        answer = service.client.get(f"{target}/session", headers=frame.bearer)
        problem_of(answer, 401, "session_invalid")


def test_a_launchers_session_is_invalid_at_every_app_and_at_other_launchers(service: Service) -> None:
    launcher = launch(service)
    for path in (f"/embed-apps/{ORDERS}", f"/embed-apps/{LEDGER}", f"/embed-workspaces/{LEDGER}"):
        answer = service.client.get(f"{path}/session", headers=launcher.bearer)
        problem_of(answer, 401, "session_invalid")
    problem_of(launcher.enter(LEDGER), 404, "app_not_found")


@pytest.mark.parametrize("loss", ACCESS_LOSSES)
def test_every_request_checks_access_again(service: Service, loss: str) -> None:
    launcher = launch(service)
    frame = launcher.app()
    provision(service.app, ACCESS_LOSSES[loss])
    problem_of(service.get(frame, "session"), 401, "access_revoked")
    if loss == "she loses her grant":
        problem_of(launcher.enter(), 403, "app_forbidden")
        assert launcher.ask().status_code == 200
    else:
        problem_of(launcher.enter(), 401, "access_revoked")
    provision(service.app, WORLD)
    assert service.get(frame, "session").status_code == 200
    assert launcher.enter().status_code == 201


def test_an_app_that_leaves_the_workspace_disappears_at_once(service: Service) -> None:
    text = token(service)
    launcher = launch(service)
    frame, code = launcher.app(), launcher.enter().get_json()["code"]
    provision(service.app, changed("apps", "orders", workspace="globex"))
    problem_of(service.get(frame, "session"), 401, "access_revoked")
    problem_of(service.client.get(f"/embed-apps/{ORDERS}?code={code}", headers=JSON), 401, "access_revoked")
    problem_of(launcher.enter(), 404, "app_not_found")
    assert service.refusal(text) == "token_superseded"
    assert service.refusal(token(service)) == "access_revoked"
    assert apps_in(launch(service).response) == [SUPPORT]


def test_an_app_that_has_moved_away_stays_closed(service: Service) -> None:
    for place in ("acme", "globex"):
        provision(service.app, changed("apps", "ledger", workspace=place))
    provision(service.app, {"workspaces": [{"slug": "third"}]})
    provision(service.app, changed("apps", "ledger", workspace="third"))
    assert service.refusal(token(service), LEDGER) == "token_invalid"
    problem_of(launch(service).enter(LEDGER), 404, "app_not_found")


def test_a_launcher_opens_apps_within_the_limit_of_openings(make_app: Callable[..., Flask]) -> None:
    app = make_app(OPEN_RATE_LIMIT="3 per minute")
    provision(app, WORLD)
    launcher = launch(Service(app.test_client()))
    codes = [launcher.enter().status_code for _ in range(5)]
    assert codes == [201, 201, 201, 429, 429]
    assert len(launcher.service.events("session:opened")) == 4


def test_an_app_that_joins_the_workspace_appears_at_once(service: Service) -> None:
    launcher = launch(service)
    ledger = changed("apps", "ledger", workspace="acme", users=["ana@acme.test"])
    provision(service.app, ledger)
    assert LEDGER in apps_in(launch(service).response)
    assert launcher.enter(LEDGER).status_code == 201


def test_a_workspace_token_and_its_session_expire_to_the_second(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        text = token(service, patExpiry=60)
        path = f"/embed-workspaces/{workspace(service)}"
        opened = service.client.get(path, query_string={"personal-access-token": text})
        launcher = Launcher(service, path, opened)
        clock.shift(60)
        answer = service.client.get(path, query_string={"personal-access-token": text}, headers=JSON)
        problem_of(answer, 401, "token_expired")
        frame = launcher.app()
        assert [
            answer.get_json()["expiresIn"] for answer in (launcher.ask(), service.get(frame, "session"))
        ] == [
            3540,
            3540,
        ]
        clock.shift(3540)
        problem_of(launcher.ask(), 401, "session_expired")
        problem_of(service.get(frame, "session"), 401, "session_expired")


def test_end_sessions_ends_only_the_workspace_sessions(service: Service) -> None:
    launcher, frame, bens = launch(service), service.frame(), launch(service, email="ben@acme.test")
    nested = launcher.app()
    token(service, endSessions=True)
    problem_of(launcher.ask(), 401, "session_revoked")
    problem_of(service.get(nested, "session"), 401, "session_revoked")
    assert service.get(frame, "session").status_code == 200
    assert bens.ask().status_code == 200
    again = launch(service)
    nested = again.app()
    service.token(endSessions=True)
    assert again.ask().status_code == 200
    assert service.get(nested, "session").status_code == 200
    problem_of(service.get(frame, "session"), 401, "session_revoked")


def test_a_deleted_workspace_has_no_tokens_and_sessions(service: Service) -> None:
    launcher = launch(service)
    text = token(service)
    service.change(update(App).values(workspace_id=workspace(service, "globex"), moves=App.moves + 1))
    service.change(delete(Workspace).where(Workspace.slug == "acme"))
    answer = service.client.get(launcher.path, query_string={"personal-access-token": text}, headers=JSON)
    problem_of(answer, 401, "token_invalid")
    problem_of(launcher.ask(), 401, "session_invalid")


# ---- Bad input ----


@pytest.mark.parametrize("at", ["launcher", "app"])
@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        *(({}, 401, "token_missing"), ({"session": "eyJ"}, 401, "token_missing")),
        *(({"personal-access-token": text}, 401, "token_invalid") for text in ("x", "\0", ["a", "b"])),
        ({"code": "otc_" + "0" * 72}, 401, "token_missing"),
    ],
)
def test_an_invalid_opening_form_is_refused(
    shared: Service, at: str, form: dict[str, Any], status: int, code: str
) -> None:
    path = f"/embed-workspaces/{workspace(shared)}" if at == "launcher" else f"/embed-apps/{ORDERS}"
    problem_of(shared.client.post(path, data=form, headers=JSON), status, code)


def test_tabs_prefetches_and_head_do_not_open_the_launcher(shared: Service) -> None:
    path, query = f"/embed-workspaces/{workspace(shared)}", {"personal-access-token": token(shared)}
    before = shared.count(Session)
    tab, prefetch = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}, {"Sec-Purpose": "prefetch"}
    for headers in (tab, prefetch):
        problem_of(shared.client.get(path, query_string=query, headers=JSON | headers), 403, "not_framed")
    assert shared.client.head(path, query_string=query).status_code == 405
    assert shared.count(Session) == before


def test_a_refusal_at_the_launcher_is_a_page_with_its_frame_ancestors(shared: Service) -> None:
    answer = shared.client.get(f"/embed-workspaces/{workspace(shared)}")
    assert (answer.status_code, answer.mimetype) == (401, "text/html")
    assert directive(answer, "frame-ancestors") == PORTAL
    nowhere = shared.client.get("/embed-workspaces/nothing")
    assert directive(nowhere, "frame-ancestors") == "'none'"


def test_hostile_names_are_escaped_in_the_launcher(service: Service) -> None:
    hostile = "</script><img src=x onerror=alert(1)>\"'&"
    provision(service.app, changed("workspaces", "acme", allowed_origins=[PORTAL], name=hostile))
    provision(service.app, changed("apps", "orders", name=hostile))
    provision(service.app, changed("users", "ana@acme.test", name=hostile))
    launcher = launch(service)
    for answer in (launcher.response, launcher.app().response):
        assert "<img src=x" not in answer.text
        assert json.dumps(boot(answer)["viewer"]["user"]["name"]) == json.dumps(hostile)


def test_a_changed_role_takes_effect_at_the_launcher_too(service: Service) -> None:
    launcher = launch(service)
    service.change(update(Member).where(Member.role == "end-user").values(role="admin"))
    assert boot(launcher.app().response)["viewer"]["role"] == "admin"
