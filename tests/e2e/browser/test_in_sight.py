"""A frame as high as its content, in a long host page: what it says is in sight, and all can be reached."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Final

import pytest
from playwright.sync_api import Frame, Locator, expect
from pypdf import PdfReader
from sqlalchemy import update

from pat_service.storage.models import Session
from tests.e2e.browser.installation import click
from tests.e2e.browser.portal import (
    EXPIRED_SECONDS,
    MINT_SHARING_OVER_SECONDS,
    SHORT_SESSION,
    Portal,
    status_answer,
    tag,
)

#: Around the frame, a long page of the host.
LONG_PAGE: Final = """<style>pat-embed {{ height: auto }}</style>
<div style="height: 700px"></div>{}<div style="height: 3000px"></div>"""
CONTENT_PX: Final = 3000


def fill_page(frame: Frame) -> None:
    """Make the app's page high, with links along it."""
    frame.evaluate(
        """(height) => {
            const main = document.getElementById("embed-main");
            const tall = Object.assign(document.createElement("div"), { id: "tall" });
            tall.style.cssText = `height: ${height}px; position: relative`;
            main.append(tall);
        }""",
        CONTENT_PX,
    )


def open_high(portal: Portal, attributes: str = "") -> Frame:
    portal.visit(LONG_PAGE.format(tag(f"auto-height {attributes}")))
    portal.events("loaded")
    frame = portal.opened_frame()
    fill_page(frame)
    portal.page.wait_for_function(
        "(height) => document.querySelector('iframe').offsetHeight > height", arg=CONTENT_PX, polling=50
    )
    return frame


def scroll_to(portal: Portal, y: int) -> None:
    portal.page.evaluate("(y) => scrollTo(0, y)", y)


def expect_in_sight(portal: Portal, part: Locator, within: tuple[int, int] = (0, 800)) -> None:
    """Wait until the whole part is between these heights of the window."""

    def is_in_sight() -> bool:
        box = part.bounding_box()
        return box is not None and box["y"] >= within[0] and box["y"] + box["height"] <= within[1] + 0.5

    portal.wait_until(is_in_sight)


def press_link(frame: Frame, name: str) -> None:
    """Press a link without scrolling to it."""
    frame.evaluate("(name) => [...document.links].find((link) => link.text === name).click()", name)


def test_notices_and_the_progress_bar_are_in_sight_at_every_position(portal: Portal) -> None:
    frame = open_high(portal)
    scroll_to(portal, 2600)
    press_link(frame, "Gone")
    notice = frame.locator(".embed-notice > .notice")
    expect_in_sight(portal, notice)
    for y in (2700, 3000, 1200, 900, 20, 3700):  # 20 and 3700: only an end of the frame is in view
        scroll_to(portal, y)
        expect_in_sight(portal, notice)
        assert portal.page.evaluate("scrollY") == y
    scroll_to(portal, 2600)
    portal.pause("**/pages/second")
    press_link(frame, "Second page")
    bar = frame.locator(".embed-progress")
    expect_in_sight(portal, bar)
    assert frame.evaluate("document.getElementById('embed-main').ariaBusy") == "true"
    portal.resume()
    expect(bar).to_have_count(0)
    expect(notice).to_have_count(0)


def test_a_dialog_opens_in_the_middle_of_the_visible_part_and_follows(portal: Portal) -> None:
    frame = open_high(portal)
    scroll_to(portal, 2600)
    frame.evaluate(
        """() => {
            const dialog = document.createElement("dialog");
            dialog.innerHTML = "<p>Sure?</p><button>Yes</button>";
            document.getElementById("embed-main").append(dialog);
            dialog.querySelector("button").onclick = () => dialog.close();
            window.dialog = dialog;
            dialog.showModal();
        }"""
    )
    dialog = frame.locator("dialog")
    expect_in_sight(portal, dialog, (250, 550))
    scroll_to(portal, 1500)
    expect_in_sight(portal, dialog)
    scroll_to(portal, 2900)
    expect_in_sight(portal, dialog)
    frame.evaluate("document.querySelector('dialog').style.height = '1500px'")
    # The end of a dialog that is higher than the window can be reached.
    for y, edge in ((900, "top"), (3500, "bottom")):
        scroll_to(portal, y)

        def shows(edge: str = edge) -> bool:
            box = dialog.bounding_box()
            assert box
            return 0 <= (box["y"] if edge == "top" else box["y"] + box["height"]) <= 800

        portal.wait_until(shows)
    frame.evaluate("dialog.close()")
    frame.wait_for_function("() => dialog.style.translate === ''", polling=50)


@pytest.fixture
def short_portal(portal: Portal) -> Portal:
    portal.mint_options = dict(SHORT_SESSION)
    portal.page.clock.install()
    return portal


def test_covers_and_the_reconnecting_line_are_in_sight(short_portal: Portal) -> None:
    portal = short_portal
    frame = open_high(portal, 'token-timeout="600000"')
    scroll_to(portal, 2600)
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    portal.answers = [portal.paused.append, status_answer(403)]
    portal.installation.change(update(Session).values(expires_at=datetime.now(UTC)))
    frame.evaluate("void embed.fetch('data/me')")
    portal.fast_forward(EXPIRED_SECONDS)
    line = frame.locator(".embed-reconnecting")
    expect_in_sight(portal, line)
    portal.wait_until(lambda: bool(portal.paused))
    portal.paused.pop().fulfill(status=403, json={"detail": "Signed out."})
    panel = frame.locator(".embed-cover main")
    expect_in_sight(portal, panel)
    scroll_to(portal, 1000)
    expect_in_sight(portal, panel)
    portal.answers = []
    panel.get_by_role("button", name="Try again").click()
    portal.events("session:renewed")
    expect(panel).to_have_count(0)
    assert frame.evaluate("document.getElementById('tall').offsetHeight") == CONTENT_PX


def revoke(portal: Portal, frame: Frame) -> None:
    portal.installation.change(update(Session).values(ended_at=datetime.now(UTC)))
    frame.evaluate("void embed.fetch('data/me')")


def end(portal: Portal, frame: Frame) -> None:
    frame.evaluate("void embed.end()")


@pytest.mark.parametrize("finish", [revoke, end])
def test_the_panel_of_an_ended_frame_is_in_sight(
    portal: Portal, finish: Callable[[Portal, Frame], None]
) -> None:
    frame = open_high(portal)
    scroll_to(portal, 2600)
    finish(portal, frame)
    panel = frame.locator(".embed-refused")
    expect_in_sight(portal, panel)
    assert portal.page.evaluate("scrollY") == 2600
    # The frame ends with the part that was in sight.
    iframe = portal.page.locator("iframe")
    portal.wait_until(lambda: abs(iframe.evaluate("it => it.getBoundingClientRect().bottom") - 800) < 1)
    scroll_to(portal, 1100)
    expect_in_sight(portal, panel)
    panel.get_by_role("button", name="Try again").click()
    portal.events("loaded", 2)


def test_positioned_content_below_the_end_can_be_reached(portal: Portal) -> None:
    frame = portal.open("auto-height")
    frame.evaluate(
        """() => {
            document.querySelector("#embed-main").innerHTML = `<h1>Menus</h1>
              <div id="pick"><button>Menu</button><div id="menu" hidden></div></div>
              <details id="details"><summary>Details</summary><p id="float"></p></details>`;
            pick.style.cssText = "position: relative; width: fit-content";
            menu.style.cssText = "position: absolute; top: 100%; height: 480px; width: 99px";
            float.style.cssText = "position: absolute; height: 600px; width: 90px";
            document.querySelector("button").onclick = () => { menu.hidden = !menu.hidden; };
        }"""
    )

    def height_is(least: int, most: int) -> Callable[[], bool]:
        return lambda: least <= portal.page.locator("iframe").evaluate("it => it.offsetHeight") <= most

    portal.wait_until(height_is(100, 300))
    for opener, least in (("Menu", 500), ("Details", 650)):
        frame.get_by_text(opener, exact=True).click()
        portal.wait_until(height_is(least, 900))
        frame.get_by_text(opener, exact=True).click()
        portal.wait_until(height_is(100, 300))
    # Shown by a style sheet alone, and positioned at the page itself.
    frame.evaluate(
        """() => {
            const sheet = new CSSStyleSheet();
            sheet.replaceSync("#pick:hover #menu { display: block !important } #menu { position: absolute }");
            document.adoptedStyleSheets = [sheet];
            menu.hidden = true;
            menu.style.cssText = "top: 300px; height: 500px; width: 100px";
            pick.style.position = "static";
        }"""
    )
    frame.get_by_role("button", name="Menu").hover()
    portal.wait_until(height_is(800, 801))
    portal.page.mouse.move(1, 1)
    portal.wait_until(height_is(100, 300))
    # Content that depends on the frame's height does not grow forever.
    frame.evaluate("void (menu.hidden = false, menu.style.height = '100vh', menu.style.top = '40px')")
    portal.page.wait_for_timeout(2500)
    assert height_is(100, 5000)()


def test_a_fast_answer_shows_no_progress_and_a_slow_one_a_bar(portal: Portal) -> None:
    frame = portal.open()
    portal.pause("**/pages/second")
    click(frame, "Second page")
    bar = frame.locator(".embed-progress")
    expect(bar).to_be_attached()
    style = "it => [getComputedStyle(it).animationDelay, getComputedStyle(it).animationFillMode]"
    assert bar.evaluate(style) == ["0.3s", "both"]  # before that it is transparent
    portal.page.emulate_media(reduced_motion="reduce")
    assert bar.evaluate(style) == ["0.3s", "both"]
    assert bar.evaluate("it => getComputedStyle(it, '::before').animationName") == "none"
    frame.wait_for_function(
        "() => getComputedStyle(document.querySelector('.embed-progress')).opacity === '1'"
    )
    portal.resume()
    expect(bar).to_have_count(0)


#: Opens a modal dialog of the app, with a link in it.
OPEN_DIALOG: Final = """() => {
    const dialog = document.createElement("dialog");
    dialog.className = "embed-cover";  // a name that markup can have too
    dialog.innerHTML = `<p>Sure?</p>
        <a href="${document.querySelector("#embed-main a[href$=gone]").getAttribute("href")}">Ask</a>`;
    document.getElementById("embed-main").append(dialog);
    dialog.showModal();
}"""


def test_notices_and_covers_can_be_used_over_an_apps_dialog(short_portal: Portal) -> None:
    portal = short_portal
    frame = portal.open()
    frame.evaluate(OPEN_DIALOG)
    frame.evaluate(
        "document.querySelector('#embed-main > dialog').style.cssText = 'width: 300px; height: 200px'"
    )
    frame.get_by_role("link", name="Ask").click()
    notice = frame.locator("#embed-main > dialog").get_by_role("alert")
    expect(notice).to_contain_text("There is nothing here.")
    notice.get_by_role("button", name="Dismiss").click()
    expect(notice).to_have_count(0)
    # The session ends, and the portal refuses another token.
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    portal.answers = [status_answer(403)]
    portal.installation.change(update(Session).values(expires_at=datetime.now(UTC)))
    frame.evaluate("void embed.fetch('data/me')")
    portal.events("error", 2)
    portal.fast_forward(EXPIRED_SECONDS)
    cover = frame.locator("body > .embed-cover")
    expect(cover.locator("h1")).to_be_focused()
    button = cover.get_by_role("button", name="Try again")
    for _ in range(3):  # a browser closes a dialog at the second Escape in a row
        portal.page.keyboard.press("Escape")
    expect(button).to_be_visible()
    frame.evaluate("document.querySelector('body > .embed-cover').close()")  # as a phone's button back
    expect(button).to_be_visible()
    button.click()
    portal.events("session:renewed")
    expect(cover).to_have_count(0)
    expect(frame.locator("#embed-main > dialog")).to_be_visible()
    assert frame.evaluate("document.querySelector('#embed-main > dialog').matches(':modal')")


def test_a_cover_is_whole_in_a_short_app_and_takes_no_focus(short_portal: Portal) -> None:
    portal = short_portal
    frame = portal.open("auto-height")
    frame.evaluate("document.getElementById('embed-main').innerHTML = '<h1>Short</h1>'")
    iframe = portal.page.locator("iframe")
    portal.wait_until(lambda: iframe.evaluate("it => it.offsetHeight") < 120)
    portal.page.locator("#own").focus()
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    portal.answers = [status_answer(403)]
    portal.fast_forward(EXPIRED_SECONDS)
    expect(frame.locator("body > .embed-cover h1")).to_be_visible()
    assert portal.page.evaluate("document.activeElement.id") == "own"
    portal.wait_until(lambda: iframe.evaluate("it => it.offsetHeight") > 200)
    expect_in_sight(portal, frame.locator(".embed-cover main"))
    frame.get_by_role("button", name="Try again").click()
    portal.events("session:renewed")
    portal.wait_until(lambda: iframe.evaluate("it => it.offsetHeight") < 120)


def test_an_app_that_floods_does_not_keep_the_frame_busy(portal: Portal) -> None:
    """Hundreds of dialogs, notices with markup, and content that changes all the time."""
    frame = open_high(portal)
    scroll_to(portal, 2600)
    frame.evaluate(
        """() => {
            const main = document.getElementById("embed-main");
            for (let count = 0; count < 300; count++) {
                const dialog = main.appendChild(document.createElement("dialog"));
                dialog.showModal();
                dialog.close();
                dialog.show();
                dialog.remove();
            }
            const box = main.appendChild(document.createElement("p"));
            window.flood = setInterval(() => {
                box.style.height = `${Math.random() * 50}px`;
                box.textContent = Math.random();
            });
        }"""
    )
    problem = {"status": 418, "code": "<img src=x onerror=window.pwned=1>", "detail": "<b>bold</b>"}
    answer = {"status": 418, "content_type": "application/problem+json", "body": json.dumps(problem)}
    portal.page.route("**/pages/gone", lambda route: route.fulfill(**answer))
    for _ in range(30):
        press_link(frame, "Gone")
    notice = frame.locator(".embed-notice > .notice")
    expect(notice).to_contain_text("<b>bold</b>")
    expect_in_sight(portal, notice)
    assert frame.evaluate("window.pwned") is None
    frame.evaluate("clearInterval(flood)")
    press_link(frame, "Second page")
    expect(frame.locator("h1")).to_have_text("Second page")


def test_printing_cuts_nothing_off(portal: Portal) -> None:
    """On narrow paper the text needs more lines than on the screen, but the host's page keeps the height."""
    portal.visit(f"<style>pat-embed {{ width: auto; height: auto }}</style>{tag('auto-height')}<p>Footer</p>")
    portal.events("loaded")
    frame = portal.opened_frame()
    frame.evaluate(
        """() => {
            const text = "<p>" + "Lorem ".repeat(900) + "</p><p>The last words</p>";
            document.getElementById("embed-main").innerHTML = `<h1>Long</h1>${text}`;
        }"""
    )
    height = "document.querySelector('iframe').offsetHeight"
    portal.page.wait_for_function(f"{height} > 300 && {height}", polling=50)
    pages = PdfReader(BytesIO(portal.page.pdf(format="A5"))).pages
    text = " ".join(page.extract_text() for page in pages)
    assert (text.count("Lorem"), "The last words" in text, "Footer" in text) == (900, True, True)
