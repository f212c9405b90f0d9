"""The life of a session in a frame of embed.js, in Chromium: renewal, sleep, expiry and revocation.

Sessions last three minutes. The browser's clocks run ahead; the server's clock does not.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

import pytest
from playwright.sync_api import BrowserContext, Frame, Route, expect
from sqlalchemy import select, update

from pat_service.storage.models import Session
from tests.e2e.browser.installation import BEN, LAB, Installation, expect_heading, session_of, viewer_name
from tests.e2e.browser.portal import (
    CAN_HIDE,
    EXPIRED_SECONDS,
    MINT_SHARING_OVER_SECONDS,
    NEARLY_EXPIRED_SECONDS,
    SHORT_SESSION,
    SLOT_HTML,
    Portal,
    status_answer,
    tag,
)
from tests.e2e.browser.recorder import Recorder

PROBLEM: Final = {"Content-Type": "application/problem+json"}


@pytest.fixture
def portal(portal: Portal) -> Portal:
    portal.mint_options = dict(SHORT_SESSION)
    portal.page.context.add_init_script(CAN_HIDE)
    portal.page.clock.install()
    return portal


def type_a_note(frame: Frame) -> None:
    frame.get_by_label("Note").fill("Half a sentence")
    frame.get_by_label("Note").evaluate("(field) => { field.focus(); field.setSelectionRange(2, 6); }")


def expect_the_note(frame: Frame) -> None:
    """Check that the typed text, the focus and the selection are unchanged."""
    expect(frame.get_by_label("Note")).to_have_value("Half a sentence")
    state = "(({ name, selectionStart, selectionEnd }) => [name, selectionStart, selectionEnd])"
    assert frame.evaluate(f"{state}(document.activeElement)") == ["text", 2, 6]


def expire(installation: Installation) -> None:
    """Expire all sessions, on the server only."""
    installation.change(update(Session).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))


def revoke(installation: Installation) -> None:
    installation.change(update(Session).values(ended_at=datetime.now(UTC)))


def take_grant(installation: Installation) -> None:
    installation.provision(lambda document: document["apps"][0].update(users=[BEN]))


# ---- Before expiry ----


def test_a_session_is_renewed_in_place(portal: Portal) -> None:
    frame = portal.open()
    before = session_of(frame)["sessionId"]
    type_a_note(frame)
    portal.pause("**/data/me")
    frame.evaluate("void (window.answer = embed.fetch('data/me').then(({ status }) => status))")
    portal.nearly_expire()
    (renewed,) = portal.events("session:renewed")
    assert 170 <= renewed["expiresIn"] <= 180
    expect_the_note(frame)
    portal.resume()
    assert frame.evaluate("answer") == 200
    assert session_of(frame)["sessionId"] != before
    assert portal.reasons == ["initial", "expiring"]
    assert portal.event_names() == ["ready", "loaded", "session:expiring", "session:renewed"]
    assert portal.messages() == []


def test_a_renewal_ends_the_former_session_with_the_next_request(portal: Portal) -> None:
    frame = portal.open()
    before = session_of(frame)["sessionId"]
    portal.nearly_expire()
    portal.events("session:renewed")
    after = session_of(frame)["sessionId"]
    former = select(Session.ended_at, Session.replaced_by).where(Session.id == before)
    portal.wait_until(lambda: portal.installation.rows(former)[0].ended_at is not None)
    assert portal.installation.rows(former)[0].replaced_by == after


@pytest.mark.parametrize(
    "ask", ["embed.fetch('data/me').then(({ status }) => status)", "embed.page('second')"]
)
def test_a_frame_whose_session_was_replaced_renews_it(portal: Portal, ask: str) -> None:
    """For example, a renewal reached the service and its answer did not reach the frame."""
    frame = portal.open()
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    session = session_of(frame)["sessionId"]
    values = {"ended_at": datetime.now(UTC), "replaced_by": session}
    portal.installation.change(update(Session).where(Session.id == session).values(values))
    assert frame.evaluate(ask) in (200, None)
    portal.events("session:renewed")
    assert session_of(frame)["sessionId"] != session
    assert portal.reasons == ["initial", "expired"]
    portal.expect_no_error()


@pytest.mark.parametrize(("minutes", "lead_seconds"), [(3, 18), (60, 60)])
def test_a_renewal_begins_after_nine_tenths_of_the_session_or_in_its_last_minute(
    portal: Portal, minutes: int, lead_seconds: int
) -> None:
    """A random share of that lead is added, at most half, so that frames do not all renew at once."""
    portal.mint_options = {"sessionExpiry": minutes}
    # Replace the server's answer: only the browser's clock runs ahead, so the server would deny that the
    # session ends.
    portal.page.route("**/session", lambda route: route.fulfill(status=404))
    portal.open()
    earliest = 1.5 * lead_seconds
    portal.fast_forward(60 * minutes - earliest - 5 - (monotonic() - portal.minted_at))
    portal.page.wait_for_timeout(200)
    assert portal.reasons == ["initial"]
    portal.page.clock.run_for(round((earliest - lead_seconds + 10) * 1000))  # each timer runs at its time
    (expiring,) = portal.events("session:expiring")
    assert lead_seconds - 2 <= expiring["expiresIn"] <= earliest


def test_a_check_answered_late_delays_no_renewal(portal: Portal) -> None:
    """For example, the computer slept before the answer came."""
    portal.open()
    portal.pause("**/session")
    portal.fast_forward(25)
    portal.wait_for_paused()
    portal.fast_forward(16)
    with portal.page.expect_request_finished(lambda request: request.url.endswith("/session")):
        portal.resume()
    portal.fast_forward(NEARLY_EXPIRED_SECONDS - 16)
    portal.events("session:renewed")
    assert portal.reasons == ["initial", "expiring"]


def test_a_renewal_that_is_due_comes_before_a_check(portal: Portal, recorder: Recorder) -> None:
    portal.open()
    with portal.page.expect_request_finished(lambda request: request.url.endswith("/session")):
        portal.fast_forward(25)
    before = len(recorder.requests)
    portal.fast_forward(NEARLY_EXPIRED_SECONDS)
    portal.events("session:renewed")
    assert [url.rpartition("/")[2] for url in recorder.urls()[before:]] == ["embed-token", "frame"]


def test_the_host_page_can_renew_at_any_time(portal: Portal) -> None:
    frame = portal.open('id="it"')
    before = session_of(frame)["sessionId"]
    assert portal.page.evaluate("it.frame.refresh().then(() => 'renewed')") == "renewed"
    assert session_of(frame)["sessionId"] != before


def test_two_tabs_of_one_portal_keep_each_others_sessions(portal: Portal, context: BrowserContext) -> None:
    other = Portal(context.new_page(), portal.installation, mint_options=dict(SHORT_SESSION))
    other.page.clock.install()
    first, second = portal.open(), other.open()
    for count in (1, 2):
        for each in (portal, other):
            each.nearly_expire()
        for each in (portal, other):
            each.events("session:renewed", count)
    assert viewer_name(first) == viewer_name(second) == "Ana"
    assert "error" not in portal.event_names() + other.event_names()


def test_three_frames_of_one_app_share_each_mint(portal: Portal) -> None:
    portal.visit(tag() * 3)
    portal.events("loaded", 3)
    portal.nearly_expire()
    portal.events("session:renewed", 3)
    assert portal.reasons == ["initial", "expiring"]


def test_a_single_use_token_is_never_shared(portal: Portal) -> None:
    portal.mint_options["singleUse"] = True
    portal.visit(tag() * 2)
    portal.events("loaded", 2)
    portal.nearly_expire()
    portal.events("session:renewed", 2)
    portal.expect_no_error()
    assert len(set(portal.tokens)) == len(portal.tokens) >= 4


def test_twenty_frames_on_one_page_open(portal: Portal) -> None:
    portal.visit(tag() * 20)
    portal.events("loaded", 20, timeout_seconds=60)
    assert len(portal.token_requests) < 10, "one mint serves all requests within 5 s"
    portal.expect_no_error()


def test_a_token_replaced_by_another_tab_is_minted_again(portal: Portal) -> None:
    remaining = [1, 1]

    def replace(route: Route) -> None:
        if remaining:
            remaining.pop()
            portal.installation.mint()
        route.continue_()

    portal.page.context.route("**/frame", replace)
    portal.page.clock.resume()
    frame = portal.open()
    assert viewer_name(frame) == "Ana"
    assert portal.event_names() == ["ready", "loaded"]
    assert len(portal.tokens) == 3


def test_a_session_of_a_month_is_not_renewed_at_once(portal: Portal) -> None:
    portal.mint_options = {"sessionExpiry": 43_200}
    portal.open()
    for days in (1, 26):
        portal.fast_forward(days * 86_400)
        portal.page.wait_for_timeout(300)
    assert portal.reasons == ["initial"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_viewers_wrong_clock_changes_nothing(portal: Portal, hours: int) -> None:
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
    portal.fast_forward(30)
    portal.page.wait_for_timeout(200)
    assert portal.reasons == ["initial"]
    portal.nearly_expire()
    portal.events("session:renewed")
    assert viewer_name(frame) == "Ana"


# ---- After expiry ----


def test_a_request_after_expiry_is_answered_with_a_renewed_session(portal: Portal) -> None:
    frame = portal.open()
    type_a_note(frame)
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    expire(portal.installation)
    assert viewer_name(frame) == "Ana"
    expect_the_note(frame)
    assert portal.reasons == ["initial", "expired"]
    portal.expect_no_error()


@pytest.mark.parametrize("clocks", ["running", "stopped"])
def test_a_frame_continues_after_a_day_of_sleep(portal: Portal, clocks: str) -> None:
    frame = portal.open()
    type_a_note(frame)
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    portal.hide()
    expire(portal.installation)
    if clocks == "running":
        portal.fast_forward(86_400)
        portal.page.wait_for_timeout(300)
        assert portal.reasons == ["initial"]
    portal.hide(False)
    portal.events("session:renewed")
    expect_the_note(frame)
    assert viewer_name(frame) == "Ana"
    assert portal.reasons == ["initial", "visible"]
    assert portal.event_names() == ["ready", "loaded", "session:expired", "session:renewed"]


def test_ana_sees_that_the_frame_reconnects(portal: Portal) -> None:
    portal.visit(SLOT_HTML)
    frame = portal.mount("tokenTimeout: 600_000")  # the clock may jump while the token request waits
    type_a_note(frame)
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)  # after this time the renewal needs a mint of its own
    portal.answers = [portal.paused.append]
    expire(portal.installation)
    frame.evaluate("void embed.fetch('data/me')")
    portal.fast_forward(EXPIRED_SECONDS)
    expect(frame.locator(".embed-reconnecting")).to_have_attribute("role", "status")
    portal.wait_until(lambda: bool(portal.paused))
    portal.mint(portal.paused.pop())
    portal.events("session:renewed")
    expect(frame.locator(".embed-reconnecting")).to_have_count(0)
    expect_the_note(frame)


# ---- Failures ----


def test_a_refused_renewal_is_retried_only_by_ana(portal: Portal) -> None:
    frame = portal.open()
    type_a_note(frame)
    portal.answers = [status_answer(403)]
    portal.nearly_expire()
    portal.expect_error("fetch_token_failed", status=403, retryable=False)
    expect(frame.locator(".embed-cover")).to_have_count(0)
    expire(portal.installation)
    for _ in range(3):
        portal.fast_forward(60)
        portal.page.wait_for_timeout(100)
    expect(frame.locator(".embed-cover h1")).to_be_visible()
    assert portal.reasons == ["initial", "expiring"]
    assert frame.locator("#embed-main").evaluate("(main) => main.inert")
    expect(frame.get_by_label("Note")).to_have_value("Half a sentence")
    # Ana has signed in to the portal again.
    frame.locator(".embed-cover").get_by_role("button", name="Try again").click()
    portal.events("session:renewed")
    expect(frame.locator(".embed-cover")).to_have_count(0)
    expect_the_note(frame)
    assert portal.reasons == ["initial", "expiring", "expired"]


def test_ana_can_retry_and_finds_her_typed_text(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("status of 503")
    frame = portal.open()
    type_a_note(frame)
    portal.answers = [status_answer(503, **{"Retry-After": "300"})] * 2
    portal.nearly_expire()
    portal.events("error")
    expire(portal.installation)
    portal.fast_forward(30)
    expect(frame.locator(".embed-cover h1")).to_be_visible()
    portal.answers = []
    portal.fast_forward(61)
    for _ in range(62):
        portal.fast_forward(1)
    frame.locator(".embed-cover button").click()
    portal.events("session:renewed")
    expect(frame.locator(".embed-cover")).to_have_count(0)
    expect_the_note(frame)
    assert viewer_name(frame) == "Ana"


def test_an_unavailable_service_is_retried(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("status of 503", "ERR_FAILED")
    frame = portal.open()
    failures = ["503", "abort", "503"]

    def fail(route: Route) -> None:
        match failures.pop() if failures else None:
            case "503":
                problem = {"code": "unavailable", "detail": "Away."}
                route.fulfill(status=503, headers=PROBLEM | {"Retry-After": "2"}, json=problem)
            case "abort":
                route.abort()
            case _:
                route.continue_()

    portal.page.context.route("**/frame", fail)
    portal.nearly_expire()
    portal.wait_until(lambda: len(failures) == 2)
    portal.fast_forward(3)
    portal.wait_until(lambda: len(failures) == 1)
    portal.fast_forward(3)
    portal.wait_until(lambda: not failures)
    portal.fast_forward(5)
    portal.events("session:renewed")
    portal.expect_no_error()
    assert viewer_name(frame) == "Ana"


def test_a_busy_service_is_retried_after_its_retry_after(portal: Portal) -> None:
    portal.mint_options = {"sessionExpiry": 60}
    portal.open('id="it"')
    tries: list[int] = []

    def busy(route: Route) -> None:
        tries.append(1)
        if len(tries) > 1:
            return route.continue_()
        problem = {"code": "rate_limited", "detail": "Too many."}
        return route.fulfill(status=429, headers=PROBLEM | {"Retry-After": "50"}, json=problem)

    portal.page.context.route("**/frame", busy)
    portal.page.evaluate("void it.frame.refresh()")
    portal.events("session:expiring")
    portal.page.wait_for_timeout(200)
    portal.fast_forward(30)
    portal.page.wait_for_timeout(200)
    assert len(tries) == 1
    portal.fast_forward(51)
    portal.events("session:renewed")
    assert len(tries) == 2


# ---- A frame that loads again ----


@pytest.mark.parametrize("back", [False, True])
def test_a_reload_or_back_inside_the_frame_opens_the_app_again(
    portal: Portal, recorder: Recorder, back: bool
) -> None:
    recorder.allow("target origin provided")
    frame = portal.open()
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    if back:
        frame.evaluate("location.href = 'about:blank'")
        frame.wait_for_url("about:blank")
        portal.page.evaluate("history.back()")
    else:
        frame.evaluate("location.reload()")
    portal.events("loaded", 2)
    expect_heading(frame, "Lab of Ana")
    assert portal.reasons == ["initial", "reload"]
    portal.expect_no_error()


def test_a_refused_reload_is_retried_a_limited_number_of_times(portal: Portal) -> None:
    frame = portal.open()
    for count in (2, 3, 4):
        frame.evaluate("(address) => { location.href = address; }", f"/embed-apps/{LAB}")
        portal.events("loaded", count)
        portal.expect_no_error()
    frame.evaluate("(address) => { location.href = address; }", f"/embed-apps/{LAB}")
    portal.expect_error("token_missing")
    frame.locator("#embed-retry").click()
    portal.events("loaded", 5)


def test_bens_page_replaces_anas_after_he_signs_in(portal: Portal) -> None:
    frame = portal.open()
    type_a_note(frame)
    portal.email = BEN
    portal.nearly_expire()
    portal.events("loaded", 2)
    expect_heading(frame, "Lab of Ben")
    expect(frame.get_by_label("Note")).to_have_value("")
    assert viewer_name(frame) == "Ben"
    assert "session:renewed" not in portal.event_names()


# ---- Ended by the server ----


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (revoke, "session_revoked"),
        (take_grant, "access_revoked"),
    ],
)
def test_an_idle_frame_shows_that_its_session_ended(
    portal: Portal, end: Callable[[Installation], None], code: str
) -> None:
    portal.mint_options = {"sessionExpiry": 60}
    frame = portal.open()
    end(portal.installation)
    portal.fast_forward(28)
    (revoked,) = portal.events("session:revoked")
    assert revoked["code"] == code
    portal.expect_error(code, status=401)
    expect(frame.locator(".reference")).to_contain_text(code)
    expect(frame.get_by_label("Note")).to_have_count(0)
    (message,) = portal.messages(1)
    expected = ("TJ_EMBED_APP_LOGOUT", code, 401, portal.installation.url)
    assert tuple(message[name] for name in ("type", "code", "error", "origin")) == expected
    portal.fast_forward(3600)
    assert portal.reasons == ["initial"]


def test_a_request_shows_at_once_that_the_session_ended(portal: Portal) -> None:
    frame = portal.open()
    revoke(portal.installation)
    assert frame.evaluate("embed.fetch('data/me').then(({ status }) => status)") == 401
    portal.events("session:revoked")
    assert portal.reasons == ["initial"]


def test_a_hidden_frame_does_not_poll(portal: Portal, recorder: Recorder) -> None:
    portal.mint_options = {"sessionExpiry": 60}
    frame = portal.open()
    portal.hide()
    polls = len([url for url in recorder.urls() if url.endswith("/session")])
    revoke(portal.installation)
    for _ in range(3):
        portal.fast_forward(30)
        portal.page.wait_for_timeout(100)
    assert len([url for url in recorder.urls() if url.endswith("/session")]) == polls
    expect_heading(frame, "Lab of Ana")
    portal.hide(False)
    portal.events("session:revoked")


# ---- The network ----


def test_a_frame_continues_by_itself_after_the_network_was_away(
    portal: Portal, recorder: Recorder, context: BrowserContext
) -> None:
    recorder.allow("ERR_INTERNET_DISCONNECTED")
    frame = portal.open()
    type_a_note(frame)
    context.set_offline(True)
    # A host page reports a lost network as a failed token.
    portal.answers = [lambda route: route.abort("internetdisconnected")] * 30
    portal.fast_forward(EXPIRED_SECONDS)
    for _ in range(8):
        portal.page.wait_for_timeout(50)
        portal.fast_forward(40)
    cover = frame.locator(".embed-cover")
    expect(cover.locator("h1")).to_have_text("The server could not be reached")
    assert portal.expect_error("unreachable", retryable=True)["status"] == 0
    tries = len(portal.token_requests)
    portal.fast_forward(301)
    portal.wait_until(lambda: len(portal.token_requests) > tries)
    portal.page.wait_for_timeout(100)
    portal.expect_error("unreachable")  # not once more
    expect(cover.locator("h1")).to_be_visible()
    portal.answers = []
    context.set_offline(False)  # the page hears `online`
    portal.events("session:renewed")
    expect(cover).to_have_count(0)
    expect_the_note(frame)
    assert viewer_name(frame) == "Ana"


def test_a_covered_frame_tries_again_without_news_of_the_network(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("ERR_FAILED")
    frame = portal.open()
    type_a_note(frame)
    portal.page.context.route("**/frame", lambda route: route.abort())
    portal.fast_forward(EXPIRED_SECONDS)
    for _ in range(8):
        portal.page.wait_for_timeout(50)
        portal.fast_forward(40)
    expect(frame.locator(".embed-cover h1")).to_have_text("The server could not be reached")
    portal.page.context.unroute("**/frame")
    portal.fast_forward(301)
    portal.events("session:renewed")
    expect(frame.locator(".embed-cover")).to_have_count(0)
    expect_the_note(frame)
