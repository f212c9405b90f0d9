"""Take README's picture of the demo portal, docs/portal.png: `make portal-png`. Needs Chromium."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from tests.e2e.browser.checkout import copy_project
from tests.e2e.browser.conftest import CHROMIUM_ARGS
from tests.e2e.browser.laptop import LAPTOP, running
from tests.support.servers import chromium

PICTURE: Final = Path(__file__).resolve().parents[1] / "docs/portal.png"
SIZE: Final[ViewportSize] = {"width": 1280, "height": 860}
PORT: Final = 5000  # the port that README names


def take(page: Page) -> None:
    """Save the portal with Ana's orders, as it is when the app has settled."""
    page.goto(f"http://localhost:{PORT}/")
    expect(page.locator("#frame-state")).to_have_text("loaded")
    expect(page.frame_locator("pat-embed iframe").locator("h1")).to_have_text("Orders")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=PICTURE)


def main() -> None:
    with TemporaryDirectory() as folder:
        tree = copy_project(Path(folder, "tree"))
        with running(tree, *LAPTOP, port=PORT), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGS)
            take(browser.new_page(viewport=SIZE))
            browser.close()
    sys.stdout.write(f"{PICTURE}\n")


if __name__ == "__main__":
    main()
