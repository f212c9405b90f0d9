"""Records what the pages and frames of one browser context do."""

import re
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Request, Response

#: Chromium logs this line for every answer of 400 and above, which a test may expect.
EXPECTED_LINE = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d \(.*\)")
#: Runs in every frame before the page's own scripts, outside the page's policy.
REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => window.__cspViolation(
    `${event.effectiveDirective} refused ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber}`));
"""


@dataclass(repr=False)
class Recorder:
    """The requests, answers, console lines, uncaught exceptions and policy violations of a context."""

    console: list[ConsoleMessage] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def record(self, context: BrowserContext) -> None:
        # Playwright sets an attribute on each handler, which a bound method of a list does not accept.
        context.on("console", lambda message: self.console.append(message))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("request", lambda request: self.requests.append(request))
        context.on("response", lambda response: self.responses.append(response))
        context.expose_binding("__cspViolation", self._record_violation)
        context.add_init_script(REPORT_VIOLATIONS)

    def complaints(self) -> list[str]:
        """Return every console error and warning, uncaught exception and violation, one a line."""
        console = [
            f"console {message.type}: {message.text}"
            for message in self.console
            if message.type in ("error", "warning") and not EXPECTED_LINE.fullmatch(message.text)
        ]
        return console + [f"exception: {e}" for e in self.errors] + [f"CSP: {v}" for v in self.violations]

    def complained(self, text: str) -> bool:
        return any(text in line for line in self.complaints())

    def allow(self, *texts: str) -> None:
        """Let complaints that contain one of the texts pass."""
        self.allowed += texts

    def assert_quiet(self) -> None:
        """Fail on any complaint that the test does not allow; the fixture `page` calls this at its end."""
        loud = [line for line in self.complaints() if not any(text in line for text in self.allowed)]
        assert not loud, "The page was not quiet:\n" + "\n".join(loud)

    def urls(self) -> list[str]:
        """Return the address of each request, in order."""
        return [request.url for request in self.requests]

    def bodies_with(self, text: str) -> list[Request]:
        """Return the requests whose body contains the text."""
        return [request for request in self.requests if text in (request.post_data or "")]

    def response_headers(self, name: str) -> list[tuple[str, str]]:
        """Return (address, value) for each answer with this header, Set-Cookie included."""
        return [(each.url, value) for each in self.responses for value in each.header_values(name)]

    def request_headers(self, name: str) -> list[tuple[str, str]]:
        """Return (address, value) for each request with this header, as it was sent."""
        found = [(request.url, request.header_value(name)) for request in self.requests]
        return [(url, value) for url, value in found if value is not None]

    def assert_no_cookie(self, context: BrowserContext) -> None:
        """Fail if a server or a script set a cookie, or if a request sent one."""
        assert context.cookies() == []
        assert not self.response_headers("set-cookie")
        assert not self.request_headers("cookie")

    def _record_violation(self, source: dict[str, Any], text: str) -> None:
        self.violations.append(f"{text} in {source['frame'].url}")
