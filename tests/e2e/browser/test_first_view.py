"""The first view of an app: its requests, in waves. A wave needs the answers of the wave before.

A line holds each answer until the browser has sent the whole wave, so nothing here depends on time.
"""

import gzip
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Page, expect

from pat_service.embed.embed_js import SCRIPT
from tests.e2e.browser.installation import Installation
from tests.e2e.browser.portal import BLOCKED_LINES
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until
from tests.support.line import Exchange, Line, line, source_of
from tests.support.people import ORDERS
from tools.publish_embed import STATIC

#: The first view, from a clone: without files that only a release has.
FIRST: Final = [
    {"GET embed.js"},
    {"GET frame"},
    {"GET frame.js", "GET embed.css", "GET htmx-4.0.1.min.js", "GET orders.css", "GET orders.js"},
    {"POST frame"},
]
LATER: Final = [{"GET frame"}, {"POST frame"}]
#: Bytes of the first view, with the answers' headers. A tenth more fails.
FIRST_BYTES: Final = 61_000
#: About the headers of a public file.
HEADER_BYTES: Final = 600
PAGE: Final = """<!doctype html><html lang="en"><title>Host</title><link rel="icon" href="data:,">
<script src="{service}/embed.js" defer></script>
<pat-embed app="orders" token-url="/token" {attributes}></pat-embed>
<script>addEventListener("loaded", () => {{ window.shown = true; }}, true);</script>"""


@dataclass
class View:
    """A host page that embeds Orders over a line."""

    page: Page
    line: Line
    installation: Installation
    tokens: int = 0
    refuses: bool = False
    #: Set while the host's token endpoint answers.
    answers: threading.Event = field(default_factory=threading.Event)

    @property
    def service(self) -> str:
        return f"http://127.0.0.1:{self.line.port}"

    def open(self, attributes: str) -> None:
        site = self.installation.site
        site.pages["/view"] = PAGE.format(service=self.service, attributes=attributes)
        site.posts["/token"] = self.give_token
        self.page.goto(site.url("/view"), wait_until="commit")

    def give_token(self) -> dict[str, Any]:
        self.tokens += 1
        self.answers.wait(30)
        if self.refuses:
            return {}
        minted = self.installation.mint(app="orders")
        return minted | {"redirectUrl": minted["redirectUrl"].replace(self.installation.url, self.service)}

    def expect_waves(self, waves: list[set[str]], token_in: int) -> list[Exchange]:
        """Hold each wave until it is complete, and return all exchanges. The token is in one of the waves."""
        exchanges: list[Exchange] = []
        for number, wave in enumerate(waves):
            wait_until(self.page, lambda wave=wave: len(self.line.exchanges) >= len(wave))  # type: ignore[misc]
            if number == token_in:
                wait_until(self.page, lambda: self.tokens > 0)
                self.answers.set()
            released = self.line.release()
            assert {each.name for each in released} == wave
            exchanges += released
        self.page.wait_for_function("window.shown")
        self.page.wait_for_load_state("networkidle")
        assert [each.name for each in self.line.take()] == []
        return exchanges


def size_of(exchange: Exchange, service: str) -> int:
    """Return the bytes of the answer. If it is a public file, return the bytes of its source, compressed."""
    if exchange.path == f"/{SCRIPT}":
        return len(gzip.compress((STATIC / SCRIPT).read_bytes())) + HEADER_BYTES
    path = re.sub(r"^/embed-static/[0-9a-f]{12}/", "/static/", source_of(exchange.path))
    if not path.startswith("/static/"):
        return exchange.size
    with urlopen(Request(service + path, headers={"Accept-Encoding": "gzip"})) as answer:
        return len(answer.read()) + HEADER_BYTES


@pytest.fixture
def view(page: Page, installation: Installation) -> Iterator[View]:
    with line(installation.server.port) as running:
        running.holds = True
        yield View(page, running, installation)


def test_orders_needs_four_waves_at_first_and_two_later_without_a_revalidation(view: View) -> None:
    attributes = f'frame="{view.service}/embed-apps/{ORDERS}"'
    view.open(attributes)
    first = view.expect_waves(FIRST, token_in=1)
    size = sum(size_of(each, view.installation.url) for each in first)
    assert size <= FIRST_BYTES * 1.1, f"The first view has {size} bytes"

    view.tokens = 0
    view.answers.clear()
    view.open(attributes)
    later = view.expect_waves(LATER, token_in=0)
    assert not any(each.revalidates for each in later)


def test_without_the_frames_address_the_token_is_a_wave_of_its_own(view: View) -> None:
    view.line.holds = False
    view.open("")
    wait_until(view.page, lambda: view.tokens > 0)
    assert [each.name for each in view.line.take()] == ["GET embed.js"]
    view.line.holds = True
    view.answers.set()
    view.expect_waves(FIRST[1:], token_in=-1)
    assert view.tokens == 1


def test_a_lazy_tag_below_the_view_loads_nothing_early(view: View) -> None:
    view.line.holds = False
    view.open(f'frame="{view.service}/embed-apps/{ORDERS}" loading="lazy" style="margin-top:5000px"')
    view.page.wait_for_load_state("networkidle")
    assert [each.name for each in view.line.take()] == ["GET embed.js"]
    assert view.tokens == 0
    view.answers.set()
    view.page.locator("pat-embed").scroll_into_view_if_needed()
    view.page.wait_for_function("window.shown")


@pytest.mark.parametrize(
    "address",
    [
        "{service}/embed-apps/00000000-0000-4000-8000-000000000000",
        "{other}/nothing",
        "javascript:alert(1)",
        "/x",
    ],
)
def test_a_frame_that_loads_early_is_dropped_if_the_mint_names_another_address(
    view: View, recorder: Recorder, address: str
) -> None:
    recorder.allow("pat-embed: frame: ", *BLOCKED_LINES)
    view.line.holds = False
    other = view.installation.site.url(host="127.0.0.1").rstrip("/")
    view.open(f'frame="{address.format(service=view.service, other=other)}"')
    view.answers.set()
    view.page.wait_for_function("window.shown")
    frame = view.page.locator("pat-embed iframe").element_handle().content_frame()
    assert frame
    expect(frame.locator("h1")).to_have_text("Orders")
    assert view.tokens == 1


def test_a_refused_token_removes_the_frame_that_has_loaded_early(view: View, recorder: Recorder) -> None:
    recorder.allow("pat-embed: fetch_token_failed")
    view.line.holds = False
    view.refuses = True
    view.answers.set()
    view.open(f'frame="{view.service}/embed-apps/{ORDERS}"')
    alert = view.page.get_by_role("alert")
    expect(alert).to_be_visible()
    expect(view.page.locator("pat-embed iframe")).to_have_count(0)
    view.refuses = False
    expect(alert.get_by_role("button")).to_have_count(0)
    view.page.evaluate("void document.querySelector('pat-embed').frame.refresh()")
    view.page.wait_for_function("window.shown")
    expect(alert).to_have_count(0)
