"""WebKitGTK, driven by W3C WebDriver: its own driver, and its MiniBrowser on a virtual screen."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from http.client import HTTPConnection
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any, Final

from tests.e2e.browser.others.driving import DriverError, running
from tests.support.servers import free_port, program

ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name for a reference
BROWSERS: Final = "/usr/lib/*/webkit2gtk-4.*/MiniBrowser"
COMMAND_TIMEOUT_SECONDS: Final = 60
SCRIPT_TIMEOUT_MS: Final = 5000  # a script in a page that goes away is never answered
CALL: Final = """
const done = arguments[arguments.length - 1];
({function})(arguments[0]).then((value) => done({ value }), (error) => done({ error: String(error) }));
"""


class WebKit:
    name = "webkit"

    def __init__(self, port: int, downloads: Path) -> None:
        self.downloads = downloads
        self._port = port
        self._session = ""

    def begin(self, browser: str) -> None:
        options = {"binary": browser, "args": ["--automation"]}
        match = {"webkitgtk:browserOptions": options, "timeouts": {"script": SCRIPT_TIMEOUT_MS}}
        capabilities = {"capabilities": {"alwaysMatch": match}}
        self._session = f"/session/{self._send('POST', '/session', capabilities)['sessionId']}"

    def end(self) -> None:
        if self._session:
            self._send("DELETE", self._session)

    def goto(self, url: str) -> None:
        self._enter(None)
        self._send("POST", f"{self._session}/url", {"url": url})

    def call(self, function: str, given: str, frame: str | None) -> str:
        self._enter(frame)
        script = {"script": CALL.replace("{function}", function), "args": [given]}
        answer = self._send("POST", f"{self._session}/execute/async", script)
        if "error" in answer:
            raise DriverError(answer["error"])
        return answer["value"]

    def click(self, selector: str, frame: str | None) -> None:
        self._enter(frame)
        self._send("POST", f"{self._session}/element/{self._find(selector)}/click", {})

    def type(self, text: str, frame: str | None) -> None:
        self._enter(frame)
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keys", "actions": keys}]
        self._send("POST", f"{self._session}/actions", {"actions": actions})

    def answers(self) -> bool:
        try:
            return bool(self._send("GET", "/status"))
        except OSError:
            return False

    def _enter(self, frame: str | None) -> None:
        self._send("POST", f"{self._session}/frame", {"id": None})
        if frame:
            self._send("POST", f"{self._session}/frame", {"id": {ELEMENT: self._find(frame)}})

    def _find(self, selector: str) -> str:
        query = {"using": "css selector", "value": selector}
        return self._send("POST", f"{self._session}/element", query)[ELEMENT]

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=COMMAND_TIMEOUT_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            value = json.load(answer)["value"]
        finally:
            connection.close()
        if answer.status != 200:
            raise DriverError(f"{value['error']}: {value['message']}")
        return value


def installed() -> str:
    """Return the path of MiniBrowser. Raises FileNotFoundError."""
    program("WebKitWebDriver")
    program("Xvfb")
    if found := glob(BROWSERS):
        return found[0]
    raise FileNotFoundError("WebKitGTK's MiniBrowser is missing: run make programs")


@contextmanager
def _screen() -> Iterator[str]:
    """Run a virtual screen, and yield the value of DISPLAY."""
    read, write = os.pipe()
    options = ["-displayfd", str(write), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    screen = Popen([program("Xvfb"), *options], pass_fds=[write], stdout=DEVNULL, stderr=DEVNULL)
    os.close(write)
    with running(screen), open(read) as number:
        yield f":{number.readline().strip()}"


@contextmanager
def webkit(folder: Path) -> Iterator[WebKit]:
    """Run WebKit with a home in `folder`. Raises FileNotFoundError if it is not installed."""
    browser = installed()
    downloads = folder / "Downloads"
    downloads.mkdir()
    (folder / ".config").mkdir()
    (folder / ".config" / "user-dirs.dirs").write_text('XDG_DOWNLOAD_DIR="$HOME/Downloads"\n')
    with _screen() as display:
        env = os.environ | {
            "HOME": str(folder),
            "DISPLAY": display,
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",  # WebKit has no sandbox for root
        }
        for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "WAYLAND_DISPLAY"):
            env.pop(name, None)
        port = free_port()
        command = [program("WebKitWebDriver"), "--host=127.0.0.1", f"--port={port}"]
        with open(folder / "log", "wb") as log:
            driver = Popen(command, env=env, stdin=DEVNULL, stdout=log, stderr=STDOUT)
        opened = WebKit(port, downloads)
        with running(driver):
            while not opened.answers():
                assert driver.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            try:
                opened.begin(browser)
                yield opened
            finally:
                opened.end()
