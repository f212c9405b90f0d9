"""The service under gunicorn on one site, and a small page that embeds it on another.

The embedded app is the one in `lab/`, laid into a copy of the project as its author would.
"""

import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import pytest
from flask import Flask
from playwright.sync_api import Frame, Locator
from sqlalchemy import select

from app import create_app
from config import Config
from pat_service.cli import upgrade_schema
from pat_service.storage.database import db, reading, transaction
from pat_service.storage.models import App, User
from tests.e2e.browser.sites import Site, copy_project, mint, ready, site
from tests.support.people import provision
from tests.support.servers import WebServer, free_port, gunicorn, redis_server

if TYPE_CHECKING:
    from playwright.sync_api import Page


ANA: Final = "ana@acme.test"
BEN: Final = "ben@acme.test"
LAB: Final = "5f0c2f4e-7a3b-4f0e-9a51-0c6f1d2e3b4a"
OTHER: Final = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
SECRET: Final = "p" * 40
HOSTILE: Final = "</title></textarea></script><img src=x onerror=window.pwned=1><!--<script>'\"&amp;{{7*7}}"

# A page that embeds, and keeps what it is told.
HOST: Final = """<!doctype html><title>Host</title><link rel="icon" href="data:,">
<input id="own" aria-label="The page's own field">
<script>
  window.heard = [];
  addEventListener("message", (event) => {
    const frames = [...document.querySelectorAll("iframe")];
    const frame = frames.find(({ contentWindow }) => contentWindow === event.source);
    heard.push({ origin: event.origin, frame: frame?.id, ...event.data });
  });
</script>"""

# Tells of every touch of what a frame must leave alone. Runs before the frame's own scripts.
SPY: Final = """(() => {
  const tell = (what) => window.__touched(`${location.host} ${what}`);
  for (const name of ["localStorage", "sessionStorage", "indexedDB", "caches", "cookieStore", "name"]) {
    const { get, set } = Object.getOwnPropertyDescriptor(window, name) ?? {};
    Object.defineProperty(window, name, {
      get() { if (name !== "name") tell(name); return get.call(window); },
      set(value) { tell(`${name} = ${value}`); set?.call(window, value); },
    });
  }
  const { get, set } = Object.getOwnPropertyDescriptor(Document.prototype, "cookie");
  Object.defineProperty(document, "cookie", {
    get() { tell("cookie"); return get.call(document); },
    set(value) { tell(`cookie = ${value}`); set.call(document, value); },
  });
})();"""


# Shows what a frame says to its parent, and to which origins. `parent` is the frame's to replace.
OVERHEAR: Final = """if (window.parent !== window) {
  const { parent } = window;
  const postMessage = ({ code }, origin) => { window.__said(`${code} to ${origin}`); };
  Object.defineProperty(window, "parent", { value: { postMessage, real: parent } });
}"""


def world(origin: str) -> dict[str, Any]:
    """Ana and Ben of Acme, who may open the lab, and what else Acme has. `origin` may embed."""

    def app(slug: str, **fields: Any) -> dict[str, Any]:
        usual = {"name": slug.title(), "workspace": "acme", "template": slug, "allowed_origins": [origin]}
        return usual | {"slug": slug, "users": [ANA, BEN]} | fields

    return {
        "workspaces": [{"slug": "acme", "name": "Acme"}, {"slug": "globex", "name": "Globex"}],
        "users": [
            {"email": ANA, "name": "Ana", "status": "active", "workspaces": {"acme": "end-user"}},
            {"email": BEN, "name": "Ben", "status": "active", "workspaces": {"acme": "builder"}},
        ],
        "apps": [app("lab", id=LAB), app("orders", id=OTHER), app("support"), app("unsafe")],
        "clients": [
            {"id": "portal", "secret": SECRET, "workspaces": ["acme"], "mint_limit": "1000 per minute"}
        ],
    }


@dataclass(frozen=True)
class House:
    """The service: its server, its database (by an app of this process), and who embeds it."""

    server: WebServer
    app: Flask
    site: Site

    @property
    def url(self) -> str:
        return self.server.url

    def provision(self, change: Callable[[dict[str, Any]], object] = lambda document: None) -> None:
        """Bring the directory back to its beginning, with a change."""
        document = deepcopy(world(self.site.origin))
        change(document)
        provision(self.app, document)

    def lab_for(self, *origins: str) -> str:
        """Make a lab whom these may embed, and return its slug.

        One of its own: workers answer for up to a minute with the origins that they last knew of an app, and
        so a change of the usual lab's would reach the tests that follow.
        """
        slug = f"lab-{token_hex(4)}"
        self.allow(slug, *origins)
        return slug

    def allow(self, slug: str, *origins: str) -> None:
        """Let these, and no others, embed the lab of this slug."""
        lab = world("")["apps"][0] | {"id": None, "slug": slug, "allowed_origins": list(origins)}
        provision(self.app, {"apps": [lab]})

    def id_of(self, slug: str) -> str:
        return self.rows(select(App.id).where(App.slug == slug))[0].id

    def address(self, email: str = ANA, app: str = "lab", **wish: Any) -> str:
        """Mint, and return the frame's address."""
        return mint(self.url, f"portal:{SECRET}", email=email, appSlug=app, **wish)

    def change(self, statement: Any) -> None:
        """Change a row behind the service's back."""
        with self.app.app_context(), transaction() as connection:
            connection.execute(statement)

    def rows(self, statement: Any) -> list[Any]:
        with self.app.app_context(), reading() as connection:
            return list(connection.execute(statement))

    def user_id(self, email: str = ANA) -> str:
        return self.rows(select(User.id).where(User.email == email))[0].id


@pytest.fixture(scope="session")
def whole_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    tree = copy_project(folder / "tree")
    shutil.copytree(Path(__file__).parent / "lab", tree, dirs_exist_ok=True)
    port = free_port()
    with redis_server() as redis, site() as host:
        host.pages["/"] = HOST
        env = {
            "SECRET_KEY": "k" * 64,
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "DATABASE_URL": f"sqlite:///{folder / 'house.db'}",
            "REDIS_URL": redis,
        }
        app = create_app(Config.from_environment(env, folder))
        with app.app_context():
            upgrade_schema()
        with gunicorn(env, port=port, cwd=tree, log=folder / "log", workers=2) as server:
            yield House(server, app, host)
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def house(whole_house: House) -> House:
    whole_house.provision()
    return whole_house


@dataclass(frozen=True)
class Host:
    """The page that embeds, and what it has heard."""

    page: "Page"
    house: House

    def embed(self, address: str, id_: str = "app", **attributes: str) -> Frame:
        """Put a frame into the page and return it; wait for what is in it with `heading`."""
        self.page.evaluate(
            """(attributes) => {
                const frame = document.createElement("iframe");
                frame.width = 560; frame.height = 380; // so that several are in view
                for (const [name, value] of Object.entries(attributes)) frame.setAttribute(name, value);
                document.body.append(frame);
            }""",
            {"id": id_, "title": id_, "src": address, **attributes},
        )
        return self.frame(id_)

    def open(self, email: str = ANA, app: str = "lab", id_: str = "app", **wish: Any) -> Frame:
        """Embed an app for somebody and wait until it is there."""
        frame = self.embed(self.house.address(email, app, **wish), id_)
        ready(frame)
        return frame

    def frame(self, id_: str = "app") -> Frame:
        frame = self.page.locator(f"#{id_}").element_handle().content_frame()
        assert frame
        return frame

    def heard(self, count: int = 1) -> list[dict[str, Any]]:
        """Return what the page was told, once it is so much; there must not be more."""
        self.page.wait_for_function("count => heard.length >= count", arg=count, polling=50)
        self.page.wait_for_timeout(50)
        told = self.page.evaluate("heard")
        assert len(told) == count, told
        return told

    def silent(self) -> bool:
        return self.page.evaluate("heard") == []


@pytest.fixture
def host(page: "Page", house: House) -> Host:
    page.goto(house.site.url())
    return Host(page, house)


def heading(frame: Frame) -> Locator:
    return frame.locator("h1")


def click(frame: Frame, name: str) -> None:
    """Click the link or the button with exactly this name."""
    frame.get_by_role("link", name=name, exact=True).or_(
        frame.get_by_role("button", name=name, exact=True)
    ).click()


def token_of(address: str) -> str:
    return address.partition("personal-access-token=")[2]
