"""The page of the API's document in Chromium, served by gunicorn."""

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from typing import Final
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser.accessibility import CONTRAST, list_violations
from tests.e2e.browser.recorder import Recorder
from tests.support.people import KEY
from tests.support.servers import gunicorn

OVERFLOW: Final = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
BACKGROUND: Final = "() => getComputedStyle(document.body).backgroundColor"
#: One operation of each kind, since the renderer takes a second for each.
OPERATIONS: Final = ("Minting-mint", "Frames-openApp", "Directory-changeApp", "Events-exportEvents")
#: axe-core's rules that Swagger UI breaks. docs/host/api.md names them.
SWAGGER_UI: Final = {CONTRAST, "nested-interactive", "select-name"}


@pytest.fixture(scope="module")
def docs(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the page."""
    folder = tmp_path_factory.mktemp("docs")
    environ = {
        "SECRET_KEY": KEY,
        "PUBLIC_URL": "https://embed.example",
        "DATABASE_URL": f"sqlite:///{copy(schema, folder / 'pat-service.db')}",
    }
    with gunicorn(environ, workers=1, log=folder / "log") as server:
        yield f"{server.url}/api/docs"


def test_the_operations_are_readable_without_inputs_or_requests(
    page: Page, recorder: Recorder, docs: str
) -> None:
    with urlopen(docs.replace("/docs", "/openapi.json"), timeout=10) as answer:
        paths = json.load(answer)["paths"].values()
    page.goto(f"{docs}#/Minting/mint")
    mint = page.locator("#operations-Minting-mint")
    expect(
        page.locator("#operations-Minting-mint.is-open")
    ).to_be_visible()  # the operation's address opens it
    for operation in OPERATIONS[1:]:
        page.locator(f"#operations-{operation} .opblock-summary-control").click()
    for operation in OPERATIONS:
        expect(page.locator(f"#operations-{operation} .response").first).to_be_visible()
    expect(page.locator(".opblock")).to_have_count(
        sum(method != "parameters" for path in paths for method in path)
    )
    for text in ("mint:workspace", "ana@acme.test", "app_forbidden", "personalAccessToken"):
        expect(mint).to_contain_text(text)
    mint.get_by_role("tab", name="Schema").first.click()
    expect(mint.locator(".json-schema-2020-12").first).to_be_visible()
    for control in (".authorize", ".try-out", ".execute", "input:visible", "textarea:visible"):
        expect(page.locator(control)).to_have_count(0)
    for width in (360, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(OVERFLOW) == 0, width
    light = page.evaluate(BACKGROUND)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"(light) => ({BACKGROUND})() !== light", arg=light)
    assert {urlsplit(url).netloc for url in recorder.urls()} == {urlsplit(docs).netloc}
    assert {request.method for request in recorder.requests} == {"GET"}


def test_without_scripts_the_page_links_to_the_document(browser: Browser, docs: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(docs)
    link = page.get_by_role("link", name="OpenAPI document")
    assert link.get_attribute("href") == "/api/openapi.json"
    context.close()


def test_only_swagger_ui_brings_grave_violations(page: Page, docs: str) -> None:
    page.goto(f"{docs}#/Minting/mint")
    expect(page.locator("#operations-Minting-mint.is-open .response").first).to_be_visible()
    assert {one["id"] for one in list_violations(page.main_frame)} == SWAGGER_UI
    # Without the renderer's elements, all is ours.
    page.locator(".swagger-ui").evaluate("(element) => element.remove()")
    assert list_violations(page.main_frame) == []
    page.emulate_media(color_scheme="dark")
    assert list_violations(page.main_frame, CONTRAST) == []


def test_the_start_page_is_accessible(page: Page, docs: str) -> None:
    page.goto(docs.replace("/api/docs", "/"))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert list_violations(page.main_frame) == []
