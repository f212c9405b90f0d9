"""What a host's page and its frames hold of Chromium's memory: as much after a day as after an hour."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.sync_api import Page

from tests.e2e.browser.embedding import Portal, tag
from tests.e2e.browser.test_renewal import NEARLY, SHORT

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession

    from tests.e2e.browser.conftest import Witness

#: What is compiled and cached at first is no leak.
WARM_UP: Final = 10
LONG_WARM_UP: Final = 50
RENEWALS: Final = 120
#: Bytes by which the heap may differ: less than 300 sessions would take.
HEAP: Final = 200_000
#: What one lets go may hold what only the next one finds.
COLLECTIONS: Final = 5


@dataclass(frozen=True)
class Held:
    """What the garbage collector leaves."""

    listeners: int
    nodes: int
    documents: int
    ports: int


class Process:
    """The page's process, in which its frames are as well: a browser that is driven has one for all."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session: CDPSession = page.context.new_cdp_session(page)
        self.contexts: set[int] = set()
        self.session.on("Runtime.executionContextCreated", self._began)
        self.session.on("Runtime.executionContextDestroyed", self._ended)
        self.session.send("Runtime.enable")
        self.session.send("Performance.enable")

    def _began(self, event: dict[str, Any]) -> None:
        if event["context"]["auxData"]["isDefault"]:
            self.contexts.add(event["context"]["id"])

    def _ended(self, event: dict[str, Any]) -> None:
        self.contexts.discard(event["executionContextId"])

    def holds(self) -> tuple[Held, int]:
        """Return what there is after a collection, and the bytes of the heap."""
        for _ in range(COLLECTIONS):
            self.session.send("HeapProfiler.collectGarbage")
            self.page.wait_for_timeout(50)
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        found = {each["name"]: int(each["value"]) for each in metrics}
        ports = sum(map(self._ports, set(self.contexts)))
        held = Held(found["JSEventListeners"], found["Nodes"], found["Documents"], ports)
        return held, found["JSHeapUsedSize"]

    def _ports(self, context: int) -> int:
        """Return how many ports are alive that a page's scripts had in their hands."""
        group = {"objectGroup": "ports"}
        wish = {"expression": "MessagePort.prototype", "contextId": context} | group
        prototype = self.session.send("Runtime.evaluate", wish)["result"]["objectId"]
        found = self.session.send("Runtime.queryObjects", {"prototypeObjectId": prototype} | group)
        length = {"functionDeclaration": "function () { return this.length; }", "returnByValue": True}
        wish = {"objectId": found["objects"]["objectId"]} | length
        count: int = self.session.send("Runtime.callFunctionOn", wish)["result"]["value"]
        self.session.send("Runtime.releaseObjectGroup", group)
        return count


def forget(portal: Portal) -> None:
    """Let the page's own record of what it heard go, and what still waits for an answer to be late."""
    portal.page.evaluate("heard.length = said.length = 0")
    portal.pass_time(31)


def expect_flat(portal: Portal, again: Callable[[], None], times: int, warm_up: int = WARM_UP) -> None:
    process = Process(portal.page)

    def after(rounds: int) -> tuple[Held, int]:
        for _ in range(rounds):
            again()
            forget(portal)
        return process.holds()

    before, heap = after(warm_up)
    # Compiled code comes and goes as well, but what has leaked is there each time.
    later = [after(times), after(10), after(10)]
    for held, _ in later:
        for name, count in vars(held).items():
            assert count - vars(before)[name] < times / 2, (name, before, later)
    if warm_up == LONG_WARM_UP:
        assert min(size for _, size in later) - heap < HEAP, later


@pytest.fixture
def portal(portal: Portal) -> Portal:
    portal.page.clock.install()
    return portal


def test_a_frame_that_is_renewed_all_day_holds_no_more_than_at_first(portal: Portal) -> None:
    portal.wish = dict(SHORT)
    portal.open("auto-height")

    def renewed() -> None:
        portal.pass_time(NEARLY)
        portal.heard("session:renewed")

    expect_flat(portal, renewed, RENEWALS, LONG_WARM_UP)


def test_frames_that_come_and_go_leave_nothing_behind(portal: Portal) -> None:
    portal.visit()

    def come_and_go() -> None:
        portal.page.evaluate("(html) => after.insertAdjacentHTML('afterend', html)", tag())
        portal.heard("loaded")
        portal.page.evaluate("document.querySelector('pat-embed').remove()")

    expect_flat(portal, come_and_go, 20)


def test_a_frame_that_is_reloaded_holds_no_more_than_at_first(portal: Portal, witness: "Witness") -> None:
    witness.allow("target origin provided")
    frame = portal.open()

    def reloaded() -> None:
        forget(portal)
        frame.evaluate("() => { location.reload(); }")
        portal.heard("loaded")

    expect_flat(portal, reloaded, 20)
