"""The portals of examples/, each started as its README says, and used by Ana in Chromium."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Frame, Page, Route, expect

from app import create_app
from config import Config
from pat_service.storage.database import db
from tests.e2e.browser.installation import ANA, HOST_HTML, SECRET
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import MINT, site, wait_until, wait_until_ready
from tests.support.people import KEY, provision
from tests.support.servers import PROJECT, free_port, gunicorn, program, web_server

EXAMPLES: Final = PROJECT / "examples"
#: Pages that `npm run build` makes.
BUILT: Final = ("react", "vue")
#: Pages with their own states and controls. The portal in Express serves them.
PAGES: Final = ("html", *BUILT)
KINDS: Final = ("flask", *PAGES)
#: Each back end, with the folder of its page.
BACK_ENDS: Final = {"flask": "flask", "express": "html"}
MOST_LINES: Final = 60
TOKEN: Final = "/embed-token"
REDIRECTS: Final = (302, 303, 307, 308)
#: A request that a page of another origin can send without a preflight.
FORM: Final = "{method: 'POST', mode: 'no-cors', credentials: 'include'}"
AS_JSON: Final = (
    "{method: 'POST', credentials: 'include', headers: {'Content-Type': 'application/json'}, "
    "body: JSON.stringify({app: 'orders'})}"
)


#: npm runs node, which may be in the virtual environment.
NODE_PATH: Final = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@dataclass(frozen=True)
class ExamplePortal:
    """A running example, and Ana's steps in it."""

    url: str

    def sign_in(self, page: Page) -> None:
        page.goto(self.url)
        page.get_by_role("button", name="Sign in as Ana").click()
        page.wait_for_selector("pat-embed")

    def frame(self, page: Page) -> Frame:
        """Wait until the app is ready, and return its frame."""
        frame = page.locator("pat-embed iframe").element_handle().content_frame()
        assert frame
        expect(frame.get_by_role("heading", name="Orders", exact=True)).to_be_visible()
        wait_until_ready(frame)
        return frame


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples with their npm packages, and with the built pages."""
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("node_modules", "public", "__pycache__"))
    # `npm run types` fetches this file from the service.
    shutil.copy(PROJECT / "static/embed.d.ts", folder / "react/pat-embed.d.ts")
    # One installation for all: npm links the folders of a workspace to the same packages.
    (folder / "package.json").write_text(json.dumps({"private": True, "workspaces": ["express", *BUILT]}))
    _run_npm("install", "--no-audit", "--no-fund", "--no-package-lock", cwd=folder)
    _run_npm("run", "build", *(f"--workspace={kind}" for kind in BUILT), cwd=folder)
    return folder


def _run_npm(*command: str, cwd: Path) -> None:
    try:
        program("node")
        npm = program("npm")
    except FileNotFoundError as missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))
    env = os.environ | NODE_PATH
    done = subprocess.run(
        [npm, *command], cwd=cwd, env=env, text=True, capture_output=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


#: TSX that must compile, and TSX with an error in each line.
GOOD_TSX: Final = """
const tag = <pat-embed app="orders" token-url="/t" auto-height="" key="k" title="Orders">Wait</pat-embed>;
export const frame: Frame | null = document.querySelector("pat-embed")!.frame;
void tag;
"""
BAD_TSX: Final = """export const wrong = <pat-embed app={7} />;
export const unknown = <pat-embed app="a" theme="pink" />;
"""
PLAIN_TS: Final = {
    "right.ts": 'PatEmbed.mount("#a", { app: "a", tokenUrl: "/t" });',
    "wrong.ts": 'PatEmbed.mount("#a", {});',
}
#: Library → its version of the types to install, and options of tsc.
TYPED: Final = {
    "react 19": ("@types/react@19", ("--jsx", "react-jsx")),
    "react 18": ("@types/react@18", ("--jsx", "react-jsx")),
    "vue": ("vue@3", ("--jsx", "preserve", "--jsxImportSource", "vue")),
    "no library": ("", ()),
}


@pytest.mark.parametrize("library", TYPED)
def test_the_types_of_the_tag_are_those_of_tsx(installed: Path, tmp_path: Path, library: str) -> None:
    package, options = TYPED[library]
    shutil.copy(PROJECT / "static" / "embed.d.ts", tmp_path / "pat-embed.d.ts")
    (tmp_path / "package.json").write_text("{}")
    if package:
        _run_npm("install", "--no-audit", "--no-fund", "--no-package-lock", package, cwd=tmp_path)
    tsc = [
        program("node"),
        str(installed / "node_modules" / ".bin" / "tsc"),
        "--noEmit",
        "--strict",
    ]
    tsc += ["--skipLibCheck", "false", "--module", "esnext", "--moduleResolution", "bundler", *options]

    files = {"good.tsx": GOOD_TSX, "bad.tsx": BAD_TSX} if package else {}
    for name, text in (files := files | PLAIN_TS).items():
        (tmp_path / name).write_text(f'import type {{ Frame }} from "./pat-embed";\n{text}')
    done = subprocess.run([*tsc, *files], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
    wrong = [line.partition(",")[0] for line in done.stdout.splitlines() if "error" in line]
    assert sorted(wrong) == [*(["bad.tsx(2", "bad.tsx(3"] if package else []), "wrong.ts(2"], done.stdout


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {kind: free_port() for kind in KINDS}


@pytest.fixture(scope="module")
def service(schema: Path, tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[str]:
    """The service with Ana's Orders, which the examples may embed."""
    folder, port = tmp_path_factory.mktemp("service"), free_port()
    env = {
        "SECRET_KEY": KEY,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "DATABASE_URL": f"sqlite:///{shutil.copy(schema, folder)}",
    }
    app = create_app(Config.from_environment(env, folder))
    with app.app_context():
        provision(app, world([f"http://localhost:{port}" for port in ports.values()]))
        db.engine.dispose()
    with gunicorn(env, port=port, workers=1) as server:
        yield server.url


def world(origins: list[str]) -> dict[str, Any]:
    ana = {"email": ANA, "name": "Ana", "status": "active", "workspaces": {"acme": "end-user"}}
    orders = {"slug": "orders", "name": "Orders", "workspace": "acme", "template": "orders"}
    return {
        "workspaces": [{"slug": "acme", "name": "Acme"}],
        "users": [ana],
        "apps": [orders | {"allowed_origins": origins, "users": [ANA]}],
        "clients": [
            {"id": "portal", "secret": SECRET, "mint_limit": "1000 per minute"},
            {"id": "slow-flask", "secret": SECRET, "mint_limit": "1 per minute"},
            {"id": "slow-express", "secret": SECRET, "mint_limit": "1 per minute"},
        ],
    }


@contextmanager
def started(kind: str, port: int, env: dict[str, str], folder: Path) -> Iterator[ExamplePortal]:
    """Start the portal as its README says."""
    env = env | {"PORT": str(port)}
    if kind == "flask":
        command, cwd = [sys.executable, "-m", "flask", "--app", "portal", "run", "--port", str(port)], "flask"
    elif kind == "html":
        command, cwd = [program("node"), "server.js"], "express"
    else:
        command, cwd, env = [program("node"), "../express/server.js"], kind, env | {"PAGES": "."}
    with web_server(command, env, port=port, cwd=folder / cwd):
        yield ExamplePortal(f"http://localhost:{port}")


@pytest.fixture(scope="module", params=KINDS)
def portal(request: pytest.FixtureRequest, service: str, ports: dict[str, int]) -> Iterator[ExamplePortal]:
    kind = request.param
    env = {"PAT_SERVICE": service, "CLIENT_ID": "portal", "CLIENT_SECRET": SECRET}
    folder = EXAMPLES if kind == "flask" else request.getfixturevalue("installed")
    with started(kind, ports[kind], env, folder) as portal:
        yield portal


def test_ana_signs_in_and_sees_her_orders(page: Page, portal: ExamplePortal, recorder: Recorder) -> None:
    portal.sign_in(page)
    frame = portal.frame(page)
    expect(frame.get_by_text("Acme · Ana")).to_be_visible()
    # The page scrolls, not the frame.
    frame.wait_for_function(
        "() => innerHeight > 300 && document.documentElement.scrollHeight <= innerHeight", polling=50
    )
    assert not [url for url in recorder.urls() if "pat_" in url]
    assert SECRET not in page.content() + frame.content()
    [mint_answer] = [answer for answer in recorder.responses if answer.url.endswith(TOKEN)]
    assert mint_answer.header_value("Cache-Control") == "no-store"
    assert {cookie["domain"] for cookie in page.context.cookies()} == {"localhost"}
    for cookie in page.context.cookies():
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")


@pytest.mark.parametrize("portal", BACK_ENDS.values(), indirect=True)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_another_page_gets_no_token(page: Page, portal: ExamplePortal, recorder: Recorder, host: str) -> None:
    """From another port of the same host, its requests carry Ana's cookie."""
    recorder.allow("CORS", "Failed to load resource")
    portal.sign_in(page)
    portal.frame(page)
    with site() as mallory:
        mallory.pages["/"] = HOST_HTML
        page.goto(mallory.url(host=host))
        for body in ("JSON.stringify({app: 'orders'})", "new FormData()"):
            with page.expect_response(f"**{TOKEN}") as answer:
                page.evaluate(f"url => {{ fetch(url, {{...{FORM}, body: {body}}}) }}", portal.url + TOKEN)
            assert answer.value.status == 403
        # For JSON the browser sends a preflight, which is refused.
        assert page.evaluate(f"url => fetch(url, {AS_JSON}).catch(() => 'no')", portal.url + TOKEN) == "no"


@pytest.mark.parametrize("portal", BACK_ENDS.values(), indirect=True)
def test_a_token_needs_a_signed_in_user_and_one_of_the_portals_apps(
    page: Page, portal: ExamplePortal
) -> None:
    def status(app: str) -> int:
        return page.request.post(portal.url + TOKEN, data={"app": app}).status

    assert status("orders") == 401
    portal.sign_in(page)
    assert [status(app) for app in ("orders", "support", "")] == [201, 404, 404]


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_a_refused_mint_is_passed_on_except_for_a_wrong_secret(
    request: pytest.FixtureRequest, page: Page, service: str, kind: str
) -> None:
    folder = EXAMPLES if kind == "flask" else request.getfixturevalue("installed")
    expected_by_client: dict[str, list[tuple[int, str | None]]] = {
        f"slow-{kind}": [(201, None), (429, "rate_limited")],
        "unknown": [(502, "invalid_client")],
    }
    for client, expected in expected_by_client.items():
        env = {"PAT_SERVICE": service, "CLIENT_ID": client, "CLIENT_SECRET": SECRET}
        with started(BACK_ENDS[kind], free_port(), env, folder) as portal:
            page.request.post(f"{portal.url}/sign-in")
            answers = [page.request.post(portal.url + TOKEN, data={"app": "orders"}) for _ in expected]
        assert [(answer.status, answer.json().get("code")) for answer in answers] == expected
        assert [answer.status == 429 for answer in answers] == [
            bool(answer.headers.get("retry-after")) for answer in answers
        ]


@contextmanager
def redirecting() -> Iterator[tuple[str, list[str]]]:
    """Run a server that redirects each request with the next status, and record the paths."""
    paths: list[str] = []
    statuses = iter(REDIRECTS)

    class Redirect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            paths.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            self.send_response(next(statuses))
            self.send_header("Location", f"http://{self.headers['Host']}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirect) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", paths
        server.shutdown()


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_no_redirect_gets_the_clients_secret(request: pytest.FixtureRequest, page: Page, kind: str) -> None:
    folder = EXAMPLES if kind == "flask" else request.getfixturevalue("installed")
    with redirecting() as (service, paths):
        env = {"PAT_SERVICE": service, "CLIENT_ID": "portal", "CLIENT_SECRET": SECRET}
        with started(BACK_ENDS[kind], free_port(), env, folder) as portal:
            page.request.post(f"{portal.url}/sign-in")
            answers = [page.request.post(portal.url + TOKEN, data={"app": "orders"}) for _ in REDIRECTS]
    assert [answer.status for answer in answers] == [502] * len(REDIRECTS)
    assert paths == [MINT] * len(REDIRECTS)


@pytest.mark.parametrize("portal", PAGES, indirect=True)
def test_a_page_shows_each_state_changes_the_theme_and_removes_the_frame(
    page: Page, portal: ExamplePortal, recorder: Recorder
) -> None:
    recorder.allow("fetch_token_failed", "403")
    status = page.get_by_role("status")
    page.route(f"**{TOKEN}", lambda route: route.fulfill(status=403, json={"detail": "Not Ana."}))
    portal.sign_in(page)
    expect(status).to_have_text("Your orders could not be opened: fetch_token_failed")
    page.unroute(f"**{TOKEN}")
    page.get_by_label("Show orders").uncheck()
    expect(page.locator("iframe")).to_have_count(0)
    with hold_back(page, f"**{TOKEN}"):
        page.get_by_label("Show orders").check()
        expect(page.get_by_text("Opening your orders…")).to_be_visible()
    theme = portal.frame(page).locator("html")
    expect(status).to_have_text("You see Orders.")
    expect(page.get_by_text("Opening your orders…")).to_be_hidden()
    expect(theme).to_have_attribute("data-theme", "light")
    page.get_by_label("Dark").check()
    expect(theme).to_have_attribute("data-theme", "dark")


@contextmanager
def hold_back(page: Page, pattern: str) -> Iterator[None]:
    """Let requests to these addresses wait until the end of the block."""
    held: list[Route] = []
    page.route(pattern, lambda route: held.append(route))
    yield
    wait_until(page, lambda: bool(held))
    held[0].continue_()
    page.unroute(pattern)


def test_each_example_is_short_and_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text("utf-8")
    for folder in EXAMPLES.iterdir():
        assert not folder.is_dir() or f"[{folder.name}/]({folder.name}/)" in readme
    suffixes = {".py", ".js", ".tsx", ".vue", ".html"}
    code = [file for file in EXAMPLES.glob("*/*") if file.suffix in suffixes]
    assert {file.suffix for file in code} == suffixes
    for file in code:
        assert len(file.read_text("utf-8").splitlines()) < MOST_LINES, file
    names = set(re.findall(r"export (?:\w+=\S+ )*?(CLIENT_ID|CLIENT_SECRET)", readme))
    assert names == {"CLIENT_ID", "CLIENT_SECRET"}
    assert ANA in (EXAMPLES / "flask" / "portal.py").read_text("utf-8")
    assert urlsplit("http://localhost:8000").netloc in readme
