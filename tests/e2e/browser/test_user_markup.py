"""Markup that users wrote and a sanitizer left: it sends no request with the session, in Chromium."""

from typing import Final

import pytest
from playwright.sync_api import Frame

from tests.e2e.browser.installation import LAB, HostPage
from tests.e2e.browser.recorder import Recorder

ROOT: Final = f"/embed-apps/{LAB}"
#: DOMPurify with its defaults leaves all of these as they are.
LEFT: Final = {
    "htmx at once": f'<p data-hx-post="{ROOT}/pages/note" data-hx-trigger="load">a</p>',
    "htmx by a timer": f'<p data-hx-get="{ROOT}/pages/part" data-hx-trigger="every 50ms">a</p>',
    "picture": f'<img data-embed-src="{ROOT}/data/me" alt="">',
    "download": f'<button data-embed-download="{ROOT}/data/me" data-embed-filename="a.hta">press</button>',
}
#: What a careless sanitizer leaves, below an element with hx-ignore.
IGNORED: Final = {
    "htmx at once": f'<p hx-post="{ROOT}/pages/note" hx-trigger="load">a</p>',
    "picture": f'<img embed-src="{ROOT}/data/me" alt="">',
    "download": f'<button embed-download="{ROOT}/data/me">press</button>',
    "form": f'<form action="{ROOT}/pages/note" method="post"><button>press</button></form>',
    "link": f'<a href="{ROOT}/pages/second">press</a>',
}
#: The form is the app's, and the button is not.
FOREIGN_BUTTON: Final = f"""<form id="own" action="{ROOT}/pages/note" method="post"></form>
    <div hx-ignore><button form="own" formaction="{ROOT}/pages/upload">press</button></div>"""
CASES: Final = [
    pytest.param(FOREIGN_BUTTON, id="ignored button of the app's form"),
    *(pytest.param(markup, id=name) for name, markup in LEFT.items()),
    *(
        pytest.param(f"<div hx-ignore>{markup}</div>", id=f"ignored {name}")
        for name, markup in IGNORED.items()
    ),
]


def requests_with_session(host: HostPage, recorder: Recorder, markup: str) -> list[str]:
    """Show the markup, and return the addresses that then get the session."""
    frame = host.open()
    before = len(recorder.requests)
    show(frame, markup)
    return [each.url for each in recorder.requests[before:] if "authorization" in each.all_headers()]


def show(frame: Frame, markup: str) -> None:
    """Put the markup into the page as an app would, and press its button or link."""
    frame.evaluate(
        """(markup) => {
            const main = document.getElementById("embed-main");
            main.innerHTML = markup;
            htmx.process(main);
        }""",
        markup,
    )
    frame.page.wait_for_timeout(200)
    if "press" in markup:
        frame.get_by_text("press").click(no_wait_after=True)
        frame.page.wait_for_timeout(200)


@pytest.mark.parametrize("markup", CASES)
def test_markup_of_users_sends_no_request_with_the_session(
    host: HostPage, recorder: Recorder, markup: str
) -> None:
    recorder.allow("form-action", "violates the following Content Security Policy")
    assert requests_with_session(host, recorder, markup) == []


@pytest.mark.parametrize("markup", IGNORED.values(), ids=IGNORED)
def test_the_same_markup_of_the_app_itself_works(host: HostPage, recorder: Recorder, markup: str) -> None:
    """So the test above would notice a request."""
    assert requests_with_session(host, recorder, markup)
