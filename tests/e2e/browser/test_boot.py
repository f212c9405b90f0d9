"""The start of a frame in Chromium: the session leaves the document before an app can read or break it."""

import re
from typing import Any, Final

import pytest
from playwright.sync_api import Frame, Page

from tests.e2e.browser.installation import HostPage, Installation
from tests.e2e.browser.portal import Portal, tag
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until

SECRET: Final = re.compile(r"pat_[0-9a-f]{8}|eyJ[\w-]{8}")
#: The root element. The page has elements with the names of `document`'s members, which hide them.
ROOT: Final = 'Reflect.get(Document.prototype, "documentElement", document)'


def add_app(installation: Installation, slug: str) -> None:
    def add(document: dict[str, Any]) -> None:
        document["apps"].append(document["apps"][0] | {"slug": slug, "template": slug})
        del document["apps"][-1]["id"]

    installation.provision(add)


def opened(host: HostPage, page: Page, slug: str, way: str) -> Frame:
    """Open the app by its address or by the tag, and wait until its first script has run."""
    add_app(host.installation, slug)
    if way == "address":
        frame = host.embed(host.installation.address(app=slug))
    else:
        portal = Portal(page, host.installation)
        portal.visit(tag(app=slug))
        portal.events("loaded")
        frame = portal.frame()
    wait_until(page, lambda: slug in frame.url or frame.evaluate(f"{ROOT}.textContent").strip() != "")
    return frame


@pytest.fixture
def quiet(recorder: Recorder) -> None:
    recorder.allow("allow-scripts and allow-same-origin")


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("way", ["address", "tag"])
def test_the_first_script_of_an_app_finds_no_session_and_no_token(
    host: HostPage, page: Page, way: str
) -> None:
    frame = opened(host, page, "hostile", way)
    wait_until(page, lambda: frame.evaluate("typeof window.early") == "string")
    early = frame.evaluate("early + location.href + document.documentElement.outerHTML")
    assert "<head" in early
    assert not SECRET.search(early)


def test_an_app_finds_no_session_if_the_frames_script_does_not_load(
    host: HostPage, page: Page, recorder: Recorder
) -> None:
    recorder.allow("net::ERR_FAILED")
    page.route("**/frame.js*", lambda route: route.abort())
    frame = opened(host, page, "hostile", "address")
    wait_until(page, lambda: frame.evaluate("document.readyState") == "complete")
    assert not SECRET.search(frame.evaluate("early + document.documentElement.outerHTML"))
    assert frame.evaluate("window.embedBoot ?? null") is None


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("way", ["address", "tag"])
def test_elements_named_like_members_of_the_document_do_not_break_the_frame(
    host: HostPage, page: Page, way: str
) -> None:
    frame = opened(host, page, "clobber", way)
    text = f"{ROOT}.querySelector('h1')?.textContent"
    wait_until(page, lambda: bool(frame.evaluate("Object.hasOwn(window, 'embed')")))
    assert not SECRET.search(frame.evaluate(f"{ROOT}.outerHTML"))
    wait_until(page, lambda: frame.evaluate(f"{ROOT}.querySelector('.picture').naturalWidth") == 40)
    frame.evaluate(f"{ROOT}.querySelector('a.on').click()")
    wait_until(page, lambda: frame.evaluate(text) == "Second page")
    assert frame.evaluate("Reflect.get(Document.prototype, 'title', document)") == "Second"
    assert frame.evaluate("embed.fetch('session').then(({ status }) => status)") == 200
    frame.evaluate("embed.end()")
    wait_until(page, lambda: frame.evaluate(text) == "Your session was ended")


def test_parts_load_although_elements_are_named_like_members_of_the_document(
    host: HostPage, page: Page
) -> None:
    frame = opened(host, page, "clobber", "address")
    wait_until(page, lambda: bool(frame.evaluate("window.htmx?.version ?? null")))
    frame.evaluate(f"{ROOT}.querySelector('.part').click()")
    wait_until(page, lambda: "Part came" in frame.evaluate(f"{ROOT}.textContent"))
