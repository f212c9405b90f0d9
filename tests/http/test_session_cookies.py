"""The cookies of sessions at upstream apps: what sets them, what expires them, and who gets none."""

from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
import time_machine
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from pat_service.credentials import Keyring
from pat_service.rules import sessions
from tests.support.people import KEY, ORDERS, PORTAL
from tests.support.shared_fixtures import MakeService
from tests.support.upstreams import SALES, SETTINGS, Gateway, Opened, add_sales, cookie_header, cookies_of

#: A browser keeps at most 10 KiB of cookies for all hosts of the domain in one host page.
MOST_BYTES: Final = 64
ATTRIBUTES: Final = {"Path=/", "Secure", "HttpOnly", "SameSite=None", "Partitioned"}


@pytest.fixture(scope="module")
def gateway(make_shared: MakeService) -> Gateway:
    service = make_shared(**SETTINGS)
    add_sales(service)
    return Gateway(service)


def set_cookies(answer: TestResponse) -> list[str]:
    return answer.headers.getlist("Set-Cookie")


def expired(answer: TestResponse) -> set[str]:
    """Return the names of the cookies that the answer expires."""
    return {cookie.partition("=")[0] for cookie in set_cookies(answer) if "=; Max-Age=0;" in cookie}


def id_of(frame: Opened) -> str:
    return Keyring(KEY).read_session(frame.jwt, SALES).session_id


def form_of(cookie: str) -> tuple[str, str, set[str]]:
    pair, *attributes = cookie.split("; ")
    name, _, value = pair.partition("=")
    return name, value, set(attributes)


# Setting.


def test_a_handover_sets_a_short_cookie_for_this_frame_alone(gateway: Gateway) -> None:
    frame = gateway.open(sessionExpiry=60)
    (cookie,) = set_cookies(frame.answer)
    name, value, attributes = form_of(cookie)
    assert name == f"__Host-pat-{id_of(frame)[-8:]}"
    assert Keyring(KEY).read_cookie(value) == id_of(frame)
    assert attributes == ATTRIBUTES | {"Max-Age=3600"}
    assert len(f"{name}={value}") <= MOST_BYTES


@pytest.mark.parametrize("way", ["address", "form"])
def test_a_navigation_sets_it_too(gateway: Gateway, way: str) -> None:
    host, token = gateway.mint()
    client = gateway.service.app.test_client(use_cookies=False)
    given, headers = {"personal-access-token": token}, {"Host": host, "Sec-Fetch-Dest": "iframe"}
    if way == "address":
        # The token leaves the address before the page loads.
        moved = client.get(f"/embed-apps/{SALES}", query_string=given, headers=headers)
        assert (moved.status_code, set_cookies(moved)) == (303, [])
        answer = client.get(moved.headers["Location"], headers=headers)
    else:
        answer = client.post(f"/embed-apps/{SALES}", data=given, headers=headers)
    assert answer.status_code == 200, answer.text
    assert len(cookies_of(answer)) == 1


def test_a_code_sets_it_at_its_redemption(gateway: Gateway) -> None:
    """If the browser does not report the pages around it, the frame moves to an address with a code."""
    add_sales(gateway.service, allowed_origins=[PORTAL, "https://other.example"])
    host, token = gateway.mint(allowedOrigins=[PORTAL])
    moved = gateway.hand_over(host, token, ancestorOrigins=None)
    assert set_cookies(moved) == []
    code = parse_qs(urlsplit((moved.json or {})["moveTo"]).query)["code"][0]
    redeemed = gateway.hand_over(host, code)
    assert redeemed.status_code == 200
    assert len(cookies_of(redeemed)) == 1
    add_sales(gateway.service)


def test_a_look_at_the_session_tells_whether_it_came_along_and_sets_it(
    gateway: Gateway, clock: time_machine.Traveller
) -> None:
    frame = gateway.open(sessionExpiry=10)
    clock.shift(timedelta(seconds=90))
    kept, lost = gateway.session(frame), gateway.session(frame, Cookie="")
    assert (kept.json or {})["cookie"] is True
    assert (lost.json or {})["cookie"] is False
    for answer in (kept, lost):
        name, value, attributes = form_of(set_cookies(answer)[0])
        assert {name: value} == frame.cookies
        assert "Max-Age=510" in attributes


def test_a_forged_cookie_of_the_name_did_not_come_along(gateway: Gateway) -> None:
    frame, other = gateway.open(), gateway.open()
    (name,) = frame.cookies
    for value in ("x", next(iter(other.cookies.values()))):
        answer = gateway.session(frame, Cookie=f"{name}={value}")
        assert (answer.json or {})["cookie"] is False
        assert cookies_of(answer) == frame.cookies


# Expiry.


def test_the_end_of_a_session_expires_its_cookie(gateway: Gateway) -> None:
    frame = gateway.open()
    answer = gateway.session(frame, "DELETE")
    assert answer.status_code == 204
    assert expired(answer) == set(frame.cookies)


def test_answers_expire_the_cookies_of_dead_sessions_alone(gateway: Gateway) -> None:
    frame, live, dead = gateway.open(), gateway.open(), gateway.open()
    assert gateway.session(dead, "DELETE").status_code == 204
    foreign = {"__Host-pat-12345678": "x", "__Host-patient": "kept", "app": "kept"}
    sent = cookie_header(frame.cookies | live.cookies | dead.cookies | foreign)
    answer = gateway.session(frame, Cookie=sent)
    assert expired(answer) == {*dead.cookies, "__Host-pat-12345678"}
    assert cookies_of(answer) == frame.cookies


def test_a_browser_with_many_live_sessions_works_behind_a_proxy_that_passes_eight_cookies(
    gateway: Gateway,
) -> None:
    """Ana loads the portal twelve times in an hour. nginx passes on the eight oldest cookies of ours."""
    jar: dict[str, str] = {}

    def passed() -> dict[str, str]:
        return dict(list(jar.items())[:8])

    def keep(answer: TestResponse) -> None:
        jar.update(cookies_of(answer))
        for name in expired(answer):
            jar.pop(name, None)

    for _ in range(12):
        host, token = gateway.mint()
        opened = gateway.hand_over(host, token, cookies=passed())
        keep(opened)
        frame = Opened(host, (opened.json or {})["session"], passed(), opened)
        looked = gateway.session(frame)
        keep(looked)
        assert (looked.json or {})["cookie"] is True
        assert gateway.ask(host, cookie_header(passed())).status_code == 200
        assert len(jar) <= 8


def test_a_renewal_keeps_the_former_cookie_until_the_new_session_arrives(gateway: Gateway) -> None:
    frame = gateway.open()
    host, token = gateway.mint()
    answer = gateway.hand_over(host, token, cookies=frame.cookies, session=frame.jwt)
    assert expired(answer) == set()
    renewed = Opened(host, (answer.json or {})["session"], frame.cookies | cookies_of(answer), answer)
    # This request ends the former session.
    assert expired(gateway.session(renewed)) == set(frame.cookies)


def test_the_names_of_expired_cookies_are_not_free_text(gateway: Gateway) -> None:
    """A script of the app can write cookies, and their names must not become headers."""
    frame = gateway.open()
    names = ("a b", "", "\t", "é", "1234567", "123456789", "x,y", "ABCDEFAB")
    odd = "; ".join(f"__Host-pat-{name}=x" for name in names)
    answer = gateway.session(frame, Cookie=f"{frame.cookie}; {odd.encode().decode('latin-1')}")
    assert answer.status_code == 200
    assert expired(answer) == set()


# None.


def test_a_lost_database_does_not_take_the_answer_back(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, dead = gateway.open(), gateway.open()

    def fail(*_: Any) -> None:
        raise OperationalError("SELECT", {}, Exception())

    monkeypatch.setattr(sessions, "list_live", fail)
    answer = gateway.session(frame, Cookie=cookie_header(frame.cookies | dead.cookies))
    assert answer.status_code == 200
    assert cookies_of(answer) == frame.cookies


def test_frames_of_template_apps_and_launchers_set_and_read_none(gateway: Gateway) -> None:
    host, token = gateway.mint(appSlug="orders")
    client = gateway.service.app.test_client(use_cookies=False)
    sent = {"Host": host, "Cookie": "; ".join(gateway.open().cookie for _ in range(2))}
    opened = client.post(
        f"/embed-apps/{ORDERS}/frame", json={"accessToken": token, "parentOrigin": PORTAL}, headers=sent
    )
    bearer = sent | {"Authorization": f"Bearer {(opened.json or {})['session']}"}
    looked = client.get(f"/embed-apps/{ORDERS}/session", headers=bearer)
    ended = client.delete(f"/embed-apps/{ORDERS}/session", headers=bearer)
    assert [answer.status_code for answer in (opened, looked, ended)] == [200, 200, 204]
    assert "cookie" not in (looked.json or {})
    assert [set_cookies(answer) for answer in (opened, looked, ended)] == [[], [], []]


def test_a_refusal_sets_none(gateway: Gateway) -> None:
    host, token = gateway.mint()
    for answer in (
        gateway.hand_over(host, token, parentOrigin="https://mallory.example"),
        gateway.hand_over(host, "pat_x"),
        gateway.session(Opened(host, "x", {}, gateway.open().answer)),
    ):
        assert answer.status_code >= 400
        assert set_cookies(answer) == []
