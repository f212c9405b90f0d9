"""Attacks on a frame of embed.js by other pages, frames and scripts, in Chromium."""

from typing import Final

import pytest
from playwright.sync_api import Frame, Page, Route, expect

from tests.e2e.browser.installation import LAB, OTHER_ORIGIN, click, expect_heading
from tests.e2e.browser.portal import BLOCKED_LINES, Portal, tag
from tests.e2e.browser.recorder import Recorder

#: Connects to the frame as embed.js does, and records the answers. `how` is an expression for its window.
CONNECT: Final = """(how) => {
  window.got ??= [];
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = ({ data }) => got.push(data);
  const message = { type: "pat-embed:connect", version: 1, theme: "dark", locale: "de", autoHeight: true };
  eval(how).postMessage(message, "*", [port2]);
  port1.postMessage({ type: "token", id: 1, token: "pat_1" });
}"""
#: Values that are not messages of the two scripts, and messages at the wrong time.
MALFORMED: Final = """[
  null, undefined, 0, "", "pat-embed:connect", [], new Map(), new Date(NaN), { type: null }, { type: {} },
  { type: "constructor" }, { type: "__proto__", name: "__proto__" }, { type: "token" },
  { type: "token", id: 999 }, { type: "no-token", id: {} },
  { type: "dress", theme: "<b>", locale: {} }, { type: "dress", theme: null },
  { type: "send" }, { type: "send", name: "__proto__" }, { type: "hello" }, { type: "event", name: "loaded" },
]"""
#: Reports the target origin of each message to the parent.
TARGETS: Final = """if (window.parent !== window) {
  const { parent } = window;
  const postMessage = (message, target) => { window.__target(target); parent.postMessage(message, target); };
  const wrapped = { postMessage };
  Object.defineProperty(window, "parent", { value: wrapped });
  const { get } = Object.getOwnPropertyDescriptor(MessageEvent.prototype, "source");
  Object.defineProperty(MessageEvent.prototype, "source", {
    get() { const source = get.call(this); return source === parent ? wrapped : source; },
  });
}"""


def add_mallory(portal: Portal, host: str = "127.0.0.1") -> Frame:
    """Add a frame of Mallory's to the page, on her own site or on this host."""
    portal.installation.site.pages["/mallory"] = "<!doctype html><title>Mallory</title>"
    portal.page.evaluate(
        """(src) => {
            document.body.append(Object.assign(document.createElement("iframe"), { src, id: "mallory" }));
        }""",
        portal.installation.site.url("/mallory", host),
    )
    frame = portal.page.locator("#mallory").element_handle().content_frame()
    assert frame
    frame.wait_for_url("**/mallory")
    return frame


def expect_no_effect(portal: Portal, frame: Frame) -> None:
    """Check that the frame has its own theme, no new event or request, and is still connected."""
    portal.page.wait_for_timeout(200)
    assert portal.event_names() == ["ready", "loaded"]
    assert portal.reasons == ["initial"]
    expect_heading(frame, "Lab of Ana")
    expect(frame.locator("html")).to_have_attribute("data-theme", "auto")
    frame.evaluate("embed.send('picked', { id: 1 })")
    assert len(portal.events("picked")) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["another site", "the parent's origin"])
def test_a_sibling_frame_cannot_connect(portal: Portal, host: str) -> None:
    """An allowed origin is not enough: only the parent may connect."""
    frame = portal.open()
    mallory = add_mallory(portal, host)
    mallory.evaluate(CONNECT, "parent.frames[0]")
    mallory.evaluate(f"{MALFORMED}.forEach((each) => parent.frames[0].postMessage(each, '*'))")
    expect_no_effect(portal, frame)
    assert mallory.evaluate("got") == []


def test_a_parent_not_on_the_list_gets_no_token_without_a_policy(portal: Portal, recorder: Recorder) -> None:
    """If a proxy drops the policy, the frame itself checks its parent."""
    recorder.allow("origin_not_allowed")

    def bare(route: Route) -> None:
        answer = route.fetch()
        kept = {name: text for name, text in answer.headers.items() if name != "content-security-policy"}
        route.fulfill(response=answer, headers=kept)

    lab = portal.installation.lab_for(OTHER_ORIGIN)
    portal.page.route("**/frame?*", bare)
    portal.page.clock.install()
    portal.visit(tag(app=lab))
    expect(portal.frame().locator(".embed-opening")).to_be_attached()
    portal.wait_for_frame_load()
    portal.fast_forward(6)
    portal.expect_error("origin_not_allowed")
    assert not recorder.bodies_with(portal.tokens[0])


def test_a_waiting_frame_takes_no_token_from_a_sibling(portal: Portal) -> None:
    portal.answers = [portal.paused.append]
    portal.visit(tag())
    mallory = add_mallory(portal)
    portal.wait_until(lambda: bool(portal.paused))
    portal.pause("**/frame")
    portal.mint(portal.paused.pop())
    portal.events("ready")
    mallory.evaluate(CONNECT, "parent.frames[1]")
    portal.page.wait_for_timeout(100)
    portal.resume()
    portal.events("loaded")
    assert mallory.evaluate("got") == []


def test_an_opener_cannot_connect(portal: Portal, page: Page) -> None:
    portal.installation.site.pages["/mallory"] = "<!doctype html><title>Mallory</title>"
    portal.visit(tag())
    url = page.url
    page.goto(portal.installation.site.url("/mallory", "127.0.0.1"))
    with page.expect_popup() as opening:
        page.evaluate("void (window.host = open('about:blank'))")
    popup = Portal(opening.value, portal.installation)
    opening.value.goto(url)
    popup.events("loaded")
    page.evaluate(CONNECT, "host.frames[0]")
    expect_no_effect(popup, popup.frame())
    assert page.evaluate("got") == []


def test_forged_messages_to_the_host_page_change_nothing(portal: Portal) -> None:
    frame = portal.open()
    mallory = add_mallory(portal)
    forged = """[
        { type: "hello", open: false }, { type: "want-token", id: 1, reason: "initial", fresh: true },
        { type: "event", name: "session:revoked", data: {} }, { type: "restart" }, { type: "going", origin },
        { type: "app", name: "picked", data: {} },
    ]"""
    for place in (mallory, frame):
        place.evaluate(
            f"for (let n = 0; n < 50; n++) for (const each of {forged}) parent.postMessage(each, '*')"
        )
    portal.page.evaluate("() => { events = events.filter(({ name }) => name !== 'picked'); }")
    expect_no_effect(portal, frame)


def test_a_sibling_cannot_make_a_blank_frame_look_alive(portal: Portal, recorder: Recorder) -> None:
    recorder.allow(*BLOCKED_LINES)
    portal.installation.provision(lambda document: document["apps"][0].update(allowed_origins=[OTHER_ORIGIN]))
    portal.page.clock.install()
    portal.visit()
    mallory = add_mallory(portal)
    mallory.evaluate("setInterval(() => parent.postMessage({ type: 'pat-embed:here' }, '*'), 20)")
    loads = portal.page.evaluate("frameLoads")
    portal.page.evaluate("html => document.body.insertAdjacentHTML('beforeend', html)", tag())
    portal.page.locator("pat-embed iframe").wait_for(state="attached")
    portal.wait_for_frame_load(loads)
    portal.fast_forward(6)
    portal.expect_error("origin_not_allowed")


def test_an_inner_frame_and_the_app_itself_cannot_connect(portal: Portal, recorder: Recorder) -> None:
    frame = portal.open()
    call = CONNECT.replace("eval(how)", "window")
    frame.evaluate(call, None)
    frame.evaluate(
        "{ const inner = document.createElement('iframe'); inner.id = 'inner'; document.body.append(inner); }"
    )
    inner = frame.locator("#inner").element_handle().content_frame()
    assert inner
    inner.evaluate(CONNECT.replace("eval(how)", "parent"), None)
    expect_no_effect(portal, frame)
    assert frame.evaluate("got") == inner.evaluate("got") == []


def test_a_listener_of_the_app_does_not_get_the_port(portal: Portal) -> None:
    frame = portal.open()
    portal.page.wait_for_timeout(200)
    frame.evaluate("postMessage({ type: 'own' })")
    frame.wait_for_function("() => windowMessages.length > 0")
    assert frame.evaluate("windowMessages") == [["own", 0]]
    assert frame.evaluate("search()") == []


def test_malformed_messages_are_ignored(portal: Portal) -> None:
    """A host page that speaks the protocol without embed.js could send them."""
    portal.visit()
    portal.page.evaluate(
        f"""(url) => {{
            const iframe = Object.assign(document.createElement("iframe"), {{ src: url }});
            window.got = [];
            iframe.onload = () => {{
                const {{ port1, port2 }} = new MessageChannel();
                port1.onmessage = ({{ data }}) => got.push(data);
                const message = {{ type: "pat-embed:connect" }};
                iframe.contentWindow.postMessage(message, new URL(url).origin, [port2]);
                for (const each of {MALFORMED}) port1.postMessage(each);
                window.port = port1;
            }};
            document.body.append(iframe);
        }}""",
        f"{portal.installation.url}/embed-apps/{LAB}/frame?parent={portal.installation.site.origin}",
    )
    portal.page.wait_for_function("() => got.some(({ type }) => type === 'want-token')")
    portal.page.wait_for_timeout(100)
    request = portal.page.evaluate("got.find(({ type }) => type === 'want-token')")
    address = portal.installation.address()
    portal.page.evaluate(
        "(answer) => port.postMessage(answer)",
        {"type": "token", "id": request["id"], "token": address.partition("token=")[2]},
    )
    expect_heading(portal.opened_frame(), "Lab of Ana")


@pytest.mark.parametrize("refused", [False, True])
def test_a_frame_posts_only_to_its_parents_origin(portal: Portal, recorder: Recorder, refused: bool) -> None:
    targets: list[str] = []
    portal.page.context.expose_binding("__target", lambda source, target: targets.append(target))
    portal.page.context.add_init_script(TARGETS)
    # A bare frame of an app for any origin posts to every origin.
    origins = [portal.installation.site.origin, OTHER_ORIGIN] if refused else ["*"]
    lab = portal.installation.lab_for(*origins)
    if refused:
        portal.mint_options = {"allowedOrigins": [OTHER_ORIGIN]}
        portal.visit(tag(app=lab))
        portal.events("error")
    else:
        frame = portal.open(app=lab)
        click(frame, "Gone")
        portal.events("error")
    portal.page.wait_for_timeout(100)  # time for an unwanted second message
    (message,) = portal.messages(1)
    assert message["type"] == "TJ_EMBED_APP_LOGOUT"
    assert message["origin"] == portal.installation.url
    expected = ("origin_not_allowed", 403) if refused else ("not_found", 404)
    assert (message["code"], message["error"]) == expected
    # The first message of the frame's page, and this one.
    portal.wait_until(lambda: len(targets) >= 2)
    assert targets == [portal.installation.site.origin] * 2
