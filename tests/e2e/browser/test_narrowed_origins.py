"""A token that narrows the allowed origins binds every page around a frame of embed.js, in Chromium.

Chromium reports the origins around a frame to its script. A changed script imitates a browser without this.
"""

from typing import Any, Final

import pytest
from playwright.sync_api import Frame, Page, expect
from sqlalchemy import func, select

from pat_service.storage.models import Session
from tests.e2e.browser.installation import expect_heading, session_of
from tests.e2e.browser.portal import BLOCKED_LINES, Portal, tag
from tests.e2e.browser.recorder import Recorder
from tests.support.servers import PROJECT

OUTER: Final = "third.localhost"
ID: Final = 'id="it"'
JAVASCRIPT: Final = "text/javascript"
#: Returns the recorded events with a name, once there are any.
EVENTS: Final = """(name) => {
  const found = events.filter((event) => event.name === name);
  return found.length && found;
}"""


def tell_no_origins(page: Page) -> None:
    """Hide the list of the origins around a frame from the frames of the page."""
    script = (PROJECT / "static" / "embed" / "frame.js").read_text("utf-8")
    assert "location.ancestorOrigins" in script
    untold = script.replace("location.ancestorOrigins", "undefined")
    page.route("**/embed/frame.js*", lambda route: route.fulfill(body=untold, content_type=JAVASCRIPT))


@pytest.fixture(params=["reports the origins", "reports no origins"])
def tells_origins(request: pytest.FixtureRequest, page: Page) -> bool:
    if request.param == "reports the origins":
        return True

    tell_no_origins(page)
    return False


@pytest.fixture
def lab(portal: Portal) -> str:
    """A lab that both sites may embed, and tokens for the inner site only."""
    site = portal.installation.site
    portal.mint_options = {"allowedOrigins": [site.origin]}
    return portal.installation.lab_for(site.origin, site.url("", OUTER))


def visit_nested(portal: Portal, html: str) -> Frame:
    """Go to a page of the outer site around the portal's page, and return the frame of that page."""
    portal.visit(html)
    site = portal.installation.site
    inner = site.url("/portal")
    site.pages["/outer"] = f'<!doctype html><iframe src="{inner}" width="900" height="500"></iframe>'
    portal.page.goto(site.url("/outer", OUTER))
    frame = portal.page.locator("iframe").element_handle().content_frame()
    assert frame
    return frame


def sessions(portal: Portal) -> int:
    return int(portal.installation.rows(select(func.count()).select_from(Session))[0][0])


def events_in(frame: Frame, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = frame.wait_for_function(EVENTS, arg=name, polling=50).json_value()
    return found


@pytest.mark.usefixtures("tells_origins")
def test_a_narrowed_token_opens_the_app_and_the_frame_keeps_working(portal: Portal, lab: str) -> None:
    frame = portal.open(ID, lab)
    expect_heading(frame, "Lab of Ana")
    assert portal.event_names() == ["ready", "loaded"]
    portal.page.evaluate("it.frame.send('filter', 1)")
    frame.evaluate("embed.send('picked', { id: 1 })")
    assert portal.events("picked") == [{"name": "picked", "id": 1}]
    before = session_of(frame)["sessionId"]
    portal.page.evaluate("it.frame.refresh().then(() => null)")
    portal.events("session:renewed")
    assert session_of(frame)["sessionId"] != before
    frame.evaluate("embed.end()")
    expect_heading(frame, "Your session was ended")
    portal.expect_error("session_revoked")
    assert portal.event_names().count("ready") == 1


def test_a_single_use_token_opens_one_session_also_with_a_move(
    portal: Portal, lab: str, tells_origins: bool
) -> None:
    portal.mint_options["singleUse"] = True
    before = sessions(portal)
    frame = portal.open(ID, lab)
    assert sessions(portal) == before + 1
    assert ("/frame" in frame.url) == tells_origins
    assert "otc_" not in frame.url + frame.evaluate("document.documentElement.outerHTML")
    assert len(portal.tokens) == 1


def test_a_narrowed_token_does_not_open_below_another_origin(
    portal: Portal, lab: str, recorder: Recorder, tells_origins: bool
) -> None:
    recorder.allow(*BLOCKED_LINES)
    inner = visit_nested(portal, tag(ID, lab))
    [error] = events_in(inner, "error")
    assert error["code"] == "origin_not_allowed"
    assert not any("Lab of" in frame.content() for frame in portal.page.frames)
    if tells_origins:
        iframe = inner.locator("pat-embed iframe").element_handle().content_frame()
        assert iframe
        expect_heading(iframe, "This page may not show the app")


def test_a_token_for_both_origins_opens_below_the_outer_one(
    portal: Portal, lab: str, tells_origins: bool
) -> None:
    site = portal.installation.site
    portal.mint_options = {"allowedOrigins": [site.origin, site.url("", OUTER)]}
    inner = visit_nested(portal, tag(ID, lab))
    events_in(inner, "loaded")
    iframe = inner.locator("pat-embed iframe").element_handle().content_frame()
    assert iframe
    expect_heading(iframe, "Lab of Ana")
    expect(inner.locator("pat-embed [role=alert]")).to_have_count(0)
