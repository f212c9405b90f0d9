"""The page of the API's document, as gunicorn serves it."""

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

from tests.support.people import KEY
from tests.support.servers import gunicorn

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.e2e.browser.conftest import Witness

OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
GROUND = "() => getComputedStyle(document.body).backgroundColor"
#: One of each kind; the renderer takes a second for each.
OPERATIONS = ("Minting-mint", "Frames-openApp", "Directory-changeApp", "Events-exportEvents")


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


def shown(page: "Page", docs: str) -> None:
    page.goto(docs)
    expect(page.locator(".opblock").first).to_be_visible()


def opened(page: "Page", docs: str) -> None:
    shown(page, docs)
    for operation in OPERATIONS:
        page.locator(f"#operations-{operation} .opblock-summary-control").click()
        expect(page.locator(f"#operations-{operation} .response").first).to_be_visible()


def test_the_operations_can_be_read_and_nothing_comes_from_elsewhere(
    page: "Page", witness: "Witness", docs: str
) -> None:
    with urlopen(docs.replace("/docs", "/openapi.json"), timeout=10) as answer:
        paths = json.load(answer)["paths"].values()
    operations = sum(method != "parameters" for path in paths for method in path)
    opened(page, docs)
    expect(page.locator(".opblock")).to_have_count(operations)
    mint = page.locator("#operations-Minting-mint")
    for text in ("mint:workspace", "ana@acme.test", "app_forbidden", "personalAccessToken"):
        expect(mint).to_contain_text(text)
    mint.get_by_role("tab", name="Schema").first.click()
    expect(mint.locator(".json-schema-2020-12").first).to_be_visible()
    assert {urlsplit(url).netloc for url in witness.urls()} == {urlsplit(docs).netloc}


def test_nobody_is_asked_for_a_secret_and_nothing_can_be_sent(
    page: "Page", witness: "Witness", docs: str
) -> None:
    opened(page, docs)
    for asks in (".authorize", ".try-out", ".execute", "input:visible", "textarea:visible"):
        expect(page.locator(asks)).to_have_count(0)
    assert all(request.method == "GET" for request in witness.requests)


def test_an_operation_has_an_address(page: "Page", docs: str) -> None:
    shown(page, f"{docs}#/Minting/mint")
    expect(page.locator("#operations-Minting-mint.is-open")).to_be_visible()


@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_its_window(page: "Page", docs: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    opened(page, docs)
    assert page.evaluate(OVERFLOW) == 0


def test_it_follows_the_colours_of_the_system(page: "Page", docs: str) -> None:
    shown(page, docs)
    light = page.evaluate(GROUND)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"(light) => ({GROUND})() !== light", arg=light)


def test_without_script_it_leads_to_the_document(browser: "Browser", docs: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(docs)
    link = page.get_by_role("link", name="an OpenAPI document")
    assert link.get_attribute("href") == "/api/openapi.json"
    context.close()
