"""The demo after `demo load` and `flask run`, used through its portal in Chromium."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Locator, Page, ViewportSize, expect

from demo.people import SUPPORT_ID
from tests.e2e.browser.accessibility import expect_accessible
from tests.e2e.browser.checkout import copy_project, curl, environment, shell
from tests.e2e.browser.installation import expect_scheme, expect_visible_focus, tab_to
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until
from tests.support.servers import WebServer, flask_run, free_port

# The frame is in view without scrolling: a click just after a scroll may miss a frame of another site.
TALL: ViewportSize = {"width": 1200, "height": 2100}
OVERFLOW = "root => root.scrollWidth - root.clientWidth"
ATTRIBUTES = "({attributes}) => Object.fromEntries([...attributes].map(({name, value}) => [name, value]))"
#: The forms that axe-core checks, since it takes a second for each.
CHECKED: tuple[tuple[int, Literal["light", "dark"]], ...] = ((360, "dark"), (1200, "light"))
LINES = (
    "(all) => all.map((one) => Math.round(one.offsetHeight / parseFloat(getComputedStyle(one).lineHeight)))"
)


@dataclass(frozen=True)
class Demo:
    """The running demo: its files, and the two sites that a browser sees."""

    tree: Path
    server: WebServer

    @property
    def portal(self) -> str:
        return f"http://localhost:{self.server.port}"

    @property
    def frames(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def file(self) -> Path:
        return self.tree / "instance/demo.json"

    def end_repeats(self) -> None:
        """Set the first use of every token to eleven seconds ago, so that none can be used again."""
        with closing(sqlite3.connect(self.tree / "instance/pat-service.db")) as connection, connection:
            earlier = "strftime('%Y-%m-%d %H:%M:%S.000000', first_used_at, '-11 seconds')"
            connection.execute(f"UPDATE tokens SET first_used_at = {earlier}")

    def secret(self, client: str = "portal") -> str:
        kept = json.loads(self.file.read_text())
        return kept["clients"][client]["secret"]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    tree = copy_project(folder / "tree")
    port = free_port()
    with flask_run(environment(folder), port=port, cwd=tree, log=folder / "log") as server:
        yield Demo(tree, server)


@dataclass(frozen=True)
class DemoPortal:
    """The demo's portal on a page."""

    page: Page
    demo: Demo

    def visit(self, person: str = "ana", app: str = "orders", region: str = "") -> FrameLocator:
        """Open the portal as this person, and return the frame when its app is ready."""
        self.page.goto("about:blank")  # a change after the # alone would not reload the page
        self.page.goto(f"{self.demo.portal}/#/{person}/{app}" + (f"/{region}" if region else ""))
        return self.opened()

    def opened(self) -> FrameLocator:
        expect(self.page.locator("#frame-state")).to_have_text("loaded")
        # The previous frame may still be there.
        frame = self.page.locator("#stage-body iframe").last.content_frame
        expect(frame.locator("h1")).to_be_visible()
        # The frame ignores clicks before its script has run.
        expect(frame.locator(":root")).to_have_js_property("ownerDocument.readyState", "complete")
        return frame

    def show_refusal(self, title: str) -> None:
        self.page.get_by_role("button", name=title).click()

    def choose(self, name: str) -> None:
        self.page.get_by_role("radio", name=name, exact=True).check()

    def event(self, name: str) -> Locator:
        """The last event of the frame with this name in the log."""
        return self.page.locator(f'#log li[data-type="{name}"]').last

    def token_requests(self, reason: str) -> Locator:
        """The log lines of token requests with this reason."""
        return self.page.locator("#log li.from-portal", has_text=f"fetchToken, reason {reason}")

    @property
    def log(self) -> Locator:
        """The log lines of errors and refusals."""
        return self.page.locator("#log li.bad")


@pytest.fixture(scope="session")
def loaded_demo(demo: Demo) -> Demo:
    if not demo.file.exists():
        shell(f"flask --app app demo load --origin {demo.portal}", demo.tree)
    return demo


@pytest.fixture
def portal(page: Page, loaded_demo: Demo) -> DemoPortal:
    page.set_viewport_size(TALL)
    return DemoPortal(page, loaded_demo)


def heading(frame: FrameLocator) -> Locator:
    return frame.get_by_role("heading", level=1)


def expect_heading(frame: FrameLocator, text: str) -> None:
    expect(heading(frame)).to_have_text(text)


def app_in(launcher: FrameLocator) -> FrameLocator:
    """Return the frame of the app that is open in a launcher."""
    return launcher.frame_locator("#launcher-frame iframe")


def rows(frame: FrameLocator) -> Locator:
    return frame.locator("#orders-list tbody tr")


def expect_badges(frame: FrameLocator, status: str) -> None:
    """The list shows only orders of this status."""
    badges = rows(frame).locator(".badge")
    expect(badges.filter(has_not_text=status)).to_have_count(0)
    expect(badges.first).to_have_text(status)


def test_the_portal_explains_how_to_load_the_demo(page: Page, demo: Demo) -> None:
    """This test is the first one, so that the demo is loaded once."""
    demo.file.unlink(missing_ok=True)
    page.goto(f"{demo.portal}/")
    expect(page.get_by_role("heading", name="Load the demo")).to_be_visible()
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.locator(":root").evaluate(OVERFLOW) == 0
    expect_accessible(page.main_frame)
    shell(page.locator("#load-command").inner_text(), demo.tree)
    page.set_viewport_size(TALL)
    page.get_by_role("link", name="Reload this page").click()
    expect_heading(DemoPortal(page, demo).opened(), "Orders")


# ---- People and apps ----


def test_ana_and_ben_see_their_own_orders_in_a_frame_of_another_site(portal: DemoPortal) -> None:
    numbers = {}
    for name in ("Ana Ruiz", "Ben Okafor"):
        first = name.split()[0]
        frame = portal.visit(first.lower())
        expect(portal.page.get_by_role("heading", level=1)).to_have_text(f"Hello, {first}")
        expect(portal.page.get_by_role("radio", name=name)).to_be_checked()
        expect_heading(frame, "Orders")
        expect(frame.locator(".page-head")).to_contain_text(name)
        expect(frame.get_by_role("img", name="Spend per month")).to_be_visible()
        expect(rows(frame)).to_have_count(10)
        numbers[first] = set(rows(frame).locator("a").all_inner_texts())
        assert [f.url.split("/embed-apps")[0] for f in portal.page.frames[1:]] == [portal.demo.frames]
    assert not numbers["Ana"] & numbers["Ben"]


def test_the_portals_controls_change_person_and_app(portal: DemoPortal) -> None:
    portal.visit()
    portal.page.get_by_role("radio", name="Ben Okafor").check()
    expect_heading(portal.opened(), "Orders")
    expect(portal.page.locator("#stage-who")).to_have_text("Orders as Ben Okafor")
    portal.page.get_by_role("link", name="Support desk").click()
    expect(portal.page.locator("#stage-who")).to_have_text("Support desk as Ben Okafor")
    expect_heading(portal.opened(), "Support")
    portal.page.go_back()
    expect(portal.page.locator("#stage-who")).to_have_text("Orders as Ben Okafor")
    expect_heading(portal.opened(), "Orders")
    # An address with a person that the portal does not offer is corrected.
    portal.page.evaluate("location.hash = '#/dan/orders'")
    expect(portal.page.locator("#stage-who")).to_have_text("Orders as Ana Ruiz")
    expect(portal.page).to_have_url(f"{portal.demo.portal}/#/ana/orders")


# ---- All apps ----


def test_all_apps_open_in_one_frame_and_lead_back(portal: DemoPortal) -> None:
    portal.visit()
    portal.page.get_by_role("link", name="All apps").click()
    expect(portal.page.locator("#stage-who")).to_have_text("All apps as Ana Ruiz")
    frame = portal.opened()
    expect_heading(frame, "Brackenford Supply Co.")
    expect(portal.page.locator("#curl")).to_contain_text('"workspaceSlug": "acme"')
    for snippet in ("#html", "#call"):
        expect(portal.page.locator(snippet)).to_contain_text("({ workspace, reason, signal }) =>")
    send = portal.page.get_by_role("button", name="Send")
    expect(send).to_be_disabled()
    for name, title in (("Orders", "Orders"), ("Support desk", "Support")):
        frame.get_by_role("button", name=name).click()
        expect_heading(app_in(frame), title)
        expect(send).to_be_enabled(enabled=name == "Orders")
        frame.get_by_role("button", name="All apps").click()
        expect(send).to_be_disabled()
        expect(frame.get_by_role("heading", name="Brackenford Supply Co.")).to_be_visible()
    expect(portal.log).to_have_count(0)


def test_a_refusal_on_the_way_from_the_launcher_is_shown_and_fixed(
    portal: DemoPortal, recorder: Recorder
) -> None:
    recorder.allow("pat-embed: access_revoked")
    frame = portal.visit("cleo", "all")
    portal.page.evaluate(
        """() => fetch("/portal/open", {method: "POST", headers: {"Content-Type": "application/json"},
            body: JSON.stringify({person: "cleo", app: "support", case: "access-lost", region: ""})})"""
    )
    frame.get_by_role("button", name="Support desk").click()
    expect(frame.get_by_role("heading", name="You no longer have access to this app")).to_be_visible()
    expect(portal.page.locator("#frame-state")).to_have_text("401 access_revoked")
    expect(portal.event("error")).to_contain_text("code: access_revoked")
    portal.page.get_by_role("button", name="Mint again").click()
    frame = portal.opened()
    frame.get_by_role("button", name="Support desk").click()
    expect_heading(app_in(frame), "Support")


# ---- Regions ----


def test_ana_limits_her_orders_to_a_region_and_removes_the_limit(portal: DemoPortal) -> None:
    frame = portal.visit()
    total = int(frame.locator(".list-foot p").inner_text().split()[-1])
    portal.page.get_by_role("radio", name="North").check()
    expect(portal.page.locator("#stage-who")).to_have_text("Orders as Ana Ruiz, North")
    frame = portal.opened()
    expect(frame.get_by_text("Region: North")).to_be_visible()
    portal.opened()
    expect(portal.page.locator("#curl")).to_contain_text('"region": "north"')
    assert 0 < int(frame.locator(".list-foot p").inner_text().split()[-1]) < total
    rows(frame).locator("a").first.click()
    expect(frame.locator("dl.delivery")).to_contain_text("North")
    portal.page.get_by_role("radio", name="All", exact=True).check()
    expect(portal.page.locator("#stage-who")).to_have_text("Orders as Ana Ruiz")
    expect(portal.opened().get_by_text("Region:")).to_have_count(0)


def test_a_region_persists_and_reaches_orders_from_the_launcher(portal: DemoPortal) -> None:
    portal.visit("ana", "orders", "south")
    expect(portal.page.get_by_role("radio", name="South")).to_be_checked()
    portal.page.get_by_role("link", name="Support desk").click()
    expect(portal.page.locator("#stage-who")).to_have_text("Support desk as Ana Ruiz")
    expect(portal.page.get_by_role("group", name="Region")).to_be_hidden()
    portal.page.get_by_role("link", name="All apps").click()
    expect(portal.page.locator("#stage-who")).to_have_text("All apps as Ana Ruiz, South")
    frame = portal.opened()
    frame.get_by_role("button", name="Orders").click()
    expect(app_in(frame).get_by_text("Region: South")).to_be_visible()
    portal.page.get_by_role("radio", name="Ben Okafor").check()
    expect(portal.page.locator("#stage-who")).to_have_text("All apps as Ben Okafor, South")


# ---- Orders ----


def test_ana_filters_and_pages_her_orders_in_place(portal: DemoPortal) -> None:
    frame = portal.visit()
    frame.locator("h1").evaluate("h1 => { h1.dataset.mark = 'still here'; }")
    first = rows(frame).locator("a").all_inner_texts()

    frame.get_by_role("button", name="Next page of orders").click()
    expect(frame.locator(".list-foot")).to_contain_text("11–20 of")
    expect(frame.locator("#orders-said")).to_have_text(re.compile(r"^11 to 20 of \d+ orders$"))
    assert not set(first) & set(rows(frame).locator("a").all_inner_texts())
    frame.get_by_role("button", name="Previous page of orders").click()
    expect(frame.locator(".list-foot")).to_contain_text("1–10 of")
    assert rows(frame).locator("a").all_inner_texts() == first

    frame.get_by_role("radio", name="Cancelled").check()
    expect_badges(frame, "Cancelled")

    frame.get_by_role("radio", name="All").check()
    expect(rows(frame)).to_have_count(10)
    frame.get_by_role("searchbox").fill(first[3])
    expect(rows(frame)).to_have_count(1)
    expect(rows(frame).locator("a")).to_have_text(first[3])
    frame.get_by_role("searchbox").fill("no such thing <b>")
    expect(frame.get_by_role("heading", name="No orders fit")).to_be_visible()
    expect(frame.get_by_text("Nothing is called “no such thing <b>”.")).to_be_visible()

    assert frame.locator("h1").get_attribute("data-mark") == "still here"


def test_ana_opens_an_order_and_returns_to_the_same_list(portal: DemoPortal) -> None:
    frame = portal.visit()
    frame.get_by_role("radio", name="Delivered").check()
    expect_badges(frame, "Delivered")
    frame.get_by_role("button", name="Next page of orders").click()
    expect(frame.locator(".list-foot")).to_contain_text("11–20 of")
    number = rows(frame).locator("a").nth(2).inner_text()
    rows(frame).locator("a").nth(2).click()

    expect_heading(frame, f"Order {number}")
    expect(heading(frame)).to_be_focused()
    expect(frame.locator("dl.sums")).to_contain_text("Total")
    # A plain <img src> could not load this picture, since it needs the session.
    label = frame.get_by_role("img", name=f"Bar code of order {number}")
    expect(label).to_have_js_property("complete", True)
    assert label.evaluate("image => image.naturalWidth") > 100

    frame.get_by_role("link", name="All orders").click()
    expect_heading(frame, "Orders")
    expect(frame.locator(".list-foot")).to_contain_text("11–20 of")
    expect(frame.get_by_role("radio", name="Delivered")).to_be_checked()
    expect(rows(frame).locator("a").nth(2)).to_have_text(number)


# ---- Support desk ----


def test_ben_opens_his_ticket_and_replies(portal: DemoPortal) -> None:
    frame = portal.visit("ben", "support")
    link = frame.locator(".ticket-link").first
    subject = link.inner_text()
    link.click()
    expect_heading(frame, subject)
    before = frame.locator(".messages > li").count()
    field = frame.get_by_label("Your reply")
    # An empty reply is refused in place.
    frame.get_by_role("button", name="Send reply").click()
    expect(frame.get_by_text("Write your reply first.")).to_be_visible()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile(r"Write your reply first\."))
    expect(field).to_be_focused()
    expect(frame.locator(".messages > li")).to_have_count(before)
    field.fill("Thank you.\n<b>That helps.</b>")
    frame.get_by_role("button", name="Send reply").click()
    expect(frame.get_by_role("status").filter(has_text="Your reply was sent.")).to_be_visible()
    expect(frame.locator(".messages > li")).to_have_count(before + 1)
    expect(frame.locator(".messages .words").last).to_have_text("Thank you.\n<b>That helps.</b>")
    expect(field).to_have_value("")


def test_ben_cannot_open_anas_ticket(portal: DemoPortal) -> None:
    frame = portal.visit("ana", "support")
    href = frame.locator(".ticket-link").first.get_attribute("href")
    frame = portal.visit("ben", "support")
    expect(portal.page.locator("#stage-who")).to_have_text("Support desk as Ben Okafor")
    frame.locator(".ticket-link").first.evaluate("(link, href) => { link.href = href; link.click(); }", href)
    expect(frame.get_by_role("alert")).to_contain_text("There is nothing here.")
    expect_heading(frame, "Support")
    expect(portal.log).to_contain_text("code: not_found")
    # A failed page does not end the frame.
    expect(portal.page.locator("#frame-state")).to_have_text("loaded")


def test_ben_opens_and_answers_a_ticket_by_keyboard(portal: DemoPortal) -> None:
    frame = portal.visit("ben", "support")
    keyboard = portal.page.keyboard
    link = frame.locator(".ticket-link").first
    subject = link.inner_text()
    tab_to(link)
    expect_visible_focus(link, around=frame.locator(".tickets > li").first)
    keyboard.press("Enter")
    expect_heading(frame, subject)
    expect(heading(frame)).to_be_focused()
    expect(frame.locator("#embed-status")).to_have_text(subject)
    tab_to(frame.get_by_label("Your reply"))
    keyboard.type("Typed without a mouse.")
    tab_to(frame.get_by_role("button", name="Send reply"))
    keyboard.press("Enter")
    expect(frame.locator(".messages .words").last).to_have_text("Typed without a mouse.")
    tab_to(frame.get_by_role("link", name="All tickets"))


def test_the_filter_works_by_keyboard_and_keeps_the_focus(portal: DemoPortal) -> None:
    frame = portal.visit()
    frame.get_by_role("radio", name="All").focus()
    portal.page.keyboard.press("ArrowRight")
    expect_badges(frame, "Processing")
    expect(frame.get_by_role("radio", name="Processing")).to_be_focused()
    frame.get_by_role("radio", name="All").focus()
    portal.page.keyboard.press("Space")
    expect(rows(frame)).to_have_count(10)
    following = frame.get_by_role("button", name="Next page of orders")
    following.focus()
    portal.page.keyboard.press("Enter")
    expect(frame.locator(".list-foot")).to_contain_text("11–20 of")
    expect(following).to_be_focused()


# ---- Refusals ----


def test_each_refusal_is_shown_in_the_frame_and_in_the_portal(portal: DemoPortal) -> None:
    portal.visit()
    for name, code, title in (
        ("Expired token", "401 token_expired", "This link has expired"),
        ("Replaced token", "401 token_superseded", "This link was replaced by a newer one"),
        ("Revoked token", "401 token_revoked", "This link was withdrawn"),
        ("Access lost", "401 access_revoked", "You no longer have access to this app"),
        ("Made-up token", "401 token_invalid", "This link does not open the app"),
    ):
        portal.page.locator("#clear").click()
        expect(portal.page.get_by_role("button", name=name)).to_contain_text(code)
        portal.show_refusal(name)
        frame = portal.page.frame_locator("#stage-body iframe")
        expect_heading(frame, title)
        expect(portal.page.locator("#frame-state")).to_have_text(code)
        expect(portal.log).to_have_count(1)
        request_id = frame.locator(".reference").inner_text().rpartition(" ")[2]
        for text in (code, "TJ_EMBED_APP_LOGOUT", f"from {portal.demo.frames}", f"request {request_id}"):
            expect(portal.log).to_contain_text(text)
        portal.page.get_by_role("button", name="Mint again").click()
        expect_heading(portal.opened(), "Orders")


def test_a_used_single_use_token_is_refused(portal: DemoPortal) -> None:
    portal.page.clock.install()
    portal.visit()
    portal.show_refusal("Used token")
    again = portal.page.get_by_role("button", name="Use it again")
    expect(again).to_be_disabled()
    expect(portal.page.locator("#over-text")).to_have_text(re.compile(r"can be used again in \d+ s\."))
    expect_heading(portal.opened(), "Orders")
    portal.demo.end_repeats()
    portal.page.clock.run_for(12_000)
    expect(again).to_be_enabled()
    again.click()
    frame = portal.page.frame_locator("#stage-body iframe")
    expect_heading(frame, "This link has already been used")
    expect(portal.page.locator("#frame-state")).to_have_text("401 token_used")
    portal.page.get_by_role("button", name="Open again").click()
    expect_heading(portal.opened(), "Orders")
    expect(portal.page.locator("#over")).to_be_hidden()


def test_the_wait_for_a_second_use_ends_with_the_next_visit(portal: DemoPortal) -> None:
    portal.page.clock.install()
    portal.visit()
    portal.show_refusal("Used token")
    expect(portal.page.locator("#over")).to_be_visible()
    portal.page.get_by_role("link", name="Support desk").click()
    expect_heading(portal.opened(), "Support")
    portal.page.clock.run_for(1500)
    expect(portal.page.locator("#over")).to_be_hidden()


def test_dan_gets_no_token_so_there_is_no_frame(portal: DemoPortal) -> None:
    portal.visit()
    portal.show_refusal("No access")
    expect(portal.page.get_by_role("heading", name="No token, so no frame")).to_be_visible()
    expect(portal.page.locator("#stage-body")).to_contain_text("403 app_forbidden")
    expect(portal.page.locator("#mint-state")).to_have_text("403 Forbidden")
    expect(portal.page.locator("iframe")).to_have_count(0)


def test_too_many_mints_show_how_long_to_wait(portal: DemoPortal) -> None:
    portal.visit()
    portal.show_refusal("Too many mints")
    expect(portal.page.locator("#mint-state")).to_have_text("429 Too Many Requests")
    stage = portal.page.locator("#stage-body")
    expect(stage).to_contain_text("429 rate_limited")
    texts = stage.locator(".panel > p")
    expect(texts).to_have_text([re.compile(r"^Too many requests; try again in \d+ s\.$")])
    expect(portal.page.locator("#answer-head")).to_contain_text("Retry-After")
    expect(portal.page.locator("#curl")).to_contain_text("portal-limited:$CLIENT_SECRET")
    # The other client can still mint.
    portal.page.get_by_role("button", name="Mint again").click()
    portal.opened()


def test_the_address_opens_nothing_in_a_tab(portal: DemoPortal, context: BrowserContext) -> None:
    portal.visit()
    portal.show_refusal("Outside a frame")
    with context.expect_page() as tab:
        portal.page.get_by_role("link", name="Open the address in a tab").click()
    expect(tab.value.get_by_role("heading")).to_have_text("This app opens inside another page")
    expect(tab.value.get_by_text("not_framed")).to_be_visible()
    expect_accessible(tab.value.main_frame)
    assert "pat_" not in tab.value.evaluate("location.href")


def test_the_portal_ignores_messages_of_other_frames(portal: DemoPortal) -> None:
    portal.visit()
    for shown in ("script", "bare"):
        if shown == "bare":
            portal.show_refusal("Used token")
            portal.opened()
        received = portal.page.evaluate(
            """(address) => new Promise((done) => {
                const received = [];
                addEventListener("message", (event) => {
                    received.push([event.origin, event.data.code]);
                    if (received.length === 2) done(received);
                });
                const forged = {type: "TJ_EMBED_APP_LOGOUT", error: 401, code: "forged", message: "forged"};
                postMessage(forged, "*");
                document.body.append(Object.assign(document.createElement("iframe"), {src: address}));
            })""",
            f"{portal.demo.frames}/embed-apps/{SUPPORT_ID}",
        )
        assert sorted(received) == [[portal.demo.frames, "token_missing"], [portal.demo.portal, "forged"]]
        expect(portal.page.locator("#frame-state")).to_have_text("loaded")
        expect(portal.log).to_have_count(0)


# ---- embed.js ----


def test_an_opening_shows_its_events_its_tag_and_a_curl_that_works(portal: DemoPortal) -> None:
    portal.visit()
    expect(portal.token_requests("initial")).to_contain_text(re.compile(r"201 Created · pat_[0-9a-f]{4}…"))
    expect(portal.event("loaded")).to_contain_text("title: Orders")
    expect(portal.event("resize")).to_contain_text(re.compile(r"height: \d{3,}"))
    names = portal.page.locator("#log li.from-frame").evaluate_all("all => all.map((li) => li.dataset.type)")
    assert names.index("ready") < names.index("loaded")
    expect(portal.page.locator("#left")).to_have_text(re.compile(r"^Session (60:00|59:\d\d)$"))

    shown = portal.page.locator("#html").inner_text()
    assert f'<script src="{portal.demo.frames}/embed.js" defer></script>' in shown
    attributes = portal.page.locator("pat-embed").evaluate(ATTRIBUTES)
    tag = shown.partition("<pat-embed")[2].partition(">")[0]
    written = {name: value for name, _, value in re.findall(r'([a-z-]+)(="([^"]*)")?', tag)}
    assert written == {name: value for name, value in attributes.items() if name not in ("class", "style")}

    pasted = portal.page.locator("#curl").inner_text()
    assert portal.demo.secret() not in pasted
    answer = curl(pasted, portal.demo.tree, CLIENT_SECRET=portal.demo.secret())
    assert re.fullmatch(r"pat_[0-9a-f]{72}", answer["personalAccessToken"])
    assert answer["redirectUrl"].startswith(f"{portal.demo.frames}/embed-apps/")
    assert (answer["expiresIn"], answer["sessionExpiresIn"]) == (300, 3600)


def test_the_portal_and_the_app_exchange_events(portal: DemoPortal) -> None:
    frame = portal.visit()
    portal.page.get_by_label("Send a filter").select_option("cancelled")
    portal.page.get_by_role("button", name="Send").click()
    expect(frame.get_by_role("radio", name="Cancelled")).to_be_checked()
    expect_badges(frame, "Cancelled")
    expect(portal.event("navigate")).to_contain_text("page: index")
    number = rows(frame).locator("a").first.inner_text()
    rows(frame).locator("a").first.click()
    expect(portal.event("order:opened")).to_contain_text(f"number: {number}")
    expect(portal.event("navigate")).to_contain_text(f"title: Order {number}")


def test_theme_and_language_change_while_ana_types(portal: DemoPortal) -> None:
    frame = portal.visit()
    frame.get_by_role("searchbox").fill("half a wo")
    portal.choose("Dark")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    portal.choose("Español")
    expect(portal.page.locator("pat-embed")).to_have_attribute("locale", "es")
    expect(portal.page.locator("#html")).to_contain_text('theme="dark"')
    expect(portal.page.locator("#call")).to_contain_text('locale: "es"')
    expect(frame.get_by_role("searchbox")).to_have_value("half a wo")
    expect(portal.token_requests("")).to_have_count(1)


def test_the_height_follows_the_content_or_stays_fixed(portal: DemoPortal) -> None:
    frame = portal.visit()

    def height(of: Locator) -> float:
        return float(of.evaluate("element => element.getBoundingClientRect().height"))

    iframe = portal.page.locator("pat-embed iframe").last
    wait_until(portal.page, lambda: abs(height(iframe) - height(frame.locator("html"))) <= 1)
    portal.page.get_by_role("checkbox", name="Auto height").uncheck()
    portal.opened()
    expect(portal.page.locator("#call")).to_contain_text("autoHeight: false")
    wait_until(portal.page, lambda: height(iframe) == 760)


def test_a_session_is_renewed_in_place(portal: DemoPortal) -> None:
    frame = portal.visit()
    frame.get_by_role("searchbox").fill("half a wo")
    portal.page.get_by_role("button", name="Renew now").click()
    expect(portal.event("session:renewed")).to_contain_text("expiresIn: 3600")
    expect(portal.token_requests("expiring")).to_have_count(1)
    portal.choose("1 min")
    expect(portal.event("session:renewed")).to_contain_text("expiresIn: 60")
    expect(portal.page.locator("#left")).to_have_text(re.compile(r"^Session (1:00|0:\d\d)$"))
    expect(portal.page.locator("#curl")).to_contain_text('"sessionExpiry": 1,')
    expect(frame.get_by_role("searchbox")).to_have_value("half a wo")
    expect(portal.page.locator("#frame-state")).to_have_text("loaded")


def test_a_session_ended_on_the_server_is_reported_at_the_next_request(portal: DemoPortal) -> None:
    frame = portal.visit()
    portal.page.get_by_role("button", name="End the session on the server").click()
    expect(portal.page.locator("#mint-state")).to_have_text("204 No Content")
    expect(portal.page.locator("#curl")).to_contain_text("curl -X DELETE")
    # An idle frame polls for this some time later.
    rows(frame).locator("a").first.click()
    expect(portal.event("session:revoked")).to_contain_text("code: session_revoked")
    expect(portal.page.locator("#frame-state")).to_have_text("401 session_revoked")
    expect(portal.page.locator("#left")).to_be_hidden()
    frame.get_by_role("button", name="Try again").click()
    expect_heading(portal.opened(), "Orders")
    expect(portal.token_requests("reload")).to_have_count(1)


@pytest.mark.parametrize(
    ("choice", "text"), [("Fails", "The token endpoint is broken."), ("Hangs", "No answer within 5 s")]
)
def test_a_token_endpoint_that_fails_or_hangs_is_retried(
    portal: DemoPortal, recorder: Recorder, choice: str, text: str
) -> None:
    recorder.allow("503", "fetch_token_failed")
    portal.visit()
    portal.choose(choice)
    portal.page.get_by_role("button", name="Renew now").click()
    expect(portal.token_requests("expiring").first).to_contain_text(text)
    # Ana does not notice: her session is valid, and the next attempt succeeds.
    portal.choose("Answers")
    expect(portal.event("session:renewed")).to_contain_text("expiresIn: 3600")
    expect(portal.log).to_have_count(0)
    expect(portal.page.locator("#frame-state")).to_have_text("loaded")


# ---- The displayed code ----


def test_both_curls_of_a_revocation_are_shown_and_the_second_works(portal: DemoPortal) -> None:
    portal.visit()
    portal.show_refusal("Revoked token")
    expect(portal.page.locator("#frame-state")).to_have_text("401 token_revoked")
    mint, revoke = portal.page.locator("#curl").inner_text().split("\n\n")
    assert mint.startswith("curl http")
    assert revoke.startswith("curl -X DELETE http")
    if shutil.which("curl"):
        # A second revocation succeeds too.
        assert shell(revoke + " -sSf", portal.demo.tree, CLIENT_SECRET=portal.demo.secret()) == ""


def test_a_bare_frame_shows_its_html_has_no_controls_and_reopens_with_one_click(portal: DemoPortal) -> None:
    portal.visit()
    portal.show_refusal("Used token")
    portal.opened()
    shown = portal.page.locator("#html").inner_text()
    attributes = portal.page.locator("#stage-body iframe").evaluate(ATTRIBUTES)
    attributes["src"] = re.sub(r"(pat_.{4}).*", r"\1…", attributes["src"])
    assert dict(re.findall(r'([a-z]+)="([^"]*)"', shown)) == attributes
    for control in (
        portal.page.get_by_role("button", name="Renew now"),
        portal.page.get_by_role("button", name="Send"),
        portal.page.get_by_role("radio", name="Dark"),
        portal.page.get_by_role("checkbox", name="Auto height"),
    ):
        expect(control).to_be_disabled()
    portal.page.frames[1].evaluate("location.reload()")
    expect(portal.page.locator("#frame-state")).to_have_text("401 token_missing")
    portal.page.get_by_role("button", name="Open again").click()
    expect_heading(portal.opened(), "Orders")
    expect(portal.page.get_by_role("button", name="Renew now")).to_be_enabled()


# ---- Layout ----


def test_every_page_fits_in_both_colour_schemes_and_is_accessible(
    browser: Browser, loaded_demo: Demo
) -> None:
    # Without motion, no colour is between two others while axe-core measures contrasts.
    context = browser.new_context(viewport=TALL, reduced_motion="reduce")
    try:
        portal = DemoPortal(context.new_page(), loaded_demo)
        for app in ("orders", "support"):
            frame = portal.visit("ana", app)
            _expect_to_fit(portal, frame)
            frame.locator(".row-link, .ticket-link").first.click()
            expect(heading(frame)).not_to_have_text(re.compile("^(Orders|Support)$"))
            _expect_to_fit(portal, frame)
        _expect_to_fit(portal, portal.visit("ana", "all", "north"))
        frame = portal.visit("cleo", "orders", "north")
        expect(frame.get_by_role("heading", name="No orders for North")).to_be_visible()
        _expect_to_fit(portal, frame)
        portal.visit("cleo", "support").get_by_role("link", name="New ticket").click()
        expect_heading(frame, "New ticket")
        frame.get_by_role("button", name="Send").click()
        expect(frame.locator(".error").first).to_be_visible()
        _expect_to_fit(portal, frame)
        portal.show_refusal("Made-up token")
        expect(portal.log).to_have_count(1)
        _expect_to_fit(portal, frame)
        portal.show_refusal("No access")
        expect(portal.page.locator("#stage-body .panel")).to_be_visible()
        for width, scheme in CHECKED:
            _show(portal, width, scheme)
            expect_accessible(portal.page.main_frame)
    finally:
        context.close()


def _show(portal: DemoPortal, width: int, scheme: Literal["light", "dark"]) -> None:
    portal.page.set_viewport_size({**TALL, "width": width})
    portal.page.emulate_media(color_scheme=scheme)


def _expect_to_fit(portal: DemoPortal, frame: FrameLocator) -> None:
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for width, scheme in product((360, 1200), schemes):
        _show(portal, width, scheme)
        assert portal.page.locator(":root").evaluate(OVERFLOW) == 0
        assert frame.locator(":root").evaluate(OVERFLOW) == 0
        assert set(frame.locator(".stat dd").evaluate_all(LINES)) <= {1}, "A figure or its note is broken"
        for body in (portal.page.locator("body"), frame.locator("body")):
            expect_scheme(body, scheme)
        for document in portal.page.frames if (width, scheme) in CHECKED else []:
            expect_accessible(document)
