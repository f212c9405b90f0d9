"""A workspace token through embed.js in Chromium: the launcher, and the app that it shows."""

from datetime import UTC, datetime
from typing import Any, Final

import pytest
from playwright.sync_api import Frame, Page, expect
from sqlalchemy import update

from pat_service.storage.models import Session
from tests.e2e.browser.installation import (
    ELSEWHERE,
    HOST_PER_APP,
    ONE_HOST,
    LauncherInstallation,
    Launchers,
    app_in,
    click,
    expect_heading,
    go,
    go_to_launcher,
    open_app,
    session_of,
)
from tests.e2e.browser.portal import (
    BLOCKED_LINES,
    IMPATIENT_HTML,
    KEEP_BUSY,
    SHORT_SESSION,
    Portal,
)
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.test_narrowed_origins import tell_no_origins

LAUNCHER: Final = '<pat-embed id="it" workspace="acme" token-url="/embed-token"></pat-embed>'


@pytest.fixture(params=[ONE_HOST, HOST_PER_APP])
def installation(request: pytest.FixtureRequest, launcher_installations: Launchers) -> LauncherInstallation:
    return launcher_installations(request.param)


@pytest.fixture
def portal(portal: Portal) -> Portal:
    portal.mint_options = dict(SHORT_SESSION)
    portal.page.clock.install()
    portal.visit(LAUNCHER)
    portal.events("loaded")
    return portal


def launched(portal: Portal) -> Frame:
    frame = portal.opened_frame()
    expect_heading(frame, "Acme")
    return frame


def test_the_launcher_and_its_app_are_renewed_in_place(portal: Portal, recorder: Recorder) -> None:
    launcher = launched(portal)
    assert portal.token_requests == [{"workspace": "acme", "reason": "initial"}]
    own = session_of(launcher)["sessionId"]
    frame = open_app(launcher, "Orders")
    (_, loaded) = portal.events("loaded", 2)
    assert loaded["app"]["slug"] == "orders"
    first = session_of(frame)["sessionId"]
    portal.nearly_expire()
    portal.events("session:renewed")
    portal.wait_until(lambda: session_of(frame)["sessionId"] != first)
    assert session_of(launcher)["sessionId"] != own
    expect_heading(frame, "Orders")
    assert portal.reasons == ["initial", "expiring"]
    assert portal.event_names().count("session:renewed") == 1
    portal.expect_no_error()
    assert not any(secret in url for url in recorder.urls() for secret in ("pat_", "otc_"))


def test_events_go_through_the_launcher_both_ways(portal: Portal) -> None:
    launcher = launched(portal)
    portal.page.evaluate("it.frame.send('filter', 1)")  # no app is open
    frame = open_app(launcher, "Support")
    portal.events("loaded", 2)
    frame.evaluate("void embed.on('filter', (data) => embed.send('picked', { of: data.id }))")
    portal.page.evaluate("it.frame.send('filter', { id: 7 })")
    assert portal.events("picked") == [{"name": "picked", "of": 7}]
    go(frame, "New ticket")
    assert portal.events("navigate")[0]["title"] == frame.evaluate("document.title")
    portal.page.evaluate("it.frame.setTheme('dark'); it.frame.setLocale('es')")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    frame.wait_for_function("() => embed.locale === 'es'")
    go_to_launcher(launcher)
    (*_, loaded) = portal.events("loaded", 3)
    assert (loaded["app"], loaded["title"]) == (None, "Acme")
    assert [name for name in portal.event_names() if name != "navigate"] == [
        *("ready", "loaded", "loaded", "picked", "loaded")
    ]


def test_the_frame_is_as_high_as_the_open_app(portal: Portal) -> None:
    portal.visit(LAUNCHER.replace(">", " auto-height>", 1))
    launcher = launched(portal)
    iframe = portal.page.locator("iframe")

    def expect_fit() -> int:
        height = "Math.ceil(document.documentElement.getBoundingClientRect().height)"
        portal.wait_until(lambda: iframe.evaluate("it => it.offsetHeight") == launcher.evaluate(height))
        return int(launcher.evaluate(height))

    listed = expect_fit()
    frame = open_app(launcher, "Orders")
    inner = launcher.locator("#launcher-frame iframe")
    content = "Math.ceil(document.documentElement.getBoundingClientRect().height)"
    portal.wait_until(lambda: inner.evaluate("it => it.offsetHeight") == frame.evaluate(content))
    usual = expect_fit()
    assert usual > frame.evaluate(content)
    frame.evaluate("document.querySelector('h1').style.height = '900px'")
    portal.wait_until(lambda: expect_fit() > usual + 500)
    frame.evaluate("document.querySelector('h1').style.height = ''")
    portal.wait_until(lambda: expect_fit() == usual)
    go_to_launcher(launcher)
    portal.wait_until(lambda: expect_fit() == listed)


def allow_elsewhere(document: dict[str, Any]) -> None:
    """Let another site frame everything as well, so that a token can narrow the origins."""
    for place in (*document["workspaces"], *document["apps"]):
        place["allowed_origins"] = [*place["allowed_origins"], ELSEWHERE]


@pytest.mark.parametrize("told", [True, False])
def test_a_narrowed_token_opens_the_launcher_and_its_apps(portal: Portal, told: bool) -> None:
    """Without a list of the origins around it, each frame moves once."""
    if not told:
        tell_no_origins(portal.page)
    portal.installation.provision(allow_elsewhere)
    portal.mint_options["allowedOrigins"] = [portal.installation.site.origin]
    portal.visit(LAUNCHER)
    portal.events("loaded")
    launcher = launched(portal)
    for name in ("Orders", "Support"):
        frame = open_app(launcher, name)
        assert ("/frame" in frame.url) == ("/frame" in launcher.url) == told
        go_to_launcher(launcher)
    frame = open_app(launcher, "Orders")
    first = session_of(frame)["sessionId"]
    portal.nearly_expire()
    portal.events("session:renewed")
    portal.wait_until(lambda: session_of(frame)["sessionId"] != first)
    expect_heading(frame, "Orders")
    assert portal.event_names().count("ready") == 1
    portal.expect_no_error()


def test_a_refusal_of_the_app_is_also_a_message_to_the_host_page(
    portal: Portal, installation: LauncherInstallation
) -> None:
    launcher = launched(portal)
    frame = open_app(launcher, "Orders")
    frame.evaluate("embed.end()")
    error = portal.expect_error("session_revoked", status=401)
    [message] = portal.messages(1)
    assert message["type"] == "TJ_EMBED_APP_LOGOUT"
    assert message["origin"] == installation.origin()
    fields = {name: message[name] for name in ("code", "error", "message", "requestId")}
    assert fields == {
        "code": "session_revoked",
        "error": 401,
        "message": error["message"],
        "requestId": error["requestId"],
    }


@pytest.mark.parametrize("end", ["app", "both"])
def test_the_end_of_an_app_is_reported_once(
    portal: Portal, installation: LauncherInstallation, end: str
) -> None:
    """If the launcher's session has ended too, the launcher reports the end and the app does not."""
    launcher = launched(portal)
    frame = open_app(launcher, "Orders")
    ended = [session_of(each)["sessionId"] for each in (frame, launcher)[: 1 if end == "app" else 2]]
    values = {"ended_at": datetime.now(UTC)}
    installation.change(update(Session).where(Session.id.in_(ended)).values(values))
    frame.evaluate("void embed.fetch('session')")
    portal.expect_error("session_revoked", status=401)
    portal.fast_forward(30)
    portal.page.wait_for_timeout(300)
    names = portal.event_names()
    assert (names.count("session:revoked"), names.count("error")) == (1, 1)
    assert [message["code"] for message in portal.messages(1)] == ["session_revoked"]
    expect_heading(frame if end == "app" else launcher, "Your session was ended")


def test_a_reload_inside_the_app_opens_it_again(portal: Portal) -> None:
    launcher = launched(portal)
    frame = open_app(launcher, "Orders")
    portal.events("loaded", 2)
    frame.evaluate("window.old = true; location.reload()")
    portal.events("loaded", 3)
    expect_heading(app_in(launcher), "Orders")
    assert portal.reasons == ["initial"]
    portal.expect_no_error()


def test_a_launchers_busy_app_is_not_taken_for_blank(
    page_with_site_processes: Page, installation: LauncherInstallation
) -> None:
    portal = Portal(page_with_site_processes, installation)
    portal.page.context.add_init_script(
        f"if (location.pathname.startsWith('/embed-apps/')) addEventListener('load', () => {KEEP_BUSY})"
    )
    portal.visit(IMPATIENT_HTML + LAUNCHER)
    portal.events("loaded")
    launched(portal).get_by_role("button", name="Orders").click()
    portal.events("loaded", 2)
    portal.page.wait_for_timeout(3000)
    assert portal.event_names() == ["ready", "loaded", "loaded"]


def test_a_launchers_app_that_this_page_may_not_frame_is_reported(portal: Portal, recorder: Recorder) -> None:
    recorder.allow(*BLOCKED_LINES)
    portal.installation.provision(
        lambda document: document["apps"][0].update(allowed_origins=["https://other.example"])
    )
    launcher = launched(portal)
    click(launcher, "Orders")
    portal.wait_until(lambda: recorder.complained("frame-ancestors"))
    launcher.locator("#launcher-frame iframe").wait_for(state="attached")
    portal.page.wait_for_timeout(500)
    portal.fast_forward(6)
    portal.expect_error("origin_not_allowed")


def test_a_launchers_app_starts_in_the_hosts_language_and_theme(portal: Portal) -> None:
    portal.visit(LAUNCHER.replace(">", ' locale="es" theme="dark">', 1))
    launcher = launched(portal)
    expect(launcher.locator("html")).to_have_attribute("lang", "es")
    expect(launcher.get_by_role("button", name="Todas las aplicaciones")).to_have_count(0)
    frame = open_app(launcher, "Orders")
    expect(launcher.get_by_role("button", name="Todas las aplicaciones")).to_be_visible()
    assert frame.evaluate("[embed.theme, embed.locale]") == ["dark", "es"]
