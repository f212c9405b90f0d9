"""Cross-origin isolated host pages (`Cross-Origin-Embedder-Policy`) in Chromium."""

from contextlib import suppress
from typing import Final

import pytest
from playwright.sync_api import Error, Page, Route

from tests.e2e.browser.installation import (
    ANA,
    HOST_HTML,
    HOST_PER_APP,
    ONE_HOST,
    HostPage,
    LauncherInstallation,
    Launchers,
    expect_heading,
    go,
    go_to_launcher,
    open_app,
)
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import ISOLATED, wait_until

POLICIES: Final = ("require-corp", "credentialless")


@pytest.fixture
def installation(launcher_installations: Launchers) -> LauncherInstallation:
    return launcher_installations(ONE_HOST)


def isolated(page: Page, installation: LauncherInstallation, policy: str = POLICIES[0]) -> HostPage:
    site = installation.site
    site.pages["/isolated"] = HOST_HTML
    site.headers["/isolated"] = ISOLATED | {"Cross-Origin-Embedder-Policy": policy}
    page.goto(site.url("/isolated"))
    assert page.evaluate("crossOriginIsolated") is True
    return HostPage(page, installation)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_isolated_host_page_shows_the_app_and_its_pages(
    page: Page, installation: LauncherInstallation, policy: str
) -> None:
    host = isolated(page, installation, policy)
    frame = host.open(ANA, "support")
    expect_heading(frame, "Support")
    go(frame, "New ticket")
    host.expect_silence()
    stylesheet = """(address) => new Promise((done) => {
        const link = document.createElement("link");
        Object.assign(link, { rel: "stylesheet", href: address });
        link.onload = () => done("loaded");
        link.onerror = () => done("blocked");
        document.head.append(link);
    })"""
    assert page.evaluate(stylesheet, f"{installation.url}/static/embed/embed.css") == "loaded"


def test_an_isolated_host_page_shows_a_refusal_and_receives_it(
    page: Page, installation: LauncherInstallation
) -> None:
    host = isolated(page, installation)
    frame = host.embed(installation.app_url())
    expect_heading(frame, "This app needs to be opened again")
    assert host.codes() == ["token_missing"]


@pytest.mark.parametrize("frames", [ONE_HOST, HOST_PER_APP])
def test_a_launcher_in_an_isolated_host_page_shows_an_app(
    page: Page, launcher_installations: Launchers, frames: str
) -> None:
    launcher = isolated(page, launcher_installations(frames)).launch()
    open_app(launcher, "Orders")
    go_to_launcher(launcher)


@pytest.mark.parametrize("lost", ["cross-origin-resource-policy", "cross-origin-embedder-policy"])
def test_without_either_header_an_isolated_host_page_shows_nothing(
    page: Page, installation: LauncherInstallation, recorder: Recorder, lost: str
) -> None:
    """A proxy that drops one of the headers causes this."""
    recorder.allow("ERR_BLOCKED_BY_RESPONSE", "chrome-error://", "Failed to load resource")

    def drop(route: Route) -> None:
        answer = route.fetch()
        kept = {name: value for name, value in answer.headers.items() if name != lost}
        route.fulfill(response=answer, headers=kept)

    host = isolated(page, installation)
    page.route("**/embed-apps/**", drop)
    frame = host.embed(installation.address(ANA, "support"))
    with suppress(Error):  # the browser's refusal can end the wait with an error
        frame.wait_for_url("chrome-error://**")
    wait_until(page, lambda: frame.url.startswith("chrome-error:"))
