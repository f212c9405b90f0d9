"""Chromium for every test below this folder, with a recorder that keeps its pages quiet."""

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright

from tests.e2e.browser.installation import (  # noqa: F401 - fixtures
    host,
    installation,
    launcher_installations,
    running_installation,
)
from tests.e2e.browser.portal import portal  # noqa: F401 - a fixture
from tests.e2e.browser.recorder import Recorder
from tests.support.servers import chromium

HERE = Path(__file__).parent
FAILURES = HERE / "failures"
TIMEOUT_MS = 30_000
TEST_REPORTS = pytest.StashKey[list[pytest.TestReport]]()
CHROMIUM_ARGS = [
    "--no-sandbox",  # Chromium has no sandbox for root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)
            # Two browsers and a dozen servers share two cores, so a failed test runs a second time.
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "setup":
        item.stash[TEST_REPORTS] = []  # a rerun starts a new list
    item.stash[TEST_REPORTS].append(report)
    return report


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT_MS)
    try:
        path = chromium()
    except FileNotFoundError as missing:
        # CI must run these tests; a laptop may skip them.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page_with_site_processes(browser: Browser) -> Iterator[Page]:
    """A page in a browser with a process for each site, as on a desktop. The page has no recorder.

    In one process, a busy frame would keep the host page busy.
    """
    args = [*CHROMIUM_ARGS, "--site-per-process"]
    separate = browser.browser_type.launch(executable_path=chromium(), args=args)
    yield separate.new_page()
    separate.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A new context for each test, with no cookies, storage or cache."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(TIMEOUT_MS)
    yield context
    context.close()


@pytest.fixture
def recorder(context: BrowserContext) -> Recorder:
    recorder = Recorder()
    recorder.record(context)
    return recorder


@pytest.fixture
def page(context: BrowserContext, recorder: Recorder, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that is blank at first and must stay quiet. A failed test leaves a screenshot in failures/."""
    page = context.new_page()
    yield page
    if any(report.failed for report in request.node.stash.get(TEST_REPORTS, [])):
        _save_evidence(page, recorder, request.node.nodeid)
    else:
        recorder.assert_quiet()


def _save_evidence(page: Page, recorder: Recorder, test: str) -> None:
    FAILURES.mkdir(exist_ok=True)
    name = re.sub(r"[^\w.-]+", "-", test.rpartition("/")[2])
    lines = [page.url, *recorder.complaints(), *recorder.urls()]
    try:
        page.screenshot(path=FAILURES / f"{name}.png", full_page=True)
    except Error as error:  # the page may be closed, or hang
        lines.append(str(error))
    (FAILURES / f"{name}.txt").write_text("\n".join(lines) + "\n")
