"""An app that exists already, in Firefox and WebKitGTK: with cookies, and where the browser blocks them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.browser.others.driving import Browser
from tests.e2e.browser.others.firefox import firefox
from tests.e2e.browser.others.test_ways import DrivenPortal
from tests.e2e.browser.upstream import UpstreamInstallation, run_upstream
from tests.support.servers import wait_for

pytestmark = pytest.mark.timeout(240)

#: Runs a function in the app's own frame, from the frame around it.
IN_APP: Final = """(...given) => {{
    const app = document.querySelector("#embed-main iframe")?.contentWindow;
    return app && ({})(app, ...given);
}}"""
#: Sets the height of a part of the app.
GROW: Final = (
    "({ document }, height) => { document.querySelector('#more').style.height = height; return true; }"
)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpstreamInstallation]:
    with run_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


def in_app(portal: DrivenPortal, function: str, *given: Any) -> Any:
    """Call the function with the app's window until its result is truthy."""
    return portal.frame.until(IN_APP.format(function), *given)


def test_a_browser_that_blocks_cookies_shows_the_reason(
    other: Browser, installation: UpstreamInstallation
) -> None:
    portal = DrivenPortal(other, installation)
    portal.visit('token-url="/embed-token"', app="sales")
    (error,) = portal.events("error")
    assert (error["code"], error["retryable"]) == ("cookies_blocked", False)
    portal.frame.reads("h1", "Your browser blocks a cookie that this app needs")
    assert portal.frame.run("() => document.querySelectorAll('iframe, button').length") == 0
    assert installation.existing.presses == []


def test_the_app_works_in_firefox_as_it_is(installation: UpstreamInstallation, tmp_path: Path) -> None:
    try:
        browser = firefox(tmp_path, {"network.cookie.cookieBehavior": 5})
        with browser as driver:
            portal = DrivenPortal(driver, installation)
            portal.visit('token-url="/embed-token" theme="dark" auto-height', app="sales")
            portal.events("loaded")
            in_app(portal, "({ document }) => document.querySelector('#who').textContent === 'ana@acme.test'")
            in_app(portal, "({ document }) => document.querySelector('#stream').textContent === 'on'")
            in_app(portal, "(app) => app.matchMedia('(prefers-color-scheme: dark)').matches")
            in_app(portal, "({ document }) => { document.querySelector('#press').click(); return true; }")
            in_app(portal, "({ document }) => document.querySelector('#pressed').textContent === '1'")
            in_app(portal, GROW, "900px")
            portal.page.until("() => parseInt(tag.frame.iframe.style.height) > 900")
            in_app(portal, GROW, "0")
            portal.page.until("() => parseInt(tag.frame.iframe.style.height) < 200")
            in_app(portal, "({ document }) => { document.querySelector('#file').click(); return true; }")
            wait_for_file(driver.downloads / "sales.csv")
            in_app(portal, "(app) => { app.location.href = '/report?year=2026'; return true; }")
            assert portal.events("navigate")[0]["page"] == "/report"
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


def wait_for_file(path: Path) -> None:
    wait_for(lambda: path.exists() and path.read_text() == "who,sum\nana,1\n")
