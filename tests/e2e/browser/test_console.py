"""The operators' console in Chromium: every page with axe, narrow and wide, and by keyboard alone.

A new page needs a row in `PAGES`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import pytest
from flask import Flask
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy import select, update

from pat_service.cli import upgrade_schema
from pat_service.rules import operators
from pat_service.storage.database import db
from pat_service.storage.models import App, RefusedOrigin, User, Workspace
from tests.e2e.browser.accessibility import CONTRAST, expect_accessible
from tests.e2e.browser.installation import expect_scheme, expect_visible_focus, tab_to
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import site, wait_until
from tests.support.console import OLGA, OTTO, VERA, add_operators, make_link
from tests.support.pages import HOSTILE
from tests.support.people import KEY, ORDERS, WORLD, Service, build_on, provision
from tests.support.servers import free_port, gunicorn

#: Each page that Olga opens, with its heading.
PAGES: Final[dict[str, str | re.Pattern[str]]] = {
    "/": "Overview",
    "/problems": "Problems",
    "/apps": "Apps",
    "/apps/new": "Add an app",
    f"/apps/{ORDERS}": "Orders",
    f"/apps/{ORDERS}/preview": "Orders",
    f"/apps/{ORDERS}/embed?back-end=node&page=iframe": "Orders",
    "/people": "People",
    "/people/new": "Add a person",
    "/clients": "Clients",
    "/clients/_new": "Create a client",
    "/clients/portal": "portal",
    "/clients/portal/revoke": "Revoke portal?",
    "/live": "Live",
    "/live?show=tokens&client=nobody": "Live",
    "/live/end?show=tokens&workspace=acme": re.compile("Revoke .+ tokens? and end .+ sessions?"),
    "/audit": "Audit",
    "/audit?type=token:minted&follow=0": "Audit",
    "/operators": "Operators",
    "/sessions": "Your sessions",
    "/health": "Health",
    "/health/doctor?app=orders": "Doctor",
    "/nowhere": "Not found",
}
NARROW: Final = 360
WIDE: Final = 1400
#: Ends when no colour is between two others, for which axe-core would find too little contrast.
SETTLE: Final = """Promise.allSettled(document.getAnimations()
  .filter((one) => one instanceof CSSTransition).map(({ finished }) => finished))"""
OVERFLOW: Final = "document.documentElement.scrollWidth - innerWidth"


@dataclass(frozen=True)
class Console:
    """A running console, and the app on its database."""

    url: str
    service: Service

    def link(self, email: str = OLGA) -> str:
        return f"{self.url}/sign-in#link={make_link(self.service, email)}"

    def sign_in(self, page: Page, email: str = OLGA) -> None:
        page.goto(self.link(email))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.url}/")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder, port = tmp_path_factory.mktemp("console"), free_port()
    url = f"http://console.localhost:{port}"
    settings = {"CONSOLE_URL": url, "PUBLIC_URL": f"http://127.0.0.1:{port}", "SECRET_KEY": KEY}
    database = f"sqlite:///{folder / 'pat-service.db'}"
    app: Flask = build_on(database, folder, **settings)
    with app.app_context():
        upgrade_schema()
    provision(app, WORLD)
    env = settings | {"DATABASE_URL": database, "FAILURE_RATE_LIMIT": "10000 per minute"}
    with gunicorn(env, workers=1, port=port):
        yield Console(url, Service(app.test_client()))
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def console(running: Console) -> Console:
    add_operators(running.service)
    return running


def test_a_link_leaves_the_address_before_it_is_used(
    console: Console, page: Page, recorder: Recorder
) -> None:
    link = console.link()
    page.goto(link)
    expect(page.get_by_text(f"as {OLGA}")).to_be_visible()
    assert page.url == f"{console.url}/sign-in"
    expect_accessible(page.main_frame)
    page.keyboard.press("Enter")  # the button has the focus
    page.wait_for_url(f"{console.url}/")
    page.go_back()
    assert "link=" not in page.url
    secret = link.partition("#link=")[2]
    assert not [url for url in recorder.urls() if secret in url]


def test_a_link_pasted_into_an_open_sign_in_page_works(console: Console, page: Page) -> None:
    page.goto(f"{console.url}/sign-in")
    page.goto(console.link())  # changes the fragment alone
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{console.url}/")


def test_a_used_link_says_so(console: Console, page: Page, context: BrowserContext) -> None:
    link = console.link()
    for _ in range(2):
        context.clear_cookies()
        page.goto("about:blank")
        page.goto(link)
        page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign-in refused")
    expect(page.get_by_text("has already been used")).to_be_visible()
    expect_accessible(page.main_frame)


def test_the_cookie_is_out_of_reach_for_scripts(
    console: Console, page: Page, context: BrowserContext
) -> None:
    console.sign_in(page)
    (cookie,) = (one for one in context.cookies() if one["name"] == "__Host-pat-console")
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Lax")
    assert page.evaluate("document.cookie") == ""


def test_every_page_is_accessible_and_fits(console: Console, page: Page) -> None:
    """axe-core checks the wide pages in both colour schemes, and the narrow ones in dark colours."""
    console.sign_in(page)
    for path, heading in PAGES.items():
        _show(page, WIDE, "light")
        page.goto(f"{console.url}{path}")
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        _expect_to_fit(page, "light")
        expect_accessible(page.main_frame)
        _show(page, WIDE, "dark")
        _expect_to_fit(page, "dark")
        expect_accessible(page.main_frame, CONTRAST)
        _show(page, NARROW, "dark")
        _expect_to_fit(page, "dark")
        expect_accessible(page.main_frame)
        _show(page, NARROW, "light")
        _expect_to_fit(page, "light")


def _show(page: Page, width: int, scheme: Literal["light", "dark"]) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.evaluate(SETTLE)


def _expect_to_fit(page: Page, scheme: str) -> None:
    assert page.evaluate(OVERFLOW) <= 0, page.url
    expect_scheme(page.locator("body"), scheme)


def test_a_dialog_and_the_menu_are_accessible(console: Console, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")  # a dialog that fades in has too little contrast
    page.set_viewport_size({"width": NARROW, "height": 800})
    console.sign_in(page)
    page.goto(f"{console.url}/operators")
    menu = page.get_by_role("button", name="Menu")
    expect(menu).to_have_attribute("aria-expanded", "false")
    expect(page.get_by_role("link", name="Health")).to_be_hidden()
    menu.click()
    expect(page.get_by_role("link", name="Health")).to_be_visible()
    expect_accessible(page.main_frame)
    menu.click()
    page.get_by_role("row").filter(has_text=VERA).get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate(OVERFLOW) <= 0
    expect_accessible(page.main_frame)


def test_olga_removes_vera_with_the_keyboard_alone(console: Console, page: Page) -> None:
    console.sign_in(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    tab_to(page.get_by_role("link", name="Operators"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Operators")
    remove = page.get_by_role("row").filter(has_text=VERA).get_by_role("button", name="Remove")
    tab_to(remove)
    expect_visible_focus(remove)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Remove {VERA}?")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(remove).to_be_focused()
    page.keyboard.press("Enter")
    tab_to(dialog.get_by_role("button", name="Remove"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="was removed")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text=VERA)).to_have_count(0)


def test_olga_adds_nora_who_signs_in_by_her_link(console: Console, page: Page, browser: Chromium) -> None:
    console.sign_in(page)
    page.goto(f"{console.url}/operators")
    tab_to(page.get_by_label("Email"))
    page.keyboard.type("nora@acme.test")
    page.keyboard.press("Tab")
    page.keyboard.type("oper")
    tab_to(page.get_by_label("globex"))
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    row = page.get_by_role("row").filter(has_text="nora@acme.test")
    expect(row).to_contain_text("operator")
    expect(row).to_contain_text("globex")
    row.get_by_role("button", name="New link").press("Enter")
    link = page.locator(".secret code").text_content()
    with browser.new_context() as other:
        nora = other.new_page()
        nora.goto(str(link))
        nora.keyboard.press("Enter")
        nora.wait_for_url(f"{console.url}/")
        expect(nora.get_by_role("link", name="Overview")).to_be_visible()
        expect(nora.get_by_role("link", name="Operators")).to_have_count(0)


def test_a_form_keeps_what_was_typed_if_it_is_refused(console: Console, page: Page) -> None:
    console.sign_in(page)
    page.goto(f"{console.url}/operators")
    page.get_by_label("Email").fill(OTTO)
    page.get_by_label("Role").select_option("owner")
    page.get_by_label("globex").check()
    page.get_by_role("button", name="Save operator").click()
    expect(page.get_by_role("alert")).to_contain_text("An owner has all workspaces")
    expect(page.get_by_label("Email")).to_have_value(OTTO)
    expect(page.get_by_label("Role")).to_have_value("owner")
    expect(page.get_by_label("globex")).to_be_checked()
    expect_accessible(page.main_frame)


def test_no_other_page_frames_the_console_or_posts_to_it(
    console: Console, page: Page, recorder: Recorder, context: BrowserContext
) -> None:
    recorder.allow("frame-ancestors", "Framing 'http://console.localhost", "net::ERR_BLOCKED_BY_RESPONSE")
    console.sign_in(page)
    evil = "http://evil.localhost/"
    context.route(
        evil,
        lambda route: route.fulfill(
            content_type="text/html",
            body=f"""<iframe src="{console.url}/sessions"></iframe>
              <form method="post" action="{console.url}/operators/remove">
              <input name="email" value="{VERA}"><button>Win</button></form>""",
        ),
    )
    other = context.new_page()
    other.goto(evil)
    expect(other.locator("iframe").content_frame.get_by_role("heading")).to_have_count(0)
    other.get_by_role("button", name="Win").click()
    expect(other.get_by_role("heading", level=1)).to_contain_text("")
    with console.service.app.app_context():
        assert operators.find_live(VERA)


@pytest.mark.parametrize("email", [OTTO, VERA])
def test_pages_of_other_roles_are_accessible(console: Console, page: Page, email: str) -> None:
    console.sign_in(page, email)
    refused = 0
    for path in PAGES:
        answer = page.goto(f"{console.url}{path}")
        assert answer
        refused += answer.status == 403
        # The refusals look alike.
        if answer.status == 200 or refused == 1:
            expect_accessible(page.main_frame)
    assert refused
    expect(page.get_by_role("link", name="Clients")).to_have_count(0)


def test_olga_learns_while_she_types_whether_an_origin_is_right(console: Console, page: Page) -> None:
    console.sign_in(page)
    page.goto(f"{console.url}/apps/{ORDERS}")
    field = page.get_by_label("Add an origin")
    tab_to(field)
    page.keyboard.type("https://shop.example/")
    verdict = page.locator("#origin-verdict")
    expect(verdict).to_contain_text("without a path")
    expect_accessible(page.main_frame)
    page.keyboard.press("Backspace")
    expect(verdict).to_have_text("https://shop.example can be added.")
    expect_accessible(page.main_frame)
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="may frame the app now")).to_be_visible()


def test_olga_chooses_a_language_and_copies_the_code(console: Console, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    console.sign_in(page)
    page.goto(f"{console.url}/apps/{ORDERS}/embed")
    tab_to(page.get_by_role("link", name="Ruby"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Ruby")).to_contain_text("Net::HTTP")
    assert "back-end=ruby" in page.url
    tab_to(page.get_by_role("button", name="Copy").first)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert 'appSlug: "orders"' in page.evaluate("navigator.clipboard.readText()")


def test_the_chart_is_drawn_under_the_policy_and_follows_the_period(
    console: Console, page: Page, recorder: Recorder
) -> None:
    console.sign_in(page)
    chart = page.locator(".chart canvas")
    expect(chart).to_have_count(1)
    page.get_by_label("Period").select_option("month")
    expect(page).to_have_url(re.compile("period=month"))
    expect(page.locator(".chart canvas")).to_have_count(1)
    page.get_by_text("Show the numbers").click()
    expect(page.get_by_role("table", name="Usage").get_by_role("row")).to_have_count(31)
    expect_accessible(page.main_frame)


def test_otto_looks_at_orders_as_ana_with_the_keyboard_alone(console: Console, page: Page) -> None:
    console.sign_in(page, OTTO)
    page.goto(f"{console.url}/apps/{ORDERS}/preview")
    tab_to(page.get_by_label("Person"))
    page.keyboard.type("ana@acme.test")
    page.keyboard.press("Enter")
    frame = page.frame_locator("#preview iframe")
    expect(frame.get_by_role("heading").first).to_be_visible()
    expect(page.get_by_role("timer")).to_contain_text("ends in 1:")
    events = page.get_by_label("Events of the frame")
    expect(events).to_contain_text("loaded")
    expect_accessible(page.main_frame)
    end = page.get_by_role("button", name="End")
    tab_to(end)
    page.keyboard.press("Enter")
    expect(page.get_by_text("The preview is over")).to_be_visible()
    expect(page.locator("#preview iframe")).to_have_count(0)


def test_no_other_page_can_frame_a_preview(console: Console, page: Page, context: BrowserContext) -> None:
    console.sign_in(page, OTTO)
    page.goto(f"{console.url}/apps/{ORDERS}/preview")
    page.route("**/embed-apps/**", lambda route: route.abort())
    page.get_by_label("Person").fill("ana@acme.test")
    with page.expect_request("**/embed-apps/**") as asked:
        page.get_by_role("button", name="Start the preview").click()
    address = asked.value.url
    mallory = context.new_page()
    mallory.route(
        "https://mallory.example/",
        lambda route: route.fulfill(body=f'<iframe src="{address}"></iframe>', content_type="text/html"),
    )
    mallory.goto("https://mallory.example/")
    mallory.wait_for_timeout(500)
    assert not [frame for frame in mallory.frames if "/embed-apps/" in frame.url]


def test_olga_ends_the_sessions_that_she_selects(console: Console, page: Page) -> None:
    frames = [console.service.frame(), console.service.frame(email="ben@acme.test")]
    console.sign_in(page)
    page.goto(f"{console.url}/live?app=orders")
    button = page.get_by_role("button", name="End selected")
    expect(button).to_be_disabled()
    # Other tests of this file leave sessions.
    number = page.get_by_label("Select the session of").count()
    assert number >= len(frames)
    tab_to(page.get_by_label("Select the session of ben@acme.test at orders").first)
    page.keyboard.press("Space")
    expect(page.get_by_text("1 session selected")).to_be_visible()
    every = page.get_by_label("All on this page")
    every.focus()
    page.keyboard.press("Space")
    expect(page.get_by_text(f"{number} sessions selected")).to_be_visible()
    expect_accessible(page.main_frame)
    tab_to(button)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=f"End {number} sessions?")
    expect(dialog).to_be_visible()
    tab_to(dialog.get_by_role("button", name=f"End {number} sessions"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text=f"Ended {number} sessions.")).to_be_visible()
    assert [console.service.get(frame, "session").status_code for frame in frames] == [401, 401]


def test_a_filter_keeps_the_selection_bar_working(console: Console, page: Page) -> None:
    console.service.frame()
    console.sign_in(page)
    page.goto(f"{console.url}/live?show=tokens")
    page.get_by_label("Person").fill("ana@acme.test")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("user=ana"))
    page.get_by_label("All on this page").check()
    expect(page.get_by_role("button", name="Revoke selected")).to_be_enabled()
    page.get_by_role("link", name="Revoke all that match").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Revoke")
    expect_accessible(page.main_frame)


def test_olga_creates_a_client_and_copies_its_secret(console: Console, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    console.sign_in(page)
    page.goto(f"{console.url}/clients/_new")
    tab_to(page.get_by_label("Id"))
    page.keyboard.type("shop")
    tab_to(page.get_by_label("acme"))
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Secret of shop")).to_be_visible()
    expect_accessible(page.main_frame)
    tab_to(page.get_by_role("button", name="Copy"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    secret = page.evaluate("navigator.clipboard.readText()")
    assert secret in str(page.locator(".secret code").text_content())
    page.goto(f"{console.url}/clients/shop")
    expect(page.get_by_text("not yet")).to_be_visible()
    assert secret not in page.content()


def test_the_audit_page_follows_the_trail(console: Console, page: Page) -> None:
    console.sign_in(page)
    page.goto(f"{console.url}/audit?user=ben@acme.test")
    console.service.token(email="ben@acme.test")
    page.get_by_role("link", name="Follow live").click()
    events = page.locator(".events > li")
    events.first.locator("summary").click()
    before, opened = events.count(), events.first.get_attribute("id")
    console.service.frame(email="ben@acme.test")
    expect(events).to_have_count(before + 2, timeout=15_000)
    expect(page.locator(f"#{opened} details")).to_have_attribute("open", "")
    expect_accessible(page.main_frame)


def test_hostile_names_fit_every_page(console: Console, page: Page) -> None:
    console.service.frame()
    ana = select(User.id).where(User.email == "ana@acme.test")
    (ana_id,) = console.service.rows(ana)[0]
    console.sign_in(page)
    try:
        for name in (HOSTILE[0], HOSTILE[-1]):
            for table in (User, App, Workspace):
                console.service.change(update(table).values(name=name))
            for path in ("/people", f"/people/{ana_id}", "/live", "/live?show=tokens", "/audit"):
                page.goto(f"{console.url}{path}")
                for width in (WIDE, NARROW):
                    page.set_viewport_size({"width": width, "height": 800})
                    assert page.evaluate(OVERFLOW) <= 0, (path, width)
                expect_accessible(page.main_frame)
    finally:
        provision(console.service.app, WORLD)


def test_otto_allows_the_origin_of_anas_blank_frame(
    console: Console, page: Page, browser: Chromium, recorder: Recorder
) -> None:
    """The tag reports a page that is not allowed, and one button allows it."""
    recorder.allow("origin_not_allowed", "frame-ancestors", "chrome-error", "target origin provided")
    with site() as portal, browser.new_context() as other:
        answer = console.service.mint().get_json()
        portal.posts["/token"] = lambda: answer
        portal.pages["/"] = f"""<!doctype html><title>Portal</title>
            <script src="{console.service.app.config["PUBLIC_URL"]}/embed.js" defer></script>
            <pat-embed app="orders" token-url="/token"></pat-embed>"""
        ana = other.new_page()
        with ana.expect_response(re.compile("/blank$"), timeout=40_000) as sent:
            ana.goto(portal.url())
        assert sent.value.status == 204
        console.sign_in(page, OTTO)
        page.goto(f"{console.url}/problems")
        row = page.get_by_role("row").filter(has_text=portal.origin)
        expect(row).to_contain_text("verified")
        expect_accessible(page.main_frame)
        button = row.get_by_role("button", name="Allow this origin")
        tab_to(button)
        expect_visible_focus(button)
        page.keyboard.press("Enter")
        tab_to(page.get_by_role("dialog").get_by_role("button", name="Allow this origin"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text="may frame")).to_be_visible()
        expect(page.get_by_role("row").filter(has_text=portal.origin)).to_have_count(0)
    provision(console.service.app, WORLD)


def test_chromium_reports_a_bare_iframe_that_stays_blank(
    console: Console, browser: Chromium, recorder: Recorder
) -> None:
    with site() as portal, browser.new_context() as other:
        address = console.service.mint().get_json()["redirectUrl"]
        portal.pages["/"] = (
            f'<!doctype html><title>Portal</title><iframe title="Orders" src="{address}"></iframe>'
        )
        ana = other.new_page()
        ana.goto(portal.url())
        columns = RefusedOrigin.verified, RefusedOrigin.times
        rows = select(*columns).where(RefusedOrigin.origin == portal.origin)
        # The address has a token, so the Referer is verified. The report comes without a proof.
        wait_until(ana, lambda: sorted(map(tuple, console.service.rows(rows))) == [(False, 1), (True, 1)])
