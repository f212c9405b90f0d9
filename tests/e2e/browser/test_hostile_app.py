"""A hostile app in Chromium: all that its scripts can get opens this app, and no other place."""

import json
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import BrowserContext, Frame

from tests.e2e.browser.installation import (
    ANA,
    HOST_PER_APP,
    ONE_HOST,
    HostPage,
    LauncherInstallation,
    Launchers,
    expect_heading,
    open_app,
)
from tests.e2e.browser.portal import Portal
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until
from tests.support.people import ORDERS, SUPPORT

LAUNCHER: Final = '<pat-embed workspace="acme" token-url="/embed-token"></pat-embed>'
#: A script that has replaced built-ins before the frame's own script runs: it gets more than an app can get.
STEAL: Final = r"""if (location.pathname.startsWith("/embed-apps/")) {
  const { fetch } = window;
  const secrets = /(pat|otc)_[0-9a-f]+|eyJ[\w-]+\.[\w-]+\.[\w-]+/g;
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
#: Writes another page, so that the host page connects again, and asks it for a token.
RECONNECT: Final = """() => {
  document.open();
  addEventListener("message", ({ ports: [port] }) => {
    if (!port) return;
    port.onmessage = ({ data }) => { window.got ??= data.token; };
    port.postMessage({ type: "want-token", id: 1, reason: "initial", fresh: true });
  });
  document.write("<p>Hostile</p>");
  document.close();
}"""
#: Reads a property of the launcher's window, or returns the error's name.
READ_PARENT: Final = "(name) => { try { return typeof parent[name]; } catch (error) { return error.name; } }"


@pytest.fixture(params=[ONE_HOST, HOST_PER_APP])
def installation(request: pytest.FixtureRequest, launcher_installations: Launchers) -> LauncherInstallation:
    return launcher_installations(request.param)


def status(url: str, bearer: str = "", body: Any = None) -> int:
    """Send a request as a program, and return the status of the answer."""
    at = urlsplit(url)
    headers = {"Accept": "application/json", "Content-Type": "application/json", "Host": at.netloc}
    headers |= {"Authorization": f"Bearer {bearer}"} if bearer else {}
    data = None if body is None else json.dumps(body).encode()
    # Few resolvers know names below localhost.
    url = at._replace(netloc=f"127.0.0.1:{at.port}").geturl()
    try:
        with urlopen(Request(url, data, headers), timeout=10) as answer:
            return int(answer.status)
    except HTTPError as refusal:
        return refusal.code


def own_place(installation: LauncherInstallation) -> str:
    return f"{installation.origin('orders')}/embed-apps/{ORDERS}"


def expect_refused_elsewhere(installation: LauncherInstallation, secret: str) -> None:
    """Try the secret at another app and at the launcher, in each way that takes one."""
    other, launcher = f"{installation.origin('support')}/embed-apps/{SUPPORT}", installation.launcher
    for place in (other, launcher):
        handed = {"accessToken": secret, "parentOrigin": installation.site.origin}
        assert status(f"{place}/frame", body=handed) == 401
        assert status(f"{place}?personal-access-token={secret}") == 401
        assert status(f"{place}?code={secret}") == 401
        assert status(f"{place}/session", secret) == 401
    assert status(f"{launcher}/apps/{SUPPORT}", secret, {}) == 401
    exchange = {"appId": SUPPORT, "accessToken": secret}
    assert status(f"{installation.url}/api/ext/users/session", body=exchange) == 401


def open_orders(portal: Portal, host: HostPage, way: str) -> Frame:
    if way == "address":
        return host.open(ANA, "orders")
    if way == "tag":
        return portal.open(app="orders")
    portal.visit(LAUNCHER)
    portal.events("loaded")
    return open_app(portal.opened_frame(), "Orders")


@pytest.mark.parametrize(
    ("way", "kinds"), [("address", "eyJ"), ("tag", "eyJ pat_"), ("launcher", "eyJ otc_")]
)
def test_secrets_that_a_hostile_app_steals_open_no_other_place(
    portal: Portal,
    host: HostPage,
    installation: LauncherInstallation,
    context: BrowserContext,
    way: str,
    kinds: str,
) -> None:
    stolen: set[str] = set()
    context.expose_binding("__stolen", lambda _, secret: stolen.add(secret))
    context.add_init_script(STEAL)
    host.page.reload()
    frame = open_orders(portal, host, way)
    expect_heading(frame, "Orders")
    frame.evaluate("embed.fetch('session')")
    wait_until(host.page, lambda: len(stolen) >= len(kinds.split()))
    sessions = {secret for secret in stolen if secret.startswith("eyJ")}
    # In a launcher, this excludes the workspace's token.
    assert {"eyJ" if secret in sessions else secret[:4] for secret in stolen} == set(kinds.split())
    assert [status(f"{own_place(installation)}/session", session) for session in sessions] == [200]
    for secret in stolen:
        expect_refused_elsewhere(installation, secret)


@pytest.mark.parametrize("way", ["tag", "launcher"])
def test_a_token_for_a_rewritten_page_opens_only_this_app(
    portal: Portal, host: HostPage, installation: LauncherInstallation, recorder: Recorder, way: str
) -> None:
    frame = open_orders(portal, host, way)
    frame.evaluate(RECONNECT)
    frame.wait_for_function("() => window.got", polling=50)
    secret = frame.evaluate("got")
    expect_refused_elsewhere(installation, secret)
    handed = {"accessToken": secret, "parentOrigin": installation.site.origin}
    assert status(f"{own_place(installation)}/frame", body=handed) == 200


def test_with_app_origins_an_app_cannot_reach_into_its_launcher(
    portal: Portal, host: HostPage, launcher_installations: Launchers, installation: LauncherInstallation
) -> None:
    frame = open_orders(portal, host, "launcher")
    reached = {name: frame.evaluate(READ_PARENT, name) for name in ("document", "embed", "embedLauncher")}
    if installation is launcher_installations(ONE_HOST):
        # This is why teams that do not trust each other's apps need app origins.
        assert reached == {"document": "object", "embed": "object", "embedLauncher": "object"}
    else:
        assert set(reached.values()) == {"SecurityError"}
