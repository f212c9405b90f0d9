"""The service under gunicorn on one site, and a page on another site that embeds its apps in iframes.

The apps in `lab/` are copied into a copy of the project.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import pytest
from flask import Flask
from playwright.sync_api import Frame, Locator, Page, expect
from sqlalchemy import select

from app import create_app
from config import Config
from pat_service.cli import upgrade_schema
from pat_service.storage.database import db, reading, transaction
from pat_service.storage.models import App, User, Workspace
from tests.e2e.browser.checkout import copy_project
from tests.e2e.browser.site import Site, mint, site, wait_until_ready
from tests.support.people import KEY, ORDERS, SUPPORT, make_secret, provision
from tests.support.servers import PROJECT, WebServer, free_port, gunicorn, redis_server

ANA: Final = "ana@acme.test"
BEN: Final = "ben@acme.test"
LAB: Final = "5f0c2f4e-7a3b-4f0e-9a51-0c6f1d2e3b4a"
SECRET: Final = make_secret("portal")
ELSEWHERE: Final = "https://elsewhere.example"
OTHER_ORIGIN: Final = "https://other.example"
HOSTILE_NAME: Final = (
    "</title></textarea></script><img src=x onerror=window.pwned=1><!--<script>'\"&amp;{{7*7}}"
)

#: A host page that records the messages of its frames.
HOST_HTML: Final = """<!doctype html><title>Host</title><link rel="icon" href="data:,">
<input id="own" aria-label="The page's own field">
<script>
  window.messages = [];
  addEventListener("message", (event) => {
    const frames = [...document.querySelectorAll("iframe")];
    const frame = frames.find(({ contentWindow }) => contentWindow === event.source);
    messages.push({ origin: event.origin, frame: frame?.id, ...event.data });
  });
</script>"""

#: Reports each use of the browser's storage to `__touched`. Runs before the frame's own scripts.
STORAGE_SPY: Final = """(() => {
  const report = (use) => window.__touched(`${location.host} ${use}`);
  for (const name of ["localStorage", "sessionStorage", "indexedDB", "caches", "cookieStore", "name"]) {
    const { get, set } = Object.getOwnPropertyDescriptor(window, name) ?? {};
    Object.defineProperty(window, name, {
      get() { if (name !== "name") report(name); return get.call(window); },
      set(value) { report(`${name} = ${value}`); set?.call(window, value); },
    });
  }
  const { get, set } = Object.getOwnPropertyDescriptor(Document.prototype, "cookie");
  Object.defineProperty(document, "cookie", {
    get() { report("cookie"); return get.call(document); },
    set(value) { report(`cookie = ${value}`); set.call(document, value); },
  });
})();"""


def acme(origin: str, apps: list[dict[str, Any]], scopes: list[str] | None = None) -> dict[str, Any]:
    """Return a provisioning document: Ana and Ben of Acme, who may open these apps in `origin`."""
    usual = {"workspace": "acme", "allowed_origins": [origin], "users": [ANA, BEN]}
    client = {"id": "portal", "secret": SECRET, "workspaces": ["acme"], "mint_limit": "1000 per minute"}
    framing = {"allowed_origins": [origin]} if scopes else {}
    return {
        "workspaces": [
            {"slug": "acme", "name": "Acme", **framing},
            {"slug": "globex", "name": "Globex", **framing},
        ],
        "users": [
            {"email": ANA, "name": "Ana", "status": "active", "workspaces": {"acme": "end-user"}},
            {"email": BEN, "name": "Ben", "status": "active", "workspaces": {"acme": "builder"}},
        ],
        "apps": [
            usual | {"name": app["slug"].title(), "template": app["slug"]} | deepcopy(app) for app in apps
        ],
        "clients": [client | ({"scopes": scopes} if scopes else {})],
    }


def _no_change(document: dict[str, Any]) -> None:
    pass


@dataclass(frozen=True)
class Installation:
    """The service: its server, an app of this process on its database, and the site that embeds it."""

    server: WebServer
    app: Flask
    site: Site

    @property
    def url(self) -> str:
        return self.server.url

    def world(self) -> dict[str, Any]:
        apps: list[dict[str, Any]] = [{"slug": "lab", "id": LAB}, {"slug": "orders", "id": ORDERS}]
        return acme(self.site.origin, [*apps, {"slug": "support"}, {"slug": "unsafe"}])

    def provision(self, change: Callable[[dict[str, Any]], object] = _no_change) -> None:
        """Reset the directory, with one change to its document."""
        document = self.world()
        change(document)
        provision(self.app, document)

    def lab_for(self, *origins: str) -> str:
        """Make another lab that these origins may embed, and return its slug.

        Workers remember an app's origins for up to a minute, so a change to the usual lab would reach later
        tests.
        """
        slug = f"lab-{token_hex(4)}"
        self.allow(slug, *origins)
        return slug

    def allow(self, slug: str, *origins: str) -> None:
        """Let only these origins embed the lab with this slug."""
        lab = self.world()["apps"][0] | {"id": None, "slug": slug, "allowed_origins": list(origins)}
        provision(self.app, {"apps": [lab]})

    def app_id(self, slug: str) -> str:
        return self.rows(select(App.id).where(App.slug == slug))[0].id

    def app_url(self, app_id: str = ORDERS) -> str:
        return f"{self.url}/embed-apps/{app_id}"

    def mint(self, email: str = ANA, app: str = "lab", **options: Any) -> dict[str, Any]:
        """Mint a token for an app, or for `workspaceSlug`, and return the answer."""
        target = {} if "workspaceSlug" in options else {"appSlug": app}
        return mint(self.url, f"portal:{SECRET}", email=email, **target, **options)

    def address(self, email: str = ANA, app: str = "lab", **options: Any) -> str:
        """Mint, and return the frame's address."""
        return str(self.mint(email, app, **options)["redirectUrl"])

    def change(self, statement: Any) -> None:
        """Change rows without the service."""
        with self.app.app_context(), transaction() as connection:
            connection.execute(statement)

    def rows(self, statement: Any) -> list[Any]:
        with self.app.app_context(), reading() as connection:
            return list(connection.execute(statement))

    def user_id(self, email: str = ANA) -> str:
        return self.rows(select(User.id).where(User.email == email))[0].id


@contextmanager
def _run(
    kind: type[Installation], folder: Path, host_of_frames: str = "127.0.0.1", workers: int = 1, **env: str
) -> Iterator[Installation]:
    """Run the service with its database in `folder`, in the copy of the project there if there is one."""
    port = free_port()
    tree = folder / "tree"
    with site() as host:
        host.pages["/"] = HOST_HTML
        env = {
            "SECRET_KEY": KEY,
            "PUBLIC_URL": f"http://{host_of_frames}:{port}",
            "DATABASE_URL": f"sqlite:///{folder / 'pat-service.db'}",
        } | env
        app = create_app(Config.from_environment(env, folder))
        with app.app_context():
            upgrade_schema()
        cwd = tree if tree.exists() else PROJECT
        with gunicorn(env, port=port, log=folder / "log", workers=workers, cwd=cwd) as server:
            yield kind(server, app, host)
        with app.app_context():
            db.engine.dispose()


@pytest.fixture(scope="session")
def running_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("installation")
    shutil.copytree(Path(__file__).parent / "lab", copy_project(folder / "tree"), dirs_exist_ok=True)
    with redis_server() as redis, _run(Installation, folder, workers=2, REDIS_URL=redis) as installation:
        yield installation


@pytest.fixture
def installation(running_installation: Installation) -> Installation:
    running_installation.provision()
    return running_installation


# ---- Launchers ----


class LauncherInstallation(Installation):
    """The service with launchers: an address opens Acme's launcher unless it names an app.

    Ana and Ben have Orders and Support. Ben also has Stock, which the site may not frame.
    """

    def world(self) -> dict[str, Any]:
        stock = {"slug": "stock", "template": "orders", "allowed_origins": [ELSEWHERE], "users": [BEN]}
        apps: list[dict[str, Any]] = [{"slug": "orders", "id": ORDERS}, {"slug": "support", "id": SUPPORT}]
        return acme(self.site.origin, [*apps, stock], ["mint", "mint:workspace"])

    def address(self, email: str = ANA, app: str = "", **options: Any) -> str:
        return super().address(email, app, **({} if app else {"workspaceSlug": "acme"}), **options)

    def origin(self, slug: str = "") -> str:
        """Return the origin of an app, or of the launcher."""
        if "{app}" not in self.app.config["PUBLIC_URL"]:
            return self.url
        return f"http://{slug}{'.' if slug else ''}embed.localhost:{self.server.port}"

    @property
    def launcher(self) -> str:
        workspace_id = self.rows(select(Workspace.id).where(Workspace.slug == "acme"))[0].id
        return f"{self.origin()}/embed-workspaces/{workspace_id}"


#: Resets and returns the installation with frames on this host.
Launchers = Callable[[str], LauncherInstallation]
ONE_HOST: Final = "127.0.0.1"
HOST_PER_APP: Final = "{app}.embed.localhost"


@pytest.fixture(scope="session")
def launcher_installations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launchers]:
    with ExitStack() as stack:

        @cache
        def running(host: str) -> LauncherInstallation:
            folder = tmp_path_factory.mktemp("launchers")
            installation = stack.enter_context(_run(LauncherInstallation, folder, host))
            assert isinstance(installation, LauncherInstallation)
            return installation

        def reset(host: str) -> LauncherInstallation:
            running(host).provision()
            return running(host)

        yield reset


# ---- Host pages ----


@dataclass(frozen=True)
class HostPage:
    """A page that embeds apps in iframes and records their messages."""

    page: Page
    installation: Installation

    def embed(self, address: str, id_: str = "app", **attributes: str) -> Frame:
        """Add an iframe to the page, and return its frame without waiting for its content."""
        self.page.evaluate(
            """(attributes) => {
                const frame = document.createElement("iframe");
                frame.width = 560; frame.height = 380; // several fit into view
                for (const [name, value] of Object.entries(attributes)) frame.setAttribute(name, value);
                document.body.append(frame);
            }""",
            {"id": id_, "title": id_, "src": address, **attributes},
        )
        return self.frame(id_)

    def open(self, email: str = ANA, app: str = "lab", id_: str = "app", **options: Any) -> Frame:
        """Embed an app for a user, and wait until it is ready."""
        frame = self.embed(self.installation.address(email, app, **options), id_)
        wait_until_ready(frame)
        return frame

    def launch(self, email: str = ANA, id_: str = "app", **attributes: str) -> Frame:
        """Embed a user's launcher, and wait until it is ready."""
        frame = self.embed(self.installation.address(email, ""), id_, **attributes)
        expect_heading(frame, "Acme")
        wait_until_ready(frame)
        return frame

    def frame(self, id_: str = "app") -> Frame:
        frame = self.page.locator(f"#{id_}").element_handle().content_frame()
        assert frame
        return frame

    def messages(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for this number of messages, and return them. More of them are an error."""
        self.page.wait_for_function("count => messages.length >= count", arg=count, polling=50)
        self.page.wait_for_timeout(50)
        messages: list[dict[str, Any]] = self.page.evaluate("messages")
        assert len(messages) == count, messages
        return messages

    def errors(self, count: int = 1) -> list[tuple[int, str]]:
        """Wait for this number of messages, and return the status and code of each."""
        return [(message["error"], message["code"]) for message in self.messages(count)]

    def codes(self, count: int = 1) -> list[str]:
        return [code for _, code in self.errors(count)]

    def expect_silence(self) -> None:
        self.messages(0)


@pytest.fixture
def host(page: Page, installation: Installation) -> HostPage:
    page.goto(installation.site.url())
    return HostPage(page, installation)


# ---- Frames ----


def heading(frame: Frame) -> Locator:
    return frame.locator("h1")


def expect_heading(frame: Frame, text: str) -> None:
    expect(heading(frame)).to_have_text(text)


def click(frame: Frame, name: str) -> None:
    """Click the link or the button with exactly this name."""
    frame.get_by_role("link", name=name, exact=True).or_(
        frame.get_by_role("button", name=name, exact=True)
    ).click()


def go(frame: Frame, name: str, title: str | None = None) -> None:
    """Click a link or button, and wait until the page with this title (default: the name) is ready."""
    wait_until_ready(frame)  # the frame ignores clicks before its script runs
    click(frame, name)
    expect_heading(frame, title or name)
    wait_until_ready(frame)


def app_in(launcher: Frame) -> Frame:
    """Return the frame of the app that is open in a launcher."""
    frame = launcher.locator("#launcher-frame iframe").element_handle().content_frame()
    assert frame
    return frame


def open_app(launcher: Frame, name: str) -> Frame:
    """Open an app in a launcher, and wait until it is ready."""
    wait_until_ready(launcher)
    click(launcher, name)
    frame = app_in(launcher)
    expect(heading(frame)).to_have_text(name)
    wait_until_ready(frame)
    return frame


def go_to_launcher(launcher: Frame) -> None:
    """Close the app in a launcher."""
    click(launcher, "All apps")
    expect(launcher.locator("#launcher-apps")).to_be_visible()


def keep_note(frame: Frame, text: str) -> None:
    """Send a note in the lab, and wait until it is listed."""
    frame.get_by_label("Note").fill(text)
    click(frame, "Keep")
    expect(frame.locator("#notes li").last).to_have_text(text)


def type_live(frame: Frame, text: str) -> None:
    """Type into the lab's htmx field, and wait for its answer."""
    frame.get_by_label("Live").fill(text)
    expect(frame.locator("#part")).to_have_text(f"Part for “{text}”")


def session_of(frame: Frame) -> dict[str, Any]:
    """Return the session as the frame's server describes it."""
    facts: dict[str, Any] = frame.evaluate("embed.fetch('session').then((answer) => answer.json())")
    return facts


def viewer_name(frame: Frame) -> str:
    """Send a request of the lab, and return the viewer's name in the answer."""
    return str(frame.evaluate("embed.fetch('data/me').then((answer) => answer.json())")["name"])


def tab_to(target: Locator, most: int = 80) -> None:
    """Press Tab until the target has the focus."""
    for _ in range(most):
        if target.count() and target.evaluate("element => element === document.activeElement"):
            return
        target.page.keyboard.press("Tab")
    raise AssertionError(f"{target} has no focus after {most} Tabs")


def expect_visible_focus(target: Locator, around: Locator | None = None) -> None:
    """Fail if a picture of the target, or around it, is the same without the focus. Keep the focus."""
    picture = around or target
    focused = picture.screenshot()
    target.evaluate("element => element.blur()")
    assert picture.screenshot() != focused, "The focus cannot be seen"
    target.focus()


def expect_scheme(place: Locator, scheme: str) -> None:
    """Fail if the body's background is not light or dark, as `scheme` says."""
    colour = place.evaluate("body => getComputedStyle(body).backgroundColor")
    light = sum(int(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]) > 3 * 128
    assert light == (scheme == "light"), colour


def token_of(address: str) -> str:
    return address.partition("personal-access-token=")[2]
