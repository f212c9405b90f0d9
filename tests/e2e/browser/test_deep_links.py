"""Links to pages of an app, the page's address with Back and Forward, sign-out, and many frames."""

from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Frame, Page, expect
from sqlalchemy import select

from pat_service.storage.models import Session
from tests.e2e.browser.installation import BEN, LAB, HostPage, expect_heading, go, session_of
from tests.e2e.browser.portal import SLOT_HTML, Portal, tag
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until_ready

#: The lab's second page.
SECOND = "Second page"


def live_sessions(portal: Portal) -> int:
    """Return the number of sessions that have not been ended."""
    return len(portal.installation.rows(select(Session.id).where(Session.ended_at.is_(None))))


def query(page: Page) -> str:
    return urlsplit(page.url).query


def wait_for_heading(portal: Portal, text: str) -> Frame:
    frame = portal.frame()
    expect_heading(frame, text)
    return frame


def test_a_frame_opens_at_a_page_and_goes_to_others_without_a_mint(portal: Portal) -> None:
    frame = portal.open('page="second" params="q=1&amp;q=%C3%A9" id="it"')
    expect_heading(frame, SECOND)
    # The index page's script runs on every first page.
    assert frame.evaluate("typeof search") == "function"
    listen = (
        "new Promise((done) => { embed.on('page', ({ page, params }) => done([page, String(params)])); })"
    )
    assert frame.evaluate(listen) == ["second", "q=1&q=%C3%A9"]
    portal.page.evaluate("it.setAttribute('page', 'index'); it.setAttribute('params', '')")
    expect_heading(frame, "Lab of Ana")
    portal.page.evaluate("it.frame.navigate('second', { n: 'a b' })")
    expect_heading(frame, SECOND)
    shown = [(event["page"], event["params"]) for event in portal.events("navigate", 2)]
    assert shown == [("index", ""), ("second", "n=a+b")]
    for page in ("../second", "Second", "", "second?x=1"):
        call = "(page) => { try { it.frame.navigate(page); } catch (error) { return error.name; } }"
        assert portal.page.evaluate(call, page) == "TypeError"
    assert (len(portal.token_requests), len(portal.page.frames)) == (1, 2)


def test_an_unknown_page_is_the_apps_own_404(portal: Portal) -> None:
    frame = portal.open('page="nothing"')
    expect_heading(frame, "There is nothing here")
    go(frame, "Go to the first page", "Lab of Ana")
    portal.expect_no_error()


def test_a_bare_iframe_opens_at_a_page(host: HostPage) -> None:
    frame = host.embed(host.installation.address() + "&page=second&params=q%3D1")
    expect_heading(frame, SECOND)
    wait_until_ready(frame)
    assert "q" not in urlsplit(frame.url).query
    host.expect_silence()


def test_back_forward_reload_and_bookmarks_work_with_sync_url(portal: Portal) -> None:
    portal.visit(tag('sync-url="at" id="it"'), path="/portal?own=1")
    page = portal.page
    frame = portal.opened_frame()
    assert query(page) == "own=1"
    go(frame, "Second page", SECOND)
    portal.events("navigate")
    assert query(page) == "own=1&at=second"
    portal.page.evaluate("it.frame.navigate('second', 'q=1')")
    page.wait_for_url("**/portal?own=1&at=second%3Fq%3D1")
    # A hash is no other page.
    page.evaluate("location.hash = 'top'")
    page.go_back()
    page.wait_for_timeout(200)
    assert len(portal.events("navigate")) == 2
    page.go_back()
    portal.events("navigate", 3)
    assert query(page) == "own=1&at=second"
    page.go_back()
    expect_heading(frame, "Lab of Ana")
    assert query(page) == "own=1"
    page.go_forward()
    expect_heading(frame, SECOND)
    assert query(page) == "own=1&at=second"
    # Nothing has been added to the history: forward still works.
    page.go_forward()
    portal.events("navigate", 6)
    assert query(page) == "own=1&at=second%3Fq%3D1"
    assert len(portal.token_requests) == 1
    pages = portal.installation.site.pages
    pages["/portal?own=1&at=second%3Fq%3D1"] = pages["/portal?own=1"]
    page.reload()
    expect_heading(portal.opened_frame(), SECOND)
    assert page.evaluate("events.filter(({ name }) => name === 'navigate').length") == 0


def test_the_address_is_the_page_after_hasty_steps_back(portal: Portal) -> None:
    """The frame reports the page between, when the viewer is already one step further."""
    portal.visit(tag('sync-url="at" id="it"'))
    page = portal.page
    portal.opened_frame()
    for number in range(1, 4):
        page.evaluate("(number) => it.frame.navigate('second', { number })", number)
        portal.events("navigate", number)
    steps = page.evaluate("history.length")
    portal.pause("**/pages/second*")
    page.evaluate("""() => {
        const { postMessage } = MessagePort.prototype;
        let steps = 0;
        MessagePort.prototype.postMessage = function (message) {
            const pass = () => postMessage.call(this, message);
            if (message.type === "navigate" && ++steps === 2) window.arrive = pass;
            else pass();
            if (steps === 1) history.back();
        };
        history.back();
    }""")
    page.wait_for_url("**/portal?at=second%3Fnumber%3D1")
    portal.resume()
    portal.events("navigate", 4)
    page.evaluate("arrive()")
    portal.events("navigate", 5)
    assert (query(page), page.evaluate("history.length")) == ("at=second%3Fnumber%3D1", steps)
    # Nothing has been added to the history, which would have removed the steps forward.
    page.go_forward()
    page.go_forward()
    page.wait_for_url("**/portal?at=second%3Fnumber%3D3")


def test_the_address_takes_no_page_that_no_link_can_open(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("sync-url: Too many")
    portal.visit(tag('sync-url="at" id="it"'))
    frame = portal.opened_frame()
    frame.evaluate("embed.page('second', { q: 'x'.repeat(3000) })")
    portal.events("navigate")
    assert query(portal.page) == ""
    # Browsers refuse more than some changes in a time.
    refuse = "() => { history.pushState = () => { throw new DOMException('Too many', 'SecurityError'); }; }"
    portal.page.evaluate(refuse)
    frame.evaluate("embed.page('second', { q: 'x' })")
    assert portal.events("navigate", 2)[1]["params"] == "q=x"


def test_two_frames_do_not_share_a_parameter(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("sync-url: another frame uses the parameter lab")
    portal.visit(tag('sync-url id="one"') + tag('sync-url id="two"'))
    first, second = portal.opened_frame(0), portal.opened_frame(1)
    go(second, "Second page", SECOND)
    portal.events("navigate")
    assert query(portal.page) == ""
    go(first, "Second page", SECOND)
    portal.events("navigate", 2)
    assert query(portal.page) == "lab=second"


def test_a_hostile_address_opens_the_first_page(portal: Portal) -> None:
    for text in ("..%2F..%2Fapi", "Second", "%00", "second%3F%2500", "javascript:alert(1)"):
        portal.visit(tag('sync-url="at"'), path=f"/portal?at={text}")
        if text.startswith("second"):  # a page, with a query that no page may have
            portal.events("error")
            assert portal.page.evaluate("events.at(-1).code") == "invalid_payload"
        else:
            expect_heading(portal.opened_frame(), "Lab of Ana")


# ---- Sign-out ----


def test_no_frame_shows_ana_after_ben_signs_in(portal: Portal, page: Page) -> None:
    """Ana signs out of the portal, and Ben signs in, in one browser and without a reload."""
    portal.visit(tag('id="it"') + SLOT_HTML)
    portal.mount()
    portal.opened_frame(1)
    before = live_sessions(portal)
    page.evaluate("PatEmbed.endAll()")
    expect(page.locator("iframe")).to_have_count(0)
    assert live_sessions(portal) == before - 2
    assert page.evaluate("it.frame") is None
    portal.email = BEN
    page.evaluate("it.fetchToken = undefined")  # opens the element again
    expect_heading(portal.opened_frame(), "Lab of Ben")
    portal.mount()
    expect_heading(portal.opened_frame(1), "Lab of Ben")
    assert len(portal.token_requests) == 2
    assert "Ana" not in "".join(frame.content() for frame in page.frames)


def test_a_session_ends_with_its_element(portal: Portal) -> None:
    frame = portal.open('end-on-unmount id="it"')
    ended = select(Session.ended_at).where(Session.id == session_of(frame)["sessionId"])
    assert portal.installation.rows(ended)[0].ended_at is None
    portal.page.evaluate("it.remove()")
    portal.wait_until(lambda: portal.installation.rows(ended)[0].ended_at is not None)


def test_an_abort_signal_removes_a_frame_at_any_time(portal: Portal) -> None:
    portal.visit(SLOT_HTML)
    mount = """(early) => {
        const control = new AbortController();
        if (early) control.abort();
        const options = { app: "lab", tokenUrl: "/embed-token", signal: control.signal };
        const mounted = PatEmbed.mount("#slot", options).then(() => "open", ({ name }) => name);
        if (!early) setTimeout(() => control.abort());
        window.control = control;
        return mounted;
    }"""
    assert [portal.page.evaluate(mount, early) for early in (True, False)] == ["AbortError", "AbortError"]
    portal.mount("signal: (window.late = new AbortController()).signal")
    portal.page.evaluate("late.abort()")
    expect(portal.page.locator("iframe")).to_have_count(0)


# ---- Many frames ----


def test_ten_lazy_frames_cost_one_mint_and_ten_sessions(portal: Portal) -> None:
    def sessions() -> list[Any]:
        return portal.installation.rows(select(Session.id).where(Session.app_id == LAB))

    before = len(sessions())
    portal.visit('<div style="height: 3000px"></div>' + tag('loading="lazy" class="it"') * 10)
    portal.page.add_style_tag(content="pat-embed { height: 60px !important }")
    portal.page.wait_for_timeout(300)
    assert (portal.token_requests, portal.page.locator("iframe").count()) == ([], 0)
    portal.page.evaluate("document.querySelector('.it').scrollIntoView()")
    portal.events("loaded", 10)
    assert (len(portal.token_requests), len(sessions())) == (1, before + 10)
