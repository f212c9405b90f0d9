"""Upstream apps over TLS in Chromium and Firefox, and attacks of the page around an app.

That page and its other frames share the browser's partition with the app, so all their requests have the
viewer's cookie.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copy
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, expect
from werkzeug.serving import make_server

from pat_service.storage.database import db
from tests.e2e.browser.conftest import CHROMIUM_ARGS
from tests.e2e.browser.others.driving import View
from tests.e2e.browser.others.firefox import firefox
from tests.e2e.browser.site import Site, site
from tests.support import servers
from tests.support.echo_app import EchoApp, echo_app
from tests.support.people import WORLD, Service, build_on, provision
from tests.support.servers import Proxy, chromium, wait_for

pytestmark = pytest.mark.timeout(240)

SALES: Final = "5a1e5a1e-0000-4000-8000-000000000001"
#: The app's own page uses all that a framework uses. The proxies must make its cookie one of its frame.
APP_HTML: Final = """<!doctype html><title>Sales</title><script>
  fetch("/own/fetch", { method: "POST" });
  new Image().src = "/own/image";
  new WebSocket(`wss://${location.host}/own/socket`);
</script>"""
OWN: Final = {"/own/fetch", "/own/image", "/own/socket"}
HOST_HTML: Final = """<!doctype html><title>Host</title><link rel="icon" href="data:,">
<iframe src="{app}" style="width: 600px; height: 300px"></iframe>
<iframe src="{evil}"></iframe>"""
#: Sends each kind of request to the app's host.
ATTACK: Final = """async (origin, who) => {
  const at = (kind) => `${origin}/attack/${who}/${kind}`;
  const shown = (name, src) => {
    const frame = Object.assign(document.createElement("iframe"), { name, src });
    document.body.append(frame);
  };
  const send = (kind, options) => fetch(at(kind), { credentials: "include", ...options }).catch(() => {});
  send("get", { mode: "no-cors" });
  send("post", { mode: "no-cors", method: "POST", body: "press" });
  send("cors");
  new Image().src = at("image");
  document.head.append(Object.assign(document.createElement("script"), { src: at("script") }));
  shown("navigated", at("navigation"));
  shown("form-target", "about:blank");
  const form = Object.assign(document.createElement("form"), {
    action: at("form"), method: "post", target: "form-target",
  });
  document.body.append(form);
  form.submit();
  new WebSocket(at("socket").replace("https:", "wss:"));
}"""
KINDS: Final = ("get", "post", "cors", "image", "script", "navigation", "form", "socket")
#: Navigates the frame with the app, inside the frame of pat-service.
NAVIGATE_INNER: Final = "(origin) => { frames[0].frames[0].location = `${origin}/attack/host/inner`; }"


@dataclass
class Question:
    """A subrequest of the proxy, and the service's answer."""

    path: str
    has_cookie: bool
    status: str


@dataclass
class Target:
    """The service with an upstream app behind a proxy, and the site of the host page."""

    app: EchoApp
    site: Site
    service: Service
    proxy: Proxy
    questions: list[Question] = field(default_factory=list)

    def asked(self, path: str) -> list[Question]:
        return [question for question in self.questions if question.path == path]


@contextmanager
def running(
    make_proxy: Callable[..., Any], schema: Path, folder: Path, upstream: str | None = None
) -> Iterator[Target]:
    """Run all servers, with their files in `folder`. Without `upstream`, the app is the echo app."""
    folder.mkdir()
    with ExitStack() as stack:
        app, host = stack.enter_context(echo_app()), stack.enter_context(site())
        cookie = "own=1; Domain=embed.example; Path=/"
        app.pages["/start"] = urlencode({"html": APP_HTML, "h": f"Set-Cookie: {cookie}"})
        upstream = upstream or app.upstream
        proxy = stack.enter_context(make_proxy(folder, upstreams=[upstream]))
        copy(schema, folder / "pat-service.db")
        settings = {"PUBLIC_URL": f"https://{{app}}.embed.example:{proxy.port}", "TRUSTED_PROXIES": "1"}
        flask = build_on(f"sqlite:///{folder / 'pat-service.db'}", folder, **settings)
        provision(flask, WORLD)
        sales = {"id": SALES, "slug": "sales", "name": "Sales", "workspace": "acme"}
        if upstream == app.upstream:
            sales["start"] = "/start"
        framing = {"upstream": upstream, "allowed_origins": [host.origin], "users": ["ana@acme.test"]}
        provision(flask, {"apps": [sales | framing]})
        target = Target(app, host, Service(flask.test_client()), proxy)

        def recorded(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
            def note(status: str, headers: Any, *rest: Any) -> Any:
                if environ["PATH_INFO"] == "/internal/embed-auth":
                    path, cookies = environ["HTTP_X_FORWARDED_URI"], environ.get("HTTP_COOKIE", "")
                    target.questions.append(Question(path, "__Host-pat-" in cookies, status[:3]))
                return start(status, headers, *rest)

            return flask.wsgi_app(environ, note)

        server = make_server(f"unix://{folder / '1.sock'}", 0, recorded, threaded=True)
        (folder / "2.sock").symlink_to(folder / "1.sock")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield target
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            with flask.app_context():
                db.engine.dispose()


class Chromium:
    """A tab of Chromium that finds the test's hosts on this machine."""

    def __init__(self, stack: ExitStack, usual: Browser) -> None:
        args = [*CHROMIUM_ARGS, "--host-resolver-rules=MAP *.embed.example 127.0.0.1"]
        browser = usual.browser_type.launch(executable_path=chromium(), args=args)
        stack.callback(browser.close)
        self.page = browser.new_context(ignore_https_errors=True).new_page()

    def goto(self, url: str) -> None:
        self.page.goto(url)

    def run(self, function: str, frame: str | None, *args: Any) -> None:
        place = self.page
        where = self.page.query_selector(frame).content_frame() if frame else place  # type: ignore[union-attr]
        where.evaluate(f"(given) => ({function})(...given)", list(args))  # type: ignore[union-attr]


class DrivenFirefox:
    """A tab of Firefox with its default protection of cookies, which finds every host on this machine."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        changes = {"network.cookie.cookieBehavior": 5, "network.dns.forceResolve": "127.0.0.1"}
        try:
            self.driver = stack.enter_context(firefox(folder, changes, acceptInsecureCerts=True))
        except FileNotFoundError as missing:
            pytest.skip(str(missing))

    def goto(self, url: str) -> None:
        self.driver.goto(url)

    def run(self, function: str, frame: str | None, *args: Any) -> None:
        View(self.driver, frame).run(function, *args)


@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_no_request_of_another_page_reaches_the_app(
    name: str, schema: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Chromium is behind Caddy, Firefox behind nginx."""
    make_proxy = {"chromium": servers.caddy, "firefox": servers.nginx}[name]
    with ExitStack() as stack:
        target = stack.enter_context(running(make_proxy, schema, tmp_path / "sockets"))
        minted = target.service.mint(appSlug="sales").json
        assert minted
        origin = "https://" + urlsplit(minted["redirectUrl"]).netloc
        target.site.pages["/evil"] = "<!doctype html><body>Evil"
        evil = target.site.url("/evil", "evil.localhost")
        target.site.pages["/"] = HOST_HTML.format(app=minted["redirectUrl"], evil=evil)
        browser: Chromium | DrivenFirefox
        if name == "chromium":
            browser = Chromium(stack, request.getfixturevalue("browser"))
        else:
            (tmp_path / "profile").mkdir()
            browser = DrivenFirefox(stack, tmp_path / "profile")
        browser.goto(target.site.url())

        def received() -> set[str]:
            return {each.target for each in target.app.received}

        wait_for(lambda: received() >= OWN)
        for each in target.app.received:
            assert each.value("X-Forwarded-Email") == "ana@acme.test"
            assert (each.value("Cookie") or "") == ("" if each.target == "/start" else "own=1")
        browser.run(ATTACK, None, origin, "host")
        browser.run(ATTACK, "iframe:nth-of-type(2)", origin, "third-party")
        attacks = [f"/attack/{who}/{kind}" for who in ("host", "third-party") for kind in KINDS]
        wait_for(lambda: all(map(target.asked, attacks)))
        browser.run(NAVIGATE_INNER, None, origin)
        wait_for(lambda: bool(target.asked("/attack/host/inner")))
        for attack in [*attacks, "/attack/host/inner"]:
            assert {each.status for each in target.asked(attack)} == {"403"}
            # Without the cookie, the refusal would show nothing.
            assert any(each.has_cookie for each in target.asked(attack)), attack
        assert {each for each in received() if "attack" in each} == set()


def test_dash_works_behind_nginx(schema: Path, tmp_path: Path, browser: Browser) -> None:
    with ExitStack() as stack:
        dash = stack.enter_context(servers.dash())
        target = stack.enter_context(running(servers.nginx, schema, tmp_path / "sockets", dash))
        minted = target.service.mint(appSlug="sales").json
        assert minted
        target.site.pages["/"] = HOST_HTML.format(app=minted["redirectUrl"], evil="about:blank")
        page = Chromium(stack, browser).page
        page.goto(target.site.url())
        app = page.frame_locator("iframe").first.frame_locator("iframe")
        expect(app.get_by_role("heading")).to_have_text("Hello ana@acme.test")
        app.get_by_role("button", name="Press").click()
        expect(app.get_by_text("1 by ana@acme.test")).to_be_visible()
