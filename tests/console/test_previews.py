"""The page of previews: who may start one, and the frame that it shows."""

import json
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import delete
from werkzeug.test import TestResponse

from pat_service.storage.models import Session
from tests.support.console import CONSOLE_URL, OLGA, OTTO, VERA, Browser
from tests.support.people import LEDGER, ORDERS, PORTAL, PUBLIC_URL, SUPPORT, Service, boot, frame_ancestors

SignIn = Callable[[str], Browser]
PATH = f"/apps/{ORDERS}/preview"


@pytest.fixture(autouse=True)
def without_sessions(console: Service) -> Iterator[None]:
    yield
    console.change(delete(Session))


def start(browser: Browser, **fields: Any) -> dict[str, Any]:
    answer = browser.post(PATH, **{"email": "ana@acme.test"} | fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(unescape(answer.text.partition('data-frame="')[2].partition('"')[0]))
    return found


def open_frame(console: Service, frame: dict[str, Any]) -> TestResponse:
    query = urlencode({"code": frame["code"], "parent": CONSOLE_URL})
    path = frame["address"].removeprefix(PUBLIC_URL)
    headers = {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}
    return console.client.get(f"{path}?{query}", headers=headers)


def test_otto_sees_the_real_frame_which_only_the_console_may_frame(console: Service, sign_in: SignIn) -> None:
    answer = open_frame(console, start(sign_in(OTTO), attributes='{"region": "north"}'))
    assert answer.status_code == 200
    assert frame_ancestors(answer) == CONSOLE_URL
    started = boot(answer)
    assert started["viewer"]["user"]["email"] == "ana@acme.test"
    assert started["viewer"]["preview"] is True
    assert started["parents"] == [CONSOLE_URL]
    assert started["expiresIn"] <= 120
    bearer = {"Authorization": f"Bearer {started['session']}"}
    page = console.client.get(f"/embed-apps/{ORDERS}/pages/list", headers=bearer)
    assert page.status_code == 200
    assert frame_ancestors(page) == CONSOLE_URL
    assert "preview" not in boot(console.frame().response)["viewer"]


def test_the_console_frames_the_apps_origin_alone(sign_in: SignIn) -> None:
    browser = sign_in(OTTO)
    policy = browser.post(PATH, email="ana@acme.test").headers["Content-Security-Policy"]
    assert f"frame-src {PUBLIC_URL};" in policy
    assert "frame-ancestors 'none'" in policy
    assert "frame-src 'none'" in browser.get(PATH).headers["Content-Security-Policy"]


def test_the_page_says_that_writes_are_real(sign_in: SignIn) -> None:
    assert "Writes are real" in sign_in(OTTO).get(PATH).text


def test_vera_previews_nothing(console: Service, sign_in: SignIn) -> None:
    vera = sign_in(VERA)
    assert vera.get(PATH).status_code == 403
    assert vera.post(PATH, email="ana@acme.test").status_code == 403
    assert "Preview" not in vera.get(f"/apps/{ORDERS}").text
    assert console.count(Session) == 0


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"email": "nobody@acme.test"}, 404, "No person with this email"),
        ({"email": "mallory@globex.test"}, 404, "No person with this email"),
        ({"email": "x"}, 400, "Look at the marked field"),
        ({"role": "builder"}, 400, "Must not be above"),
        ({"role": "king"}, 400, "Must be one of"),
        ({"attributes": "[1]"}, 400, "Must be a flat object"),
        ({"attributes": "{"}, 400, "Must be a JSON object"),
        ({"attributes": '{"a": NaN}'}, 400, "Must be a flat object"),
        ({"attributes": '{"a": "\\u0000"}'}, 400, "Look at the marked field"),
        ({"attributes": "[" * 4000}, 400, "Must be"),
        ({"attributes": json.dumps({"a": "b" * 5000})}, 400, "4096 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_field_is_shown_again(
    console: Service, sign_in: SignIn, fields: dict[str, Any], status: int, text: str
) -> None:
    answer = sign_in(OTTO).post(PATH, **{"email": "ana@acme.test"} | fields)
    assert answer.status_code == status
    assert text in unescape(answer.text)
    assert console.count(Session) == 0


def test_a_person_without_a_grant_has_no_preview(sign_in: SignIn) -> None:
    answer = sign_in(OTTO).post(f"/apps/{SUPPORT}/preview", email="ben@acme.test")
    assert answer.status_code == 403
    assert "This person may not open the app" in answer.text


def test_otto_previews_no_app_of_globex(console: Service, sign_in: SignIn) -> None:
    path = f"/apps/{LEDGER}/preview"
    assert sign_in(OTTO).post(path, email="ana@acme.test").status_code == 404
    assert sign_in(OLGA).post(path, email="mallory@globex.test").status_code == 200


def test_the_code_is_in_no_event(console: Service, sign_in: SignIn) -> None:
    frame = start(sign_in(OTTO))
    assert frame["code"] not in str(console.events())
    (event,) = console.events("session:previewed")
    assert event.client_id == f"operator:{OTTO}"
    assert PORTAL not in str(event.details)


@pytest.mark.parametrize("change", ["remove", "viewer", "globex"])
def test_a_preview_ends_with_what_allowed_it(console: Service, sign_in: SignIn, change: str) -> None:
    started = boot(open_frame(console, start(sign_in(OTTO))))
    others = boot(open_frame(console, start(sign_in(OLGA))))
    olga = sign_in(OLGA)
    if change == "remove":
        olga.post("/operators/remove", email=OTTO)
    else:
        role = "viewer" if change == "viewer" else "operator"
        olga.post("/operators", email=OTTO, role=role, workspace="globex" if change == "globex" else "acme")

    def read(boot_: dict[str, Any]) -> int:
        bearer = {"Authorization": f"Bearer {boot_['session']}"}
        return console.client.get(f"/embed-apps/{ORDERS}/pages/list", headers=bearer).status_code

    assert read(started) == 401
    assert read(others) == 200
