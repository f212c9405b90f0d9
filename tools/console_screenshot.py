"""Take the pictures of docs/operate/console.md from the demo: `make console-png`. Needs Chromium."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright
from sqlalchemy import create_engine, delete, insert, select

from pat_service.rules import events, usage
from pat_service.storage.models import App, HourlyCount
from tests.e2e.browser.checkout import copy_project, shell
from tests.e2e.browser.conftest import CHROMIUM_ARGS
from tests.e2e.browser.laptop import LAPTOP, running
from tests.support.servers import chromium

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
SIZE: Final[ViewportSize] = {"width": 1200, "height": 760}
PORT: Final = 5000  # the port that README names
CONSOLE: Final = f"http://console.localhost:{PORT}"
OWNER: Final = "ola@acme.test"
#: What the charts show, with the most per hour.
COUNTS: Final = (
    (events.TOKEN_MINTED, "", 60),
    (events.SESSION_OPENED, "", 55),
    (usage.LIVE, "", 40),
    (events.OPEN_REFUSED, "token_expired", 6),
    (events.OPEN_REFUSED, "app_forbidden", 3),
    (events.MINT_REFUSED, "user_not_found", 2),
)


@contextmanager
def demo() -> Iterator[tuple[Path, Browser]]:
    """Run the demo with made-up usage of a day, and a browser."""
    with TemporaryDirectory() as folder:
        tree = copy_project(Path(folder, "tree"))
        with running(tree, *LAPTOP, port=PORT), sync_playwright() as playwright:
            _invent_usage(tree)
            browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGS)
            yield tree, browser
            browser.close()


def _invent_usage(tree: Path) -> None:
    engine = create_engine(f"sqlite:///{tree / 'instance/pat-service.db'}")
    chance = random.Random(1)  # noqa: S311 (pictures look the same each time)
    newest = usage.last_hour(datetime.now(UTC))
    with engine.begin() as connection:
        apps = connection.execute(select(App.id, App.workspace_id).limit(3)).all()
        connection.execute(delete(HourlyCount))
        for back in range(24):
            hour = newest - timedelta(hours=back)
            row = {"hour": hour, "workspace_id": "", "app_id": "", "type": "", "code": "", "times": 0}
            connection.execute(insert(HourlyCount).values(**row))
            part = 0.25 + 0.75 * (7 <= hour.hour < 18)
            for place, app in enumerate(apps, 1):
                for type_, code, most in COUNTS:
                    times = round(most * part * chance.uniform(0.5, 1) / place)
                    own = {"workspace_id": app.workspace_id, "app_id": app.id, "type": type_, "code": code}
                    connection.execute(insert(HourlyCount).values(**row | own | {"times": times}))
    engine.dispose()


def open_portal(page: Page) -> None:
    """Open the portal with Ana's orders, and wait until the app has settled."""
    page.goto(f"http://localhost:{PORT}/")
    expect(page.locator("#frame-state")).to_have_text("loaded")
    expect(page.frame_locator("pat-embed iframe").locator("h1")).to_have_text("Orders")
    page.wait_for_load_state("networkidle")


def sign_in(page: Page, tree: Path) -> None:
    page.goto(shell(f"flask --app app console link {OWNER} --port {PORT}", tree).strip())
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{CONSOLE}/")
    expect(page.locator(".chart canvas")).to_have_count(1)


def main() -> None:
    with demo() as (tree, browser):
        page = browser.new_page(viewport=SIZE)
        open_portal(page)
        sign_in(page, tree)
        _save(page, "overview")
        page.goto(f"{CONSOLE}/apps")
        page.locator(".row-link", has_text="Orders").first.click()
        app = page.url
        page.goto(f"{app}/embed")
        _save(page, "embed")
        page.goto(f"{app}/preview")
        page.get_by_label("Person").fill("ana@acme.test")
        page.get_by_role("button", name="Start the preview").click()
        expect(page.frame_locator("#preview iframe").get_by_role("heading").first).to_be_visible()
        _save(page, "preview")
        page.goto(f"{CONSOLE}/audit")
        _save(page, "audit")


def _save(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    path = DOCS / f"operate/console-{name}.png"
    page.screenshot(path=path)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
