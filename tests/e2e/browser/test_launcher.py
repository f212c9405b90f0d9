"""The launcher in Chromium: a workspace token opens one frame that leads to each app and back."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Frame, Locator, Page, Request, expect
from sqlalchemy import func, select, update

from pat_service.storage.models import Session
from tests.e2e.browser.installation import (
    ANA,
    BEN,
    ELSEWHERE,
    ONE_HOST,
    STORAGE_SPY,
    HostPage,
    LauncherInstallation,
    Launchers,
    click,
    expect_heading,
    expect_scheme,
    expect_visible_focus,
    go,
    heading,
    session_of,
    tab_to,
)
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until, wait_until_ready
from tests.support.people import ORDERS, SUPPORT

SANDBOX: Final = "allow-scripts allow-same-origin allow-forms allow-downloads"
LONG_NAME: Final = "Rechnungsübersicht für Großhandelskunden mit Sammelbestellung und Lieferschein"
#: Everything that a script of the page can find about its page.
PAGE_TEXTS: Final = """() => [
  document.documentElement.outerHTML, location.href, document.referrer, window.name,
  JSON.stringify(history.state), performance.getEntriesByType("resource").map((entry) => entry.name).join(),
].join("\\n")"""
SECRET_TEXT: Final = re.compile(r"pat_[0-9a-f]{8}|eyJ[\w-]{8}")
OVERFLOW: Final = "root => root.scrollWidth - root.clientWidth"


@pytest.fixture
def installation(launcher_installations: Launchers) -> LauncherInstallation:
    return launcher_installations(ONE_HOST)


def apps(frame: Frame) -> Locator:
    return frame.get_by_role("list", name="Your apps").get_by_role("button")


def expect_no_secret(frame: Frame) -> None:
    assert not SECRET_TEXT.search(frame.evaluate(PAGE_TEXTS))


# ---- To an app and back ----


def test_a_workspace_token_opens_a_launcher_with_its_users_apps(
    host: HostPage, installation: LauncherInstallation
) -> None:
    frame = host.launch()
    assert apps(frame).all_inner_texts() == ["O\nOrders", "S\nSupport"]
    for number, name in enumerate(("Orders", "Support")):
        expect(apps(frame).nth(number)).to_have_accessible_name(name)
    assert frame.evaluate("document.title") == "Acme"
    assert frame.evaluate("location.href") == installation.launcher
    assert frame.evaluate("embed.viewer.user.name") == "Ana"
    host.expect_silence()


@pytest.mark.parametrize("sandbox", [None, SANDBOX])
def test_ana_goes_to_an_app_and_back_in_the_same_frame(
    host: HostPage, installation: LauncherInstallation, recorder: Recorder, sandbox: str | None
) -> None:
    recorder.allow("allow-scripts and allow-same-origin")
    frame = host.launch(**({"sandbox": sandbox} if sandbox else {}))
    session = session_of(frame)["sessionId"]
    for title, app_id in (("Orders", ORDERS), ("Support", SUPPORT)):
        go(frame, title)
        assert frame.evaluate("location.href") == installation.app_url(app_id)
        facts = session_of(frame)
        assert (facts["sessionId"], facts["app"]["id"]) == (session, app_id)
        go(frame, "All apps", "Acme")
        assert frame.evaluate("location.href") == installation.launcher
    assert len(host.page.frames) == 2
    assert installation.rows(select(func.count()).where(Session.id == session)) == [(1,)]
    host.expect_silence()


def test_an_app_opened_by_a_workspace_token_leads_to_the_launcher(
    host: HostPage, installation: LauncherInstallation
) -> None:
    address = installation.address()
    frame = host.embed(address.replace(installation.launcher, installation.app_url(SUPPORT)))
    expect_heading(frame, "Support")
    go(frame, "All apps", "Acme")


def test_an_app_opened_by_its_own_token_has_no_launcher(host: HostPage) -> None:
    frame = host.open(ANA, "orders")
    expect_heading(frame, "Orders")
    expect(frame.get_by_role("button", name="All apps")).to_have_count(0)


def test_an_apps_pages_and_forms_work_in_a_launcher(host: HostPage) -> None:
    frame = host.launch()
    go(frame, "Support")
    frame.get_by_role("link", name="New ticket").first.click()
    frame.get_by_label("Subject").fill("From the launcher")
    frame.get_by_label("Topic").select_option(label="Product question")
    frame.get_by_label("Message").fill("Does it work?")
    click(frame, "Send")
    expect_heading(frame, "From the launcher")
    go(frame, "All apps", "Acme")


def test_an_app_keeps_its_own_allowed_origins_in_a_launcher(host: HostPage, recorder: Recorder) -> None:
    recorder.allow("frame-ancestors")
    frame = host.launch(BEN)
    with host.page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        frame.get_by_role("button", name="Stock").click()
    assert f"frame-ancestors {ELSEWHERE}" in answered.value.headers["content-security-policy"]
    wait_until(host.page, lambda: host.frame().url.startswith("chrome-error:"))
    wait_until(host.page, lambda: recorder.complained("frame-ancestors"))


@pytest.mark.parametrize("step", ["history.back()", "location.reload()"])
def test_back_or_reload_inside_the_frame_is_reported_and_recoverable(
    host: HostPage, installation: LauncherInstallation, step: str
) -> None:
    frame = host.launch()
    go(frame, "Orders")
    with suppress(Error):  # the step destroys the page that runs it
        frame.evaluate(step)
    expect_heading(frame, "This app needs to be opened again")
    assert host.errors() == [(401, "token_missing")]
    host.page.evaluate(
        "(address) => document.querySelector('#app').contentWindow.location.replace(address)",
        installation.address(),
    )
    expect_heading(frame, "Acme")
    go(frame, "Orders")


# ---- Secrets ----


def posted(request: Request) -> dict[str, list[str]]:
    return parse_qs(request.post_data or "")


def test_tokens_and_sessions_stay_in_the_frames_memory(
    host: HostPage, installation: LauncherInstallation, context: BrowserContext, recorder: Recorder
) -> None:
    touched: list[str] = []
    context.expose_binding("__touched", lambda _, text: touched.append(text))
    context.add_init_script(STORAGE_SPY)
    host.page.reload()
    address = installation.address()
    frame = host.embed(address)
    expect_heading(frame, "Acme")
    for name, title in (("Orders", "Orders"), ("All apps", "Acme"), ("Support", "Support")):
        go(frame, name, title)
        expect_no_secret(frame)
    frame.get_by_role("link", name="New ticket").first.click()
    expect_heading(frame, "New ticket")
    expect_no_secret(frame)

    assert touched == []
    recorder.assert_no_cookie(context)
    assert [url for url in recorder.urls() if SECRET_TEXT.search(url)] == [address]
    referrers = {value for _, value in recorder.request_headers("referer") if value}
    assert referrers <= {installation.site.url(), installation.site.origin}
    carrying = [request for request in recorder.requests if "session" in posted(request)]
    assert [request.url.partition("?")[0] for request in carrying] == [
        installation.app_url(ORDERS),
        installation.launcher,
        installation.app_url(SUPPORT),
    ]
    assert all(request.is_navigation_request() for request in carrying)
    assert {len(posted(request)["session"]) for request in carrying} == {1}
    assert not SECRET_TEXT.search(installation.server.log.read_text())
    host.expect_silence()


def test_no_script_of_the_app_sees_the_form_with_the_session(host: HostPage) -> None:
    """An app's own script may watch its document, so the form must not be visible there."""
    frame = host.launch()
    go(frame, "Orders")
    host.page.evaluate("window.seen = []; addEventListener('message', ({data}) => seen.push(data.seen));")
    frame.evaluate(
        """() => {
          const report = (what, node) => parent.postMessage({ seen: what + (node.outerHTML ?? "") }, "*");
          new MutationObserver((records) => {
            for (const { addedNodes } of records) for (const node of addedNodes) report("added ", node);
          }).observe(document, { subtree: true, childList: true, attributes: true });
          addEventListener("submit", ({ target }) => report("submit ", target), true);
          addEventListener("formdata", ({ target }) => report("formdata ", target), true);
        }"""
    )
    go(frame, "All apps", "Acme")
    host.page.wait_for_timeout(100)
    assert not SECRET_TEXT.search(json.dumps(host.page.evaluate("seen")))


def test_the_session_is_sent_only_to_a_frames_address(host: HostPage, recorder: Recorder) -> None:
    """Markup of the app cannot send the session to any other address."""
    recorder.allow("Invalid URL")
    frame = host.launch()
    go(frame, "Orders")
    before = len(recorder.requests)
    for address in (
        f"https://elsewhere.example/embed-apps/{ORDERS}",
        f"//elsewhere.example/embed-apps/{ORDERS}",
        f"/embed-apps/{ORDERS}/data/x",
        f"/embed-apps/{ORDERS}%2f",
        "/embed-apps/../x",
        "/api/ext/users/session",
        "javascript:window.pwned=1",
        "",
    ):
        frame.evaluate(
            """(address) => {
              const button = document.createElement("button");
              button.dataset.embedGo = address;
              button.textContent = `To “${address}”`;
              document.body.append(button);
            }""",
            address,
        )
        click(frame, f"To “{address}”")
        host.page.wait_for_timeout(50)
        assert recorder.requests[before:] == [], address
    host.page.wait_for_timeout(150)
    assert recorder.requests[before:] == []
    assert frame.evaluate("window.pwned") is None
    expect_heading(frame, "Orders")


# ---- Ended sessions ----


def test_each_launcher_of_ana_has_its_own_session(host: HostPage, installation: LauncherInstallation) -> None:
    frames = {name: host.launch(id_=name) for name in ("app", "launcher")}
    go(frames["app"], "Orders")
    for frame in frames.values():  # the second one still opens apps after the first has ended
        go(frames["launcher"], "Orders")
        go(frames["launcher"], "All apps", "Acme")
        session = session_of(frame)["sessionId"]
        frame.evaluate("embed.end()")
        expect_heading(frame, "Your session was ended")
        ((ended_at,),) = installation.rows(select(Session.ended_at).where(Session.id == session))
        assert ended_at is not None
    messages = [(message["frame"], message["code"]) for message in host.messages(2)]
    assert messages == [(name, "session_revoked") for name in frames]


@pytest.mark.parametrize(
    ("column", "code"), [("ended_at", "session_revoked"), ("expires_at", "session_expired")]
)
def test_an_ended_session_opens_no_other_frame(
    host: HostPage, installation: LauncherInstallation, column: str, code: str
) -> None:
    frames = {"Orders": host.launch(id_="launcher"), "All apps": host.launch(id_="app")}
    go(frames["All apps"], "Orders")
    past = datetime(2026, 1, 1, tzinfo=UTC)
    installation.change(update(Session).where(Session.ended_at.is_(None)).values({column: past}))
    for button, frame in frames.items():
        click(frame, button)
        expect(frame.get_by_text(code)).to_be_visible()
        expect_no_secret(frame)
    messages = [(message["error"], message["code"], message["frame"]) for message in host.messages(2)]
    assert messages == [(401, code, "launcher"), (401, code, "app")]


def _move(document: dict[str, Any]) -> None:
    document["apps"][0]["workspace"] = "globex"
    for user in document["users"]:
        user["workspaces"]["globex"] = "end-user"


def _take_grant(document: dict[str, Any]) -> None:
    document["apps"][0]["users"] = [BEN]


@pytest.mark.parametrize("lose", [_move, _take_grant])
def test_a_lost_app_leaves_the_launcher_and_ends_its_frame(
    host: HostPage, installation: LauncherInstallation, lose: Callable[[dict[str, Any]], None]
) -> None:
    support, launcher, orders = (host.launch(id_=name) for name in ("support", "launcher", "orders"))
    go(support, "Support")
    go(orders, "Orders")
    installation.provision(lose)
    # The launcher still shows the app.
    click(launcher, "Orders")
    expect_heading(launcher, "You no longer have access to this app")
    orders.evaluate("embed.page('index')")
    expect_heading(orders, "You no longer have access to this app")
    messages = [(message["error"], message["code"], message["frame"]) for message in host.messages(2)]
    assert messages == [(401, "access_revoked", "launcher"), (401, "access_revoked", "orders")]
    # Ana keeps her other app, and both frames' launchers no longer list the lost one.
    support.get_by_role("link", name="New ticket").first.click()
    expect_heading(support, "New ticket")
    for frame in (support, orders):
        go(frame, "All apps", "Acme")
        assert apps(frame).all_inner_texts() == ["S\nSupport"]


def test_two_users_launchers_on_one_page_stay_separate(host: HostPage) -> None:
    anas, bens = host.launch(ANA, "anas"), host.launch(BEN, "bens")
    assert (apps(anas).count(), apps(bens).count()) == (2, 3)
    expect(bens.get_by_role("button", name="Stock")).to_be_visible()
    for frame, name in ((anas, "Ana"), (bens, "Ben")):
        go(frame, "Support")
        assert frame.evaluate("embed.viewer.user.name") == name
        expect(frame.locator(".page-head")).to_contain_text(name)
    go(anas, "All apps", "Acme")
    anas.evaluate("embed.end()")
    expect_heading(anas, "Your session was ended")
    go(bens, "All apps", "Acme")
    go(bens, "Orders")
    assert bens.evaluate("embed.viewer.user.name") == "Ben"
    assert [message["frame"] for message in host.messages()] == ["anas"]


# ---- Keyboard and layout ----


def test_the_launcher_works_by_keyboard_with_a_visible_focus(host: HostPage) -> None:
    frame = host.launch()
    host.page.locator("#own").focus()
    tab_to(apps(frame).nth(1))
    expect_visible_focus(apps(frame).nth(1))
    host.page.keyboard.press("Enter")
    expect_heading(frame, "Support")
    wait_until_ready(frame)
    tab_to(frame.get_by_role("navigation", name="Acme").get_by_role("button", name="All apps"))
    host.page.keyboard.press("Space")
    expect_heading(frame, "Acme")


@pytest.fixture
def many_apps(installation: LauncherInstallation) -> Any:
    """Ten more apps with long names, which are removed at the end."""
    names = [LONG_NAME, "x" * 120, "الطلبات", *(f"App {number}" for number in range(7))]
    app = {"workspace": "acme", "template": "orders"}
    more = [{**app, "slug": f"app-{number}", "name": name} for number, name in enumerate(names)]

    def provision(workspace: str, users: list[str]) -> None:
        def add(document: dict[str, Any]) -> None:
            document["apps"] += [each | {"workspace": workspace, "users": users} for each in more]
            if users:
                document["workspaces"][0]["name"] = LONG_NAME

        installation.provision(add)

    provision("acme", [ANA])
    yield
    provision("globex", [])


@pytest.mark.usefixtures("many_apps")
@pytest.mark.parametrize("width", [360, 1200])
def test_the_launcher_fits_and_its_bar_is_above_the_app(
    browser: Browser, installation: LauncherInstallation, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    try:
        page = context.new_page()
        page.goto(installation.site.url())
        size = {"width": str(width - 20), "height": "600"}
        frame = HostPage(page, installation).embed(installation.address(), **size)
        expect_heading(frame, LONG_NAME)
        wait_until_ready(frame)
        assert apps(frame).count() == 12
        _expect_to_fit(page, frame)
        boxes = [apps(frame).nth(number).bounding_box() for number in range(12)]
        assert all(box and box["width"] >= 250 and box["height"] >= 44 for box in boxes)
        go(frame, "Support")
        _expect_to_fit(page, frame)
        bar, main, back, text = (
            box
            for each in (
                frame.locator(".embed-bar"),
                frame.locator("#embed-main"),
                frame.get_by_role("button", name="All apps"),
                heading(frame),
            )
            if (box := each.bounding_box())
        )
        assert bar["y"] + bar["height"] <= main["y"]
        assert bar["height"] <= 60
        assert abs(back["x"] - text["x"]) <= 16, "The button is not in line with the page below it"
    finally:
        context.close()


def _expect_to_fit(page: Page, frame: Frame) -> None:
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        assert frame.locator(":root").evaluate(OVERFLOW) == 0
        expect_scheme(frame.locator("body"), scheme)
