"""What the browser tests visit: a copy of the project to run, and a page of somebody else's."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request, urlopen

from tests.support.servers import PROJECT

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page

NOT_COPIED: Final = (
    ".venv",
    "node_modules",
    ".git",
    "instance",
    "failures",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    ".env",
)


# ---- The project ----


def copy_project(folder: Path) -> Path:
    """Copy the working tree, without what an installation makes, into `folder`, and return that.

    A server that runs there has an instance folder of its own: the checkout's demo stays as it is.
    """
    return Path(shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED)))


def environment(home: Path) -> dict[str, str]:
    """What a person's shell has, and nothing of the settings of this one."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(home), "LANG": "C.UTF-8", "FLASK_SKIP_DOTENV": "1"}


def shell(command: str, tree: Path, **environ: str) -> str:
    """Run the command as somebody who sits in `tree` would, and return its standard output."""
    # A page may say `flask` or `.venv/bin/flask`; the tests' own environment has the same one.
    command = re.sub(r"(?:\.venv/bin/)?\bflask (?=--app)", f"{sys.executable} -m flask ", command)
    done = subprocess.run(
        ["sh", "-euc", command],
        cwd=tree,
        env=environment(tree) | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def curl(pasted: str, tree: Path, **environ: str) -> dict[str, Any]:
    """Paste a curl command with a JSON body into a shell, and return the JSON of its answer.

    Where there is no curl, its part is played here: the shell still takes the command apart.
    """
    if shutil.which("curl"):
        return json.loads(shell(pasted.replace("curl ", "curl -sS ", 1), tree, **environ))
    words = shell(f'curl() {{ printf "%s\\0" "$@"; }}\n{pasted}', tree, **environ).split("\0")
    given = {flag: words[words.index(flag) + 1] for flag in ("-u", "-H", "-d")}
    name, _, value = given["-H"].partition(": ")
    return send(words[0], given["-d"], given["-u"], {name: value})


def send(url: str, body: str, client: str, headers: Mapping[str, str]) -> dict[str, Any]:
    from base64 import b64encode

    basic = {"Authorization": f"Basic {b64encode(client.encode()).decode()}"}
    with urlopen(Request(url, body.encode(), {**headers, **basic}), timeout=10) as answer:
        return json.loads(answer.read())


def mint(service: str, client: str, **wish: Any) -> str:
    """Mint over HTTP, as a portal's server side does, and return the `redirectUrl`."""
    wish = {"sessionExpiry": 60, "patExpiry": 300, **wish}
    path = "/api/ext/users/personal-access-token"
    answer = send(service + path, json.dumps(wish), client, {"Content-Type": "application/json"})
    return str(answer["redirectUrl"])


# ---- Somebody else's site ----


@dataclass
class Site:
    """A web site with pages by path, under every name that this machine has for itself.

    `posts` are its server side: what a POST to the path is answered, as JSON. `headers` are more of a page's.
    """

    port: int
    pages: dict[str, str] = field(default_factory=dict)
    posts: dict[str, Callable[[], Any]] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    def url(self, path: str = "/", host: str = "localhost") -> str:
        return f"http://{host}:{self.port}{path}"


@contextlib.contextmanager
def site() -> Iterator[Site]:
    """Serve a `Site` that has no pages yet."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            html = served.pages.get(self.path)
            if html is None:
                self._answer(404, "text/plain", b"")
            else:
                self._answer(200, "text/html; charset=utf-8", html.encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self._answer(200, "application/json", json.dumps(served.posts[self.path]()).encode())

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in served.headers.get(self.path, {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Site(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


#: Its scripts have run, the app's own and htmx too, and its style sheets and pictures are there.
READY: Final = """() => window.embed && document.readyState === "complete"
    && !document.querySelector("[data-embed-src]:not([src])")
    && [...document.querySelectorAll("link[rel=stylesheet]")].every(({ sheet }) => sheet)"""


def ready(frame: "Frame") -> None:
    """Wait until the frame's page runs, looks as it will, and asks for no more by itself."""
    # By the clock, not by drawn frames: the browser draws none of what is out of view.
    frame.wait_for_function(READY, polling=50)


def until(page: "Page", true: Callable[[], bool]) -> None:
    """Wait until something is true that no page knows of: what the browser tells comes when it comes."""
    for _ in range(500):
        if true():
            return
        page.wait_for_timeout(20)
    raise AssertionError("It did not come true")
