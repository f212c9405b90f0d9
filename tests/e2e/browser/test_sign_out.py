"""A sign-out in every state of a frame: no session stays, and no frame shows the former person."""

from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import select

from pat_service.storage.models import Session
from tests.e2e.browser.installation import BEN
from tests.e2e.browser.portal import BLOCKED_LINES, SLOT_HTML, Portal, status_answer, tag
from tests.e2e.browser.recorder import Recorder

#: Ends the frame, and resolves to the code of the error.
END = "it.frame.end().then(() => 'ended', ({ code, name }) => code ?? name)"


def live_sessions(portal: Portal) -> int:
    """Return the number of sessions that have not been ended."""
    return len(portal.installation.rows(select(Session.id).where(Session.ended_at.is_(None))))


def hold_exchanges(portal: Portal) -> list[Route]:
    """Let each exchange of a token wait."""
    held: list[Route] = []

    def handle(route: Route) -> None:
        held.append(route) if route.request.method == "POST" else route.continue_()

    portal.page.context.route("**/embed-apps/*/frame*", handle)
    return held


def end_during(portal: Portal, held: list[Route]) -> Any:
    """Begin to end the frame, then let the exchange continue."""
    portal.wait_until(lambda: bool(held))
    portal.page.evaluate(f"void (window.ended = {END})")
    portal.page.wait_for_timeout(200)
    held.pop().continue_()
    return portal.page.evaluate("ended")


def test_a_frame_that_opens_ends_with_the_session_that_it_gets(portal: Portal) -> None:
    before = live_sessions(portal)
    held = hold_exchanges(portal)
    portal.visit(tag('id="it"'))
    assert end_during(portal, held) == "ended"
    expect(portal.page.locator("iframe")).to_have_count(0)
    assert (live_sessions(portal), portal.event_names()) == (before, ["ready"])


def test_a_frame_that_renews_ends_with_both_sessions(portal: Portal) -> None:
    before = live_sessions(portal)
    portal.open('id="it"')
    held = hold_exchanges(portal)
    portal.page.evaluate("void it.frame.refresh().catch(() => {})")
    assert end_during(portal, held) == "ended"
    assert live_sessions(portal) == before
    portal.expect_no_error()


def test_a_frame_without_a_token_ends_at_once(portal: Portal, recorder: Recorder) -> None:
    """The token endpoint does not answer the reload, nor the renewal."""
    portal.open('id="it"')
    portal.answers = [portal.paused.append]
    portal.page.evaluate("void it.frame.refresh().catch(() => {})")
    portal.wait_for_paused()
    assert portal.page.evaluate(END) == "ended"
    portal.expect_no_error()


def test_a_refused_frame_ends_at_once(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("403")
    problem = {"code": "app_forbidden", "status": 403, "detail": "No."}
    refuse = {"status": 403, "json": problem, "content_type": "application/problem+json"}
    portal.page.context.route(
        "**/frame*",
        lambda route: route.fulfill(**refuse) if route.request.method == "POST" else route.continue_(),
    )
    portal.visit(tag('id="it"'))
    portal.expect_error("app_forbidden")
    assert portal.page.evaluate("PatEmbed.endAll().then(() => it.frame)") is None


def test_a_frame_that_left_its_app_is_removed_and_its_session_reported(
    portal: Portal, recorder: Recorder
) -> None:
    recorder.allow("pat-embed: left_app", *BLOCKED_LINES)
    portal.page.clock.install()
    frame = portal.open('id="it"')
    loads = portal.page.evaluate("frameLoads")
    frame.evaluate("(address) => { location.href = address; }", f"{portal.installation.url}/embed.d.ts")
    portal.wait_for_frame_load(loads)
    portal.fast_forward(6)
    portal.expect_error("left_app")
    # These wait for the way back.
    assert portal.page.evaluate("it.frame.send('filter', {}) ?? it.frame.navigate('second')") is None
    assert portal.page.evaluate(END) == "unreachable"
    assert portal.page.evaluate("it.frame") is None
    expect(portal.page.get_by_role("alert")).to_have_count(0)


def test_ana_is_gone_even_if_ben_gets_no_frame(portal: Portal, recorder: Recorder) -> None:
    """Ben has signed in, the renewal shows it, and the next mint is refused."""
    recorder.allow("403", "pat-embed: fetch_token_failed")
    before = live_sessions(portal)
    portal.open('id="it"')
    portal.email = BEN
    portal.answers = [portal.mint, status_answer(403)]
    portal.page.evaluate("void it.frame.refresh().catch(() => {})")
    portal.expect_error("fetch_token_failed")
    expect(portal.page.get_by_role("alert")).to_be_visible()
    assert "Ana" not in "".join(frame.content() for frame in portal.page.frames)
    portal.wait_until(lambda: live_sessions(portal) == before)


def test_a_former_frame_leaves_its_element_to_the_next_one(portal: Portal, page: Page) -> None:
    portal.visit(SLOT_HTML)
    portal.mount("signal: (window.control = new AbortController()).signal")
    page.evaluate("(window.former = mounted).unmount()")
    portal.email = BEN
    portal.mount()
    page.evaluate("control.abort(); former.unmount()")
    assert page.evaluate("former.end()") is None
    expect(page.locator("iframe")).to_be_visible()


@pytest.mark.parametrize("ports", [1, 2])
def test_a_wrong_page_that_loads_early_gets_no_token(portal: Portal, ports: int) -> None:
    """The tag's `frame` names a hostile page, which asks by each of its ports."""
    here = "parent.postMessage({ type: 'pat-embed:here' }, '*');"
    page = f"""<!doctype html><script>
        addEventListener("message", ({{ ports: [port] }}) => {{
            port.onmessage = ({{ data }}) => parent.postMessage({{ got: data.token }}, "*");
            port.postMessage({{ type: "hello" }});
            port.postMessage({{ type: "want-token", id: 1, reason: "initial" }});
            parent.postMessage({{ type: "asked" }}, "*");
        }});
        {here * ports}
    </script>"""
    portal.page.route("**/wrong/frame*", lambda route: route.fulfill(body=page, content_type="text/html"))
    portal.answers = [portal.paused.append]
    portal.visit(tag(f'frame="{portal.installation.site.url("/wrong")}"'))
    portal.messages(ports)
    portal.events("ready")
    portal.mint(portal.paused.pop())
    portal.events("loaded")
    assert [message for message in portal.messages() if message.get("got")] == []
