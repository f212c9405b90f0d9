"""Sign in by a link, use the session, sign out."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import select, update

from pat_service.credentials import Keyring
from pat_service.rules import console_sessions, events, operators
from pat_service.storage.models import ConsoleSession, Operator, UsedLink
from tests.support.console import CONSOLE_URL, OLGA, OTTO, SAME_ORIGIN, VERA, Browser, make_link
from tests.support.people import KEY, NEW_KEY, Service

SignIn = Callable[[str], Browser]


def session_ids(service: Service, email: str) -> list[str]:
    """Return the ids of the operator's sessions, oldest first."""
    of_operator = ConsoleSession.operator_id == operators.id_of(email)
    statement = select(ConsoleSession.id).where(of_operator).order_by(ConsoleSession.created_at)
    return [row.id for row in service.rows(statement)]


def test_olga_signs_in_by_a_link_and_signs_out(console: Service) -> None:
    browser = Browser(console)
    answer = browser.use_link(make_link(console))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert OLGA in browser.get("/").text
    assert browser.post("/sign-out").status_code == 303
    assert browser.get("/").headers["Location"] == "/sign-in"
    types = [event.type for event in console.events()][-2:]
    assert types == [events.OPERATOR_SIGNED_IN, events.OPERATOR_SIGNED_OUT]
    assert {event.client_id for event in console.events()[-2:]} == {operators.id_of(OLGA)}


def test_the_cookie_belongs_to_this_host_alone(console: Service) -> None:
    cookie = Browser(console).use_link(make_link(console)).headers["Set-Cookie"]
    value, *attributes = cookie.split("; ")
    assert re.fullmatch("__Host-pat-console=pco_[0-9a-f]{72}", value)
    kept = {attribute for attribute in attributes if not attribute.startswith("Expires")}
    assert kept == {"Secure", "HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=43200"}


def test_a_stolen_link_does_not_work_twice(console: Service) -> None:
    link = make_link(console)
    assert Browser(console).use_link(link).status_code == 303
    answer = Browser(console).use_link(link)
    assert (answer.status_code, "already been used" in answer.text) == (401, True)
    assert "Set-Cookie" not in answer.headers
    (refused,) = console.events(events.SIGN_IN_REFUSED)
    assert (refused.code, refused.client_id) == ("link_used", operators.id_of(OLGA))


def test_opening_the_address_uses_nothing(console: Service) -> None:
    """Programs that preview links load them."""
    link = make_link(console)
    for _ in range(3):
        assert Browser(console).get("/sign-in").status_code == 200
    assert console.count(UsedLink) == 0
    assert Browser(console).use_link(link).status_code == 303


def test_a_link_expires_after_ten_minutes(clock: time_machine.Traveller, console: Service) -> None:
    early, late = make_link(console), make_link(console)
    clock.shift(timedelta(minutes=9, seconds=59))
    assert Browser(console).use_link(early).status_code == 303
    clock.shift(timedelta(seconds=3))
    assert "expired" in Browser(console).use_link(late).text
    assert console.events(events.SIGN_IN_REFUSED)[0].code == "link_expired"


@pytest.mark.parametrize(
    "change", [lambda link: link[:-1], lambda link: "", lambda link: f"x{link}", lambda _: "\0.ä.x"]
)
def test_a_forged_link_is_refused_without_an_event(console: Service, change: Callable[[str], str]) -> None:
    answer = Browser(console).use_link(change(make_link(console)))
    assert answer.status_code == 401
    assert console.events(events.SIGN_IN_REFUSED) == []


def test_a_link_of_a_removed_operator_is_refused(console: Service) -> None:
    link = make_link(console, VERA)
    with console.app.app_context():
        operators.remove(VERA, datetime.now().astimezone())
    assert Browser(console).use_link(link).status_code == 401


def test_a_session_from_before_the_sign_in_never_becomes_the_operators(console: Service) -> None:
    """Session fixation: Mallory gives Otto's browser her own cookie."""
    mallory = Browser(console, VERA)
    planted = mallory.cookie
    browser = Browser(console)
    browser.client.set_cookie("__Host-pat-console", str(planted), domain="console.example", secure=True)
    browser.use_link(make_link(console, OTTO))
    assert browser.cookie != planted
    assert OTTO in browser.get("/").text
    assert mallory.get("/").status_code == 303  # the planted session has ended


@pytest.mark.parametrize("cookie", ["", "pco_", f"pco_{'0' * 72}", "x" * 3000, "ä"])
def test_a_made_up_cookie_opens_nothing(console: Service, cookie: str) -> None:
    browser = Browser(console)
    browser.client.set_cookie("__Host-pat-console", cookie, domain="console.example", secure=True)
    assert browser.get("/operators").headers["Location"] == "/sign-in?next=%2Foperators"


def test_a_session_ends_after_an_hour_without_use(clock: time_machine.Traveller, sign_in: SignIn) -> None:
    browser = sign_in(OTTO)
    for _ in range(5):
        clock.shift(timedelta(minutes=59))
        assert browser.get("/").status_code == 200
    clock.shift(timedelta(minutes=61))
    assert browser.get("/").status_code == 303


def test_a_session_ends_after_twelve_hours(clock: time_machine.Traveller, sign_in: SignIn) -> None:
    browser = sign_in(OTTO)
    for _ in range(23):
        clock.shift(timedelta(minutes=31))
        assert browser.get("/").status_code == 200
    clock.shift(timedelta(minutes=31))
    assert browser.get("/").status_code == 303


def test_a_session_ends_at_the_next_request(console: Service, sign_in: SignIn) -> None:
    browser = sign_in(OTTO)
    console.change(update(ConsoleSession).values(ended_at=datetime.now().astimezone()))
    assert browser.get("/").status_code == 303


def test_a_session_outlives_a_rotation_of_the_key(console: Service) -> None:
    with console.app.app_context():
        link = console_sessions.create_link(Keyring(KEY), OLGA, datetime.now().astimezone())
    now = datetime.now().astimezone()
    rotated = Keyring(NEW_KEY, (KEY,))
    with console.app.app_context():
        cookie = console_sessions.sign_in_by_link(rotated, link, "Firefox", now)
        assert console_sessions.authenticate(rotated, cookie.reveal(), now).email == OLGA


def test_otto_ends_his_other_sessions(console: Service, sign_in: SignIn) -> None:
    here, there, elsewhere = sign_in(OTTO), sign_in(OTTO), sign_in(OTTO)
    olga = sign_in(OLGA)
    assert here.get("/sessions").text.count('data-label="Browser"') == 3
    ids = session_ids(console, OTTO)
    assert here.post("/sessions/end", session=ids[1]).status_code == 303
    assert (there.get("/").status_code, elsewhere.get("/").status_code) == (303, 200)
    assert here.post("/sessions/end").status_code == 303
    assert (here.get("/").status_code, elsewhere.get("/").status_code) == (200, 303)
    assert olga.get("/").status_code == 200


def test_vera_cannot_end_olgas_session(console: Service, sign_in: SignIn) -> None:
    olga, vera = sign_in(OLGA), sign_in(VERA)
    assert vera.post("/sessions/end", session=session_ids(console, OLGA)[0]).status_code == 404
    assert olga.get("/").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
        SAME_ORIGIN | {"Origin": "https://evil.example"},
    ],
)
def test_another_site_changes_nothing(console: Service, sign_in: SignIn, headers: dict[str, str]) -> None:
    browser = sign_in(OLGA)
    answer = browser.post("/operators/remove", headers=headers, email=VERA)
    assert answer.status_code == 403
    assert browser.post("/sign-out", headers=headers).status_code == 403
    assert Browser(console).post("/sign-in/link", headers=headers, link=make_link(console)).status_code == 403
    assert {row.archived_at for row in console.rows(select(Operator))} == {None}


@pytest.mark.parametrize("token", ["", "0" * 64, "ä", None])
def test_a_change_needs_the_sessions_own_csrf_token(sign_in: SignIn, token: str | None) -> None:
    olga, vera = sign_in(OLGA), sign_in(VERA)
    answer = olga.post(
        "/operators/remove", email=VERA, csrf_token=vera.csrf_token if token is None else token
    )
    assert answer.status_code == 403
    assert vera.get("/").status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "evil",
        "/ä",
    ],
)
def test_no_open_redirect_after_a_sign_in(console: Service, target: str) -> None:
    answer = Browser(console).use_link(make_link(console), next=target)
    assert answer.headers["Location"] == "/"
    assert target not in Browser(console).get("/sign-in", query_string={"next": target}).text


def test_the_sign_in_leads_back_to_the_page(console: Service) -> None:
    browser = Browser(console)
    assert browser.get("/health?part=keys").headers["Location"] == "/sign-in?next=%2Fhealth%3Fpart%3Dkeys"
    answer = browser.use_link(make_link(console), next="/health?part=keys")
    assert answer.headers["Location"] == "/health?part=keys"


def test_attempts_to_sign_in_are_limited_by_address(make_shared: Any) -> None:
    service = make_shared(CONSOLE_URL=CONSOLE_URL, FAILURE_RATE_LIMIT="3 per minute")
    statuses = [Browser(service).use_link("x").status_code for _ in range(4)]
    assert statuses == [401, 401, 401, 429]


def test_no_log_line_has_a_link_or_a_cookie(console: Service, request_lines: Callable[[], list[Any]]) -> None:
    link = make_link(console)
    browser = Browser(console)
    browser.use_link(link)
    browser.get("/")
    text = repr(request_lines())
    assert text.count("'/sign-in/link'") >= 1
    assert link not in text
    assert str(browser.cookie) not in text
    assert operators.id_of(OLGA) in text


def test_the_database_has_no_cookie(console: Service) -> None:
    browser = Browser(console, OLGA)
    rows = console.rows(select(ConsoleSession.__table__))
    assert str(browser.cookie) not in repr(rows)


def test_a_partial_update_without_a_session_leads_to_the_sign_in(console: Service) -> None:
    answer = Browser(console).get("/operators", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/sign-in")


def test_a_large_or_strange_body_is_refused(console: Service, sign_in: SignIn) -> None:
    browser = sign_in(OLGA)
    assert browser.post("/operators", email="a" * 20_000).status_code == 413
    assert Browser(console).post("/sign-in/link", link="a" * 20_000).status_code == 413
    for body in (b"{}", b"\xff\xfe", b"--x\r\n"):
        answer = browser.client.post(
            "/operators",
            base_url=browser.origin,
            data=body,
            headers=SAME_ORIGIN,
            content_type="application/json",
        )
        assert answer.status_code == 403
