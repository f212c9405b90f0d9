"""The recipes of docs/apps/existing-apps.md, in a page of another site, behind both documented proxies.

Chromium blocks third-party cookies here. `make test` runs Dash behind Caddy; `make frameworks` runs all of
them behind both proxies.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copy
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, FilePayload, Frame, Page, expect

from pat_service.storage.database import db
from tests.e2e.browser.conftest import CHROMIUM_ARGS, TIMEOUT_MS
from tests.e2e.browser.frameworks.frameworks import (
    CSV,
    FRAMEWORKS,
    INSTALLED,
    PAGE,
    PYTHON,
    Framework,
    running,
)
from tests.e2e.browser.installation import Installation
from tests.e2e.browser.portal import Portal, tag
from tests.e2e.browser.site import Site, site, wait_until
from tests.e2e.deploy.conftest import installed_or_skipped
from tests.support import servers
from tests.support.documents import rows
from tests.support.people import KEY, WORLD, Service, basic, build_on, provision
from tests.support.servers import HOST, Proxy, chromium, gunicorn

pytestmark = pytest.mark.timeout(300)

PROXIES: Final = {"caddy": servers.caddy, "nginx": servers.nginx}
ANA: Final = "ana@acme.test"
FILE: Final[FilePayload] = {
    "name": "file.bin",
    "mimeType": "application/octet-stream",
    "buffer": bytes(12345),
}
#: Chromium without a window allows third-party cookies, and Playwright's list of features would keep it so.
BLOCKING: Final = ("--test-third-party-cookie-phaseout", "--disable-features=MediaRouter")
THIRD_PARTY: Final = "(document.cookie = 'third=1; SameSite=None; Secure', document.cookie)"
REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")


@dataclass(frozen=True)
class Embedded(Installation):
    """The service behind a proxy. This process mints."""

    proxy: Proxy

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.proxy.port}"

    @property
    def service(self) -> Service:
        return Service(self.app.test_client())

    def mint(self, email: str = ANA, app: str = "", **options: Any) -> dict[str, Any]:
        answer = self.service.mint(email=email, appSlug=app, **options)
        assert answer.status_code == 201, answer.text
        return dict(answer.json or {})

    def revoke(self, token_id: str) -> None:
        path = f"/api/ext/personal-access-tokens/{token_id}"
        assert self.service.client.delete(path, headers=basic("portal")).status_code == 204


@contextmanager
def embedded(
    proxy_name: str, folder: Path, schema: Path, host: Site, apps: dict[str, str]
) -> Iterator[Embedded]:
    """Run the proxy and the service, whose apps are at these addresses by slug."""
    make = partial(PROXIES[proxy_name], upstreams=list(apps.values()))
    with installed_or_skipped(make)(folder) as proxy:
        database = f"sqlite:///{copy(schema, folder / 'pat-service.db')}"
        settings = {"PUBLIC_URL": f"https://{{app}}.{HOST}:{proxy.port}", "TRUSTED_PROXIES": "1"}
        app = build_on(database, folder, **settings)
        provision(app, WORLD)
        starts = {framework.slug: framework.start for framework in FRAMEWORKS}
        same = {"workspace": "acme", "allowed_origins": [host.origin], "users": [ANA]}
        entries = [
            {"slug": slug, "name": slug, "upstream": upstream, "start": starts[slug]} | same
            for slug, upstream in apps.items()
        ]
        provision(app, {"apps": entries})
        (folder / "2.sock").symlink_to(folder / "1.sock")
        environ = {"SECRET_KEY": KEY, "DATABASE_URL": database} | settings
        with gunicorn(environ, workers=1, at=folder / "1.sock") as server:
            yield Embedded(server, app, host, proxy)
        with app.app_context():
            db.engine.dispose()


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The address of each recipe's running app."""
    with ExitStack() as stack:
        yield {
            each.slug: stack.enter_context(running(each, tmp_path_factory.mktemp(each.slug)))
            for each in INSTALLED
        }


@pytest.fixture(scope="module", params=list(PROXIES) if PYTHON else ["caddy"])
def installation(
    request: pytest.FixtureRequest,
    schema: Path,
    tmp_path_factory: pytest.TempPathFactory,
    apps: dict[str, str],
) -> Iterator[Embedded]:
    folder = tmp_path_factory.mktemp("service")
    with site() as host, embedded(request.param, folder, schema, host, apps) as installation:
        yield installation


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A context of a Chromium that finds the test's hosts on this machine."""
    args = [*CHROMIUM_ARGS, *BLOCKING, f"--host-resolver-rules=MAP *.{HOST} 127.0.0.1,MAP {HOST} 127.0.0.1"]
    own = browser.browser_type.launch(executable_path=chromium(), args=args)
    # Playwright would override `color-scheme`.
    context = own.new_context(
        ignore_https_errors=True, color_scheme="null", viewport={"width": 1200, "height": 900}
    )
    context.set_default_timeout(TIMEOUT_MS)
    yield context
    own.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page without a recorder: frameworks log what they like."""
    return context.new_page()


@dataclass
class Ana:
    """Ana at the page of the portal, and the app that she sees in it."""

    page: Page
    app: Frame

    def press(self, name: str) -> None:
        self.app.get_by_role("button", name=name, exact=True).or_(
            self.app.get_by_role("link", name=name, exact=True)
        ).first.click()

    def sees(self, text: str) -> None:
        expect(self.app.get_by_text(text).first).to_be_visible()

    @property
    def height(self) -> float:
        """The height of the frame in the portal's page, in px."""
        return float(self.page.evaluate("document.querySelector('pat-embed').frame.iframe.clientHeight"))

    def waits_for_height(self, least: float, most: float) -> None:
        wait_until(self.page, lambda: least <= self.height <= most)


@pytest.mark.parametrize("framework", INSTALLED, ids=lambda framework: framework.slug)
def test_ana_uses_an_app_of_the_framework(
    framework: Framework, installation: Embedded, page: Page, tmp_path: Path
) -> None:
    portal = Portal(page, installation, ANA)
    portal.visit(tag('auto-height style="height: auto"', framework.slug))
    portal.events("loaded")
    inner = portal.frame().locator("#embed-main iframe").element_handle().content_frame()
    assert inner
    ana = Ana(page, inner)
    assert (urlsplit(inner.url).hostname or "").startswith(f"{framework.slug}--")
    ana.sees(f"Hello {ANA}")
    assert "third=1" not in inner.evaluate(THIRD_PARTY)

    ana.press("Press")
    ana.sees(f"1 by {ANA}")

    inner.locator("input[type=file]").first.set_input_files([FILE])
    ana.sees("Bytes: 12345")

    with page.expect_download() as downloading:
        ana.press("Download")
    assert downloading.value.path().read_bytes().decode() == CSV

    page.evaluate("document.querySelector('pat-embed').frame.setTheme('dark')")
    inner.wait_for_function("matchMedia('(prefers-color-scheme: dark)').matches", polling=50)

    before = ana.height
    ana.press("More")
    ana.sees("Row 59")
    ana.waits_for_height(before + 900, 10_000)
    ana.press("More")
    expect(inner.get_by_text("Row 59", exact=True)).to_have_count(0)
    ana.waits_for_height(100, before + 150)

    page.evaluate("document.querySelector('pat-embed').frame.refresh()")
    portal.events("session:renewed")
    ana.press("Press")
    ana.sees(f"2 by {ANA}")
    assert inner == portal.frame().locator("#embed-main iframe").element_handle().content_frame()

    installation.revoke(portal.token_ids[-1])
    ana.press("Press")
    portal.events("session:revoked", timeout_seconds=40)
    expect(page.locator("pat-embed iframe").first).to_be_visible()
    assert inner.is_detached()


def test_the_page_names_the_versions_that_are_tested() -> None:
    lines = [*REQUIREMENTS.read_text().split(), *Path("requirements-dev.txt").read_text().split()]
    pins = {name: version for name, _, version in (line.partition("==") for line in lines)}
    table = {row[0]: row[1] for row in rows(PAGE, "Recipes")}
    assert set(table) == {"Streamlit", "Dash", "Gradio", "Panel", "Shiny for Python"}
    assert {name.split()[0].lower(): version for name, version in table.items()} == {
        framework.slug: pins[framework.slug] for framework in FRAMEWORKS
    }
