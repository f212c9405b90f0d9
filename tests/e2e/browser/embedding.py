"""A page of another site that embeds by embed.js, its server side's token endpoint, and what it hears."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Frame, expect

from tests.e2e.browser.house import ANA, SECRET, House, heading
from tests.e2e.browser.sites import ready, until

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from tests.e2e.browser.conftest import Witness

MINT: Final = "/api/ext/users/personal-access-token"
#: Keeps each event of a `<pat-embed>`, and each message to the window.
LISTEN: Final = """
  window.heard = [];
  window.said = [];
  const plain = (it) => it instanceof Error ? { ...it, message: it.message } : it;
  const hear = (name) => (detail) => heard.push({ name, ...plain(detail) });
  const NAMES = [
    "ready", "loaded", "resize", "navigate", "error", "picked",
    ...["expiring", "renewed", "expired", "revoked"].map((name) => `session:${name}`),
  ];
  const told = ({ type, target, detail }) => target.localName === "pat-embed" && hear(type)(detail);
  for (const name of NAMES) document.addEventListener(name, told, true);
  addEventListener("message", ({ origin, data }) => said.push({ origin, ...data }));
  function follow(frame) {
    window.mounted = frame;
    for (const name of NAMES) frame.on(name, hear(name));
    return frame;
  }
"""
#: A browser that is driven shows all of its pages; so this says what a hidden one would.
HIDING: Final = """Object.defineProperty(document, "hidden", { get: () => window.asleep === true });"""
#: Where a page mounts an app by code.
SLOT: Final = '<div id="slot" class="slot"></div>'
PAGE: Final = """<!doctype html><html lang="en"><title>Portal</title><link rel="icon" href="data:,">
<style>pat-embed, .slot {{ width: 560px; height: 300px }}</style>
<script>{listen}</script>
<script src="{script}"></script>
<input id="own" aria-label="The page's own field">
{body}
<input id="after" aria-label="The field behind it">"""
#: Of a script that keeps its page busy for longer than the host waits for a first answer.
BUSY: Final = "setTimeout(() => { for (const end = performance.now() + 7000; performance.now() < end;); })"

Answer = Callable[["Route"], None]


def minted(house: House, email: str = ANA, **wish: Any) -> dict[str, Any]:
    """Mint, and return the answer as a portal's server side hands it on."""
    target = {} if "workspaceSlug" in wish else {"appSlug": "lab"}
    wish = {"sessionExpiry": 60, "patExpiry": 300, "email": email, **target, **wish}
    basic = b64encode(f"portal:{SECRET}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
    with urlopen(Request(house.url + MINT, json.dumps(wish).encode(), headers), timeout=10) as answer:
        return json.loads(answer.read())


def status(code: int, **headers: str) -> Answer:
    """An answer of the token endpoint that is no token."""
    return lambda route: route.fulfill(status=code, headers=headers, json={"detail": "Not now."})


def body(text: str, content_type: str = "application/json") -> Answer:
    return lambda route: route.fulfill(body=text, content_type=content_type)


@dataclass
class Portal:
    """The page, and the server side of it. `answers` come in place of mints, one after the other."""

    page: "Page"
    house: House
    email: str = ANA
    wish: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    held: list["Route"] = field(default_factory=list)
    holding: bool = False

    def __post_init__(self) -> None:
        self.page.route("**/embed-token", self._answer)

    def _answer(self, route: "Route") -> None:
        self.asked.append(json.loads(route.request.post_data or "null"))
        if self.answers:
            self.answers.pop(0)(route)
        else:
            self.mint(route)

    def mint(self, route: "Route") -> None:
        asked = self.asked[-1]
        target = {"appSlug": asked["app"]} if "app" in asked else {"workspaceSlug": asked["workspace"]}
        answer = minted(self.house, self.email, **target, **self.wish)
        self.tokens.append(answer["personalAccessToken"])
        route.fulfill(json=answer)

    def hold(self, pattern: str) -> None:
        """Let requests to such addresses wait."""
        self.holding = True

        def wait(route: "Route") -> None:
            self.held.append(route) if self.holding else route.continue_()

        self.page.context.route(pattern, wait)

    def release(self) -> None:
        """Let what waits go on, once there is something, and all that follows."""
        self.until(lambda: bool(self.held))
        self.holding = False
        while self.held:
            self.held.pop().continue_()

    @property
    def reasons(self) -> list[str]:
        return [asked["reason"] for asked in self.asked]

    # ---- The page ----

    def visit(self, html: str = "", path: str = "/portal", page: "Page | None" = None) -> None:
        """Go to a page of the host that has embed.js and this."""
        script = f"{self.house.url}/embed.js"
        self.house.site.pages[path] = PAGE.format(listen=LISTEN, script=script, body=html)
        (page or self.page).goto(self.house.site.url(path))

    def open(self, attributes: str = "", app: str = "lab") -> Frame:
        """Go to a page with a `<pat-embed>` and wait until the app is there."""
        self.visit(tag(attributes, app))
        self.heard("loaded")
        return self.shown()

    def mount(self, options: str = "", app: str = "lab") -> Frame:
        """Mount an app into the page, as code does, and wait until it is there."""
        self.page.evaluate(
            f"""PatEmbed.mount("#slot", {{
                app: "{app}", tokenUrl: "/embed-token", {options}
            }}).then(follow)"""
        )
        return self.shown()

    def shown(self, number: int = 0) -> Frame:
        """Wait until the app is in the frame of this number, and return that."""
        frame = self.frame(number)
        ready(frame)
        expect(heading(frame).first).to_be_visible()
        return frame

    def frame(self, number: int = 0) -> Frame:
        frame = self.page.locator("iframe").nth(number).element_handle().content_frame()
        assert frame
        return frame

    # ---- Time ----

    def pass_time(self, seconds: float) -> None:
        """Let the browser's clocks and timers run ahead. They have to be installed before `visit`."""
        self.page.clock.fast_forward(round(seconds * 1000))

    def sleep(self, asleep: bool = True) -> None:
        """Hide the page and its frames, or show them again. `HIDING` has to be there."""
        for frame in reversed(self.page.frames):
            frame.evaluate("(asleep) => { window.asleep = asleep; }", asleep)
            frame.evaluate("void document.dispatchEvent(new Event('visibilitychange'))")

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true that no page knows of."""
        until(self.page, true)

    # ---- What it hears ----

    def heard(self, name: str, count: int = 1, patience: float = 10) -> list[dict[str, Any]]:
        """Return the events of this name, once they are so many; they have as many seconds."""
        self.page.wait_for_function(
            "([name, count]) => heard.filter((event) => event.name === name).length >= count",
            arg=[name, count],
            polling=50,
            timeout=patience * 1000,
        )
        return self.page.evaluate("name => heard.filter((event) => event.name === name)", name)

    def names(self) -> list[str]:
        """Return the names of what was heard, but for the heights."""
        return [name for name in self.page.evaluate("heard.map(({ name }) => name)") if name != "resize"]

    def said(self, count: int = 0) -> list[dict[str, Any]]:
        """Return the messages to the window but for the first word of each page, once they are so many.

        They do not come by the events' line.
        """
        rest = "said.filter(({ type }) => type !== 'pat-embed:here')"
        self.page.wait_for_function(f"(count) => {rest}.length >= count", arg=count, polling=50)
        return self.page.evaluate(rest)


def tag(attributes: str = "", app: str = "lab") -> str:
    return f'<pat-embed app="{app}" token-url="/embed-token" {attributes}></pat-embed>'


@pytest.fixture
def portal(page: "Page", house: House, witness: "Witness") -> Iterator[Portal]:
    # Chromium warns of it for every frame; docs/host/bare-iframe.md says why both are needed.
    witness.allow("allow-scripts and allow-same-origin")
    portal = Portal(page, house)
    yield portal
    for route in portal.held:
        route.abort()
