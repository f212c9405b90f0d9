"""Scripts of an app are called for each page. A link back leads to the place that the viewer left."""

from datetime import UTC, datetime

from playwright.sync_api import Frame, Route, expect
from sqlalchemy import update

from pat_service.storage.models import Session
from tests.e2e.browser.installation import click, expect_heading, go
from tests.e2e.browser.portal import MINT_SHARING_OVER_SECONDS, Portal, tag
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.test_in_sight import LONG_PAGE, expect_in_sight, press_link, scroll_to

CHARTS = "[document.querySelectorAll('canvas').length, timers]"


def test_a_script_hears_of_each_page_and_its_chart_survives(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("on purpose")
    portal.page.clock.install()
    frame = portal.open('id="it"')
    assert frame.evaluate(CHARTS) == [1, 1]
    go(frame, "Second page")
    assert frame.evaluate(CHARTS) == [1, 1]
    go(frame, "Back to the first", "Lab of Ana")
    assert frame.evaluate(CHARTS) == [1, 1]
    click(frame, "Keep")  # an empty note comes back with its errors
    expect(frame.locator("#text-error")).to_be_visible()
    frame.evaluate("embed.page('search', { q: 'a b', x: '1' })")
    expect_heading(frame, "Found “a b”")
    leave = "leave {}, with its chart"
    first = [
        *("enter index?", leave.format("index"), "enter second?", leave.format("second")),
        *("enter index?", leave.format("index"), "enter note?", leave.format("note")),
        "enter search?q=a+b&x=1",
    ]
    assert frame.evaluate("heard") == first
    # A page that is not shown changes nothing, and neither does a renewal or a part.
    frame.evaluate("embed.page('gone')")
    expect(frame.get_by_role("alert")).not_to_be_empty()
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    portal.page.evaluate("it.frame.refresh()")
    portal.events("session:renewed")
    assert frame.evaluate("heard") == first

    # A late listener hears of the shown page. One that throws stops no other.
    frame.evaluate(
        """() => {
            window.late = [];
            embed.on("page", () => { throw new Error("on purpose"); });
            const listener = ({ element, page, params }) => {
                late.push([element.id, page, params.get("q")]);
                params.set("q", "changed");
                return () => { late.push("left"); };
            };
            window.off = embed.on("page", listener);
            embed.on("page", listener);
            embed.on("page", () => Promise.resolve("no function"));
        }"""
    )
    found = ["embed-main", "search", "a b"]
    assert frame.evaluate("late") == [found, "left", found]
    frame.evaluate("void (off(), off())")
    frame.evaluate("embed.page('second')")
    expect_heading(frame, "Second page")
    assert frame.evaluate("late") == [found, "left", found, "left"]
    # The host page cannot send an event of this name.
    refused = "(() => { try { it.frame.send('page', 1); } catch (error) { return error.name; } })()"
    assert portal.page.evaluate(refused) == "TypeError"

    # The end of the frame is the end of its page.
    frame.evaluate("embed.end()")
    expect(frame.locator(".embed-refused")).to_be_visible()
    assert frame.evaluate("timers") == 0
    assert frame.evaluate("heard.at(-1)") == "leave second, with its chart"


def test_a_swap_that_meets_a_renewal_enters_its_page_once(portal: Portal) -> None:
    portal.page.clock.install()
    frame = portal.open()
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    portal.installation.change(update(Session).values(expires_at=datetime.now(UTC)))
    held: list[Route] = []
    portal.answers = [held.append]
    press_link(frame, "Second page")
    portal.wait_until(lambda: bool(held))
    press_link(frame, "Upload")  # the viewer changes their mind
    portal.mint(held.pop())
    portal.events("session:renewed")
    expect_heading(frame, "Upload")
    assert frame.evaluate("heard.slice(2)") == ["enter upload?"]
    assert frame.evaluate(CHARTS) == [1, 1]
    expect(frame.locator(".embed-progress")).to_have_count(0)


def open_list(frame: Frame) -> None:
    frame.evaluate("embed.page('list')")
    expect_heading(frame, "List")


def test_a_link_back_returns_to_the_place_in_the_list(portal: Portal) -> None:
    frame = portal.open()
    open_list(frame)
    row = frame.get_by_role("link", name="Row 60", exact=True)
    row.scroll_into_view_if_needed()
    place = frame.evaluate("scrollY")
    assert place > 500
    row.click()
    expect_heading(frame, "Row 60")
    assert frame.evaluate("scrollY") == 0
    go(frame, "Back to the list", "List")
    assert abs(frame.evaluate("scrollY") - place) < 2
    assert frame.evaluate("document.activeElement.text") == "Row 60"
    # Over another page, the link leads to the top, as usual.
    row.click()
    expect_heading(frame, "Row 60")
    go(frame, "Next", "Row 61")
    go(frame, "Back to the list", "List")
    assert frame.evaluate("scrollY") == 0
    assert frame.evaluate("document.activeElement.tagName") == "H1"


def test_a_link_back_returns_to_the_place_in_a_high_frame(portal: Portal) -> None:
    portal.visit(LONG_PAGE.format(tag("auto-height")))
    portal.events("loaded")
    frame = portal.opened_frame()
    open_list(frame)
    portal.page.wait_for_function("document.querySelector('iframe').offsetHeight > 1600", polling=50)
    scroll_to(portal, 1500)
    row = frame.get_by_role("link", name="Row 60", exact=True)
    expect_in_sight(portal, row)
    row.click()
    expect_heading(frame, "Row 60")
    expect_in_sight(portal, frame.locator("h1"))
    go(frame, "Back to the list", "List")
    portal.wait_until(lambda: abs(portal.page.evaluate("scrollY") - 1500) < 3)
    expect_in_sight(portal, row)
    assert frame.evaluate("document.activeElement.text") == "Row 60"
