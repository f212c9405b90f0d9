"""An origin for each app in Chromium: its isolation from other apps and from launchers."""

import json
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import BrowserContext, Frame, Page

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
from tests.e2e.browser.site import wait_until
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


#: A script that has replaced built-ins before the frame's own script runs: it gets more than an app can get.
STEAL: Final = """if (location.pathname.startsWith("/embed-apps/")) {
  const { fetch } = window;
  const secrets = /(pat|otc)_[0-9a-f]+|eyJ[\\w-]+\\.[\\w-]+\\.[\\w-]+/g;
  const found = (value) => {
    const text = typeof value === "string" ? value : JSON.stringify(value) ?? "";
    for (const [secret] of text.matchAll(secrets)) window.__stolen(secret);
  };
  window.fetch = async (address, init) => {
    found({ ...init, headers: { ...init?.headers } });
    const answer = await fetch(address, init);
    found(await answer.clone().text());
    return answer;
  };
  const { get } = Object.getOwnPropertyDescriptor(MessageEvent.prototype, "data");
  Object.defineProperty(MessageEvent.prototype, "data", {
    get() { const data = get.call(this); found(data); return data; },
  });
}"""
#: Reads a property of the launcher's window, or returns the error's name.
READ_PARENT: Final = "(name) => { try { return typeof parent[name]; } catch (error) { return error.name; } }"


def status(url: str, bearer: str = "", body: dict[str, str] | None = None) -> int:
    """Send a request as a program, and return the status of the answer."""
    at = urlsplit(url)
    headers = {"Accept": "application/json", "Content-Type": "application/json", "Host": at.netloc}
    url = at._replace(netloc=f"127.0.0.1:{at.port}").geturl()  # few resolvers know names below localhost
    headers |= {"Authorization": f"Bearer {bearer}"} if bearer else {}
    try:
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(url, data, headers), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as refusal:
        return refusal.code


def test_a_hostile_app_in_a_launcher_gets_nothing_that_opens_another_place(
    host: HostPage, installation: LauncherInstallation, context: BrowserContext
) -> None:
    stolen: set[str] = set()
    context.expose_binding("__stolen", lambda _, secret: stolen.add(secret))
    context.add_init_script(STEAL)
    host.page.reload()
    launcher = host.launch()
    frame = open_app(launcher, "Orders")
    own = f"{installation.origin('orders')}/embed-apps/{ORDERS}"
    others = [f"{installation.origin('support')}/embed-apps/{SUPPORT}", installation.launcher]
    wait_until(host.page, lambda: len(stolen) >= 2)
    sessions = {secret for secret in stolen if secret.startswith("eyJ")}
    codes = stolen - sessions
    assert {code[:4] for code in codes} == {"otc_"}  # no token of the workspace
    assert [status(f"{own}/session", session) for session in sessions] == [200]
    for place in others:
        for session in sessions:
            assert status(f"{place}/session", session) == 401
            assert status(f"{place}/apps/{SUPPORT}", session, {}) in (401, 404)
        for code in codes:
            handed = {"accessToken": code, "parentOrigin": installation.site.origin}
            assert status(f"{place}/frame", body=handed) == 401
            assert status(f"{place}?code={code}") == 401
    for code in codes:
        assert status(f"{own}?code={code}") == 401
    # The app cannot reach into the launcher.
    for name in ("document", "embed", "embedLauncher", "name"):
        assert frame.evaluate(READ_PARENT, name) == "SecurityError"


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
