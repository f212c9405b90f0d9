"""embed.js in Chromium, loaded by pages of another site with the tag that `embed-tag` prints."""

import re

import pytest
from playwright.sync_api import Page

from tests.e2e.browser.installation import Installation
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import ISOLATED, wait_until
from tests.embed.test_embed_js import VERSION


def script_tag(installation: Installation, *options: str) -> str:
    return installation.app.test_cli_runner().invoke(args=["embed-tag", *options]).stdout


def visit(page: Page, installation: Installation, html: str) -> None:
    """Go to a cross-origin isolated host page with this HTML."""
    site = installation.site
    site.headers["/script"] = ISOLATED
    site.pages["/script"] = f'<!doctype html><link rel="icon" href="data:,">{html}'
    page.goto(site.url("/script"))
    assert page.evaluate("crossOriginIsolated")


@pytest.mark.parametrize("options", [[], ["--module"]])
def test_a_page_of_another_site_loads_the_tag(
    page: Page, installation: Installation, options: list[str]
) -> None:
    visit(page, installation, script_tag(installation, *options))
    page.wait_for_function("window.PatEmbed")
    assert page.evaluate("PatEmbed.version") == VERSION


def test_a_page_imports_the_module(page: Page, installation: Installation) -> None:
    imports = f'import same, {{ PatEmbed }} from "{installation.url}/embed.mjs"'
    visit(page, installation, f'<script type="module">{imports}; window.got = [same, PatEmbed];</script>')
    page.wait_for_function("window.got")
    assert page.evaluate("got.map((it) => it === window.PatEmbed && it.version)") == [VERSION, VERSION]


def test_a_script_that_differs_from_its_pin_does_not_run(
    page: Page, installation: Installation, recorder: Recorder
) -> None:
    recorder.allow("integrity")
    visit(page, installation, re.sub("sha384-.{8}", "sha384-AAAAAAAA", script_tag(installation)))
    wait_until(page, lambda: recorder.complained("integrity"))
    assert page.evaluate("typeof PatEmbed") == "undefined"


def test_a_missing_version_is_answered_with_404(
    page: Page, installation: Installation, recorder: Recorder
) -> None:
    recorder.allow("Refused to execute script")
    visit(page, installation, script_tag(installation).replace(VERSION, "0.0.1"))
    page.wait_for_load_state()
    assert [answer.status for answer in recorder.responses if "/embed-" in answer.url] == [404]
    assert not recorder.complained("CORS")
