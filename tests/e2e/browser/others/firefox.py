"""Firefox, driven by WebDriver BiDi over its own web socket, without a separate driver."""

import itertools
import json
import os
import re
import socket
import struct
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from time import monotonic, sleep
from types import MappingProxyType
from typing import Any, Final

from tests.e2e.browser.others.driving import DriverError, running
from tests.support.servers import program

NAMES: Final = ("firefox-esr", "firefox")
START_TIMEOUT_SECONDS: Final = 60
COMMAND_TIMEOUT_SECONDS: Final = 60
#: BiDi does not scroll an element into view before a click.
SEEN: Final = """(it) => {
    const found = document.querySelector(it);
    found.scrollIntoView({ block: "center", behavior: "instant" });
    return found;
}"""
LISTENING: Final = re.compile(r"WebDriver BiDi listening on ws://127\.0\.0\.1:(\d+)")
PREFERENCES: Final = {
    "network.cookie.cookieBehavior": 1,  # block cookies in another site's frame
    "browser.download.folderList": 2,
    "browser.download.always_ask_before_handling_new_types": False,
    "browser.helperApps.neverAsk.saveToDisk": "text/plain",
}


class Socket:
    """A web socket client (RFC 6455) for text messages only."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=COMMAND_TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        key = b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        while self._stream.readline().strip():
            pass

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, text: str) -> None:
        data = text.encode()
        size = len(data)
        if size < 126:
            length = bytes([0x80 | size])
        else:
            length = struct.pack(">BH", 0xFE, size) if size < 2**16 else struct.pack(">BQ", 0xFF, size)
        mask = os.urandom(4)
        masked = bytes(byte ^ key for byte, key in zip(data, itertools.cycle(mask), strict=False))
        self._socket.sendall(b"\x81" + length + mask + masked)

    def receive(self) -> str:
        """Return the next text. Raises ConnectionError."""
        text = b""
        while True:
            first, size = self._exactly(2)
            if size > 125:
                size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
            data = self._exactly(size)
            if first & 0x0F > 2:
                continue  # a control frame; after a close the next read fails
            text += data
            if first & 0x80:
                return text.decode()

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise ConnectionError("Firefox closed the connection.")
        return data


class Firefox:
    name = "firefox"

    def __init__(self, port: int, downloads: Path, capabilities: dict[str, Any]) -> None:
        self.downloads = downloads
        self.errors: list[str] = []  # uncaught exceptions and policy violations
        self._socket = Socket(port, "/session")
        self._numbers = itertools.count(1)
        self._send("session.new", capabilities={"alwaysMatch": capabilities})
        self._send("session.subscribe", events=["log.entryAdded"])
        self._tab: str = self._send("browsingContext.getTree")["contexts"][0]["context"]
        self._send("browsingContext.setViewport", context=self._tab, viewport={"width": 1200, "height": 900})

    def close(self) -> None:
        self._socket.close()

    def goto(self, url: str) -> None:
        self._send("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def call(self, function: str, given: str, frame: str | None) -> str:
        return self._call(function, self._context(frame), {"type": "string", "value": given})["value"]

    def click(self, selector: str, frame: str | None) -> None:
        context = self._context(frame)
        element = self._call(SEEN, context, {"type": "string", "value": selector})
        origin = {"type": "element", "element": {"sharedId": element["sharedId"]}}
        actions = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._act(context, {"type": "pointer", "id": "mouse", "actions": actions})

    def type(self, text: str, frame: str | None) -> None:
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self._act(self._context(frame), {"type": "key", "id": "keys", "actions": keys})

    def _act(self, context: str, source: dict[str, Any]) -> None:
        self._send("input.performActions", context=context, actions=[source])

    def _context(self, frame: str | None) -> str:
        if not frame:
            return self._tab
        find = "(it) => document.querySelector(it).contentWindow"
        return self._call(find, self._tab, {"type": "string", "value": frame})["value"]["context"]

    def _call(self, function: str, context: str, given: dict[str, Any]) -> dict[str, Any]:
        answer = self._send(
            "script.callFunction",
            functionDeclaration=function,
            arguments=[given],
            target={"context": context},
            awaitPromise=True,
        )
        if answer["type"] == "exception":
            raise DriverError(answer["exceptionDetails"]["text"])
        return answer["result"]

    def _send(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            reply = json.loads(self._socket.receive())
            if reply.get("method") == "log.entryAdded":
                self._record(reply["params"])
            elif reply.get("id") == number:
                break
        if reply["type"] == "error":
            raise DriverError(f"{reply['error']}: {reply['message']}")
        return reply["result"]

    def _record(self, entry: dict[str, Any]) -> None:
        if entry["type"] == "javascript" and entry["level"] == "error":
            self.errors.append(entry["text"])


def installed() -> str:
    """Return the path of Firefox. Raises FileNotFoundError."""
    for name in NAMES:
        try:
            return program(name)
        except FileNotFoundError as error:
            missing = error
    raise missing


@contextmanager
def firefox(
    folder: Path, changes: Mapping[str, Any] = MappingProxyType({}), **capabilities: Any
) -> Iterator[Firefox]:
    """Run Firefox with a profile in `folder`. Raises FileNotFoundError if it is not installed.

    `changes` are other preferences than usual.
    """
    path = installed()
    downloads = folder / "downloads"
    downloads.mkdir()
    preferences = PREFERENCES | {"browser.download.dir": str(downloads)} | dict(changes)
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
    (folder / "user.js").write_text("".join(lines))
    command = [path, "--headless", "--no-remote", "--profile", str(folder), "--remote-debugging-port", "0"]
    log = folder / "log"
    with open(log, "wb") as output:
        process = Popen(
            command, env=os.environ | {"HOME": str(folder)}, stdin=DEVNULL, stdout=output, stderr=STDOUT
        )
    with running(process):
        end = monotonic() + START_TIMEOUT_SECONDS
        while not (found := LISTENING.search(log.read_text(errors="replace"))):
            assert process.poll() is None, log.read_text(errors="replace")
            assert monotonic() < end, log.read_text(errors="replace")
            sleep(0.05)
        opened = Firefox(int(found[1]), downloads, capabilities)
        try:
            yield opened
        finally:
            opened.close()
