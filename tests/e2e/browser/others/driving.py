"""The interface to a browser other than Chromium: scripts, clicks and keys in a page and its frames."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any, Final, Protocol

TIMEOUT_SECONDS: Final = 15
LEAVE_AFTER_MS: Final = 300
STOP_TIMEOUT_SECONDS: Final = 10
#: Passes arguments and the result as JSON text, which both protocols carry, and awaits promises.
CALL: Final = "async (given) => JSON.stringify((await ({function})(...JSON.parse(given))) ?? null)"


class DriverError(Exception):
    """The browser refused a command, or a script in it threw."""


class Browser(Protocol):
    """One tab of a browser. `frame` is the selector of a frame in its page, or None for the page itself."""

    name: str
    downloads: Path

    def goto(self, url: str) -> None:
        """Go to the address, and wait for the page's `load`."""

    def call(self, function: str, given: str, frame: str | None) -> str:
        """Run a function made with `CALL` in the page's own world, and return its result."""

    def click(self, selector: str, frame: str | None) -> None:
        """Click the element with the mouse."""

    def type(self, text: str, frame: str | None) -> None:
        """Press the keys in the focused element."""


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
        """Run a script that destroys its page, after the driver has its answer."""
        self.run(f"() => {{ setTimeout(() => {script}, {LEAVE_AFTER_MS}); }}")

    def until(self, function: str, *args: Any) -> Any:
        """Call the function until its result is truthy, and return that. The frame may reload in between."""
        end = time.monotonic() + TIMEOUT_SECONDS
        last: object = None
        while time.monotonic() < end:
            try:
                if last := self.run(function, *args):
                    return last
            except DriverError as error:
                last = error
            time.sleep(0.05)
        raise AssertionError(f"{function} {args} after {TIMEOUT_SECONDS} s: {last!r}")

    def reads(self, selector: str, text: str) -> None:
        """Wait until the element has this text."""
        self.until("(it, text) => document.querySelector(it)?.innerText.trim() === text", selector, text)

    def click(self, selector: str) -> None:
        self.until("(it) => !!document.querySelector(it)", selector)
        self.browser.click(selector, self._frame)

    def type(self, selector: str, text: str) -> None:
        """Click a field and type."""
        self.click(selector)
        self.browser.type(text, self._frame)


@contextmanager
def running(process: "Popen[bytes]") -> Iterator["Popen[bytes]"]:
    """Stop the process at the end."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except TimeoutExpired:
            process.kill()
            process.wait()
