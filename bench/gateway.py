"""Apps that run elsewhere, behind the documented proxies: `python -m bench gateway`.

The first table is about single requests: the app alone, the proxy's question alone, and the app through each
proxy. The second is about pages in Chromium: Dash, and Streamlit if FRAMEWORKS names a Python that has it.
"""

import http.client
import json
import os
import socket
import ssl
import statistics
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from app import create_app
from bench.report import machine
from config import Config
from pat_service.cli import upgrade_schema
from tests.e2e.browser.conftest import CHROMIUM_ARGS
from tests.e2e.browser.portal import PAGE_HTML, tag
from tests.e2e.browser.site import Site, site
from tests.support import servers
from tests.support.people import KEY, WORLD, Service, provision
from tests.support.servers import HOST, Proxy, children_of, chromium, free_port, gunicorn, web_server
from tests.support.upstreams import cookie_header

ROUNDS: Final = 7
REQUESTS: Final = 200
PROXIES: Final = {"nginx": servers.nginx, "caddy": servers.caddy}
ANA: Final = "ana@acme.test"
QUESTION: Final = "/internal/embed-auth"
PAGES: Final = {
    "dash": "from dash import Dash, html\napp = Dash()\napp.layout = html.H1('Hello')\napp.run(port={port})",
    "streamlit": "import streamlit as st\nst.title('Hello')",
}
STREAMLIT: Final = (
    "-m streamlit run app.py --server.port {port} --server.headless true --browser.gatherUsageStats false"
)
#: Answers each request with two bytes.
APP: Final = """
import asyncio, sys

async def answer(reader, writer):
    try:
        while await reader.readuntil(b"\\r\\n\\r\\n"):
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    except (EOFError, OSError):
        writer.close()

async def main():
    await (await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))).serve_forever()

asyncio.run(main())
"""


def measure(rounds: int, folder: Path) -> None:
    """Print both tables of this machine."""
    sys.stdout.write(f"{machine()}\n\n")
    with ExitStack() as stack:
        pages, apps = stack.enter_context(_pages(folder)), folder / "requests"
        port = free_port()
        app = stack.enter_context(
            web_server([sys.executable, "-c", APP, str(port)], {}, port=port, cwd=folder)
        )
        apps.mkdir()
        _measure_requests(rounds, apps, app.url)
        loads = folder / "loads"
        loads.mkdir()
        _measure_loads(rounds, loads, pages)


@dataclass
class World:
    """A service whose apps are behind one proxy, and the site of a host page."""

    proxy: Proxy
    service: Service
    host: Site
    pid: int

    def mint(self, slug: str) -> dict[str, Any]:
        answer = self.service.mint(appSlug=slug)
        if answer.status_code != 201:
            raise RuntimeError(answer.text)
        return dict(answer.json or {})


@contextmanager
def _world(make: Callable[..., Any], folder: Path, apps: Mapping[str, str]) -> Iterator[World]:
    with ExitStack() as stack:
        host = stack.enter_context(site())
        proxy = stack.enter_context(make(folder, upstreams=list(apps.values())))
        environ = {
            "SECRET_KEY": KEY,
            "DATABASE_URL": f"sqlite:///{folder / 'pat-service.db'}",
            "PUBLIC_URL": f"https://{{app}}.{HOST}:{proxy.port}",
            "TRUSTED_PROXIES": "1",
            "USER_MINT_RATE_LIMIT": servers.NO_USER_LIMIT,
        }
        app = create_app(Config.from_environment(environ, folder))
        with app.app_context():
            upgrade_schema()
        provision(app, WORLD)
        same = {"workspace": "acme", "allowed_origins": [host.origin], "users": [ANA]}
        provision(app, {"apps": [same | {"slug": slug, "upstream": url} for slug, url in apps.items()]})
        (folder / "2.sock").symlink_to(folder / "1.sock")
        server = stack.enter_context(gunicorn(environ, workers=1, at=folder / "1.sock"))
        yield World(proxy, Service(app.test_client()), host, server.process.pid)


# Requests.


@dataclass
class Course:
    """One way to send a request, and what it took."""

    connection: http.client.HTTPConnection
    path: str
    headers: dict[str, str]
    pids: dict[str, int]
    times: list[float] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        before = {name: _cpu_seconds(pid) for name, pid in self.pids.items()}
        for _ in range(REQUESTS):
            begun = time.perf_counter()
            self.connection.request("GET", self.path, headers=self.headers)
            answer = self.connection.getresponse()
            answer.read()
            self.times.append(time.perf_counter() - begun)
            if answer.status != 200:
                raise RuntimeError(f"{self.path}: {answer.status}")
        for name, pid in self.pids.items():
            self.cpu[name] = self.cpu.get(name, 0) + _cpu_seconds(pid) - before[name]

    def row(self) -> str:
        each = {name: f"{1000 * spent / len(self.times):.2f}" for name, spent in self.cpu.items()}
        cells = [1000 * statistics.median(self.times)]
        return " | ".join(
            [*(f"{cell:.2f}" for cell in cells), each.get("proxy", ""), each.get("service", "")]
        )


def _measure_requests(rounds: int, folder: Path, app: str) -> None:
    with ExitStack() as stack:
        courses = {"the app alone": Course(http.client.HTTPConnection(urlsplit(app).netloc), "/", {}, {})}
        for name, make in PROXIES.items():
            place = folder / name
            place.mkdir()
            world = stack.enter_context(_world(make, place, {"sales": app}))
            host, headers = _open(world)
            if name == "nginx":
                reported = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/", "X-Forwarded-Proto": "https"}
                asked = headers | reported | {"Host": host}
                connection = _OnSocket(place / "1.sock")
                courses["the question alone"] = Course(connection, QUESTION, asked, {"service": world.pid})
            pids = {"proxy": world.proxy.process.pid, "service": world.pid}
            through = _OnPort(world.proxy.port, host)
            courses[f"the app through {name}"] = Course(through, "/", headers | {"Host": host}, pids)
        for _ in range(rounds):
            for course in courses.values():
                course.run()
        lines = ["| | p50, ms | CPU of the proxy, ms | CPU of the service, ms |", "|---|---|---|---|"]
        lines += [f"| {name} | {course.row()} |" for name, course in courses.items()]
        sys.stdout.write("\n".join([*lines, "", ""]))


def _open(world: World) -> tuple[str, dict[str, str]]:
    """Open Ana's frame as a browser does, and return its host and the headers of the app's requests."""
    address = urlsplit(world.mint("sales")["redirectUrl"])
    token = address.query.partition("=")[2]
    connection = _OnPort(world.proxy.port, address.netloc)
    body = json.dumps({"accessToken": token, "parentOrigin": world.host.origin})
    headers = {"Host": address.netloc, "Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
    connection.request("POST", f"{address.path}/frame", body, headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(answer.read())
    name, _, value = str(answer.getheader("Set-Cookie")).partition(";")[0].partition("=")
    return address.netloc, {"Cookie": cookie_header({name: value}), "Sec-Fetch-Site": "same-origin"}


class _OnSocket(http.client.HTTPConnection):
    """A connection to the socket of an instance."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class _OnPort(http.client.HTTPConnection):
    """A TLS connection to a proxy of this machine, for one of its hosts."""

    def __init__(self, port: int, host: str) -> None:
        super().__init__("127.0.0.1", port)
        self._name = host.partition(":")[0]

    def connect(self) -> None:
        super().connect()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, server_hostname=self._name)


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children."""
    spent = 0
    for each in (pid, *children_of(pid)):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


# Pages.


@contextmanager
def _pages(folder: Path) -> Iterator[dict[str, str]]:
    """Run the apps of `PAGES`, and yield their addresses."""
    pythons = {"dash": sys.executable, "streamlit": os.environ.get("FRAMEWORKS", "")}
    with ExitStack() as stack:
        found = {}
        for name, python in pythons.items():
            if python:
                port, place = free_port(), folder / name
                place.mkdir()
                (place / "app.py").write_text(PAGES[name].replace("{port}", str(port)))
                options = "app.py" if name == "dash" else STREAMLIT.replace("{port}", str(port))
                server = web_server([python, *options.split()], {}, port=port, cwd=place)
                found[name] = stack.enter_context(server).url
        yield found


def _measure_loads(rounds: int, folder: Path, apps: Mapping[str, str]) -> None:
    with ExitStack() as stack:
        world = stack.enter_context(_world(servers.caddy, folder, apps))
        playwright = stack.enter_context(sync_playwright())
        args = [
            *CHROMIUM_ARGS,
            f"--host-resolver-rules=MAP *.{HOST} 127.0.0.1,MAP {HOST} 127.0.0.1",
            # If the browser ignored the error of the certificate, it would keep no file.
            f"--ignore-certificate-errors-spki-list={_key_digest(world.proxy)}",
        ]
        browser = playwright.chromium.launch(executable_path=chromium(), args=args)
        stack.callback(browser.close)
        lines = [
            "| | text alone, s | embedded, s | again, s | requests of the app | again | ours | again |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, url in apps.items():
            times: dict[str, list[float]] = {"alone": [], "first": [], "again": []}
            counts: dict[str, list[tuple[int, int]]] = {"first": [], "again": []}
            for _ in range(rounds):
                with _context(browser) as context:
                    times["alone"].append(_load(context.new_page(), url))
                with _context(browser) as context:
                    for visit, counted in counts.items():
                        before = _requests(world.proxy)
                        times[visit].append(_embed(world, context, name))
                        after = _requests(world.proxy)
                        counted.append((after[0] - before[0], after[1] - before[1]))
            seconds = [f"{statistics.median(values):.2f}" for values in times.values()]
            requests = [
                f"{statistics.median(each[side] for each in counted):.0f}"
                for side in (0, 1)
                for counted in counts.values()
            ]
            lines.append(f"| {' | '.join([name, *seconds, *requests])} |")
        sys.stdout.write("\n".join([*lines, ""]))


@contextmanager
def _context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


def _load(page: Page, url: str) -> float:
    begun = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector("text=Hello")
    return time.perf_counter() - begun


def _embed(world: World, context: BrowserContext, slug: str) -> float:
    """Open a host page with the app, and return the seconds until its text is there."""
    page = context.new_page()
    script = f"https://{HOST}:{world.proxy.port}/embed.js"
    world.host.posts["/embed-token"] = lambda: world.mint(slug)
    world.host.pages["/"] = PAGE_HTML.format(listen="", script=script, body=tag("auto-height", slug))
    begun = time.perf_counter()
    page.goto(world.host.url(), wait_until="commit")
    frame = page.frame_locator("pat-embed iframe").frame_locator("#embed-main iframe")
    frame.get_by_text("Hello").wait_for()
    took = time.perf_counter() - begun
    # The rest of the page.
    page.wait_for_timeout(2000)
    page.close()
    return took


def _key_digest(proxy: Proxy) -> str:
    """Return the digest of the public key of the proxy's certificate."""
    certificate = x509.load_pem_x509_certificate((proxy.error_log.parent / "fullchain.pem").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b64encode(sha256(key).digest()).decode()


def _requests(proxy: Proxy) -> tuple[int, int]:
    """Return how many requests the proxy has logged: those of apps, and ours."""
    lines = [json.loads(line)["request"] for line in proxy.log.read_text().splitlines()]
    ours = sum("/embed" in line["uri"] for line in lines)
    return len(lines) - ours, ours
