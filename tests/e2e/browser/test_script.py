"""The script of hosts in Chromium: pages of another site load it as `embed-tag` has it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from app import create_app
from config import Config
from tests.e2e.browser.sites import Site, environment, site, until
from tests.embed.test_embed_js import VERSION
from tests.support.people import KEY
from tests.support.servers import flask_run, free_port

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.e2e.browser.conftest import Witness

#: A page with these is cut off from all that does not consent to be in it.
ISOLATED = {
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
}
ICON = '<!doctype html><link rel="icon" href="data:,">'


@dataclass(frozen=True)
class Installation:
    url: str
    host: Site
    tags: dict[str, str]

    def visit(self, page: "Page", html: str) -> None:
        """Go to a page of the host that is isolated."""
        self.host.pages["/"], self.host.headers["/"] = ICON + html, ISOLATED
        page.goto(self.host.url())
        assert page.evaluate("crossOriginIsolated")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("script")
    port = free_port()
    settings = {
        "SECRET_KEY": KEY,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "DATABASE_URL": f"sqlite:///{folder / 'script.db'}",
    }
    app = create_app(Config.from_environment(settings, folder))
    options = {"classic": [], "module": ["--module"]}
    told = {kind: app.test_cli_runner().invoke(args=["embed-tag", *options[kind]]) for kind in options}
    tags = {kind: result.stdout for kind, result in told.items()}
    with flask_run(environment(folder) | settings, port=port) as server, site() as host:
        yield Installation(server.url, host, tags)


@pytest.mark.parametrize("kind", ["classic", "module"])
def test_a_page_of_another_site_loads_the_tag(page: "Page", installation: Installation, kind: str) -> None:
    installation.visit(page, installation.tags[kind])
    page.wait_for_function("window.PatEmbed")
    assert page.evaluate("PatEmbed.version") == VERSION


def test_a_page_imports_the_module(page: "Page", installation: Installation) -> None:
    script = (
        f'import same, {{ PatEmbed }} from "{installation.url}/embed.mjs"; window.got = [same, PatEmbed];'
    )
    installation.visit(page, f'<script type="module">{script}</script>')
    page.wait_for_function("window.got")
    assert page.evaluate("got.map((it) => it === PatEmbed && it.version)") == [VERSION, VERSION]


def test_what_is_not_what_was_pinned_does_not_run(
    page: "Page", installation: Installation, witness: "Witness"
) -> None:
    witness.allow("integrity")
    tag = re.sub("sha384-.{8}", "sha384-AAAAAAAA", installation.tags["classic"])
    installation.visit(page, tag)
    page.wait_for_load_state()
    assert page.evaluate("typeof PatEmbed") == "undefined"
    until(page, lambda: any("integrity" in line for line in witness.complaints()))


def test_the_page_of_a_version_that_is_not_there_says_so(
    page: "Page", installation: Installation, witness: "Witness"
) -> None:
    witness.allow("Refused to execute script")
    installation.visit(page, installation.tags["classic"].replace(VERSION, "0.0.1"))
    page.wait_for_load_state()
    assert [answer.status for answer in witness.responses if "/embed-" in answer.url] == [404]
    assert not any("CORS" in line for line in witness.complaints())
