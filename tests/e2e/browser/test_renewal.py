"""A session's life in a frame of embed.js, in Chromium: renewed in place, asleep, ended, somebody else's.

Sessions of three minutes, and a browser whose clocks run ahead: the server's own goes its way.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import Frame, expect
from sqlalchemy import update

from pat_service.storage.models import Session
from tests.e2e.browser.embedding import HIDING, SLOT, Portal, minted, status, tag
from tests.e2e.browser.house import BEN, LAB, House, heading

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Route

    from tests.e2e.browser.conftest import Witness

SHORT: Final = {"sessionExpiry": 3}
#: When a short session is about to be renewed, whatever the jitter, long enough before its end; in seconds.
NEARLY: Final = 165
#: When it is over, in seconds.
OVER: Final = 185
#: When a mint no longer serves other frames, in seconds.
STALE: Final = 6
PROBLEM: Final = {"Content-Type": "application/problem+json"}


@pytest.fixture
def portal(portal: Portal) -> Portal:
    portal.wish = dict(SHORT)
    portal.page.context.add_init_script(HIDING)
    portal.page.clock.install()
    return portal


def session_id(frame: Frame) -> str:
    return frame.evaluate("embed.fetch('session').then((answer) => answer.json())")["sessionId"]


def me(frame: Frame) -> str:
    """Send a request of the app, and return whose it was."""
    return frame.evaluate("embed.fetch('data/me').then((answer) => answer.json())")["name"]


def type_a_note(frame: Frame) -> None:
    frame.get_by_label("Note").fill("Half a sentence")
    frame.get_by_label("Note").evaluate("(field) => { field.focus(); field.setSelectionRange(2, 6); }")


def expect_the_note(frame: Frame) -> None:
    """What was typed is there, and the focus and the selection are where they were."""
    expect(frame.get_by_label("Note")).to_have_value("Half a sentence")
    state = "(({ name, selectionStart, selectionEnd }) => [name, selectionStart, selectionEnd])"
    assert frame.evaluate(f"{state}(document.activeElement)") == ["text", 2, 6]


def expire(house: House) -> None:
    """End all sessions by their time, on the server alone."""
    house.change(update(Session).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))


def revoke(house: House) -> None:
    house.change(update(Session).values(ended_at=datetime.now(UTC)))


def archive(house: House) -> None:
    house.provision(lambda document: document["users"][0].update(status="archived"))


def take_grant(house: House) -> None:
    house.provision(lambda document: document["apps"][0].update(users=[BEN]))


def move(house: House) -> None:
    house.provision(lambda document: document["apps"][0].update(workspace="globex", users=[]))


# ---- Before the end ----


def test_a_session_is_renewed_in_place(portal: Portal) -> None:
    frame = portal.open()
    before = session_id(frame)
    type_a_note(frame)
    portal.hold("**/data/me")
    frame.evaluate("void (window.answer = embed.fetch('data/me').then(({ status }) => status))")
    portal.pass_time(NEARLY)
    (renewed,) = portal.heard("session:renewed")
    assert 170 <= renewed["expiresIn"] <= 180
    (expiring,) = portal.heard("session:expiring")
    assert 0 < expiring["expiresIn"] <= 180 - NEARLY
    expect_the_note(frame)
    portal.release()
    assert frame.evaluate("answer") == 200
    assert session_id(frame) != before
    assert portal.reasons == ["initial", "expiring"]
    assert portal.names() == ["ready", "loaded", "session:expiring", "session:renewed"]
    assert portal.said() == []


def test_a_session_is_renewed_again_and_again(portal: Portal) -> None:
    frame = portal.open()
    for count in (1, 2, 3):
        portal.pass_time(NEARLY)
        portal.heard("session:renewed", count)
    assert me(frame) == "Ana"
    assert portal.reasons == ["initial", "expiring", "expiring", "expiring"]


def test_the_host_renews_when_it_wants(portal: Portal) -> None:
    frame = portal.open('id="it"')
    before = session_id(frame)
    assert portal.page.evaluate("it.frame.refresh().then(() => 'renewed')") == "renewed"
    assert session_id(frame) != before


def test_two_tabs_of_one_portal_do_not_end_each_other(portal: Portal, context: "BrowserContext") -> None:
    other = Portal(context.new_page(), portal.house, wish=dict(SHORT))
    other.page.clock.install()
    first, second = portal.open(), other.open()
    for count in (1, 2):
        for each in (portal, other):
            each.pass_time(NEARLY)
        for each in (portal, other):
            each.heard("session:renewed", count)
    assert me(first) == me(second) == "Ana"
    assert "error" not in portal.names() + other.names()


def test_three_frames_of_one_app_share_each_mint(portal: Portal) -> None:
    portal.visit(tag() * 3)
    portal.heard("loaded", 3)
    portal.pass_time(NEARLY)
    portal.heard("session:renewed", 3)
    assert portal.reasons == ["initial", "expiring"]


def test_a_token_for_a_single_opening_is_never_shared(portal: Portal) -> None:
    portal.wish["singleUse"] = True
    portal.visit(tag() * 2)
    portal.heard("loaded", 2)
    portal.pass_time(NEARLY)
    portal.heard("session:renewed", 2)
    assert "error" not in portal.names()
    assert len(set(portal.tokens)) == len(portal.tokens) >= 4


def test_twenty_frames_on_one_page_open(portal: Portal) -> None:
    portal.visit(tag() * 20)
    portal.heard("loaded", 20, patience=60)
    assert len(portal.asked) < 10, "a mint serves all that ask within 5 s"
    assert "error" not in portal.names()


def test_a_token_that_another_tab_replaced_is_followed_by_a_fresh_one(portal: Portal) -> None:
    races = [1, 1]

    def race(route: "Route") -> None:
        if races:
            races.pop()
            minted(portal.house)
        route.continue_()

    portal.page.context.route("**/frame", race)
    portal.page.clock.resume()
    frame = portal.open()
    assert me(frame) == "Ana"
    assert portal.names() == ["ready", "loaded"]
    assert len(portal.tokens) == 3


def test_a_session_of_a_month_is_not_renewed_at_once(portal: Portal) -> None:
    portal.wish = {"sessionExpiry": 43_200}
    portal.open()
    for days in (1, 26):
        portal.pass_time(days * 86_400)
        portal.page.wait_for_timeout(300)
    assert portal.reasons == ["initial"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_of_the_viewer_changes_nothing(portal: Portal, hours: int) -> None:
    portal.page.add_init_script(
        f"""{{
            const {{ Date: Right }} = window;
            window.Date = class extends Right {{
                constructor(...given) {{ super(...(given.length ? given : [Date.now()])); }}
                static now() {{ return Right.now() + {hours} * 3_600_000; }}
            }};
        }}"""
    )
    frame = portal.open()
    portal.pass_time(30)
    portal.page.wait_for_timeout(200)
    assert portal.reasons == ["initial"]
    portal.pass_time(NEARLY)
    portal.heard("session:renewed")
    assert me(frame) == "Ana"


# ---- After the end ----


def test_a_request_after_the_end_is_answered_with_the_next_session(portal: Portal) -> None:
    frame = portal.open()
    type_a_note(frame)
    portal.pass_time(STALE)
    expire(portal.house)
    assert me(frame) == "Ana"
    expect_the_note(frame)
    assert portal.reasons == ["initial", "expired"]
    assert "error" not in portal.names()


@pytest.mark.parametrize("clocks", ["that went on", "that slept too"])
def test_a_computer_that_slept_for_a_day_goes_on(portal: Portal, clocks: str) -> None:
    frame = portal.open()
    type_a_note(frame)
    portal.pass_time(STALE)
    portal.sleep()
    expire(portal.house)
    if clocks == "that went on":
        portal.pass_time(86_400)
        portal.page.wait_for_timeout(300)
        assert portal.reasons == ["initial"]
    portal.sleep(False)
    portal.heard("session:renewed")
    expect_the_note(frame)
    assert me(frame) == "Ana"
    assert portal.reasons == ["initial", "visible"]
    assert portal.names() == ["ready", "loaded", "session:expired", "session:renewed"]


def test_a_person_sees_that_the_frame_reconnects(portal: Portal) -> None:
    portal.visit(SLOT)
    frame = portal.mount("tokenTimeout: 600_000")  # so that the token may be asked for before the clock jumps
    type_a_note(frame)
    portal.pass_time(STALE)  # or the first mint serves, if the request is answered before the clock jumps
    portal.answers = [portal.held.append]
    expire(portal.house)
    frame.evaluate("void embed.fetch('data/me')")
    portal.pass_time(OVER)
    expect(frame.locator(".embed-reconnecting")).to_have_attribute("role", "status")
    portal.until(lambda: bool(portal.held))
    portal.mint(portal.held.pop())
    portal.heard("session:renewed")
    expect(frame.locator(".embed-reconnecting")).to_have_count(0)
    expect_the_note(frame)


# ---- Failures ----


def test_a_refused_renewal_is_shown_at_the_end_and_tried_again_by_the_person_alone(portal: Portal) -> None:
    frame = portal.open()
    type_a_note(frame)
    portal.answers = [status(403)]
    portal.pass_time(NEARLY)
    (error,) = portal.heard("error")
    assert (error["code"], error["status"], error["retryable"]) == ("fetch_token_failed", 403, False)
    expect(frame.locator(".embed-cover")).to_have_count(0)
    expire(portal.house)
    for _ in range(3):
        portal.pass_time(60)
        portal.page.wait_for_timeout(100)
    expect(frame.locator(".embed-cover h1")).to_be_visible()
    assert portal.reasons == ["initial", "expiring"]
    assert frame.locator("#embed-main").evaluate("(main) => main.inert")
    expect(frame.get_by_label("Note")).to_have_value("Half a sentence")
    # The person has signed in at the host again.
    frame.locator(".embed-cover").get_by_role("button", name="Try again").click()
    portal.heard("session:renewed")
    expect(frame.locator(".embed-cover")).to_have_count(0)
    expect_the_note(frame)
    assert portal.reasons == ["initial", "expiring", "expired"]


def test_a_person_can_try_again_and_finds_what_was_typed(portal: Portal, witness: "Witness") -> None:
    witness.allow("status of 503")
    frame = portal.open()
    type_a_note(frame)
    portal.answers = [status(503, **{"Retry-After": "300"})] * 2
    portal.pass_time(NEARLY)
    portal.heard("error")
    expire(portal.house)
    portal.pass_time(30)
    expect(frame.locator(".embed-cover h1")).to_be_visible()
    portal.answers = []
    portal.pass_time(61)
    for _ in range(62):
        portal.pass_time(1)
    frame.locator(".embed-cover button").click()
    portal.heard("session:renewed")
    expect(frame.locator(".embed-cover")).to_have_count(0)
    expect_the_note(frame)
    assert me(frame) == "Ana"


def test_a_service_that_is_away_for_a_while_is_tried_again(portal: Portal, witness: "Witness") -> None:
    witness.allow("status of 503", "ERR_FAILED")
    frame = portal.open()
    failures = ["503", "abort", "503"]

    def fail(route: "Route") -> None:
        match failures.pop() if failures else None:
            case "503":
                problem = {"code": "unavailable", "detail": "Away."}
                route.fulfill(status=503, headers=PROBLEM | {"Retry-After": "2"}, json=problem)
            case "abort":
                route.abort()
            case _:
                route.continue_()

    portal.page.context.route("**/frame", fail)
    portal.pass_time(NEARLY)
    portal.until(lambda: len(failures) == 2)
    portal.pass_time(3)
    portal.until(lambda: len(failures) == 1)
    portal.pass_time(3)
    portal.until(lambda: not failures)
    portal.pass_time(5)
    portal.heard("session:renewed")
    assert "error" not in portal.names()
    assert me(frame) == "Ana"


def test_a_busy_service_is_left_alone_as_long_as_it_says(portal: Portal) -> None:
    portal.wish = {"sessionExpiry": 60}
    portal.open('id="it"')
    tries: list[int] = []

    def busy(route: "Route") -> None:
        tries.append(1)
        if len(tries) > 1:
            return route.continue_()
        problem = {"code": "rate_limited", "detail": "Too many."}
        return route.fulfill(status=429, headers=PROBLEM | {"Retry-After": "50"}, json=problem)

    portal.page.context.route("**/frame", busy)
    portal.page.evaluate("void it.frame.refresh()")
    portal.heard("session:expiring")
    portal.page.wait_for_timeout(200)
    portal.pass_time(30)
    portal.page.wait_for_timeout(200)
    assert len(tries) == 1
    portal.pass_time(51)
    portal.heard("session:renewed")
    assert len(tries) == 2


# ---- A frame that loads again ----


def test_a_reload_inside_the_frame_opens_the_app_again(portal: Portal) -> None:
    frame = portal.open()
    portal.pass_time(STALE)
    frame.evaluate("location.reload()")
    portal.heard("loaded", 2)
    expect(heading(frame)).to_have_text("Lab of Ana")
    assert portal.reasons == ["initial", "reload"]
    assert "error" not in portal.names()


def test_back_into_the_frame_opens_the_app_again(portal: Portal, witness: "Witness") -> None:
    witness.allow("target origin provided")
    frame = portal.open()
    portal.pass_time(STALE)
    frame.evaluate("location.href = 'about:blank'")
    frame.wait_for_url("about:blank")
    portal.page.evaluate("history.back()")
    portal.heard("loaded", 2)
    expect(heading(frame)).to_have_text("Lab of Ana")
    assert portal.reasons == ["initial", "reload"]


def test_a_frame_that_comes_back_refused_begins_again_but_not_for_ever(portal: Portal) -> None:
    frame = portal.open()
    for count in (2, 3, 4):
        frame.evaluate("(address) => { location.href = address; }", f"/embed-apps/{LAB}")
        portal.heard("loaded", count)
        assert "error" not in portal.names()
    frame.evaluate("(address) => { location.href = address; }", f"/embed-apps/{LAB}")
    (error,) = portal.heard("error")
    assert error["code"] == "token_missing"
    frame.locator("#embed-retry").click()
    portal.heard("loaded", 5)


def test_when_somebody_else_has_signed_in_their_page_replaces_anas(portal: Portal) -> None:
    frame = portal.open()
    type_a_note(frame)
    portal.email = BEN
    portal.pass_time(NEARLY)
    portal.heard("loaded", 2)
    expect(heading(frame)).to_have_text("Lab of Ben")
    expect(frame.get_by_label("Note")).to_have_value("")
    assert me(frame) == "Ben"
    assert "session:renewed" not in portal.names()


# ---- Ended by the server ----


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (revoke, "session_revoked"),
        (archive, "access_revoked"),
        (take_grant, "access_revoked"),
        (move, "access_revoked"),
    ],
)
def test_an_idle_frame_shows_that_its_session_was_ended(
    portal: Portal, end: Callable[[House], None], code: str
) -> None:
    portal.wish = {"sessionExpiry": 60}
    frame = portal.open()
    end(portal.house)
    portal.pass_time(28)
    (revoked,) = portal.heard("session:revoked")
    assert revoked["code"] == code
    (error,) = portal.heard("error")
    assert (error["code"], error["status"]) == (code, 401)
    expect(frame.locator(".reference")).to_contain_text(code)
    expect(frame.get_by_label("Note")).to_have_count(0)
    (said,) = portal.said(1)
    assert (said["type"], said["code"], said["error"]) == ("TJ_EMBED_APP_LOGOUT", code, 401)
    assert said["origin"] == portal.house.url
    portal.pass_time(3600)
    assert portal.reasons == ["initial"]


def test_a_request_shows_at_once_that_the_session_was_ended(portal: Portal) -> None:
    frame = portal.open()
    revoke(portal.house)
    assert frame.evaluate("embed.fetch('data/me').then(({ status }) => status)") == 401
    portal.heard("session:revoked")
    assert portal.reasons == ["initial"]


def test_a_hidden_frame_does_not_ask(portal: Portal, witness: "Witness") -> None:
    portal.wish = {"sessionExpiry": 60}
    frame = portal.open()
    portal.sleep()
    looks = len([url for url in witness.urls() if url.endswith("/session")])
    revoke(portal.house)
    for _ in range(3):
        portal.pass_time(30)
        portal.page.wait_for_timeout(100)
    assert len([url for url in witness.urls() if url.endswith("/session")]) == looks
    expect(heading(frame)).to_have_text("Lab of Ana")
    portal.sleep(False)
    portal.heard("session:revoked")
