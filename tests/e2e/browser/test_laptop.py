"""`make run`: the portal with an app that runs elsewhere, behind Caddy, from a fresh copy of the project."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FrameLocator, Page, expect

from tests.e2e.browser.checkout import copy_project
from tests.e2e.browser.laptop import LAPTOP, Run, running
from tests.e2e.browser.recorder import Recorder
from tests.support.servers import WebServer, free_port, web_server


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("laptop") / "tree")


@pytest.fixture(scope="module")
def run(tree: Path) -> Iterator[Run]:
    with running(tree, *LAPTOP) as demo:
        yield demo
    text = demo.log.read_text()
    assert "Traceback" not in text
    assert "pat_" not in text
    # Every file is in instance/.
    assert not any((tree / name).exists() for name in (".config", ".local", ".cache/caddy"))
    assert (tree / "instance/caddy/Caddyfile").is_file()


def app_of(page: Page, title: str) -> FrameLocator:
    """Return the app inside the frame of this title."""
    return page.frame_locator(f"iframe[title='{title}']").frame_locator("iframe")


def test_the_app_that_existed_before_knows_its_viewer(run: Run, page: Page, recorder: Recorder) -> None:
    page.goto(f"{run.url}/#/ana/deliveries")
    app = app_of(page, "Deliveries, for Ana Ruiz")
    expect(app.locator("header")).to_contain_text("ana@acme.test")
    # The app begins at the frame's upper edge, so its lower end is not cut off.
    inner = page.frame_locator("pat-embed iframe").locator("iframe")
    assert inner.evaluate("(iframe) => iframe.getBoundingClientRect().top") == 0
    # Events of the server arrive.
    expect(app.locator("#where")).to_contain_text("Between ")
    app.locator("#goods").fill("12 office chairs")
    app.get_by_role("button", name="Book").click()
    expect(app.locator(".message")).to_contain_text("is booked for")
    with page.expect_download() as download:
        app.get_by_role("link", name="Download").click()
    assert "12 office chairs" in Path(download.value.path()).read_text()
    page.goto(f"{run.url}/#/ben/deliveries")
    app = app_of(page, "Deliveries, for Ben Okafor")
    expect(app.locator("header")).to_contain_text("ben@acme.test")
    expect(app.locator("table")).not_to_contain_text("12 office chairs")


def test_the_other_apps_and_the_launcher_work_behind_the_proxy(run: Run, page: Page) -> None:
    page.goto(f"{run.url}/#/ana/orders")
    expect(page.frame_locator("pat-embed iframe").locator("h1")).to_have_text("Orders")
    page.get_by_role("link", name="All apps").click()
    frame = page.frame_locator("iframe[title='All apps, for Ana Ruiz']")
    frame.get_by_role("button", name="Deliveries").click()
    app = frame.frame_locator("iframe").frame_locator("iframe")
    expect(app.locator("header")).to_contain_text("ana@acme.test")


@pytest.fixture
def own_app(tmp_path: Path) -> Iterator[WebServer]:
    """The newcomer's app: a folder with a page."""
    (tmp_path / "index.html").write_text("<!doctype html><title>Mine</title><h1>My own app</h1>")
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with web_server(command, {}, port=port, cwd=tmp_path) as server:
        yield server


def test_a_newcomers_own_app_is_in_the_portal(tree: Path, own_app: WebServer, page: Page) -> None:
    with running(tree, *LAPTOP, "--upstream", f"127.0.0.1:{own_app.port}") as demo:
        assert f"{demo.url}/#/ana/your-app" in demo.log.read_text()
        page.goto(f"{demo.url}/#/ana/your-app")
        app = app_of(page, "Your app, for Ana Ruiz")
        expect(app.locator("h1")).to_have_text("My own app")
        expect(page.get_by_role("navigation", name="Portal")).not_to_contain_text("Deliveries")
        # The demo ends with the first of its processes.
        demo.process.send_signal(signal.SIGTERM)
        assert demo.process.wait(20) == 0


#: As on a system for which pip has no Caddy.
NO_CADDY = "import demo.laptop as laptop; laptop.find_caddy = lambda: None; laptop.main()"


@pytest.mark.parametrize(
    ("command", "public_url", "reason"),
    [
        (("-c", NO_CADDY), None, "pip finds no Caddy for this machine"),
        (LAPTOP, "http://127.0.0.1:{}", "PUBLIC_URL has no {app}"),
    ],
)
def test_without_caddy_or_names_the_portal_has_the_demos_own_apps(
    tree: Path, page: Page, command: tuple[str, ...], public_url: str | None, reason: str
) -> None:
    port = free_port()
    environ = {"PUBLIC_URL": public_url.format(port)} if public_url else {}
    with running(tree, *command, port=port, **environ) as demo:
        assert f"The portal shows no app that runs elsewhere, since {reason}." in demo.log.read_text()
        page.goto(f"{demo.url}/")
        expect(page.frame_locator("pat-embed iframe").locator("h1")).to_have_text("Orders")
        expect(page.get_by_role("navigation", name="Portal")).not_to_contain_text("Deliveries")
