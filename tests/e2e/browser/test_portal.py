"""The demo, as a person meets it: `demo load`, `flask run`, and a browser on the portal."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from playwright.sync_api import FrameLocator, Locator, ViewportSize, expect

from demo.people import SUPPORT_ID
from tests.e2e.browser.sites import copy_project, curl, environment, shell, until
from tests.support.servers import WebServer, flask_run, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.e2e.browser.conftest import Witness

MOST_TABS = 80
# The frame is in view without scrolling: a click that follows on a scroll may miss a frame of another site.
TALL: ViewportSize = {"width": 1200, "height": 2100}
OVERFLOW = "root => root.scrollWidth - root.clientWidth"
LINES = """(elements) => elements.map((element) => {
  const range = document.createRange();
  range.selectNodeContents(element);
  return range.getClientRects().length;
})"""


@dataclass(frozen=True)
class Demo:
    """The running demo: where its files are, and the two sites that its server is to a browser."""

    tree: Path
    server: WebServer

    @property
    def portal(self) -> str:
        return f"http://localhost:{self.server.port}"

    @property
    def frames(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def secret(self, client: str = "portal") -> str:
        kept = json.loads((self.tree / "instance/demo.json").read_text())
        return kept["clients"][client]["secret"]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    tree = copy_project(folder / "tree")
    port = free_port()
    shell(f"flask --app app demo load --origin http://localhost:{port}", tree)
    with flask_run(environment(folder), port=port, cwd=tree, log=folder / "log") as server:
        yield Demo(tree, server)


@dataclass(frozen=True)
class Portal:
    """The portal on a page, and what a person sees of it."""

    page: "Page"
    demo: Demo

    def visit(self, person: str = "ana", app: str = "orders", region: str = "") -> FrameLocator:
        """Open the portal as the person and return the frame, once its app is there."""
        self.page.goto("about:blank")  # or a change of the part behind # would not load the page again
        self.page.goto(f"{self.demo.portal}/#/{person}/{app}" + (f"/{region}" if region else ""))
        return self.opened()

    def opened(self) -> FrameLocator:
        expect(self.page.locator("#frame-state")).to_have_text("loaded")
        # The one before may still be there.
        frame = self.page.locator("#stage-body iframe").last.content_frame
        expect(frame.locator("h1")).to_be_visible()
        # Its script has run: before that a press is taken for none.
        expect(frame.locator(":root")).to_have_js_property("ownerDocument.readyState", "complete")
        return frame

    def refusal(self, title: str) -> None:
        self.page.get_by_role("button", name=title).click()

    def choose(self, name: str) -> None:
        self.page.get_by_role("radio", name=name, exact=True).check()

    def event(self, name: str) -> Locator:
        """What the frame told by this name, the last time."""
        return self.page.locator(f'#log li[data-type="{name}"]').last

    def asked(self, reason: str) -> Locator:
        """Each time that the script asked for a token, with what it got."""
        return self.page.locator("#log li.from-portal", has_text=f"fetchToken, reason {reason}")

    @property
    def log(self) -> Locator:
        """What the frame told and was no good news."""
        return self.page.locator("#log li.bad")


@pytest.fixture
def portal(page: "Page", demo: Demo) -> Portal:
    page.set_viewport_size(TALL)
    return Portal(page, demo)


def heading(frame: FrameLocator) -> Locator:
    return frame.get_by_role("heading", level=1)


def rows(frame: FrameLocator) -> Locator:
    return frame.locator("#orders-list tbody tr")


def expect_badges(frame: FrameLocator, status: str) -> None:
    """The list shows orders of this status, and no other."""
    badges = rows(frame).locator(".badge")
    expect(badges.filter(has_not_text=status)).to_have_count(0)
    expect(badges.first).to_have_text(status)


# ---- Who sees what ----


def test_the_portal_opens_anas_orders_in_a_frame_of_another_site(portal: Portal) -> None:
    frame = portal.visit()
    expect(portal.page.get_by_role("heading", level=1)).to_have_text("Hello, Ana")
    expect(heading(frame)).to_have_text("Orders")
    expect(frame.locator(".page-head")).to_contain_text("Ana Ruiz")
    expect(rows(frame)).to_have_count(10)
    expect(frame.get_by_role("img", name="Spend per month")).to_be_visible()
    assert [f.url.split("/embed-apps")[0] for f in portal.page.frames[1:]] == [portal.demo.frames]


def test_ben_sees_other_orders_than_ana(portal: Portal) -> None:
    numbers = {}
    for person in ("ana", "ben"):
        frame = portal.visit(person)
        expect(frame.locator(".page-head")).to_contain_text(person.title())
        expect(portal.page.get_by_role("radio", name=person.title())).to_be_checked()
        numbers[person] = set(rows(frame).locator("a").all_inner_texts())
    assert len(numbers["ana"]) == len(numbers["ben"]) == 10
    assert not numbers["ana"] & numbers["ben"]


def test_the_portals_own_controls_change_person_and_app(portal: Portal) -> None:
    portal.visit()
    portal.page.get_by_role("radio", name="Ben Okafor").check()
    expect(heading(portal.opened())).to_have_text("Orders")
    expect(portal.page.locator("#stage-who")).to_have_text("Orders as Ben Okafor")
    portal.page.get_by_role("link", name="Support desk").click()
    expect(portal.page.locator("#stage-who")).to_have_text("Support desk as Ben Okafor")
    expect(heading(portal.opened())).to_have_text("Support")
    portal.page.go_back()
    expect(portal.page.locator("#stage-who")).to_have_text("Orders as Ben Okafor")
    expect(heading(portal.opened())).to_have_text("Orders")


@pytest.mark.parametrize(("app", "text"), [("orders", "No orders yet"), ("support", "No tickets yet")])
def test_cleo_who_joined_today_sees_that_there_is_nothing_yet(portal: Portal, app: str, text: str) -> None:
    frame = portal.visit("cleo", app)
    expect(frame.get_by_role("heading", name=text)).to_be_visible()
    expect(frame.get_by_role("table")).to_have_count(0)


# ---- All apps ----


def test_all_apps_open_in_one_frame_with_the_way_back(portal: Portal) -> None:
    portal.visit()
    portal.page.get_by_role("link", name="All apps").click()
    expect(portal.page.locator("#stage-who")).to_have_text("All apps as Ana Ruiz")
    frame = portal.opened()
    expect(heading(frame)).to_have_text("Brackenford Supply Co.")
    expect(portal.page.locator("#curl")).to_contain_text('"workspaceSlug": "acme"')
    for name, title in (("Orders", "Orders"), ("Support desk", "Support")):
        frame.get_by_role("button", name=name).click()
        expect(heading(frame)).to_have_text(title)
        portal.opened()
        frame.get_by_role("button", name="All apps").click()
        expect(heading(frame)).to_have_text("Brackenford Supply Co.")
        portal.opened()
    expect(portal.log).to_have_count(0)


def test_a_refusal_on_the_way_from_the_launcher_is_told_and_mended(portal: Portal) -> None:
    frame = portal.visit("cleo", "all")
    portal.page.evaluate(
        """() => fetch("/portal/open", {method: "POST", headers: {"Content-Type": "application/json"},
            body: JSON.stringify({person: "cleo", app: "support", case: "access-lost", region: ""})})"""
    )
    frame.get_by_role("button", name="Support desk").click()
    expect(heading(frame)).to_have_text("You no longer have access to this app")
    expect(portal.page.locator("#frame-state")).to_have_text("401 access_revoked")
    expect(portal.event("error")).to_contain_text("code: access_revoked")
    portal.page.get_by_role("button", name="Mint again").click()
    frame = portal.opened()
    frame.get_by_role("button", name="Support desk").click()
    expect(heading(frame)).to_have_text("Support")


# ---- Regions ----


def test_ana_holds_her_orders_to_a_region_and_lets_go_of_it(portal: Portal) -> None:
    frame = portal.visit()
    total = int(frame.locator(".list-foot p").inner_text().split()[-1])
    seen = 0
    for name in ("North", "South", "West"):
        portal.page.get_by_role("radio", name=name).check()
        expect(portal.page.locator("#stage-who")).to_have_text(f"Orders as Ana Ruiz, {name}")
        frame = portal.opened()
        expect(frame.get_by_text(f"Region: {name}")).to_be_visible()
        portal.opened()
        expect(portal.page.locator("#curl")).to_contain_text(f'"region": "{name.lower()}"')
        found = int(frame.locator(".list-foot p").inner_text().split()[-1])
        assert 0 < found < total
        seen += found
        rows(frame).locator("a").first.click()
        expect(frame.locator("dl.delivery")).to_contain_text(name)
    assert seen == total
    portal.page.get_by_role("radio", name="All", exact=True).check()
    expect(portal.page.locator("#stage-who")).to_have_text("Orders as Ana Ruiz")
    expect(portal.opened().get_by_text("Region:")).to_have_count(0)


def test_a_region_stays_with_the_visitor_and_reaches_orders_from_the_launcher_too(portal: Portal) -> None:
    portal.visit("ana", "orders", "south")
    expect(portal.page.get_by_role("radio", name="South")).to_be_checked()
    portal.page.get_by_role("link", name="Support desk").click()
    expect(portal.page.locator("#stage-who")).to_have_text("Support desk as Ana Ruiz")
    expect(portal.page.get_by_role("group", name="Region")).to_be_hidden()
    portal.page.get_by_role("link", name="All apps").click()
    expect(portal.page.locator("#stage-who")).to_have_text("All apps as Ana Ruiz, South")
    frame = portal.opened()
    frame.get_by_role("button", name="Orders").click()
    expect(frame.get_by_text("Region: South")).to_be_visible()
    portal.page.get_by_role("radio", name="Ben Okafor").check()
    expect(portal.page.locator("#stage-who")).to_have_text("All apps as Ben Okafor, South")


# ---- Orders ----


def test_ana_filters_her_orders_and_turns_their_pages_without_a_new_page(portal: Portal) -> None:
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


def test_ana_looks_at_an_order_and_comes_back_to_the_page_of_the_list_that_she_left(portal: Portal) -> None:
    frame = portal.visit()
    frame.get_by_role("radio", name="Delivered").check()
    expect_badges(frame, "Delivered")
    frame.get_by_role("button", name="Next page of orders").click()
    expect(frame.locator(".list-foot")).to_contain_text("11–20 of")
    number = rows(frame).locator("a").nth(2).inner_text()
    rows(frame).locator("a").nth(2).click()

    expect(heading(frame)).to_have_text(f"Order {number}")
    expect(heading(frame)).to_be_focused()
    expect(frame.locator("dl.sums")).to_contain_text("Total")
    # A picture that a plain <img src> could not have: it needs the session.
    label = frame.get_by_role("img", name=f"Bar code of order {number}")
    expect(label).to_have_js_property("complete", True)
    assert label.evaluate("image => image.naturalWidth") > 100

    frame.get_by_role("link", name="All orders").click()
    expect(heading(frame)).to_have_text("Orders")
    expect(frame.locator(".list-foot")).to_contain_text("11–20 of")
    expect(frame.get_by_role("radio", name="Delivered")).to_be_checked()
    expect(rows(frame).locator("a").nth(2)).to_have_text(number)


def test_ana_saves_her_orders_as_a_file_with_a_name(portal: Portal) -> None:
    frame = portal.visit()
    with portal.page.expect_download() as all_of_them:
        frame.get_by_role("button", name="Download all as CSV").click()
    assert re.fullmatch(r"orders-\d{4}-\d\d-\d\d\.csv", all_of_them.value.suggested_filename)
    table = list(csv.reader(io.StringIO(all_of_them.value.path().read_text("utf-8-sig"))))
    assert table[0][:3] == ["Order", "Placed", "Status"]
    assert f"of {len(table) - 1}" in frame.locator(".list-foot").inner_text()

    frame.get_by_role("radio", name="Cancelled").check()
    with portal.page.expect_download() as some:
        frame.get_by_role("button", name="Download these as CSV").click()
    few = list(csv.reader(io.StringIO(some.value.path().read_text("utf-8-sig"))))[1:]
    assert {row[2] for row in few} == {"Cancelled"}
    assert 0 < len(few) < len(table) - 1


# ---- Support desk ----


def new_ticket(frame: FrameLocator, subject: str) -> None:
    frame.get_by_role("link", name="New ticket").click()
    frame.get_by_label("Subject").fill(subject)
    frame.get_by_label("Topic").select_option(label="Product question")
    frame.get_by_label("Message").fill("Is it there?\nWe would need two.")
    frame.get_by_role("button", name="Send").click()
    expect(heading(frame)).to_have_text(subject)


def test_ben_opens_a_ticket_of_his_and_answers(portal: Portal) -> None:
    frame = portal.visit("ben", "support")
    link = frame.locator(".ticket-link").first
    subject = link.inner_text()
    link.click()
    expect(heading(frame)).to_have_text(subject)
    before = frame.locator(".messages > li").count()
    frame.get_by_label("Your reply").fill("Thank you.\n<b>That helps.</b>")
    frame.get_by_role("button", name="Send reply").click()
    expect(frame.get_by_role("status").filter(has_text="Your reply was sent.")).to_be_visible()
    expect(frame.locator(".messages > li")).to_have_count(before + 1)
    expect(frame.locator(".messages .words").last).to_have_text("Thank you.\n<b>That helps.</b>")
    expect(frame.get_by_label("Your reply")).to_have_value("")


def test_an_empty_reply_is_refused_in_place_and_the_form_is_where_the_focus_goes(portal: Portal) -> None:
    frame = portal.visit("ben", "support")
    frame.locator(".ticket-link").first.click()
    expect(frame.get_by_label("Your reply")).to_be_visible()
    before = frame.locator(".messages > li").count()
    frame.get_by_role("button", name="Send reply").click()
    field = frame.get_by_label("Your reply")
    expect(frame.get_by_text("Write your reply first.")).to_be_visible()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile(r"Write your reply first\."))
    expect(field).to_be_focused()
    expect(frame.locator(".messages > li")).to_have_count(before)


def test_a_ticket_that_does_not_validate_keeps_what_was_typed(portal: Portal) -> None:
    frame = portal.visit("ana", "support")
    frame.get_by_role("link", name="New ticket").click()
    frame.get_by_label("Message").fill("\nA first line that is empty, and “quotes” & <tags>")
    frame.get_by_role("button", name="Send").click()
    expect(frame.get_by_text("Say in a few words what it is about.")).to_be_visible()
    expect(frame.get_by_text("Choose a topic from the list.")).to_be_visible()
    expect(frame.get_by_label("Message")).to_have_value("\nA first line that is empty, and “quotes” & <tags>")
    expect(frame.get_by_label("Subject")).to_be_focused()


def test_ana_opens_a_ticket_closes_it_and_opens_it_again(portal: Portal) -> None:
    frame = portal.visit("ana", "support")
    number = int(frame.get_by_text(re.compile(r"^Open \d+$")).inner_text().split()[1])
    new_ticket(frame, "Oat milk in cartons?")
    expect(frame.get_by_text("Your ticket is open.")).to_be_visible()
    expect(frame.locator(".messages .words")).to_have_text("Is it there?\nWe would need two.")

    frame.get_by_role("button", name="Close ticket").click()
    expect(frame.get_by_text("The ticket is closed.")).to_be_visible()
    expect(frame.get_by_label("Your reply")).to_have_count(0)
    frame.get_by_role("link", name="All tickets").click()
    expect(frame.get_by_role("radio", name="Closed")).to_be_checked()
    expect(frame.locator(".ticket-link").first).to_have_text("Oat milk in cartons?")

    frame.locator(".ticket-link").first.click()
    frame.get_by_role("button", name="Reopen ticket").click()
    expect(frame.get_by_text("The ticket is open again.")).to_be_visible()
    frame.get_by_role("link", name="All tickets").click()
    expect(frame.get_by_text(f"Open {number + 1}", exact=True)).to_be_visible()


def test_a_ticket_of_ana_is_not_there_for_ben(portal: Portal) -> None:
    frame = portal.visit("ana", "support")
    href = frame.locator(".ticket-link").first.get_attribute("href")
    frame = portal.visit("ben", "support")
    expect(portal.page.locator("#stage-who")).to_have_text("Support desk as Ben Okafor")
    frame.locator(".ticket-link").first.evaluate("(link, href) => { link.href = href; link.click(); }", href)
    expect(frame.get_by_role("alert")).to_contain_text("There is nothing here.")
    expect(heading(frame)).to_have_text("Support")
    expect(portal.log).to_contain_text("code: not_found")
    # A page that failed does not end the frame.
    expect(portal.page.locator("#frame-state")).to_have_text("loaded")


def test_a_keyboard_is_enough_to_open_a_ticket_and_answer_it(portal: Portal) -> None:
    frame = portal.visit("ben", "support")
    keyboard = portal.page.keyboard

    def tab_to(target: Locator) -> None:
        for _ in range(MOST_TABS):
            if target.count() and target.evaluate("element => element === document.activeElement"):
                return
            keyboard.press("Tab")
        raise AssertionError(f"{MOST_TABS} times Tab did not reach {target}")

    link = frame.locator(".ticket-link").first
    subject = link.inner_text()
    tab_to(link)
    row = frame.locator(".tickets > li").first
    focused = row.screenshot()
    link.evaluate("link => link.blur()")
    assert row.screenshot() != focused, "The focus cannot be seen"
    link.focus()
    keyboard.press("Enter")
    expect(heading(frame)).to_have_text(subject)
    expect(heading(frame)).to_be_focused()
    expect(frame.locator("#embed-status")).to_have_text(subject)
    tab_to(frame.get_by_label("Your reply"))
    keyboard.type("Typed without a mouse.")
    tab_to(frame.get_by_role("button", name="Send reply"))
    keyboard.press("Enter")
    expect(frame.locator(".messages .words").last).to_have_text("Typed without a mouse.")
    tab_to(frame.get_by_role("link", name="All tickets"))


def test_the_filter_takes_the_arrow_keys_and_keeps_the_focus(portal: Portal) -> None:
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


# ---- The refusals ----


@pytest.mark.parametrize(
    ("button", "code", "title"),
    [
        ("Expired token", "401 token_expired", "This link has expired"),
        ("Replaced token", "401 token_superseded", "This link was replaced by a newer one"),
        ("Revoked token", "401 token_revoked", "This link was withdrawn"),
        ("Access lost", "401 access_revoked", "You no longer have access to this app"),
        ("Made-up token", "401 token_invalid", "This link does not open the app"),
    ],
)
def test_each_refusal_is_shown_in_the_frame_and_told_to_the_portal(
    portal: Portal, button: str, code: str, title: str
) -> None:
    portal.visit()
    expect(portal.page.get_by_role("button", name=button)).to_contain_text(code)
    portal.refusal(button)
    frame = portal.page.frame_locator("#stage-body iframe")
    expect(heading(frame)).to_have_text(title)
    expect(portal.page.locator("#frame-state")).to_have_text(code)
    expect(portal.log).to_have_count(1)
    expect(portal.log).to_contain_text(code)
    expect(portal.log).to_contain_text("TJ_EMBED_APP_LOGOUT")
    expect(portal.log).to_contain_text(f"from {portal.demo.frames}")
    reference = frame.locator(".reference").inner_text()
    request_id = reference.rpartition(" ")[2]
    expect(portal.log).to_contain_text(f"request {request_id}")
    # And it is mended where it can be: Ana's own app opens again.
    portal.page.get_by_role("button", name="Mint again").click()
    expect(heading(portal.opened())).to_have_text("Orders")


def test_a_token_for_one_opening_is_refused_when_its_address_is_framed_again(portal: Portal) -> None:
    portal.visit()
    portal.refusal("Used token")
    again = portal.page.get_by_role("button", name="Use it again")
    expect(again).to_be_disabled()
    expect(portal.page.locator("#over-text")).to_have_text(re.compile(r"can be used again in \d+ s\."))
    expect(heading(portal.opened())).to_have_text("Orders")
    expect(again).to_be_enabled(timeout=20_000)
    again.click()
    frame = portal.page.frame_locator("#stage-body iframe")
    expect(heading(frame)).to_have_text("This link has already been used")
    expect(portal.page.locator("#frame-state")).to_have_text("401 token_used")
    portal.page.get_by_role("button", name="Open again").click()
    expect(heading(portal.opened())).to_have_text("Orders")
    expect(portal.page.locator("#over")).to_be_hidden()


def test_the_wait_for_a_second_use_ends_with_the_next_visit(portal: Portal) -> None:
    portal.visit()
    portal.refusal("Used token")
    expect(portal.page.locator("#over")).to_be_visible()
    portal.page.get_by_role("link", name="Support desk").click()
    expect(heading(portal.opened())).to_have_text("Support")
    portal.page.wait_for_timeout(1500)
    expect(portal.page.locator("#over")).to_be_hidden()


def test_dan_gets_no_token_so_there_is_no_frame(portal: Portal) -> None:
    portal.visit()
    portal.refusal("No access")
    expect(portal.page.get_by_role("heading", name="No token, so no frame")).to_be_visible()
    expect(portal.page.locator("#stage-body")).to_contain_text("403 app_forbidden")
    expect(portal.page.locator("#mint-state")).to_have_text("403 Forbidden")
    expect(portal.page.locator("iframe")).to_have_count(0)


def test_too_many_mints_say_how_long_to_wait(portal: Portal) -> None:
    portal.visit()
    portal.refusal("Too many mints")
    expect(portal.page.locator("#mint-state")).to_have_text("429 Too Many Requests")
    stage = portal.page.locator("#stage-body")
    expect(stage).to_contain_text("429 rate_limited")
    expect(stage).to_contain_text(re.compile(r"Retry-After says: try again in \d+ seconds\."))
    expect(portal.page.locator("#answer-head")).to_contain_text("Retry-After")
    expect(portal.page.locator("#curl")).to_contain_text("portal-limited:$CLIENT_SECRET")
    # The other client is none the worse for it.
    portal.page.get_by_role("button", name="Mint again").click()
    portal.opened()


def test_the_same_address_in_a_tab_opens_nothing(portal: Portal, context: "BrowserContext") -> None:
    portal.visit()
    portal.refusal("Outside a frame")
    with context.expect_page() as tab:
        portal.page.get_by_role("link", name="Open the address in a tab").click()
    expect(tab.value.get_by_role("heading")).to_have_text("This app opens inside another page")
    expect(tab.value.get_by_text("not_framed")).to_be_visible()
    assert "pat_" not in tab.value.evaluate("location.href")


def test_cleo_has_her_access_again_after_the_demonstration_took_it(portal: Portal) -> None:
    portal.visit("cleo", "support")
    portal.refusal("Access lost")
    expect(portal.page.locator("#frame-state")).to_have_text("401 access_revoked")
    portal.page.get_by_role("button", name="Mint again").click()
    expect(portal.opened().get_by_role("heading", name="No tickets yet")).to_be_visible()


def test_after_a_reload_of_a_bare_frame_one_press_opens_the_app_again(portal: Portal) -> None:
    portal.visit()
    portal.refusal("Used token")
    portal.opened()
    portal.page.frames[1].evaluate("location.reload()")
    expect(portal.page.locator("#frame-state")).to_have_text("401 token_missing")
    portal.page.get_by_role("button", name="Open again").click()
    expect(heading(portal.opened())).to_have_text("Orders")


def test_the_portal_listens_to_the_frame_it_shows_alone(portal: Portal) -> None:
    portal.visit()
    for shown in ("script", "bare"):
        if shown == "bare":
            portal.refusal("Used token")
            portal.opened()
        heard = portal.page.evaluate(
            """(address) => new Promise((done) => {
                const heard = [];
                addEventListener("message", (event) => {
                    heard.push([event.origin, event.data.code]);
                    if (heard.length === 2) done(heard);
                });
                const forged = {type: "TJ_EMBED_APP_LOGOUT", error: 401, code: "forged", message: "forged"};
                postMessage(forged, "*");
                document.body.append(Object.assign(document.createElement("iframe"), {src: address}));
            })""",
            f"{portal.demo.frames}/embed-apps/{SUPPORT_ID}",
        )
        assert sorted(heard) == [[portal.demo.frames, "token_missing"], [portal.demo.portal, "forged"]]
        expect(portal.page.locator("#frame-state")).to_have_text("loaded")
        expect(portal.log).to_have_count(0)


# ---- The script: what it tells, and what it is told ----


def test_the_events_of_an_opening_are_listed_as_they_come(portal: Portal) -> None:
    portal.visit()
    expect(portal.asked("initial")).to_contain_text(re.compile(r"201 Created · pat_[0-9a-f]{4}…"))
    expect(portal.event("loaded")).to_contain_text("title: Orders")
    expect(portal.event("resize")).to_contain_text(re.compile(r"height: \d{3,}"))
    names = portal.page.locator("#log li.from-frame").evaluate_all("all => all.map((li) => li.dataset.type)")
    assert names.index("ready") < names.index("loaded")
    expect(portal.page.locator("#left")).to_have_text(re.compile(r"^Session (60:00|59:\d\d)$"))


def test_the_portal_tells_the_app_what_to_show_and_hears_what_ana_opens(portal: Portal) -> None:
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


def test_theme_and_language_change_while_ana_types(portal: Portal) -> None:
    frame = portal.visit()
    frame.get_by_role("searchbox").fill("half a wo")
    portal.choose("Dark")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    portal.choose("Español")
    expect(portal.page.locator("pat-embed")).to_have_attribute("locale", "es")
    expect(portal.page.locator("#html")).to_contain_text('theme="dark"')
    expect(portal.page.locator("#call")).to_contain_text('locale: "es"')
    expect(frame.get_by_role("searchbox")).to_have_value("half a wo")
    expect(portal.asked("")).to_have_count(1)


def test_the_height_is_that_of_the_content_or_the_pages_own(portal: Portal) -> None:
    frame = portal.visit()

    def height(of: Locator) -> float:
        return float(of.evaluate("element => element.getBoundingClientRect().height"))

    iframe = portal.page.locator("pat-embed iframe").last
    until(portal.page, lambda: abs(height(iframe) - height(frame.locator("html"))) <= 1)
    portal.page.get_by_role("checkbox", name="Auto height").uncheck()
    portal.opened()
    expect(portal.page.locator("#call")).to_contain_text("autoHeight: false")
    until(portal.page, lambda: height(iframe) == 760)


def test_a_bare_frame_cannot_be_driven(portal: Portal) -> None:
    portal.visit()
    portal.refusal("Made-up token")
    expect(portal.page.locator("#frame-state")).to_have_text("401 token_invalid")
    for driving in (
        portal.page.get_by_role("button", name="Renew now"),
        portal.page.get_by_role("button", name="Send"),
        portal.page.get_by_role("radio", name="Dark"),
        portal.page.get_by_role("checkbox", name="Auto height"),
    ):
        expect(driving).to_be_disabled()
    portal.page.get_by_role("button", name="Mint again").click()
    portal.opened()
    expect(portal.page.get_by_role("button", name="Renew now")).to_be_enabled()


def test_a_session_is_renewed_in_place(portal: Portal) -> None:
    frame = portal.visit()
    frame.get_by_role("searchbox").fill("half a wo")
    portal.page.get_by_role("button", name="Renew now").click()
    expect(portal.event("session:renewed")).to_contain_text("expiresIn: 3600")
    expect(portal.asked("expiring")).to_have_count(1)
    portal.choose("1 min")
    expect(portal.event("session:renewed")).to_contain_text("expiresIn: 60")
    expect(portal.page.locator("#left")).to_have_text(re.compile(r"^Session (1:00|0:\d\d)$"))
    expect(portal.page.locator("#curl")).to_contain_text('"sessionExpiry": 1,')
    expect(frame.get_by_role("searchbox")).to_have_value("half a wo")
    expect(portal.page.locator("#frame-state")).to_have_text("loaded")


def test_a_session_that_the_server_ends_is_told_at_the_next_request(portal: Portal) -> None:
    frame = portal.visit()
    portal.page.get_by_role("button", name="End it on the server").click()
    expect(portal.page.locator("#mint-state")).to_have_text("204 No Content")
    expect(portal.page.locator("#curl")).to_contain_text("curl -X DELETE")
    # An idle frame looks by itself, some time later.
    rows(frame).locator("a").first.click()
    expect(portal.event("session:revoked")).to_contain_text("code: session_revoked")
    expect(portal.page.locator("#frame-state")).to_have_text("401 session_revoked")
    expect(portal.page.locator("#left")).to_be_hidden()
    frame.get_by_role("button", name="Try again").click()
    expect(heading(portal.opened())).to_have_text("Orders")
    expect(portal.asked("reload")).to_have_count(1)


def test_a_token_endpoint_that_fails_is_asked_again_and_mended(portal: Portal, witness: "Witness") -> None:
    witness.allow("503", "fetch_token_failed")
    portal.visit()
    portal.choose("Fails")
    portal.page.get_by_role("button", name="Renew now").click()
    expect(portal.asked("expiring").first).to_contain_text("The token endpoint is broken.")
    # Ana does not notice: her session is good, and another try succeeds.
    portal.choose("Answers")
    expect(portal.event("session:renewed")).to_contain_text("expiresIn: 3600")
    expect(portal.log).to_have_count(0)
    expect(portal.page.locator("#frame-state")).to_have_text("loaded")


def test_a_token_endpoint_that_hangs_is_not_waited_for(portal: Portal) -> None:
    portal.visit()
    portal.choose("Hangs")
    portal.page.get_by_role("button", name="Renew now").click()
    expect(portal.asked("expiring").first).to_contain_text("No answer within 5 s")
    portal.choose("Answers")
    expect(portal.event("session:renewed")).to_contain_text("expiresIn: 3600")
    expect(portal.page.locator("#frame-state")).to_have_text("loaded")


def test_a_reload_inside_the_frame_opens_the_app_again_by_itself(portal: Portal) -> None:
    portal.visit()
    portal.page.frames[1].evaluate("location.reload()")
    expect(portal.page.locator('#log li[data-type="loaded"]')).to_have_count(2)
    expect(heading(portal.opened())).to_have_text("Orders")
    expect(portal.log).to_have_count(0)


# ---- What stands behind a frame ----


def test_the_curl_that_is_shown_works_as_pasted(portal: Portal) -> None:
    portal.visit()
    pasted = portal.page.locator("#curl").inner_text()
    assert portal.demo.secret() not in pasted
    answer = curl(pasted, portal.demo.tree, CLIENT_SECRET=portal.demo.secret())
    assert re.fullmatch(r"pat_[0-9a-f]{72}", answer["personalAccessToken"])
    assert answer["redirectUrl"].startswith(f"{portal.demo.frames}/embed-apps/")
    assert (answer["expiresIn"], answer["sessionExpiresIn"]) == (300, 3600)


def test_both_curls_of_a_revocation_are_shown_and_the_second_works_as_pasted(portal: Portal) -> None:
    portal.visit()
    portal.refusal("Revoked token")
    expect(portal.page.locator("#frame-state")).to_have_text("401 token_revoked")
    mint, revoke = portal.page.locator("#curl").inner_text().split("\n\n")
    assert mint.startswith("curl http")
    assert revoke.startswith("curl -X DELETE http")
    if shutil.which("curl"):
        # Twice is the same as once.
        assert shell(revoke + " -sSf", portal.demo.tree, CLIENT_SECRET=portal.demo.secret()) == ""


ATTRIBUTES = "({attributes}) => Object.fromEntries([...attributes].map(({name, value}) => [name, value]))"


def test_the_tag_that_is_shown_is_the_one_in_the_page(portal: Portal) -> None:
    portal.visit()
    shown = portal.page.locator("#html").inner_text()
    assert f'<script src="{portal.demo.frames}/embed.js" defer></script>' in shown
    attributes = portal.page.locator("pat-embed").evaluate(ATTRIBUTES)
    tag = shown.partition("<pat-embed")[2].partition(">")[0]
    written = {name: value for name, _, value in re.findall(r'([a-z-]+)(="([^"]*)")?', tag)}
    assert written == {name: value for name, value in attributes.items() if name not in ("class", "style")}


def test_the_iframe_that_is_shown_is_the_one_in_the_page(portal: Portal) -> None:
    portal.visit()
    portal.refusal("Used token")
    portal.opened()
    shown = portal.page.locator("#html").inner_text()
    attributes = portal.page.locator("#stage-body iframe").evaluate(ATTRIBUTES)
    attributes["src"] = re.sub(r"(pat_.{4}).*", r"\1…", attributes["src"])
    assert dict(re.findall(r'([a-z]+)="([^"]*)"', shown)) == attributes


def test_the_browser_never_sees_a_client_secret(portal: Portal) -> None:
    portal.visit()
    page = portal.page
    texts = [
        page.content(),
        *(
            page.evaluate("path => fetch(path).then(r => r.text())", path)
            for path in ("/", "/static/portal/portal.js")
        ),
    ]
    cases = page.locator("[data-case]").evaluate_all("buttons => buttons.map(b => b.dataset.case)")
    for case in ["normal", *cases]:
        wish = {"person": "ana", "app": "orders", "case": case, "region": "north"}
        answer = page.evaluate(
            """wish => fetch("/portal/open", {method: "POST", body: JSON.stringify(wish),
                headers: {"Content-Type": "application/json"}}).then((answer) => answer.text())""",
            wish,
        )
        assert json.loads(answer)["person"]
        texts.append(answer)
    expect(portal.page.locator("#curl")).to_contain_text("$CLIENT_SECRET")
    for client in ("portal", "portal-limited"):
        assert not [text for text in texts if portal.demo.secret(client) in text]
    for private in ("/instance/demo.json", "/static/../instance/demo.json", "/demo.json"):
        assert page.evaluate("path => fetch(path).then((answer) => answer.status)", private) == 404
    assert "demo.json" in page.content()  # where a person finds it is said


def test_no_cookie_and_no_token_goes_where_it_should_not(portal: Portal, witness: "Witness") -> None:
    frame = portal.visit()
    rows(frame).locator("a").first.click()
    expect(heading(frame)).to_have_text(re.compile("^Order "))
    portal.page.get_by_role("link", name="Support desk").click()
    expect(heading(portal.opened())).to_have_text("Support")
    assert not witness.response_headers("set-cookie")
    assert not witness.request_headers("cookie")
    assert not [url for url, value in witness.request_headers("referer") if "pat_" in value]
    assert not [url for url in witness.urls() if "pat_" in url]
    assert {url.split("/", 3)[2] for url in witness.urls()} == {
        f"localhost:{portal.demo.server.port}",
        f"127.0.0.1:{portal.demo.server.port}",
    }
    log = portal.demo.server.log.read_text()
    assert '"path": "/embed-apps/' in log or '"path":"/embed-apps/' in log
    assert "pat_" not in log
    assert "eyJ" not in log


def test_under_the_frames_own_name_the_portal_sends_one_on(portal: Portal) -> None:
    portal.page.goto(f"{portal.demo.frames}/")
    expect(portal.page).to_have_url(re.compile("^" + re.escape(f"{portal.demo.portal}/")))
    portal.opened()


def test_before_the_demo_is_loaded_the_page_says_how_to_load_it(portal: Portal) -> None:
    kept = portal.demo.tree / "instance/demo.json"
    kept.unlink()
    portal.page.goto(f"{portal.demo.portal}/")
    expect(portal.page.get_by_role("heading", name="Load the demo")).to_be_visible()
    portal.page.set_viewport_size({"width": 360, "height": 800})
    assert portal.page.locator(":root").evaluate(OVERFLOW) == 0
    shell(portal.page.locator("#load-command").inner_text(), portal.demo.tree)
    portal.page.get_by_role("link", name="Reload this page").click()
    expect(heading(portal.opened())).to_have_text("Orders")


# ---- How it looks ----


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_both_colour_schemes_are_there(
    browser: "Browser", demo: Demo, width: int, scheme: Literal["light", "dark"]
) -> None:
    context = browser.new_context(viewport={**TALL, "width": width}, color_scheme=scheme)
    try:
        portal = Portal(context.new_page(), demo)
        for app in ("orders", "support"):
            frame = portal.visit("ana", app)
            _looks_right(portal, frame, scheme)
            frame.locator(".row-link, .ticket-link").first.click()
            expect(heading(frame)).not_to_have_text(re.compile("^(Orders|Support)$"))
            _looks_right(portal, frame, scheme)
        _looks_right(portal, portal.visit("ana", "all", "north"), scheme)
        frame = portal.visit("cleo", "orders", "north")
        expect(frame.get_by_role("heading", name="No orders for North")).to_be_visible()
        _looks_right(portal, frame, scheme)
        portal.visit("cleo", "support").get_by_role("link", name="New ticket").click()
        expect(heading(frame)).to_have_text("New ticket")
        frame.get_by_role("button", name="Send").click()
        expect(frame.locator(".error").first).to_be_visible()
        _looks_right(portal, frame, scheme)
        portal.refusal("Made-up token")
        expect(portal.log).to_have_count(1)
        _looks_right(portal, frame, scheme)
    finally:
        context.close()


def _looks_right(portal: Portal, frame: FrameLocator, scheme: str) -> None:
    assert portal.page.locator(":root").evaluate(OVERFLOW) == 0
    assert frame.locator(":root").evaluate(OVERFLOW) == 0
    assert set(frame.locator(".stat dd:first-of-type").evaluate_all(LINES)) <= {1}, "A figure is broken"
    for body in (portal.page.locator("body"), frame.locator("body")):
        colour = body.evaluate("body => getComputedStyle(body).backgroundColor")
        light = sum(int(part) for part in re.findall(r"\d+", colour)[:3]) > 3 * 128
        assert light == (scheme == "light"), colour
