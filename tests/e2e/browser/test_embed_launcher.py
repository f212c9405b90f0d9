"""A workspace token through embed.js in Chromium: the launcher, an app and back, each renewed in place."""

from typing import Final

import pytest
from playwright.sync_api import Frame, Page, expect

from tests.e2e.browser.installation import (
    HOST_PER_APP,
    ONE_HOST,
    LauncherInstallation,
    Launchers,
    expect_heading,
    go,
)
from tests.e2e.browser.portal import (
    BLOCKED_LINES,
    IMPATIENT_HTML,
    KEEP_BUSY,
    MINT_SHARING_OVER_SECONDS,
    SHORT_SESSION,
    Portal,
)
from tests.e2e.browser.recorder import Recorder
from tests.support.people import ORDERS

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


def test_the_launcher_and_its_apps_are_renewed_in_place(portal: Portal, recorder: Recorder) -> None:
    frame = launched(portal)
    assert portal.token_requests == [{"workspace": "acme", "reason": "initial"}]
    portal.nearly_expire()
    portal.events("session:renewed")
    go(frame, "Orders")
    (_, loaded) = portal.events("loaded", 2)
    assert loaded["app"]["slug"] == "orders"
    portal.nearly_expire()
    portal.events("session:renewed", 2)
    expect_heading(frame, "Orders")
    frame.evaluate("embed.send('picked', 1)")
    portal.events("picked")
    portal.page.evaluate("it.frame.setTheme('dark')")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    go(frame, "All apps", "Acme")
    portal.events("loaded", 3)
    portal.nearly_expire()
    portal.events("session:renewed", 3)
    assert portal.reasons == ["initial", "expiring", "expiring", "expiring"]
    portal.expect_no_error()
    assert not any("pat_" in url for url in recorder.urls())


def test_a_reload_inside_a_launchers_app_opens_it_again(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("target origin provided")
    frame = launched(portal)
    go(frame, "Orders")
    portal.events("loaded", 2)
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    frame.evaluate("(address) => { location.href = address; }", f"/embed-apps/{ORDERS}")
    portal.events("loaded", 3)
    assert portal.reasons == ["initial", "reload"]
    portal.expect_no_error()
    go(launched(portal), "Support")


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
    assert portal.event_names() == ["ready", "loaded", "ready", "loaded"]


def test_a_launchers_app_that_this_page_may_not_frame_is_reported(portal: Portal, recorder: Recorder) -> None:
    recorder.allow(*BLOCKED_LINES)
    portal.installation.provision(
        lambda document: document["apps"][0].update(allowed_origins=["https://other.example"])
    )
    frame = launched(portal)
    loads = portal.page.evaluate("frameLoads")
    frame.get_by_role("button", name="Orders").click()
    portal.wait_until(lambda: recorder.complained("frame-ancestors"))
    portal.wait_for_frame_load(loads)
    portal.fast_forward(6)
    portal.expect_error("origin_not_allowed")


def test_a_launchers_app_starts_in_the_hosts_language_and_theme(portal: Portal) -> None:
    portal.visit(LAUNCHER.replace(">", ' locale="es" theme="dark">', 1))
    frame = launched(portal)
    with portal.page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        frame.get_by_role("button", name="Orders").click()
    page = answered.value.text()
    assert 'data-theme="dark"' in page
    assert "Todas las aplicaciones" in page
