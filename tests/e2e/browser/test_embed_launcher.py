"""A workspace token through embed.js, in Chromium: the launcher, an app and back, each renewed in place."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Frame, expect

from tests.e2e.browser.embedding import BUSY, Portal
from tests.e2e.browser.house import heading
from tests.e2e.browser.sites import ready
from tests.e2e.browser.test_app_origins import Apart
from tests.e2e.browser.test_launcher import ORDERS, Office, an_office, go
from tests.e2e.browser.test_renewal import NEARLY, SHORT, STALE

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.e2e.browser.conftest import Witness

LAUNCHER = '<pat-embed id="it" workspace="acme" token-url="/embed-token"></pat-embed>'


@pytest.fixture(scope="module", params=["one host", "a host for each app"])
def whole_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    host = "127.0.0.1" if request.param == "one host" else "{app}.embed.localhost"
    with an_office(tmp_path_factory.mktemp("place"), host) as office:
        yield office if request.param == "one host" else Apart(office.server, office.app, office.site)


@pytest.fixture
def portal(page: "Page", whole_place: Office, witness: "Witness") -> Portal:
    witness.allow("allow-scripts and allow-same-origin")
    whole_place.provision()
    portal = Portal(page, whole_place, wish=dict(SHORT))
    page.clock.install()
    portal.visit(LAUNCHER)
    portal.heard("loaded")
    return portal


def launched(portal: Portal) -> Frame:
    frame = portal.shown()
    expect(heading(frame)).to_have_text("Acme")
    ready(frame)
    return frame


def test_the_launcher_leads_to_an_app_and_back_and_is_renewed_in_each(
    portal: Portal, witness: "Witness"
) -> None:
    frame = launched(portal)
    assert portal.asked == [{"workspace": "acme", "reason": "initial"}]
    portal.pass_time(NEARLY)
    portal.heard("session:renewed")
    go(frame, "Orders", "Orders")
    (_, loaded) = portal.heard("loaded", 2)
    assert loaded["app"]["slug"] == "orders"
    portal.pass_time(NEARLY)
    portal.heard("session:renewed", 2)
    expect(heading(frame)).to_have_text("Orders")
    frame.evaluate("embed.send('picked', 1)")
    portal.heard("picked")
    portal.page.evaluate("it.frame.setTheme('dark')")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    go(frame, "All apps", "Acme")
    portal.heard("loaded", 3)
    portal.pass_time(NEARLY)
    portal.heard("session:renewed", 3)
    assert portal.reasons == ["initial", "expiring", "expiring", "expiring"]
    assert "error" not in portal.names()
    assert not any("pat_" in url for url in witness.urls())


def test_a_reload_inside_an_app_of_the_launcher_goes_on(portal: Portal, witness: "Witness") -> None:
    witness.allow("target origin provided")
    frame = launched(portal)
    go(frame, "Orders", "Orders")
    portal.heard("loaded", 2)
    portal.pass_time(STALE)
    frame.evaluate("(address) => { location.href = address; }", f"/embed-apps/{ORDERS}")
    portal.heard("loaded", 3)
    assert portal.reasons == ["initial", "reload"]
    assert "error" not in portal.names()
    go(launched(portal), "Support", "Support")


def test_an_app_of_the_launcher_that_is_busy_when_it_has_loaded_is_not_taken_for_blank(
    page_apart: "Page", whole_place: Office
) -> None:
    whole_place.provision()
    portal = Portal(page_apart, whole_place)
    page_apart.context.add_init_script(
        f"if (location.pathname.startsWith('/embed-apps/')) addEventListener('load', () => {BUSY})"
    )
    portal.visit(LAUNCHER)
    portal.heard("loaded")
    launched(portal).get_by_role("button", name="Orders").click()
    page_apart.wait_for_timeout(8000)
    portal.heard("loaded", 2)
    assert portal.names() == ["ready", "loaded", "ready", "loaded"]


def test_an_app_of_the_launcher_that_this_page_may_not_frame_is_told_as_such(
    portal: Portal, witness: "Witness"
) -> None:
    witness.allow("origin_not_allowed", "frame-ancestors", "target origin provided", "chrome-error")
    portal.house.provision(
        lambda document: document["apps"][0].update(allowed_origins=["https://other.example"])
    )
    launched(portal).get_by_role("button", name="Orders").click()
    portal.until(lambda: any("frame-ancestors" in line for line in witness.complaints()))
    portal.page.wait_for_timeout(300)
    portal.pass_time(6)
    (error,) = portal.heard("error")
    assert error["code"] == "origin_not_allowed"


def test_an_app_of_the_launcher_has_the_hosts_language_and_theme_from_the_first(portal: Portal) -> None:
    portal.visit(LAUNCHER.replace(">", ' locale="es" theme="dark">', 1))
    frame = launched(portal)
    with portal.page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        frame.get_by_role("button", name="Orders").click()
    page = answered.value.text()
    assert 'data-theme="dark"' in page
    assert "Todas las aplicaciones" in page
