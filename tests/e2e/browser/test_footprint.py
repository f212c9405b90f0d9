"""The memory that a host page and its frames use in Chromium does not grow over a day."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from playwright.sync_api import CDPSession, Page

from tests.e2e.browser.portal import NEARLY_EXPIRED_SECONDS, SHORT_SESSION, Portal, tag
from tests.e2e.browser.recorder import Recorder

#: Compiled code and caches grow in the first rounds without a leak.
WARM_UP: Final = 5
ROUNDS: Final = 12
HEAP_WARM_UP: Final = 25
HEAP_ROUNDS: Final = 60
#: 150 leaked sessions would take more.
HEAP_TOLERANCE_BYTES: Final = 100_000
#: A single collection is not enough: it can release an object that keeps another one alive.
COLLECTIONS: Final = 5


@dataclass(frozen=True)
class Objects:
    """The number of objects of each kind after a garbage collection."""

    listeners: int
    nodes: int
    documents: int
    ports: int


class Process:
    """The page's process. A driven browser runs the frames in the same one."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session: CDPSession = page.context.new_cdp_session(page)
        self.contexts: set[int] = set()
        self.session.on("Runtime.executionContextCreated", self._add_context)
        self.session.on("Runtime.executionContextDestroyed", self._discard_context)
        self.session.send("Runtime.enable")
        self.session.send("Performance.enable")

    def _add_context(self, event: dict[str, Any]) -> None:
        if event["context"]["auxData"]["isDefault"]:
            self.contexts.add(event["context"]["id"])

    def _discard_context(self, event: dict[str, Any]) -> None:
        self.contexts.discard(event["executionContextId"])

    def measure(self) -> tuple[Objects, int]:
        """Collect garbage; return the objects left and the bytes of the heap."""
        for _ in range(COLLECTIONS):
            self.session.send("HeapProfiler.collectGarbage")
            self.page.wait_for_timeout(50)
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        found = {each["name"]: int(each["value"]) for each in metrics}
        ports = sum(map(self._count_ports, set(self.contexts)))
        objects = Objects(found["JSEventListeners"], found["Nodes"], found["Documents"], ports)
        return objects, found["JSHeapUsedSize"]

    def _count_ports(self, context: int) -> int:
        """Return the number of live ports that scripts of this context have used."""
        group = {"objectGroup": "ports"}
        expression = {"expression": "MessagePort.prototype", "contextId": context} | group
        prototype = self.session.send("Runtime.evaluate", expression)["result"]["objectId"]
        found = self.session.send("Runtime.queryObjects", {"prototypeObjectId": prototype} | group)
        length = {"functionDeclaration": "function () { return this.length; }", "returnByValue": True}
        call = {"objectId": found["objects"]["objectId"]} | length
        count: int = self.session.send("Runtime.callFunctionOn", call)["result"]["value"]
        self.session.send("Runtime.releaseObjectGroup", group)
        return count


def forget(portal: Portal) -> None:
    """Clear the page's own records, and let every timer of a late answer run out."""
    portal.page.evaluate("events.length = messages.length = 0")
    portal.fast_forward(31)


def expect_no_leak(portal: Portal, repeat: Callable[[], None], check_heap: bool = False) -> None:
    process = Process(portal.page)

    def after(rounds: int) -> tuple[Objects, int]:
        for _ in range(rounds):
            repeat()
            forget(portal)
        return process.measure()

    warm_up, rounds = (HEAP_WARM_UP, HEAP_ROUNDS) if check_heap else (WARM_UP, ROUNDS)
    before, heap = after(warm_up)
    # Other growth varies between rounds, but a leak shows each time.
    later = [after(rounds), after(3), after(3)]
    for objects, _ in later:
        for name, count in vars(objects).items():
            assert count - vars(before)[name] < rounds / 2, (name, before, later)
    if check_heap:
        assert min(size for _, size in later) - heap < HEAP_TOLERANCE_BYTES, later


@pytest.fixture
def portal(portal: Portal) -> Portal:
    portal.page.clock.install()
    return portal


def test_a_frame_renewed_all_day_uses_no_more_memory(portal: Portal) -> None:
    portal.mint_options = dict(SHORT_SESSION)
    portal.open("auto-height")

    def renew() -> None:
        portal.fast_forward(NEARLY_EXPIRED_SECONDS)
        portal.events("session:renewed")

    expect_no_leak(portal, renew, check_heap=True)


def test_frames_that_come_and_go_leak_nothing(portal: Portal) -> None:
    portal.visit()

    def come_and_go() -> None:
        portal.page.evaluate("(html) => after.insertAdjacentHTML('afterend', html)", tag())
        portal.events("loaded")
        portal.page.evaluate("document.querySelector('pat-embed').remove()")

    expect_no_leak(portal, come_and_go)


def test_a_reloaded_frame_leaks_nothing(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("target origin provided")
    frame = portal.open()

    def reload() -> None:
        forget(portal)
        frame.evaluate("() => { location.reload(); }")
        portal.events("loaded")

    expect_no_leak(portal, reload)
