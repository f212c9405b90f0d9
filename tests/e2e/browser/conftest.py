"""A real Chromium for the tests below this folder, and a witness that sees all that its pages do."""

import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.browser.embedding import portal  # noqa: F401 - fixtures
from tests.e2e.browser.house import host, house, whole_house  # noqa: F401 - fixtures
from tests.support.servers import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

HERE = Path(__file__).parent
FAILURES = HERE / "failures"
PATIENCE = 10_000  # milliseconds
REPORTS = pytest.StashKey[list[pytest.TestReport]]()
CHROMIUM_ARGS = [
    "--no-sandbox",  # as root there is none to be had
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Chromium writes this line itself for each answer of 400 and above; a test may well expect a refusal.
EXPECTED_LINE = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d \(.*\)")
# Runs in every frame before the page's own scripts, and outside its CSP.
TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => window.__cspViolation(
    `${event.effectiveDirective} refused ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber}`));
"""


@dataclass(repr=False)
class Witness:
    """What one browser context did, in every page and frame of it."""

    console: list["ConsoleMessage"] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # exceptions that no script caught
    violations: list[str] = field(default_factory=list)  # of a Content-Security-Policy
    requests: list["Request"] = field(default_factory=list)
    responses: list["Response"] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)  # texts of lines that the test expects

    def watch(self, context: "BrowserContext") -> None:
        # Playwright cannot take `self.console.append` itself: it marks the handlers it is given.
        context.on("console", lambda message: self.console.append(message))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("request", lambda request: self.requests.append(request))
        context.on("response", lambda response: self.responses.append(response))
        context.expose_binding("__cspViolation", self._keep_violation)
        context.add_init_script(TELL_VIOLATIONS)

    def complaints(self) -> list[str]:
        """Everything that a quiet page would not have caused, as lines to read."""
        console = [
            f"console {message.type}: {message.text}"
            for message in self.console
            if message.type in ("error", "warning") and not EXPECTED_LINE.fullmatch(message.text)
        ]
        return console + [f"exception: {e}" for e in self.errors] + [f"CSP: {v}" for v in self.violations]

    def allow(self, *texts: str) -> None:
        """Let lines that hold one of the texts pass in this test."""
        self.allowed += texts

    def assert_quiet(self) -> None:
        """Fail on any console error or warning, uncaught exception or CSP report; `page` does at its end.

        Chromium's own line on a 4xx answer passes; so do the lines that the test allows.
        """
        loud = [line for line in self.complaints() if not any(text in line for text in self.allowed)]
        assert not loud, "The page was not quiet:\n" + "\n".join(loud)

    def urls(self) -> list[str]:
        """The address of each request, in order."""
        return [request.url for request in self.requests]

    def response_headers(self, name: str) -> list[tuple[str, str]]:
        """(address, value) for each answer that carried the header, Set-Cookie included."""
        found = []
        for response in self.responses:
            found += [(response.url, value) for value in response.header_values(name)]
        return found

    def request_headers(self, name: str) -> list[tuple[str, str]]:
        """(address, value) for each request that carried the header, as it went over the wire."""
        found = [(request.url, request.header_value(name)) for request in self.requests]
        return [(url, value) for url, value in found if value is not None]

    def _keep_violation(self, source: dict[str, Any], text: str) -> None:
        self.violations.append(f"{text} in {source['frame'].url}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)
            # Two browsers and a dozen servers on two cores: what fails once is run once more, and told.
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "setup":
        item.stash[REPORTS] = []  # of this run: there may be a second
    item.stash[REPORTS].append(report)
    return report


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    try:
        path = chromium()
    except FileNotFoundError as missing:
        # A machine that judges a change has to run these; a laptop may do without.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield opened
        opened.close()


@pytest.fixture
def page_apart(browser: "Browser") -> Iterator["Page"]:
    """A page in a browser that gives each site a process of its own, as on every desktop.

    With all sites in one process, a page around a busy frame would be as busy. No witness is with it.
    """
    args = [*CHROMIUM_ARGS, "--site-per-process"]
    apart = browser.browser_type.launch(executable_path=chromium(), args=args)
    yield apart.new_page()
    apart.close()


@pytest.fixture
def context(browser: "Browser") -> Iterator["BrowserContext"]:
    """A context of its own for each test: no cookies, no storage, no cache of another."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def witness(context: "BrowserContext") -> Witness:
    witness = Witness()
    witness.watch(context)
    return witness


@pytest.fixture
def page(context: "BrowserContext", witness: Witness, request: pytest.FixtureRequest) -> Iterator["Page"]:
    """A blank page whose context `witness` watches, and which has to be quiet.

    A test that fails leaves a picture in failures/.
    """
    page = context.new_page()
    yield page
    if any(report.failed for report in request.node.stash.get(REPORTS, [])):
        _keep_evidence(page, witness, request.node.nodeid)
    else:
        witness.assert_quiet()


def _keep_evidence(page: "Page", witness: Witness, test: str) -> None:
    from playwright.sync_api import Error

    FAILURES.mkdir(exist_ok=True)
    name = re.sub(r"[^\w.-]+", "-", test.rpartition("/")[2])
    lines = [page.url, *witness.complaints(), *witness.urls()]
    (FAILURES / f"{name}.txt").write_text("\n".join(lines) + "\n")
    try:
        page.screenshot(path=FAILURES / f"{name}.png", full_page=True)
    except Error as error:  # the page may be closed, or be what hangs
        (FAILURES / f"{name}.txt").write_text("\n".join([*lines, str(error)]) + "\n")
