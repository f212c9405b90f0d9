"""An origin for each app in Chromium: its isolation from other apps and from launchers."""

from typing import Final

import pytest
from playwright.sync_api import Frame, Page

from tests.e2e.browser.installation import (
    ANA,
    HOST_PER_APP,
    ONE_HOST,
    HostPage,
    LauncherInstallation,
    Launchers,
    click,
    expect_heading,
    go,
    go_to_launcher,
    open_app,
)
from tests.e2e.browser.recorder import Recorder
from tests.support.people import ORDERS, SUPPORT

#: An attack by a script of the first frame's app on the second frame.
REACH: Final = """() => {
  const other = parent.frames[1];
  const attempts = {
    document: () => other.document.querySelector("h1").textContent,
    embed: () => typeof other.embed.fetch,
  };
  return Object.fromEntries(Object.entries(attempts).map(([name, reach]) => {
    try { return [name, reach()]; } catch (error) { return [name, error.name]; }
  }));
}"""


@pytest.fixture
def installation(launcher_installations: Launchers) -> LauncherInstallation:
    return launcher_installations(HOST_PER_APP)


def orders_and_support(host: HostPage) -> tuple[Frame, Frame]:
    return host.open(ANA, "orders", "orders"), host.open(ANA, "support", "support")


def test_the_script_of_one_app_cannot_reach_into_the_frame_of_another(
    host: HostPage, installation: LauncherInstallation
) -> None:
    orders, support = orders_and_support(host)
    assert orders.url == f"{installation.origin('orders')}/embed-apps/{ORDERS}"
    assert support.url == f"{installation.origin('support')}/embed-apps/{SUPPORT}"
    assert orders.evaluate(REACH) == {"document": "SecurityError", "embed": "SecurityError"}
    assert orders.evaluate("window.originAgentCluster") is True


def test_without_app_in_public_url_one_app_reaches_another(
    page: Page, launcher_installations: Launchers
) -> None:
    """This is why each app can have its own origin."""
    shared = launcher_installations(ONE_HOST)
    page.goto(shared.site.url())
    orders, _ = orders_and_support(HostPage(page, shared))
    assert orders.evaluate(REACH) == {"document": "Support", "embed": "function"}


def test_a_frame_loads_only_from_its_own_host(
    host: HostPage, installation: LauncherInstallation, recorder: Recorder
) -> None:
    support = host.open(ANA, "support")
    expect_heading(support, "Support")
    go(support, "New ticket")
    frames = [url for url in recorder.urls() if not url.startswith((host.page.url, "data:", "blob:"))]
    assert {url.split("/", 3)[2] for url in frames} == {f"support.embed.localhost:{installation.server.port}"}


def test_a_launcher_shows_each_app_on_its_own_host(
    host: HostPage, installation: LauncherInstallation, recorder: Recorder
) -> None:
    launcher = host.launch()
    assert launcher.evaluate("location.href") == installation.launcher
    for title, app_id in (("Orders", ORDERS), ("Support", SUPPORT)):
        frame = open_app(launcher, title)
        address = f"{installation.origin(title.lower())}/embed-apps/{app_id}/frame"
        assert frame.url.partition("?")[0] == address
        assert frame.evaluate("document.referrer") == ""
        go_to_launcher(launcher)
    assert recorder.response_headers("set-cookie") == []


def test_a_new_slug_ends_an_open_frame(host: HostPage, installation: LauncherInstallation) -> None:
    frame = host.open(ANA, "support")
    installation.provision(lambda document: document["apps"][1].update(slug="helpdesk"))
    click(frame, "New ticket")
    expect_heading(frame, "This session cannot be used")
    [message] = host.messages()
    assert (message["code"], message["origin"]) == ("session_invalid", installation.origin("support"))
    again = host.open(ANA, "helpdesk", "again")
    expect_heading(again, "Support")
    assert again.url == f"{installation.origin('helpdesk')}/embed-apps/{SUPPORT}"
