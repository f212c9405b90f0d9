"""Pages, frames and scripts that mean harm to a frame of embed.js, in Chromium, and what they get."""

from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import Frame, expect

from tests.e2e.browser.embedding import Portal, tag
from tests.e2e.browser.house import LAB, click, heading

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from tests.e2e.browser.conftest import Witness

#: Calls the frame as embed.js does, and keeps what comes back. `how` finds its window.
CALL: Final = """(how) => {
  window.got ??= [];
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = ({ data }) => got.push(data);
  const call = { type: "pat-embed:connect", version: 1, theme: "dark", locale: "de", autoHeight: true };
  eval(how).postMessage(call, "*", [port2]);
  port1.postMessage({ type: "token", id: 1, token: "pat_1" });
}"""
#: What is no message of the two scripts, or one out of place.
NOISE: Final = """[
  null, undefined, 0, "", "pat-embed:connect", [], new Map(), new Date(NaN), { type: null }, { type: {} },
  { type: "constructor" }, { type: "__proto__", name: "__proto__" }, { type: "token" },
  { type: "token", id: 999 }, { type: "no-token", id: {} },
  { type: "dress", theme: "<b>", locale: {} }, { type: "dress", theme: null },
  { type: "send" }, { type: "send", name: "__proto__" }, { type: "hello" }, { type: "event", name: "loaded" },
]"""
#: Tells where a frame's messages to its parent go.
TARGETS: Final = """if (window.parent !== window) {
  const { parent } = window;
  const postMessage = (message, target) => { window.__target(target); parent.postMessage(message, target); };
  const told = { postMessage };
  Object.defineProperty(window, "parent", { value: told });
  const { get } = Object.getOwnPropertyDescriptor(MessageEvent.prototype, "source");
  Object.defineProperty(MessageEvent.prototype, "source", {
    get() { const source = get.call(this); return source === parent ? told : source; },
  });
}"""


def mallorys(portal: Portal, page: "Page | None" = None) -> Frame:
    """Put a frame of another site into the page."""
    portal.house.site.pages["/mallory"] = "<!doctype html><title>Mallory</title>"
    page = page or portal.page
    page.evaluate(
        """(src) => {
            document.body.append(Object.assign(document.createElement("iframe"), { src, id: "mallory" }));
        }""",
        portal.house.site.url("/mallory", "127.0.0.1"),
    )
    frame = page.locator("#mallory").element_handle().content_frame()
    assert frame
    frame.wait_for_url("**/mallory")
    return frame


def expect_nothing(portal: Portal, frame: Frame) -> None:
    """The frame is as it was: nobody else's theme, no event, no request, still on the line to its host."""
    portal.page.wait_for_timeout(200)
    assert portal.names() == ["ready", "loaded"]
    assert portal.reasons == ["initial"]
    expect(heading(frame)).to_have_text("Lab of Ana")
    expect(frame.locator("html")).to_have_attribute("data-theme", "auto")
    frame.evaluate("embed.send('picked', { id: 1 })")
    assert len(portal.heard("picked")) == 1


def test_a_frame_beside_it_cannot_take_the_line(portal: Portal) -> None:
    frame = portal.open()
    mallory = mallorys(portal)
    mallory.evaluate(CALL, "parent.frames[0]")
    mallory.evaluate(f"{NOISE}.forEach((each) => parent.frames[0].postMessage(each, '*'))")
    expect_nothing(portal, frame)
    assert mallory.evaluate("got") == []


def test_a_frame_beside_it_is_no_parent_though_it_is_of_the_parents_origin(portal: Portal) -> None:
    """An origin that may embed is not enough: the one page around it calls."""
    frame = portal.open()
    portal.house.site.pages["/beside"] = "<!doctype html><title>Beside</title>"
    portal.page.evaluate("""() => new Promise((done) => {
        const beside = document.createElement("iframe");
        beside.onload = done;
        beside.src = "/beside";
        document.body.append(beside);
    })""")
    beside = portal.frame(1)
    beside.evaluate(CALL, "parent.frames[0]")
    expect_nothing(portal, frame)
    assert beside.evaluate("got") == []


def test_a_page_that_is_not_on_the_list_gets_no_word_though_no_policy_keeps_the_frame_blank(
    portal: Portal, witness: "Witness"
) -> None:
    """A proxy that drops the policy, or a browser that knows none: the frame looks by itself."""
    witness.allow("origin_not_allowed")

    def bare(route: "Route") -> None:
        answer = route.fetch()
        kept = {name: text for name, text in answer.headers.items() if name != "content-security-policy"}
        route.fulfill(response=answer, headers=kept)

    lab = portal.house.lab_for("https://other.example")
    portal.page.route("**/frame?*", bare)
    portal.page.clock.install()
    portal.visit(tag(app=lab))
    expect(portal.frame().locator(".embed-opening")).to_be_attached()
    portal.page.wait_for_timeout(300)
    portal.pass_time(6)
    (error,) = portal.heard("error")
    assert error["code"] == "origin_not_allowed"
    assert not [request for request in witness.requests if portal.tokens[0] in (request.post_data or "")]


def test_a_frame_that_waits_for_its_token_takes_none_from_a_frame_beside_it(portal: Portal) -> None:
    portal.answers = [portal.held.append]
    portal.visit(tag())
    mallory = mallorys(portal)
    portal.until(lambda: bool(portal.held))
    portal.hold("**/frame")
    portal.mint(portal.held.pop())
    portal.heard("ready")
    mallory.evaluate(CALL, "parent.frames[1]")
    portal.page.wait_for_timeout(100)
    portal.release()
    portal.heard("loaded")
    assert mallory.evaluate("got") == []


def test_an_opener_cannot_take_the_line(portal: Portal, page: "Page") -> None:
    portal.house.site.pages["/mallory"] = "<!doctype html><title>Mallory</title>"
    portal.visit(tag())
    url = page.url
    page.goto(portal.house.site.url("/mallory", "127.0.0.1"))
    with page.expect_popup() as opening:
        page.evaluate("void (window.host = open('about:blank'))")
    popup = Portal(opening.value, portal.house)
    opening.value.goto(url)
    popup.heard("loaded")
    page.evaluate(CALL, "host.frames[0]")
    expect_nothing(popup, popup.frame())
    assert page.evaluate("got") == []


def test_messages_to_the_page_around_change_nothing(portal: Portal) -> None:
    frame = portal.open()
    mallory = mallorys(portal)
    forged = """[
        { type: "hello", open: false }, { type: "want-token", id: 1, reason: "initial", fresh: true },
        { type: "event", name: "session:revoked", data: {} }, { type: "restart" }, { type: "going", origin },
        { type: "app", name: "picked", data: {} },
    ]"""
    for place in (mallory, frame):
        place.evaluate(
            f"for (let n = 0; n < 50; n++) for (const each of {forged}) parent.postMessage(each, '*')"
        )
    portal.page.evaluate("() => { heard = heard.filter(({ name }) => name !== 'picked'); }")
    expect_nothing(portal, frame)


def test_a_frame_beside_it_cannot_make_a_blank_frame_look_alive(portal: Portal, witness: "Witness") -> None:
    witness.allow("origin_not_allowed", "frame-ancestors", "target origin provided", "chrome-error")
    portal.house.provision(
        lambda document: document["apps"][0].update(allowed_origins=["https://other.example"])
    )
    portal.page.clock.install()
    portal.visit()
    mallory = mallorys(portal)
    mallory.evaluate("setInterval(() => parent.postMessage({ type: 'pat-embed:here' }, '*'), 20)")
    portal.page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", tag())
    portal.page.locator("pat-embed iframe").wait_for()
    portal.page.wait_for_timeout(300)
    portal.pass_time(6)
    (error,) = portal.heard("error")
    assert error["code"] == "origin_not_allowed"


def test_a_frame_inside_the_frame_and_the_app_itself_cannot_call(portal: Portal, witness: "Witness") -> None:
    frame = portal.open()
    call = CALL.replace("eval(how)", "window")
    frame.evaluate(call, None)
    frame.evaluate(
        "{ const inner = document.createElement('iframe'); inner.id = 'inner'; document.body.append(inner); }"
    )
    inner = frame.locator("#inner").element_handle().content_frame()
    assert inner
    inner.evaluate(CALL.replace("eval(how)", "parent"), None)
    expect_nothing(portal, frame)
    assert frame.evaluate("got") == inner.evaluate("got") == []


def test_a_script_of_the_app_does_not_get_hold_of_the_port(portal: Portal) -> None:
    frame = portal.open()
    portal.page.wait_for_timeout(200)
    frame.evaluate("postMessage({ type: 'own' })")
    frame.wait_for_function("() => overheard.length > 0")
    assert frame.evaluate("overheard") == [["own", 0]]
    assert frame.evaluate("search()") == []


def test_noise_on_the_line_is_overlooked(portal: Portal) -> None:
    """As a host would send that speaks without embed.js."""
    portal.visit()
    portal.page.evaluate(
        f"""(url) => {{
            const iframe = Object.assign(document.createElement("iframe"), {{ src: url }});
            window.got = [];
            iframe.onload = () => {{
                const {{ port1, port2 }} = new MessageChannel();
                port1.onmessage = ({{ data }}) => got.push(data);
                const call = {{ type: "pat-embed:connect" }};
                iframe.contentWindow.postMessage(call, new URL(url).origin, [port2]);
                for (const each of {NOISE}) port1.postMessage(each);
                window.line = port1;
            }};
            document.body.append(iframe);
        }}""",
        f"{portal.house.url}/embed-apps/{LAB}/frame",
    )
    portal.page.wait_for_function("() => got.some(({ type }) => type === 'want-token')")
    portal.page.wait_for_timeout(100)
    asked = portal.page.evaluate("got.find(({ type }) => type === 'want-token')")
    address = portal.house.address()
    portal.page.evaluate(
        "(answer) => line.postMessage(answer)",
        {"type": "token", "id": asked["id"], "token": address.partition("token=")[2]},
    )
    expect(heading(portal.shown())).to_have_text("Lab of Ana")


@pytest.mark.parametrize("refused", [False, True])
def test_frames_of_the_script_post_to_their_parent_alone(
    portal: Portal, witness: "Witness", refused: bool
) -> None:
    targets: list[str] = []
    portal.page.context.expose_binding("__target", lambda source, target: targets.append(target))
    portal.page.context.add_init_script(TARGETS)
    # An app for everybody: the case where a frame by itself would speak to everybody.
    origins = [portal.house.site.origin, "https://other.example"] if refused else ["*"]
    lab = portal.house.lab_for(*origins)
    if refused:
        portal.wish = {"allowedOrigins": ["https://other.example"]}
        portal.visit(tag(app=lab))
        portal.heard("error")
    else:
        frame = portal.open(app=lab)
        click(frame, "Gone")
        portal.heard("error")
    portal.page.wait_for_timeout(100)  # or more would come
    (said,) = portal.said(1)
    assert said["type"] == "TJ_EMBED_APP_LOGOUT"
    assert said["origin"] == portal.house.url
    expected = ("origin_not_allowed", 403) if refused else ("not_found", 404)
    assert (said["code"], said["error"]) == expected
    # The first word of its page, and this.
    portal.until(lambda: len(targets) >= 2)
    assert targets == [portal.house.site.origin] * 2
