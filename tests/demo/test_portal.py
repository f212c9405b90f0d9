"""The demo portal's own answers. Its mints reach the service without a network.

Browser tests of the portal are in tests/e2e/browser.
"""

import json
import re
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import copytree
from threading import Thread
from typing import Any, Final
from urllib.request import Request

import pytest
import time_machine
from flask import Flask, current_app
from flask.testing import FlaskClient
from sqlalchemy import delete, select
from werkzeug.test import TestResponse

from app import create_app
from config import Config
from demo import back_end, people
from demo.back_end import (
    ANA,
    CASES,
    CLEO,
    ORDERS,
    SUPPORT,
    TOKENS_PATH,
    BackEnd,
    Demo,
    Visit,
)
from demo.portal import DOCS, HANG, REFUSALS, TOKEN_TIMEOUT, Refusal
from pat_service.storage.database import db
from pat_service.storage.models import Grant, User, Workspace
from tests.support.people import KEY, MINT, Service, basic, boot, prepare_for_tests, problem_of

pytestmark = pytest.mark.slow

HERE: Final = "http://localhost:5000"
FRAMES: Final = "http://127.0.0.1:5000"
TOKEN: Final = re.compile(r"pat_[0-9a-f]{72}")
SECRETS: Final = {"portal": "s3cret-of-the-portal", "portal-limited": "s3cret-of-the-limited"}


@dataclass(frozen=True)
class Portal:
    """A portal with a loaded demo."""

    service: Service
    secrets: dict[str, str]

    @property
    def client(self) -> FlaskClient:
        return self.service.client

    def grants(self) -> set[Any]:
        return set(self.service.rows(select(User.email, Grant.app_id).join(User, User.id == Grant.user_id)))


@pytest.fixture
def portal(loaded: Service) -> Portal:
    clients = json.loads(Path(loaded.app.instance_path, "demo.json").read_text())["clients"]
    return Portal(loaded, {id_: client["secret"] for id_, client in clients.items()})


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Requests of the portal's server side, which reach the service without a network."""
    calls: list[Request] = []

    def straight(call: Request) -> tuple[int, Message, bytes]:
        calls.append(call)
        assert call.data is None or isinstance(call.data, bytes)
        answer = current_app.test_client().open(
            call.selector, method=call.get_method(), base_url=FRAMES, data=call.data, headers=call.headers
        )
        headers = Message()
        for name, value in answer.headers:
            headers[name] = value
        return answer.status_code, headers, answer.data

    monkeypatch.setattr(back_end, "send", straight)
    return calls


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the portal would have slept, in seconds."""
    slept: list[float] = []
    monkeypatch.setattr("demo.back_end.time.sleep", slept.append)
    return slept


def visit(client: FlaskClient, host: str = "localhost:5000", port: str = "5000") -> TestResponse:
    """Get the start page. The port is the server's own, whatever the Host header says."""
    return client.get("/", headers={"Host": host}, environ_overrides={"SERVER_PORT": port})


def post(
    client: FlaskClient,
    path: str,
    data: str | bytes,
    content_type: str = "application/json",
    headers: dict[str, str | None] | None = None,
) -> TestResponse:
    """Send a request as the portal's own script does, with these headers changed. None removes a header."""
    usual = {"Host": "localhost:5000", "Origin": HERE, "Sec-Fetch-Site": "same-origin"}
    given = {name: value for name, value in (usual | (headers or {})).items() if value is not None}
    return client.post(
        path,
        data=data,
        content_type=content_type,
        headers=given,
        environ_overrides={"SERVER_PORT": "5000", "SERVER_NAME": "127.0.0.1"},
    )


def ask(
    client: FlaskClient,
    person: Any = "ana",
    app: Any = "orders",
    case: Any = "normal",
    region: Any = "",
    *,
    data: str | bytes | None = None,
    content_type: str = "application/json",
    headers: dict[str, str | None] | None = None,
) -> TestResponse:
    body = json.dumps({"person": person, "app": app, "case": case, "region": region})
    return post(client, "/portal/open", body if data is None else data, content_type, headers)


def want_token(
    client: FlaskClient, *, headers: dict[str, str | None] | None = None, **changes: Any
) -> TestResponse:
    """Call the token endpoint as the page's script does."""
    change = {"person": "ana", "app": "orders", "region": "", "session": "long", "endpoint": "answers"}
    return post(client, "/portal/token", json.dumps(change | changes), headers=headers)


def end(client: FlaskClient, token_id: Any, headers: dict[str, str | None] | None = None) -> TestResponse:
    return post(client, "/portal/end", json.dumps({"tokenId": token_id}), headers=headers)


def outcome(
    client: FlaskClient, person: str = "ana", app: str = "orders", case: str = "normal", region: str = ""
) -> dict[str, Any]:
    answer = ask(client, person, app, case, region)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    shown: dict[str, Any] = answer.json  # type: ignore[assignment]
    return shown


def navigate(client: FlaskClient, url: str, dest: str = "iframe") -> TestResponse:
    """Open the address as a browser does."""
    assert url.startswith((f"{FRAMES}/embed-apps/", f"{FRAMES}/embed-workspaces/"))
    headers = {"Accept": "application/json", "Sec-Fetch-Dest": dest, "Sec-Fetch-Mode": "navigate"}
    return client.get(url.removeprefix(FRAMES), headers=headers)


def opened(client: FlaskClient, url: str, dest: str = "iframe") -> tuple[int, str]:
    """Open the address; return the status, and the code of a refusal."""
    answer = navigate(client, url, dest)
    return answer.status_code, (answer.json or {}).get("code", "") if answer.is_json else ""


# ---- Before the demo is loaded ----


def test_before_the_demo_is_loaded_the_start_page_explains_how(client: FlaskClient) -> None:
    load = 'id="load-command">flask --app app demo load'
    for host in ("localhost:5000", "127.0.0.1:5000", "[::1]:5000", "laptop.local:5000"):
        answer = visit(client, host)
        assert answer.status_code == 200
        assert "<title>pat-service is running</title>" in answer.text
        assert f"{load}</code>" in answer.text
    answer = visit(client, "localhost:8080", "5001")
    assert f"{load} --origin http://localhost:5001</code>" in answer.text
    assert "8080" not in answer.text
    problem = problem_of(ask(client), 409, "conflict")
    assert "flask --app app demo load" in problem["detail"]


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"clients": {}, "origin": "http://localhost:5000"}',
        b'{"clients": null, "origin": "http://localhost:5000"}',
        b'{"clients": {"portal": {"secret": "x"}}, "origin": "http://localhost:5000"}',
        b'{"clients": {"portal": "x", "portal-limited": "x"}, "origin": "http://localhost:5000"}',
        b'{"clients": {"portal": {"secret": "x"}, "portal-limited": {"secret": "x"}}}',
    ],
)
def test_a_damaged_file_is_treated_as_a_missing_file(app: Flask, client: FlaskClient, kept: bytes) -> None:
    folder = Path(app.instance_path)
    folder.mkdir()
    (folder / "demo.json").write_bytes(kept)
    assert "flask --app app demo load" in visit(client).text
    problem_of(ask(client), 409, "conflict")


# ---- The page ----


@pytest.mark.parametrize("is_loaded", [False, True])
def test_both_start_pages_link_to_the_api_and_to_docs_that_open(
    request: pytest.FixtureRequest, client: FlaskClient, is_loaded: bool
) -> None:
    if is_loaded:
        request.getfixturevalue("loaded")
    links = re.findall(r'<a href="(/(?:api/docs|README\.md|docs/[^"]+))"', visit(client).text)
    assert {"/api/docs", "/README.md", *(f"/{page}" for page in DOCS)} == set(links)
    for link in links:
        answer = client.get(link, headers={"Host": "localhost:5000"})
        assert answer.status_code == 200
        if link != "/api/docs":
            assert (answer.mimetype, answer.text) == ("text/plain", Path(link[1:]).read_text("utf-8"))


def test_a_back_end_may_mint_often_for_ana_before_the_first_visit_of_the_portal(
    app_and_files: tuple[Flask, Path], tmp_path: Path
) -> None:
    _, files = app_and_files
    copytree(files, tmp_path, dirs_exist_ok=True)
    settings = {"SECRET_KEY": KEY, "DATABASE_URL": f"sqlite:///{tmp_path / 'pat-service.db'}"}
    app = create_app(Config.from_environment(settings, tmp_path))
    prepare_for_tests(app)
    app.instance_path = str(tmp_path)
    secret = json.loads((tmp_path / "demo.json").read_text())["clients"]["portal"]["secret"]
    body = {"email": people.ANA, "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 60}
    client = app.test_client()
    assert {client.post(MINT, json=body, auth=("portal", secret)).status_code for _ in range(12)} == {201}
    with app.app_context():
        db.engine.dispose()


def test_the_portal_offers_its_people_its_apps_and_each_refusal(portal: Portal) -> None:
    text = visit(portal.client).text
    assert re.findall(r'name="person" value="(\w+)"', text) == ["ana", "ben", "cleo"]
    assert re.findall(r'data-app="(\w+)"', text) == ["orders", "support", "all"]
    assert re.findall(r'data-app="(\w+)"[^>]* data-regions>', text) == ["orders", "all"]
    assert re.findall(r'name="region" value="(\w*)"', text) == ["", "north", "south", "west"]
    offered = re.findall(r'data-case="([\w-]+)"', text)
    assert offered == [refusal.case for refusal in REFUSALS]
    assert {*offered, "normal"} == set(CASES)
    assert "The demo was loaded for" not in text


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:5000", "127.0.0.1", "[::1]:5000", "laptop.local:5000", "evil.example", "localhost."),
        *("localhost.evil.example", "localhost:", "localhost:5000:1", "localhost:123456", "x@localhost"),
    ],
)
def test_every_other_name_of_the_machine_redirects_to_localhost(portal: Portal, host: str) -> None:
    answer = visit(portal.client, host)
    assert (answer.status_code, answer.headers["Location"]) == (302, "http://localhost:5000/")
    assert "evil" not in answer.text


def test_a_portal_with_another_origin_than_the_demo_says_so(portal: Portal) -> None:
    text = visit(portal.client, "localhost:5001", "5001").text
    assert "The demo was loaded for http://localhost:5000." in text
    assert "flask --app app demo load --origin http://localhost:5001" in text


def test_the_portals_policy_allows_only_its_own_scripts_and_frames(
    portal: Portal,
) -> None:
    for answer in (
        visit(portal.client),
        visit(portal.client, "127.0.0.1:5000"),
        ask(portal.client, headers={"Origin": None}),
    ):
        policy = dict(
            directive.split(" ", 1) for directive in answer.headers["Content-Security-Policy"].split("; ")
        )
        assert policy == {
            "default-src": "'none'",
            "script-src": f"'self' {FRAMES}/embed.js",
            "style-src": "'self'",
            "img-src": "'self' data:",
            "connect-src": f"'self' {FRAMES}",
            "frame-src": FRAMES,
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("public_url", "sources"),
    [
        ("http://frames.localhost:7000", "http://frames.localhost:7000"),
        ("http://{app}.localhost:7000", "http://localhost:7000 http://*.localhost:7000"),
    ],
)
def test_frames_come_from_the_public_url_if_there_is_one(
    make_app: Callable[..., Flask], tmp_path: Path, public_url: str, sources: str
) -> None:
    app = make_app(PUBLIC_URL=public_url)
    app.instance_path = str(tmp_path / "instance")
    policy = visit(app.test_client()).headers["Content-Security-Policy"]
    assert f"frame-src {sources};" in policy
    assert f"connect-src 'self' {sources};" in policy
    assert f"script-src 'self' {sources.split()[0]}/embed.js;" in policy


# ---- Callers of the token endpoint ----


@pytest.mark.parametrize(
    "headers",
    [
        *(
            {"Origin": origin}
            for origin in (
                *(None, "null", "http://localhost", "http://localhost:5001", "https://localhost:5000"),
                *("http://127.0.0.1:5000", "http://evil.example", "http://localhost:5000.evil.example"),
                "http://localhost:5000/",
            )
        ),
        *({"Sec-Fetch-Site": site} for site in ("same-site", "cross-site", "none")),
        {"Host": "127.0.0.1:5000", "Origin": "http://127.0.0.1:5000"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "localhost.evil.example:5000", "Origin": "http://localhost.evil.example:5000"},
        {"Host": "laptop.local:5000", "Origin": "http://laptop.local:5000"},
    ],
)
def test_only_the_portals_own_page_gets_a_token(
    portal: Portal, sent: list[Request], headers: dict[str, str | None]
) -> None:
    before = portal.grants()
    problem_of(ask(portal.client, "cleo", "support", "access-lost", headers=headers), 403, "forbidden")
    problem_of(want_token(portal.client, headers=headers), 403, "forbidden")
    problem_of(end(portal.client, people.ORDERS_ID, headers), 403, "forbidden")
    assert (sent, portal.grants()) == ([], before)


@pytest.mark.usefixtures("sent")
def test_a_browser_without_fetch_metadata_is_served(portal: Portal) -> None:
    assert ask(portal.client, headers={"Sec-Fetch-Site": None}).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        *({"person": name} for name in ("dan", "mallory", "", None, ["ana"], {"ana": 1}, "__class__")),
        *({"app": app} for app in ("ledger", None)),
        *({"region": region} for region in ("east", "North", None, ["north"])),
        *({"case": case} for case in ("give-grant", None, ["normal"])),
    ],
)
def test_a_person_or_app_that_the_page_does_not_offer_is_refused(
    portal: Portal, sent: list[Request], change: dict[str, Any]
) -> None:
    problem_of(ask(portal.client, **change), 400, "invalid_payload")
    assert sent == []


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", "null", "[]", '"ana"', "{}", b"\xff", "[" * 5000),
        '{"person":"ana","app":"orders","case":"normal"}',
    ],
)
def test_a_body_that_is_not_a_complete_json_object_is_refused(
    portal: Portal, sent: list[Request], body: str | bytes
) -> None:
    problem_of(ask(portal.client, data=body), 400, "invalid_payload")
    assert sent == []


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain"])
def test_a_body_of_another_type_is_refused(portal: Portal, sent: list[Request], content_type: str) -> None:
    problem_of(ask(portal.client, content_type=content_type), 415, "unsupported_media_type")
    assert sent == []


@pytest.mark.parametrize(
    "change",
    [
        *({"person": "dan"}, {"app": "ledger"}, {"region": "east"}),
        *({"session": session} for session in ("60", 60, None, ["long"])),
        *({"endpoint": "explodes"}, {"endpoint": None}, {"endpoint": {}}),
    ],
)
def test_a_token_that_the_page_does_not_offer_is_refused(
    portal: Portal, sent: list[Request], change: dict[str, Any]
) -> None:
    problem_of(want_token(portal.client, **change), 400, "invalid_payload")
    assert sent == []


@pytest.mark.parametrize("token_id", ["", "x", "../users", None, 7, ["a"], {}, f"{people.ORDERS_ID}/x"])
def test_a_malformed_token_id_is_not_revoked(portal: Portal, sent: list[Request], token_id: Any) -> None:
    problem_of(end(portal.client, token_id), 400, "invalid_payload")
    assert sent == []


def test_the_portal_takes_no_other_methods(client: FlaskClient) -> None:
    for path in ("/portal/open", "/portal/token", "/portal/end"):
        problem_of(client.get(path), 405, "method_not_allowed")
    problem_of(client.post("/"), 405, "method_not_allowed")


# ---- The answers to the page ----


@pytest.mark.parametrize("slug", ["orders", "support", "all"])
@pytest.mark.parametrize("person", ["ana", "ben", "cleo"])
@pytest.mark.usefixtures("sent")
def test_each_person_may_open_each_app(portal: Portal, person: str, slug: str) -> None:
    shown = outcome(portal.client, person, slug)
    assert shown["app"]["slug"] == slug
    assert shown["person"]["name"].lower().startswith(person)
    assert shown["framed"] is True
    assert shown["answer"]["line"] == "201 Created"
    assert shown["answer"]["headers"]["Content-Type"] == "application/json"
    assert shown["answer"]["problem"] is None
    assert opened(portal.client, shown["redirectUrl"]) == (200, "")


def test_the_server_side_mints_as_any_back_end_and_shows_the_request(
    portal: Portal, sent: list[Request]
) -> None:
    shown = outcome(portal.client)
    (call,) = sent
    assert (call.get_method(), call.full_url) == ("POST", f"{FRAMES}{MINT}")
    basic_auth = b64encode(f"portal:{portal.secrets['portal']}".encode()).decode()
    assert call.get_header("Authorization") == f"Basic {basic_auth}"
    change = {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 300}
    assert json.loads(call.data or b"") == change  # type: ignore[arg-type]
    assert f"curl {FRAMES}{MINT}" in shown["curl"]
    assert '-u "portal:$CLIENT_SECRET"' in shown["curl"]
    assert json.loads(shown["curl"].partition("-d '")[2].removesuffix("'")) == change


@pytest.mark.parametrize(("session", "minutes"), [("long", 60), ("short", 1)])
def test_the_token_endpoint_passes_on_the_mints_answer(
    portal: Portal, sent: list[Request], session: str, minutes: int
) -> None:
    answer = want_token(portal.client, session=session)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    found: dict[str, Any] = answer.json  # type: ignore[assignment]
    minted = found["minted"]
    assert [change["sessionExpiry"] for change in mint_bodies(sent)] == [minutes]
    assert minted["sessionExpiresIn"] == 60 * minutes
    assert set(minted) == {"personalAccessToken", "redirectUrl", "tokenId", "expiresIn", "sessionExpiresIn"}
    assert found["shownToken"] == f"{minted['personalAccessToken'][:8]}…"
    assert opened(portal.client, minted["redirectUrl"]) == (200, "")
    # The page shows the token nowhere.
    assert TOKEN.findall(json.dumps(found | {"minted": None, "redirectUrl": None})) == []


@pytest.mark.usefixtures("sent")
def test_a_refused_mint_gives_no_token(portal: Portal) -> None:
    portal.service.change(delete(User))
    found: dict[str, Any] = want_token(portal.client).json  # type: ignore[assignment]
    assert (found["minted"], found["shownToken"]) == (None, None)
    assert found["answer"]["problem"]["code"] == "user_not_found"


def test_a_token_endpoint_can_fail_or_hang_on_request(
    portal: Portal, sent: list[Request], naps: list[float]
) -> None:
    for endpoint in ("fails", "hangs"):
        answer = want_token(portal.client, endpoint=endpoint)
        assert (answer.status_code, answer.json) == (503, {"detail": "The token endpoint is broken."})
    assert naps == [HANG]
    assert HANG > TOKEN_TIMEOUT
    assert sent == []


def test_ending_revokes_the_token_over_http_and_ends_its_sessions(
    portal: Portal, sent: list[Request]
) -> None:
    minted = want_token(portal.client, person="ben").json["minted"]  # type: ignore[index]
    session = boot(navigate(portal.client, minted["redirectUrl"]))["session"]
    ended: dict[str, Any] = end(portal.client, minted["tokenId"]).json  # type: ignore[assignment]
    assert ended["answer"]["status"] == 204
    assert ended["curl"].startswith(f"curl -X DELETE {FRAMES}{TOKENS_PATH}/{minted['tokenId']}")
    assert [call.get_method() for call in sent] == ["POST", "DELETE"]
    answer = portal.client.get(
        f"/embed-apps/{people.ORDERS_ID}/session", headers={"Authorization": f"Bearer {session}"}
    )
    problem_of(answer, 401, "session_revoked")


def mint_bodies(sent: list[Request]) -> list[dict[str, Any]]:
    return [json.loads(call.data or b"{}") for call in sent]  # type: ignore[arg-type]


def test_a_region_is_minted_as_an_attribute_except_for_the_support_desk(
    portal: Portal, sent: list[Request]
) -> None:
    for slug in ("orders", "all"):
        shown = outcome(portal.client, "ana", slug, region="south")
        assert mint_bodies(sent)[-1]["attributes"] == {"region": "south"}
        assert '"region": "south"' in shown["curl"]
        assert shown["region"] == "South"
        assert opened(portal.client, shown["redirectUrl"]) == (200, "")
    for slug, region in (("support", "south"), ("orders", "")):
        assert outcome(portal.client, "ana", slug, region=region)["region"] == ""
        assert "attributes" not in mint_bodies(sent)[-1]


def test_all_apps_opens_with_a_workspace_token(portal: Portal, sent: list[Request]) -> None:
    shown = outcome(portal.client, "ana", "all", region="north")
    (change,) = mint_bodies(sent)
    assert change["workspaceSlug"] == "acme"
    assert not {"appSlug", "appId"} & set(change)
    ((workspace_id,),) = portal.service.rows(select(Workspace.id).where(Workspace.slug == "acme"))
    assert shown["redirectUrl"].startswith(f"{FRAMES}/embed-workspaces/{workspace_id}?")
    launcher = navigate(portal.client, shown["redirectUrl"])
    assert re.findall(r'class="launch" name="[^"]+" value="([^"]+)"', launcher.text) == [
        people.ORDERS_ID,
        people.SUPPORT_ID,
    ]
    bearer = {"Authorization": f"Bearer {boot(launcher)['session']}"}
    path = f"/embed-workspaces/{workspace_id}/apps/{people.ORDERS_ID}"
    code = portal.client.post(path, headers=bearer).get_json()["code"]
    orders = navigate(portal.client, f"{FRAMES}/embed-apps/{people.ORDERS_ID}?code={code}")
    assert "Region: North" in orders.text


@pytest.mark.parametrize("slug", ["orders", "support", "all"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("naps")
def test_no_answer_has_a_client_secret_and_only_a_frames_address_has_a_token(
    portal: Portal, sent: list[Request], case: str, slug: str
) -> None:
    answer = ask(portal.client, app=slug, case=case, region="north")
    credentials = {call.get_header("Authorization", "").removeprefix("Basic ") for call in sent}
    for secret in (*portal.secrets.values(), *credentials):
        assert secret not in answer.text + str(answer.headers)
    shown = json.loads(answer.text) | {"redirectUrl": None}
    assert TOKEN.findall(json.dumps(shown)) == []


@pytest.mark.parametrize("slug", ["support", "all"])
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.case)
@pytest.mark.usefixtures("sent")
def test_each_refusal_matches_its_button(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, refusal: Refusal, slug: str
) -> None:
    status, code = refusal.expected.split()
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        monkeypatch.setattr("demo.back_end.time.sleep", clock.shift)
        shown = outcome(portal.client, "ben", slug, refusal.case)
        if shown["redirectUrl"] is None:
            problem = shown["answer"]["problem"]
            assert (problem["status"], problem["code"]) == (int(status), code)
            assert shown["answer"]["status"] == int(status)
        else:
            if shown["againAfter"]:  # framed twice
                assert opened(portal.client, shown["redirectUrl"]) == (200, "")
                clock.shift(shown["againAfter"])
            dest = "iframe" if shown["framed"] else "document"
            assert opened(portal.client, shown["redirectUrl"], dest) == (int(status), code)
        # The next visit works as before.
        person = "cleo" if refusal.case == "access-lost" else "ben"
        assert opened(portal.client, outcome(portal.client, person, slug)["redirectUrl"]) == (200, "")


def test_a_refused_revocation_is_shown_in_place_of_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = back_end.Answer("curl -X DELETE", 403, {}, {"code": "scope_missing"})
    minted = back_end.Answer("curl", 201, {}, {"redirectUrl": "http://x", "tokenId": "t"})
    monkeypatch.setattr(BackEnd, "mint", lambda *_: minted)
    monkeypatch.setattr(BackEnd, "revoke", lambda *_: refused)
    shown = back_end.revoked(BackEnd(FRAMES, FRAMES, Demo(SECRETS, HERE)), Visit(ANA, ORDERS)).shown()
    assert (shown["redirectUrl"], shown["answer"]["problem"]) == (None, {"code": "scope_missing"})


def test_the_invented_token_is_not_minted(portal: Portal, sent: list[Request]) -> None:
    shown = outcome(portal.client, case="garbage")
    assert sent == []
    assert (shown["curl"], shown["answer"]) == (None, None)
    assert shown["shownUrl"].endswith("?personal-access-token=pat_0000…")


def test_the_limited_client_gets_ten_tokens_and_the_other_is_not_affected(
    portal: Portal, sent: list[Request]
) -> None:
    shown = outcome(portal.client, case="too-many")
    assert len(sent) == 11
    assert "It got 10 tokens this time." in shown["note"]
    assert int(shown["answer"]["headers"]["Retry-After"]) > 0
    assert "It got no tokens this time." in outcome(portal.client, case="too-many")["note"]
    assert outcome(portal.client)["answer"]["status"] == 201


def test_a_demonstration_of_too_many_mints_ends_even_under_a_higher_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    minted: list[str] = []

    def mint(_: BackEnd, visit: Visit, *, client: str) -> back_end.Answer:
        minted.append(client)
        return back_end.Answer("curl", 201, {}, {"redirectUrl": "http://x"})

    monkeypatch.setattr(BackEnd, "mint", mint)
    portal = BackEnd("http://x", "http://x", Demo(SECRETS, HERE))
    shown = back_end.too_many(portal, Visit(ANA, ORDERS)).shown()
    assert len(minted) == back_end.MOST_LIMITED_MINTS + 1
    assert "were not too many" in shown["note"]
    assert shown["redirectUrl"] == "http://x"


@pytest.mark.usefixtures("sent")
def test_only_cleo_loses_the_support_desk_and_her_next_visit_restores_it(portal: Portal) -> None:
    before, taken = portal.grants(), {(people.CLEO, people.SUPPORT_ID)}
    # The demonstration is Cleo's, even if the page selects another person.
    shown = outcome(portal.client, "ana", "orders", "access-lost")
    assert (shown["person"]["name"], shown["app"]["slug"]) == (CLEO.name, SUPPORT.slug)
    assert portal.grants() == before - taken
    assert outcome(portal.client, "cleo", "orders")["answer"]["status"] == 201
    assert portal.grants() == before - taken
    assert outcome(portal.client, "cleo", "support")["answer"]["status"] == 201
    assert portal.grants() == before


@pytest.mark.usefixtures("sent")
def test_a_demo_with_deleted_people_is_refused_without_a_500(portal: Portal) -> None:
    portal.service.change(delete(User))
    assert outcome(portal.client)["answer"]["problem"]["code"] == "user_not_found"
    problem = problem_of(ask(portal.client, "cleo", "support"), 409, "conflict")
    assert "cleo@acme.test" in problem["detail"]


# ---- The app that runs elsewhere ----


def tabs(client: FlaskClient, port: str = "5000") -> list[str]:
    text = visit(client, host=f"localhost:{port}", port="41000").text
    return re.findall(r'data-app="([\w-]+)"', text)


def test_the_app_that_runs_elsewhere_has_a_tab_behind_the_demos_proxy_alone(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["orders", "support", "all"]
    for loaded, shown in (
        (people.DELIVERIES, ["orders", "support", "deliveries", "all"]),
        (people.YOUR_APP, ["orders", "support", "your-app", "all"]),
        (None, own),
    ):
        file = Path(portal.service.app.instance_path, "demo.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"elsewhere": loaded}))
        assert tabs(portal.client) == own
        with monkeypatch.context() as patch:
            patch.setenv("DEMO_PROXY_PORT", "5000")
            assert tabs(portal.client) == shown


def test_behind_the_demos_proxy_the_portal_uses_the_proxys_port(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_PROXY_PORT", "5080")
    moved = visit(portal.client, host="127.0.0.1:5080", port="41000")
    assert moved.location == "http://localhost:5080/"


@pytest.mark.usefixtures("sent")
def test_cases_that_need_a_known_host_show_orders_in_place_of_an_app_elsewhere(portal: Portal) -> None:
    for case in ("garbage", "no-access"):
        shown = outcome(portal.client, app=people.DELIVERIES, case=case)
        assert shown["app"]["slug"] == "orders"


# ---- HTTP ----


def mint(url: str) -> back_end.Answer:
    return BackEnd(url, FRAMES, Demo(SECRETS, HERE)).mint(Visit(ANA, ORDERS))


@contextmanager
def listening(answer: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server that answers each POST with these bytes and records paths and credentials."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(f"{self.path} {self.headers['Authorization']}")
            self.wfile.write(answer)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def response(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.0 {status}", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_silent_server_is_shown_as_silent() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        shown = mint(url).shown()
    assert (shown["status"], shown["line"], shown["headers"]) == (None, "No answer", {})
    assert f"got no answer from {url}{MINT}: " in shown["problem"]["detail"]
    assert "refused" in shown["problem"]["detail"]


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 ", b"no HTTP at all\r\n\r\n"])
def test_a_truncated_answer_is_treated_as_no_answer(answer: bytes) -> None:
    with listening(answer) as (url, _):
        found = mint(url)
    assert found.status is None
    assert "got no answer from" in found.body["detail"]
    assert found.redirect_url is None


@pytest.mark.parametrize(
    "body",
    [b"", b"<h1>Hello</h1>", b"[]", b'"x"', b"\xff", b"1" * 100_000, b"[" * 60_000, b'{"redirectUrl": "http'],
)
@pytest.mark.parametrize("status", ["201 Created", "502 Bad Gateway"])
def test_an_answer_that_is_not_a_json_object_is_reported_as_malformed(status: str, body: bytes) -> None:
    with listening(response(status, body)) as (url, _):
        answer = mint(url)
    assert answer.status == int(status[:3])
    assert answer.body == {"detail": "The answer was not a JSON object."}
    assert answer.redirect_url is None
    assert answer.shown()["problem"] == answer.body


def test_the_credentials_follow_no_redirect() -> None:
    with listening(response("201 Created", b"{}")) as (elsewhere, seen_elsewhere):
        for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
            with listening(response(status, b"{}", f"Location: {elsewhere}/x")) as (url, seen):
                answer = mint(url)
            assert answer.status == int(status[:3])
            assert answer.redirect_url is None
            assert len(seen) == 1
    assert seen_elsewhere == []


def test_the_credentials_do_not_go_through_a_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        listening(response("201 Created", b'{"redirectUrl": "http://proxy"}')) as (proxy, seen),
        listening(response("201 Created", b'{"redirectUrl": "http://frame"}')) as (url, _),
    ):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        monkeypatch.setenv("no_proxy", "")
        assert mint(url).redirect_url == "http://frame"
    assert seen == []


def test_a_refusal_is_an_answer_with_its_status_headers_and_body() -> None:
    refusal = response(
        "429 Too Many", b'{"code": "rate_limited"}', "Retry-After: 7", "Server: x", "Set-Cookie: a=b"
    )
    with listening(refusal) as (url, seen):
        shown = mint(url).shown()
    assert (shown["status"], shown["line"]) == (429, "429 Too Many Requests")
    assert shown["headers"] == {"Content-Type": "application/json", "Retry-After": "7"}
    assert shown["problem"] == {"code": "rate_limited"}
    assert seen == [f"{MINT} {basic('portal', SECRETS['portal'])['Authorization']}"]


def test_a_traceback_would_print_no_secret() -> None:
    printed = repr(BackEnd("http://x", FRAMES, Demo(SECRETS, HERE)))
    assert "s3cret" not in printed


# ---- Outside development ----


@pytest.mark.parametrize(
    "environ",
    [
        {"PUBLIC_URL": "https://embed.example"},
        {"PUBLIC_URL": "http://127.0.0.1:8000", "SERVER_SOFTWARE": "gunicorn/27.0.1"},
    ],
)
def test_outside_development_there_is_neither_a_portal_nor_a_command(
    make_app: Callable[..., Flask], tmp_path: Path, environ: dict[str, str]
) -> None:
    app = make_app(**environ)
    app.instance_path = str(tmp_path / "instance")
    client, runner = app.test_client(), app.test_cli_runner()
    for accept in ("*/*", "text/html"):
        start = client.get("/", headers={"Accept": accept, "Host": "localhost:5000"}).text
        assert "demo load" not in start
        assert people.CUSTOMER not in start
    problem_of(ask(client), 404, "not_found")
    problem_of(client.get("/README.md"), 404, "not_found")
    done = runner.invoke(args=["demo", "load"])
    assert done.exit_code == 2
    assert "No such command 'demo'" in done.output
    assert "demo" not in runner.invoke(args=["--help"]).output
    assert not Path(app.instance_path).exists()


# ---- The service's own address without configuration ----
