"""The tag shows around a frame that it opens, that this takes long, and why it could not open."""

import re
from itertools import pairwise
from typing import Any, Final

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.installation import Installation, expect_heading
from tests.e2e.browser.portal import SLOT_HTML, Portal, status_answer, tag
from tests.e2e.browser.recorder import Recorder

#: The host's policy allows no style attribute, no style element of a script, and no HTML as text.
STRICT_POLICY: Final = (
    "default-src 'none'; script-src 'nonce-a' {service}; connect-src 'self' {service}; frame-src {service}; "
    "img-src data:; style-src 'nonce-a'; require-trusted-types-for 'script'"
)
STRICT_HTML: Final = """<!doctype html><html lang="{language}"><title>Strict</title>
<link rel="icon" href="data:,">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<style nonce="a">body {{ background: #101418; color: #e6ebe8; color-scheme: dark }}</style>
<script src="{service}/embed.js" defer></script>
<p>Before</p>{tag}<p id="after">After</p>"""


def box(portal: Portal, selector: str = "pat-embed") -> dict[str, float]:
    found = portal.page.locator(selector).bounding_box()
    assert found
    return {"top": found["y"], "width": found["width"], "height": found["height"]}


def test_ana_sees_that_the_app_opens_until_it_is_there(portal: Portal) -> None:
    portal.answers = [portal.paused.append]
    portal.visit("<style>pat-embed { height: auto !important }</style>" + tag())
    status = portal.page.get_by_role("status")
    expect(status).to_have_text("Opening…")
    before = box(portal)
    assert before["height"] == 150
    assert status.evaluate("it => getComputedStyle(it, '::before').animationName") == "turn"
    portal.page.emulate_media(reduced_motion="reduce")
    assert status.evaluate("it => getComputedStyle(it, '::before').animationName") == "none"
    portal.wait_for_paused()
    portal.mint(portal.paused.pop())
    expect_heading(portal.opened_frame(), "Lab of Ana")
    expect(status).to_be_hidden()
    # The iframe takes the place of the text.
    assert (box(portal), box(portal, "iframe")) == (before, before)


def test_children_are_the_placeholder(portal: Portal) -> None:
    portal.answers = [portal.paused.append]
    placeholder = "Hold on, <b id='mine'>Ana</b>"
    portal.visit(
        f'<pat-embed app="lab" token-url="/embed-token" id="it">{placeholder}</pat-embed>{SLOT_HTML}'
    )
    mine = portal.page.locator("#mine")
    expect(mine).to_be_visible()
    expect(portal.page.get_by_role("status")).to_be_hidden()
    portal.wait_for_paused()
    portal.mint(portal.paused.pop())
    portal.opened_frame()
    expect(mine).to_be_hidden()
    # They return when the element opens again, and are the page's own all the time.
    portal.answers = [portal.paused.append]
    portal.page.evaluate("it.setAttribute('app', 'orders')")
    expect(mine).to_be_visible()
    portal.wait_for_paused()
    portal.mint(portal.paused.pop())
    expect_heading(portal.opened_frame(), "Orders")
    portal.page.evaluate("it.frame.unmount()")
    expect(mine).to_be_visible()
    # The same in code.
    portal.page.evaluate("slot.textContent = 'Moment'")
    portal.mount()
    assert portal.page.evaluate("slot.textContent") == "Moment"
    assert portal.page.evaluate(
        "slot.querySelector('iframe').getBoundingClientRect().top === slot.getBoundingClientRect().top"
    )
    portal.page.evaluate("mounted.unmount()")
    expect(portal.page.get_by_text("Moment")).to_be_visible()
    portal.mount()


def test_an_app_can_be_mounted_into_a_list_item(portal: Portal) -> None:
    """This element can have no shadow tree."""
    portal.visit('<ul><li id="slot"></li></ul>')
    expect_heading(portal.mount(), "Lab of Ana")
    portal.page.evaluate("mounted.unmount()")
    assert portal.page.evaluate("slot.innerHTML") == ""


@pytest.mark.parametrize(
    ("language", "status", "texts", "button"),
    [
        ("en", 403, ("could not be opened", "contact the team"), None),
        ("es-MX", 403, ("No se pudo abrir", "avise al equipo"), None),
        ("es", 503, ("No se pudo abrir", "Inténtelo de nuevo"), "Intentar de nuevo"),
    ],
)
def test_a_card_says_that_a_frame_could_not_open(
    page: Page,
    installation: Installation,
    recorder: Recorder,
    language: str,
    status: int,
    texts: Any,
    button: str | None,
) -> None:
    recorder.allow(
        "pat-embed:", "status of 503", "allow-scripts and allow-same-origin", "Ignored call to 'alert'"
    )
    portal = Portal(page, installation)
    portal.answers = [status_answer(status, **{"Retry-After": "90"})]
    policy = STRICT_POLICY.format(service=installation.url)
    installation.site.pages["/strict"] = STRICT_HTML.format(
        language=language, policy=policy, service=installation.url, tag=tag()
    )
    page.goto(installation.site.url("/strict"))
    card = page.get_by_role("alert")
    for text in texts:
        expect(card).to_contain_text(text)
    expect(card.locator("code")).to_have_text("fetch_token_failed")
    assert card.evaluate("it => getComputedStyle(it).color") == "rgb(230, 235, 232)"
    assert card.evaluate("it => getComputedStyle(it).borderRadius") == "8px"
    expect(card.get_by_role("button")).to_have_count(1 if button else 0)
    if button:
        card.get_by_role("button", name=button).click()
        portal.opened_frame()
        expect(card).to_have_count(0)


def test_a_hanging_token_endpoint_is_given_up_within_45_seconds(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("pat-embed:")
    portal.page.clock.install()
    portal.answers = [portal.paused.append, portal.paused.append]
    portal.visit(tag())
    portal.wait_until(lambda: len(portal.paused) == 1)
    portal.fast_forward(6)
    (waiting,) = portal.events("waiting")
    assert waiting["for"] == "token"
    expect(portal.page.get_by_role("status")).to_have_text("Still opening. This takes longer than usual.")
    portal.fast_forward(25)
    portal.page.wait_for_timeout(50)
    portal.fast_forward(1)
    portal.wait_until(lambda: len(portal.paused) == 2)
    assert "error" not in portal.event_names()
    portal.fast_forward(13)
    error = portal.expect_error("timeout", retryable=True)
    assert re.search("No token came within 1.... ms", error["message"])
    assert len(portal.events("waiting")) == 1
    # Ana can still try again.
    portal.page.get_by_role("button", name="Try again").click()
    portal.opened_frame()


def test_an_older_browser_gets_a_reason(portal: Portal, page: Page, recorder: Recorder) -> None:
    recorder.allow("pat-embed: unsupported_browser")
    page.add_init_script(
        """delete AbortSignal.timeout; delete Object.hasOwn;
        delete globalThis.CSSStyleSheet; delete globalThis.reportError;
        for (const it of [Document, ShadowRoot]) delete it.prototype.adoptedStyleSheets;"""
    )
    portal.visit(tag() + SLOT_HTML)
    card = page.get_by_role("alert")
    expect(card).to_contain_text("This browser is too old")
    expect(card.get_by_role("button")).to_have_count(0)
    portal.expect_error("unsupported_browser", retryable=False)
    mounted = "PatEmbed.mount('#slot', { app: 'lab', tokenUrl: '/embed-token' }).catch(({ code }) => code)"
    assert page.evaluate(mounted) == "unsupported_browser"
    assert portal.token_requests == []


def test_move_before_keeps_the_frame(portal: Portal) -> None:
    frame = portal.open('id="it"')
    frame.get_by_label("Note").fill("typed")
    portal.page.evaluate("document.body.prepend(document.createElement('section'))")
    portal.page.evaluate("document.querySelector('section').moveBefore(it, null)")
    portal.page.wait_for_timeout(200)
    expect(frame.get_by_label("Note")).to_have_value("typed")
    assert (len(portal.token_requests), portal.event_names()) == (1, ["ready", "loaded"])
    frame.evaluate("embed.send('picked', { n: 1 })")
    portal.events("picked")


def test_a_hint_names_every_page_around_the_frame(portal: Portal, recorder: Recorder) -> None:
    """As `--parent` options of the doctor, from the innermost page to the top."""
    recorder.allow("frame-ancestors", "origin_not_allowed", "target origin provided", "chrome-error")
    site = portal.installation.site
    portal.page.clock.install()
    portal.visit(tag(), path="/inner")
    portal.visit(
        f'<iframe src="{site.url("/inner", "127.0.0.1")}" width="600" height="400"></iframe>', path="/outer"
    )
    inner = portal.frame()
    inner.wait_for_function("() => frameLoads > 0", polling=50)
    portal.fast_forward(6)
    inner.wait_for_function("() => events.some(({ name }) => name === 'error')", polling=50)
    (error,) = inner.evaluate("events.filter(({ name }) => name === 'error')")
    around = f"--parent http://127.0.0.1:{site.port} --parent {site.origin}`"
    assert f"doctor --app lab {around}" in error["message"]


def test_an_error_as_json_has_its_message(portal: Portal, recorder: Recorder) -> None:
    portal.visit()
    error = portal.page.evaluate(
        "JSON.parse(JSON.stringify(new PatEmbed.PatEmbedError('timeout', 'Too late.')))"
    )
    assert error == {
        "code": "timeout",
        "message": "Too late.",
        "status": 0,
        "retryable": False,
        "retryAfter": None,
        "requestId": None,
    }


def test_no_height_is_reported_twice(portal: Portal) -> None:
    portal.open("auto-height")
    portal.page.wait_for_timeout(500)
    heights = [event["height"] for event in portal.page.evaluate("events") if event["name"] == "resize"]
    assert heights
    assert all(before != after for before, after in pairwise(heights))
