"""A portal on another site: a page that loads embed.js, and the token endpoint of its server."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import pytest
from playwright.sync_api import Frame, Page, Route, expect

from tests.e2e.browser.installation import ANA, Installation, heading
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until, wait_until_ready

#: Records each event of a `<pat-embed>` or a mounted frame, and each message to the window.
RECORD_EVENTS: Final = """
  window.events = [];
  window.messages = [];
  const plain = (it) => it instanceof Error ? { ...it, message: it.message } : it;
  const record = (name) => (detail) => events.push({ name, ...plain(detail) });
  const NAMES = [
    "waiting", "ready", "loaded", "resize", "navigate", "error", "picked",
    ...["expiring", "renewed", "expired", "revoked"].map((name) => `session:${name}`),
  ];
  const recordTag = ({ type, target, detail }) => target.localName === "pat-embed" && record(type)(detail);
  for (const name of NAMES) document.addEventListener(name, recordTag, true);
  addEventListener("message", ({ origin, data }) => messages.push({ origin, ...data }));
  window.frameLoads = 0;
  document.addEventListener("load", ({ target }) => { frameLoads += target.localName === "iframe"; }, true);
  function follow(frame) {
    window.mounted = frame;
    for (const name of NAMES) frame.on(name, record(name));
    return frame;
  }
"""
#: Lets `Portal.hide` work: a driven browser shows all of its pages.
CAN_HIDE: Final = """Object.defineProperty(document, "hidden", { get: () => window.asleep === true });"""
#: An element into which code mounts an app.
SLOT_HTML: Final = '<div id="slot" class="slot"></div>'
PAGE_HTML: Final = """<!doctype html><html lang="en"><title>Portal</title><link rel="icon" href="data:,">
<style>pat-embed, .slot {{ width: 560px; height: 300px }}</style>
<script>{listen}</script>
<script src="{script}"></script>
<input id="own" aria-label="The page's own field">
{body}
<input id="after" aria-label="The field after the frame">"""
#: Makes embed.js wait for the first message of a loaded frame for one second, not for five.
IMPATIENT_HTML: Final = """<script>
  const set = setTimeout;
  setTimeout = (work, ms, ...rest) => set(work, ms === 5000 ? 1000 : ms, ...rest);
</script>"""
#: Blocks a page for longer than that second.
KEEP_BUSY: Final = (
    "setTimeout(() => { for (const end = performance.now() + 2500; performance.now() < end;); })"
)
#: The session lasts three minutes and is renewed after two.
SHORT_SESSION: Final = {"sessionExpiry": 3}
#: A short session is renewed before this time, whatever the jitter.
NEARLY_EXPIRED_SECONDS: Final = 165
EXPIRED_SECONDS: Final = 185
#: A mint no longer serves other frames after this time.
MINT_SHARING_OVER_SECONDS: Final = 6
#: What Chromium logs about a frame that its policy blocks.
BLOCKED_LINES: Final = ("origin_not_allowed", "frame-ancestors", "target origin provided", "chrome-error")

Answer = Callable[[Route], None]


def status_answer(status: int, **headers: str) -> Answer:
    return lambda route: route.fulfill(status=status, headers=headers, json={"detail": "Not now."})


def body_answer(text: str, content_type: str = "application/json") -> Answer:
    return lambda route: route.fulfill(body=text, content_type=content_type)


@dataclass
class Portal:
    """The page and its token endpoint. Each of `answers` replaces one mint."""

    page: Page
    installation: Installation
    email: str = ANA
    mint_options: dict[str, Any] = field(default_factory=dict)
    token_requests: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    token_ids: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    paused: list[Route] = field(default_factory=list)
    minted_at: float = 0.0
    pausing: bool = False

    def __post_init__(self) -> None:
        self.page.route("**/embed-token", self._answer)

    def _answer(self, route: Route) -> None:
        self.token_requests.append(json.loads(route.request.post_data or "null"))
        if self.answers:
            self.answers.pop(0)(route)
        else:
            self.mint(route)

    def mint(self, route: Route) -> None:
        request = self.token_requests[-1]
        target = (
            {"workspaceSlug": request["workspace"]} if "workspace" in request else {"app": request["app"]}
        )
        answer = self.installation.mint(self.email, **target, **self.mint_options)
        self.tokens.append(answer["personalAccessToken"])
        self.token_ids.append(answer["tokenId"])
        self.minted_at = monotonic()
        route.fulfill(json=answer)

    @property
    def reasons(self) -> list[str]:
        return [request["reason"] for request in self.token_requests]

    # ---- The network ----

    def pause(self, pattern: str) -> None:
        """Let requests to these addresses wait for `resume`."""
        self.pausing = True

        def handle(route: Route) -> None:
            self.paused.append(route) if self.pausing else route.continue_()

        self.page.context.route(pattern, handle)

    def wait_for_paused(self) -> None:
        self.wait_until(lambda: bool(self.paused))

    def resume(self) -> None:
        """Wait for a paused request, and let it and all later ones continue."""
        self.wait_for_paused()
        self.pausing = False
        while self.paused:
            self.paused.pop().continue_()

    # ---- The page ----

    def visit(self, html: str = "", path: str = "/portal") -> None:
        """Go to a page of the portal with embed.js and this HTML."""
        script = f"{self.installation.url}/embed.js"
        page = PAGE_HTML.format(listen=RECORD_EVENTS, script=script, body=html)
        self.installation.site.pages[path] = page
        self.page.goto(self.installation.site.url(path))

    def open(self, attributes: str = "", app: str = "lab") -> Frame:
        """Go to a page with a `<pat-embed>`, and wait until the app is ready."""
        self.visit(tag(attributes, app))
        self.events("loaded")
        return self.opened_frame()

    def mount(self, options: str = "", app: str = "lab") -> Frame:
        """Mount an app into the page by code, and wait until it is ready."""
        self.page.evaluate(
            f"""PatEmbed.mount("#slot", {{
                app: "{app}", tokenUrl: "/embed-token", {options}
            }}).then(follow)"""
        )
        return self.opened_frame()

    def opened_frame(self, number: int = 0) -> Frame:
        """Wait until the frame with this number shows a page, and return the frame."""
        frame = self.frame(number)
        wait_until_ready(frame)
        expect(heading(frame).first).to_be_visible()
        return frame

    def frame(self, number: int = 0) -> Frame:
        frame = self.page.locator("iframe").nth(number).element_handle().content_frame()
        assert frame
        return frame

    # ---- Time ----

    def fast_forward(self, seconds: float) -> None:
        """Move the browser's clocks and timers ahead. Install them before `visit`."""
        self.page.clock.fast_forward(round(seconds * 1000))

    def nearly_expire(self) -> None:
        """Move the clocks to the time at which a short session is about to expire.

        Subtract the time since the mint: on a slow machine the session could expire otherwise.
        """
        self.fast_forward(max(0, NEARLY_EXPIRED_SECONDS - (monotonic() - self.minted_at)))

    def wait_for_frame_load(self, after: int = 0) -> None:
        """Wait until more than this number of frame pages have loaded, so that embed.js expects a message."""
        self.page.wait_for_function("(after) => frameLoads > after", arg=after, polling=50)

    def hide(self, hidden: bool = True) -> None:
        """Hide the page and its frames, or show them again. Needs `CAN_HIDE`."""
        for frame in reversed(self.page.frames):
            frame.evaluate("(hidden) => { window.asleep = hidden; }", hidden)
            frame.evaluate("void document.dispatchEvent(new Event('visibilitychange'))")

    def wait_until(self, is_true: Callable[[], bool]) -> None:
        wait_until(self.page, is_true)

    # ---- Events and messages ----

    def events(self, name: str, count: int = 1, timeout_seconds: float = 30) -> list[dict[str, Any]]:
        """Wait for at least this number of events with the name, and return all of them."""
        self.page.wait_for_function(
            "([name, count]) => events.filter((event) => event.name === name).length >= count",
            arg=[name, count],
            polling=50,
            timeout=timeout_seconds * 1000,
        )
        found: list[dict[str, Any]] = self.page.evaluate(
            "name => events.filter((event) => event.name === name)", name
        )
        return found

    def expect_error(self, code: str, **fields: Any) -> dict[str, Any]:
        """Wait for the one error event, and compare its code and these fields."""
        (error,) = self.events("error")
        assert {name: error.get(name) for name in ("code", *fields)} == {"code": code, **fields}
        return error

    def event_names(self) -> list[str]:
        """Return the names of all events except `resize`, and `waiting`, which depends on the machine."""
        names: list[str] = self.page.evaluate("events.map(({ name }) => name)")
        return [name for name in names if name not in ("resize", "waiting")]

    def expect_no_error(self) -> None:
        assert "error" not in self.event_names()

    def messages(self, count: int = 0) -> list[dict[str, Any]]:
        """Wait for this number of messages to the window, and return all.

        The first message of each frame page is left out. Events do not come as messages to the window.
        """
        rest = "messages.filter(({ type }) => type !== 'pat-embed:here')"
        self.page.wait_for_function(f"(count) => {rest}.length >= count", arg=count, polling=50)
        messages: list[dict[str, Any]] = self.page.evaluate(rest)
        return messages


def tag(attributes: str = "", app: str = "lab") -> str:
    return f'<pat-embed app="{app}" token-url="/embed-token" {attributes}></pat-embed>'


@pytest.fixture
def portal(page: Page, installation: Installation, recorder: Recorder) -> Iterator[Portal]:
    # Chromium warns about this pair for every frame; docs/host/bare-iframe.md explains why a frame needs
    # both.
    recorder.allow("allow-scripts and allow-same-origin")
    portal = Portal(page, installation)
    yield portal
    for route in portal.paused:
        route.abort()
