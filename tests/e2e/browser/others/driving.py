"""What the tests of other browsers ask of one: scripts, presses and keys in a page and in a frame of it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, Final, Protocol

PATIENCE: Final = 15  # seconds
LEAVE: Final = 300  # milliseconds
STOP: Final = 10  # seconds that a process has to end
#: Takes arguments and gives its result as JSON, which both protocols carry as texts. Promises are awaited.
CALL: Final = "async (given) => JSON.stringify((await ({function})(...JSON.parse(given))) ?? null)"


class DriverError(Exception):
    """The browser refused a command, or a script in it threw."""


class Browser(Protocol):
    """One tab of a real browser. `frame` is the selector of a frame of its page; none is the page itself."""

    name: str
    downloads: Path

    def goto(self, url: str) -> None:
        """Go there, and wait for the page's `load`."""

    def call(self, function: str, given: str, frame: str | None) -> str:
        """Run a function as `CALL` makes them, in the page's own world, and return its result."""

    def click(self, selector: str, frame: str | None) -> None:
        """Press the mouse's button on the element, as a person does."""

    def type(self, text: str, frame: str | None) -> None:
        """Press the keys, wherever the focus is."""


class View:
    """A page, or a frame in it."""

    def __init__(self, browser: Browser, frame: str | None = None) -> None:
        self.browser = browser
        self._frame = frame

    def run(self, function: str, *args: Any) -> Any:
        """Return what a function of JavaScript returns for these values, or raise DriverError."""
        call = CALL.replace("{function}", function)
        return json.loads(self.browser.call(call, json.dumps(args), self._frame))

    def leave(self, script: str) -> None:
        """Run what takes the page away, once the driver has had its answer."""
        self.run(f"() => {{ setTimeout(() => {script}, {LEAVE}); }}")

    def until(self, function: str, *args: Any) -> Any:
        """Return what the function returns, once that is something; a frame may come and go meanwhile."""
        end = time.monotonic() + PATIENCE
        last: object = None
        while time.monotonic() < end:
            try:
                if last := self.run(function, *args):
                    return last
            except DriverError as error:
                last = error
            time.sleep(0.05)
        raise AssertionError(f"{function} {args} after {PATIENCE} s: {last!r}")

    def reads(self, selector: str, text: str) -> None:
        """Wait until the element says this."""
        self.until("(it, text) => document.querySelector(it)?.innerText.trim() === text", selector, text)

    def click(self, selector: str) -> None:
        self.until("(it) => !!document.querySelector(it)", selector)
        self.browser.click(selector, self._frame)

    def type(self, selector: str, text: str) -> None:
        """Press on a field and type."""
        self.click(selector)
        self.browser.type(text, self._frame)


@contextmanager
def running(process: "Popen[bytes]") -> Iterator["Popen[bytes]"]:
    """End the process at the end."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP)
        except TimeoutExpired:
            process.kill()
            process.wait()
