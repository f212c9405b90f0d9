"""The launcher in Chromium: a workspace token opens a page that shows each app in a frame of its own."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Frame, Locator, Page, expect
from sqlalchemy import select, update

from pat_service.storage.models import Session
from tests.e2e.browser.installation import (
    ANA,
    BEN,
    ONE_HOST,
    STORAGE_SPY,
    HostPage,
    LauncherInstallation,
    Launchers,
    app_in,
    click,
    expect_heading,
    expect_scheme,
    expect_visible_focus,
    go_to_launcher,
    heading,
    open_app,
    session_of,
    tab_to,
)
from tests.e2e.browser.portal import BLOCKED_LINES
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
SECRET_TEXT: Final = re.compile(r"(pat|otc)_[0-9a-f]{8}|eyJ[\w-]{8}")
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
def test_ana_opens_each_app_in_the_launcher(
    host: HostPage, installation: LauncherInstallation, recorder: Recorder, sandbox: str | None
) -> None:
    recorder.allow("allow-scripts and allow-same-origin")
    launcher = host.launch(**({"sandbox": sandbox} if sandbox else {}))
    own = session_of(launcher)["sessionId"]
    before = host.page.evaluate("history.length")
    sessions = set()
    for title, app_id in (("Orders", ORDERS), ("Support", SUPPORT)):
        frame = open_app(launcher, title)
        assert launcher.evaluate("document.title") == title
        assert frame.url.partition("?")[0] == f"{installation.app_url(app_id)}/frame"
        facts = session_of(frame)
        assert facts["app"]["id"] == app_id
        sessions.add(facts["sessionId"])
        assert len(host.page.frames) == 3
        go_to_launcher(launcher)
        assert launcher.evaluate("document.title") == "Acme"
        assert len(host.page.frames) == 2
    assert len(sessions | {own}) == 3
    assert session_of(launcher)["sessionId"] == own
    assert host.page.evaluate("history.length") == before
    host.expect_silence()


def test_an_app_opened_by_a_workspace_token_has_no_launcher(
    host: HostPage, installation: LauncherInstallation
) -> None:
    address = installation.address()
    frame = host.embed(address.replace(installation.launcher, installation.app_url(SUPPORT)))
    expect_heading(frame, "Support")
    expect(frame.get_by_role("button", name="All apps")).to_have_count(0)


def test_an_app_opened_by_its_own_token_has_no_launcher(host: HostPage) -> None:
    frame = host.open(ANA, "orders")
    expect_heading(frame, "Orders")
    expect(frame.get_by_role("button", name="All apps")).to_have_count(0)


def test_an_apps_pages_and_forms_work_in_a_launcher(host: HostPage) -> None:
    launcher = host.launch()
    frame = open_app(launcher, "Support")
    frame.get_by_role("link", name="New ticket").first.click()
    frame.get_by_label("Subject").fill("From the launcher")
    frame.get_by_label("Topic").select_option(label="Product question")
    frame.get_by_label("Message").fill("Does it work?")
    click(frame, "Send")
    expect_heading(frame, "From the launcher")
    assert launcher.evaluate("document.title") == frame.evaluate("document.title")
    go_to_launcher(launcher)


def test_an_app_keeps_its_own_allowed_origins_in_a_launcher(host: HostPage, recorder: Recorder) -> None:
    recorder.allow(*BLOCKED_LINES, "allow-scripts and allow-same-origin")
    launcher = host.launch(BEN)
    click(launcher, "Stock")
    panel = launcher.locator("#launcher-frame")
    expect(panel.get_by_role("heading")).to_have_text("This page may not show the app")
    assert host.errors() == [(0, "origin_not_allowed")]
    go_to_launcher(launcher)
    open_app(launcher, "Support")


def test_a_reload_of_the_app_opens_it_again(host: HostPage) -> None:
    launcher = host.launch()
    frame = open_app(launcher, "Orders")
    frame.evaluate("window.old = true")
    with suppress(Error):  # the reload destroys the page that runs it
        frame.evaluate("location.reload()")
    wait_until(
        host.page,
        lambda: app_in(launcher).evaluate("window.old ?? window.embed?.viewer.app.slug") == "orders",
    )
    expect_heading(app_in(launcher), "Orders")
    host.expect_silence()


def test_a_reload_of_the_launcher_is_reported_and_recoverable(
    host: HostPage, installation: LauncherInstallation
) -> None:
    frame = host.launch()
    open_app(frame, "Orders")
    with suppress(Error):
        frame.evaluate("location.reload()")
    expect_heading(frame, "This app needs to be opened again")
    assert host.errors() == [(401, "token_missing")]
    host.page.evaluate(
        "(address) => document.querySelector('#app').contentWindow.location.replace(address)",
        installation.address(),
    )
    expect_heading(frame, "Acme")
    open_app(frame, "Orders")


# ---- Secrets ----


def test_tokens_codes_and_sessions_stay_in_the_frames_memory(
    host: HostPage, installation: LauncherInstallation, context: BrowserContext, recorder: Recorder
) -> None:
    touched: list[str] = []
    context.expose_binding("__touched", lambda _, text: touched.append(text))
    context.add_init_script(STORAGE_SPY)
    host.page.reload()
    address = installation.address()
    launcher = host.embed(address)
    expect_heading(launcher, "Acme")
    for title in ("Orders", "Support"):
        frame = open_app(launcher, title)
        expect_no_secret(launcher)
        expect_no_secret(frame)
        go_to_launcher(launcher)

    assert touched == []
    recorder.assert_no_cookie(context)
    assert [url for url in recorder.urls() if SECRET_TEXT.search(url)] == [address]
    referrers = {value for _, value in recorder.request_headers("referer") if value}
    assert referrers <= {installation.site.url(), installation.site.origin}
    handed = [request for request in recorder.requests if SECRET_TEXT.search(request.post_data or "")]
    assert [request.url for request in handed] == [
        f"{installation.app_url(app_id)}/frame" for app_id in (ORDERS, SUPPORT)
    ]
    assert not SECRET_TEXT.search(installation.server.log.read_text())
    host.expect_silence()


# ---- Ended sessions ----


def test_each_launcher_of_ana_has_its_own_session(host: HostPage) -> None:
    launchers = {name: host.launch(id_=name) for name in ("app", "launcher")}
    for name, launcher in launchers.items():  # the second one still opens apps after the first has ended
        open_app(launchers["launcher"], "Orders")
        go_to_launcher(launchers["launcher"])
        launcher.evaluate("embed.end()")
        expect_heading(launcher, "Your session was ended")
        assert (host.messages(len(host.page.evaluate("messages")))[-1]["frame"]) == name
    messages = [(message["frame"], message["code"]) for message in host.messages(2)]
    assert messages == [(name, "session_revoked") for name in launchers]


def test_the_end_of_an_apps_session_leaves_the_launcher_open(host: HostPage) -> None:
    launcher = host.launch()
    frame = open_app(launcher, "Orders")
    frame.evaluate("embed.end()")
    expect_heading(frame, "Your session was ended")
    assert host.errors() == [(401, "session_revoked")]
    assert host.messages()[0]["origin"] == host.installation.url
    click(frame, "Try again")
    expect_heading(app_in(launcher), "Orders")
    go_to_launcher(launcher)
    open_app(launcher, "Support")


def test_the_end_of_the_launchers_session_ends_its_apps(
    host: HostPage, installation: LauncherInstallation
) -> None:
    launcher = host.launch()
    frame = open_app(launcher, "Orders")
    sessions = [session_of(each)["sessionId"] for each in (launcher, frame)]
    launcher.evaluate("embed.end()")
    expect_heading(launcher, "Your session was ended")
    assert len(host.page.frames) == 2
    ended = installation.rows(select(Session.ended_at).where(Session.id.in_(sessions)))
    assert len(ended) == 2
    assert all(ended_at for (ended_at,) in ended)
    assert host.codes() == ["session_revoked"]


@pytest.mark.parametrize(
    ("column", "code"), [("ended_at", "session_revoked"), ("expires_at", "session_expired")]
)
def test_an_ended_launcher_opens_no_app(
    host: HostPage, installation: LauncherInstallation, column: str, code: str
) -> None:
    launcher = host.launch()
    past = datetime(2026, 1, 1, tzinfo=UTC)
    installation.change(update(Session).where(Session.ended_at.is_(None)).values({column: past}))
    click(launcher, "Orders")
    expect(launcher.get_by_text(code)).to_be_visible()
    expect_no_secret(launcher)
    assert host.errors() == [(401, code)]


def _move(document: dict[str, Any]) -> None:
    document["apps"][0]["workspace"] = "globex"
    for user in document["users"]:
        user["workspaces"]["globex"] = "end-user"


def _take_grant(document: dict[str, Any]) -> None:
    document["apps"][0]["users"] = [BEN]


@pytest.mark.parametrize("lose", [_move, _take_grant])
def test_a_lost_app_does_not_open_and_its_frame_ends(
    host: HostPage,
    installation: LauncherInstallation,
    recorder: Recorder,
    lose: Callable[[dict[str, Any]], None],
) -> None:
    recorder.allow("pat-embed: access_revoked")
    launcher, other = (host.launch(id_=name) for name in ("launcher", "other"))
    orders = open_app(other, "Orders")
    installation.provision(lose)
    # The launcher still lists the app.
    click(launcher, "Orders")
    expect(launcher.locator("#launcher-frame").get_by_role("heading")).to_have_text(
        "You no longer have access to this app"
    )
    orders.evaluate("embed.page('index')")
    expect_heading(orders, "You no longer have access to this app")
    messages = host.messages(2)
    assert [message["frame"] for message in messages] == ["launcher", "other"]
    assert messages[1]["code"] == "access_revoked"
    # Ana keeps her other app.
    for each in (launcher, other):
        go_to_launcher(each)
        open_app(each, "Support")


def test_two_users_launchers_on_one_page_stay_separate(host: HostPage) -> None:
    launchers = {"Ana": host.launch(ANA, "anas"), "Ben": host.launch(BEN, "bens")}
    assert [apps(launcher).count() for launcher in launchers.values()] == [2, 3]
    for name, launcher in launchers.items():
        frame = open_app(launcher, "Support")
        assert frame.evaluate("embed.viewer.user.name") == name
        expect(frame.locator(".page-head")).to_contain_text(name)
    launchers["Ana"].evaluate("embed.end()")
    expect_heading(launchers["Ana"], "Your session was ended")
    go_to_launcher(launchers["Ben"])
    assert open_app(launchers["Ben"], "Orders").evaluate("embed.viewer.user.name") == "Ben"
    assert [message["frame"] for message in host.messages()] == ["anas"]


# ---- Keyboard and layout ----


def test_the_launcher_works_by_keyboard_with_a_visible_focus(host: HostPage) -> None:
    launcher = host.launch()
    host.page.locator("#own").focus()
    tab_to(apps(launcher).nth(1))
    expect_visible_focus(apps(launcher).nth(1))
    host.page.keyboard.press("Enter")
    frame = app_in(launcher)
    expect_heading(frame, "Support")
    wait_until_ready(frame)
    region = launcher.get_by_role("region", name="Support")
    expect(region).to_be_focused()
    back = launcher.get_by_role("navigation", name="Acme").get_by_role("button", name="All apps")
    tab_to(back)
    expect_visible_focus(back)
    tab_to(frame.get_by_role("link", name="New ticket").first)
    host.page.keyboard.press("Shift+Tab")
    expect(back).to_be_focused()
    host.page.keyboard.press("Space")
    expect(apps(launcher).nth(1)).to_be_focused()


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
        app = open_app(frame, "Support")
        _expect_to_fit(page, frame)
        _expect_to_fit(page, app)
        bar, main, back, text = (
            box
            for each in (
                frame.locator(".embed-bar"),
                app.locator("#embed-main"),
                frame.get_by_role("button", name="All apps"),
                heading(app),
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
