"""`make bench-view`: the first view of an app over a slow line, in round trips, requests and bytes.

The line delays each direction by half a round trip, and each new connection by a whole one. The host's token
endpoint is on a line too. The time runs from the start of the tag's script, or of the
iframe, to the shown app. Round trips are this time less the same time without delay, as medians. A later
visit comes a minute after the first.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from sqlalchemy import select

from app import create_app
from bench.report import PAGE, machine
from bench.rig import MANY
from config import Config
from demo import people, rows
from pat_service.cli import upgrade_schema
from pat_service.storage.database import transaction
from pat_service.storage.models import User
from tests.e2e.browser.conftest import CHROMIUM_ARGS
from tests.e2e.browser.site import Site, mint, site
from tests.support.line import Exchange, Line, line
from tests.support.people import KEY, make_secret, provision
from tests.support.servers import chromium, free_port, gunicorn

ROUNDS: Final = 9
ROUND_TRIP_SECONDS: Final = 0.1
#: From a first visit to the later one, in the same browser.
GAP_SECONDS: Final = 60
SECRET: Final = make_secret("portal")
CLIENT: Final = f"{people.PORTAL_CLIENT}:{SECRET}"
ORDERS: Final = {"appSlug": "orders"}
LAUNCHER: Final = {"workspaceSlug": people.WORKSPACE}

HEAD: Final = """<!doctype html><html lang="en"><title>Host</title><link rel="icon" href="data:,">
<script>addEventListener("loaded", () => { window.shownAt ??= performance.now(); }, true);</script>
"""
TAG: Final = """<script src="{service}/embed.js" defer></script>
<pat-embed {what} token-url="/token" auto-height></pat-embed>"""
SINCE_SCRIPT: Final = """() => window.shownAt && window.shownAt
    - performance.getEntriesByType("resource").find(({ name }) => name.endsWith("/embed.js")).startTime"""
#: In the frame and in its host page, on the clock that both share.
SHOWN_AT: Final = """() => window.embed && document.readyState === "complete"
    && performance.timeOrigin + performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd"""
STARTED_AT: Final = """() => performance.timeOrigin
    + performance.getEntriesByType("resource").find((each) => each.initiatorType === "iframe").startTime"""

BAR, LEFT, WIDTH, END = 16, 190, 640, 40


@dataclass
class World:
    """The service and a host page, each at the end of a line."""

    service: Line
    portal: Line
    host: Site
    #: The service's port without a line, for the host's back end.
    port: int

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.service.port}"

    @property
    def host_url(self) -> str:
        return f"http://localhost:{self.portal.port}"

    def mint(self, user: str, target: dict[str, str]) -> dict[str, Any]:
        return mint(f"http://127.0.0.1:{self.port}", CLIENT, email=user, **target)

    def set_round_trip(self, seconds: float) -> None:
        for each in (self.service, self.portal):
            each.delay, each.connect_delay = seconds / 2, seconds


@dataclass(frozen=True)
class Way:
    """A way to embed: the host page's content, what it mints for, and the function that measures a visit."""

    name: str
    content: Callable[[World], str]
    target: dict[str, str]
    milliseconds: Callable[[Page], float]
    user: str = people.ANA


@dataclass(frozen=True)
class Visit:
    milliseconds: float
    exchanges: list[Exchange]

    @property
    def size(self) -> int:
        return sum(each.size for each in self.exchanges)

    @property
    def page_size(self) -> int:
        """The size of the answer with the session and the app's page, which is never compressed."""
        return max(each.size for each in self.exchanges if is_opening(each))


@dataclass
class Row:
    """The visits of one way: over the slow line, and without delay."""

    name: str
    slow: list[Visit] = field(default_factory=list)
    fast: list[Visit] = field(default_factory=list)

    def round_trips(self, choose: Callable[[list[float]], float]) -> float:
        """Return the time over the slow line less the time without delay. `choose`: one of all visits."""
        slow, fast = (choose([each.milliseconds for each in its]) for its in (self.slow, self.fast))
        return (slow - fast) / 1000 / ROUND_TRIP_SECONDS

    def median(self, count: Callable[[Visit], float]) -> float:
        return statistics.median(count(each) for each in self.slow)

    def cells(self) -> list[str]:
        return [
            self.name,
            f"{self.round_trips(statistics.median):.1f}",
            f"{self.round_trips(min):.1f}",
            f"{self.median(lambda visit: len(visit.exchanges)):.0f}",
            f"{self.median(lambda visit: sum(each.revalidates for each in visit.exchanges)):.0f}",
            f"{self.median(lambda visit: visit.size) / 1000:.1f}",
            f"{self.median(lambda visit: visit.page_size) / 1000:.1f}",
        ]


def is_opening(exchange: Exchange) -> bool:
    return exchange.method == "POST" or "token=" in exchange.path


def _since_script(page: Page) -> float:
    return float(page.wait_for_function(SINCE_SCRIPT).json_value())


def _since_iframe(page: Page) -> float:
    frame = page.locator("iframe").element_handle().content_frame()
    if frame is None:
        raise RuntimeError("the iframe has no page")
    return float(frame.wait_for_function(SHOWN_AT).json_value()) - float(page.evaluate(STARTED_AT))


def _tag(what: str) -> Callable[[World], str]:
    return lambda world: TAG.format(
        service=world.service_url, what=what.format(service=world.service_url, app=people.ORDERS_ID)
    )


def _iframe(world: World) -> str:
    return f'<iframe src="{world.mint(people.ANA, ORDERS)["redirectUrl"]}" width="900" height="600"></iframe>'


EARLY: Final = 'app="orders" frame="{service}/embed-apps/{app}"'
WAYS: Final = (
    Way("tag", _tag(EARLY), ORDERS, _since_script),
    Way("tag, a customer without orders", _tag(EARLY), ORDERS, _since_script, people.CLEO),
    Way("tag without `frame`", _tag('app="orders"'), ORDERS, _since_script),
    Way("bare iframe", _iframe, ORDERS, _since_iframe),
    Way("launcher", _tag(f'workspace="{people.WORKSPACE}"'), LAUNCHER, _since_script),
)


def measure(rounds: int, folder: Path, *, write: bool) -> None:
    """Measure each way in each round, with and without delay. Print the table, and write it on request."""
    before = os.getloadavg()[0]
    with _world(folder) as world, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGS)
        rows = _visit_all(world, browser, rounds)
        browser.close()
    note = (
        f"Measured {datetime.now(UTC):%Y-%m-%d}: {rounds} rounds, {machine()}, "
        f"load {before:.0f} to {os.getloadavg()[0]:.0f}."
    )
    table = "\n".join(_table(rows))
    print(f"{note}\n\n{table}")
    if write:
        before_part, _, rest = PAGE.read_text().partition("<!-- view -->")
        after = rest.partition("<!-- end of view -->")[2]
        picture = "![The requests of a visit with the tag](performance-view.svg)"
        PAGE.write_text(
            f"{before_part}<!-- view -->\n{note}\n\n{table}\n\n{picture}\n<!-- end of view -->{after}"
        )
        PAGE.with_name("performance-view.svg").write_text(_waterfall(rows[:2]))


def _visit_all(world: World, browser: Browser, rounds: int) -> list[Row]:
    """Return the rows: the first and the later visit of each way."""
    table = {way.name: (Row(f"{way.name}, first"), Row(f"{way.name}, later")) for way in WAYS}
    contexts: list[tuple[Way, float, BrowserContext, float]] = []
    for _ in range(rounds):
        for way in WAYS:
            for round_trip in (ROUND_TRIP_SECONDS, 0.0):
                context = browser.new_context()
                _visit(world, context, way, round_trip, table[way.name][0])
                contexts.append((way, round_trip, context, time.monotonic()))
    for way, round_trip, context, at in contexts:
        time.sleep(max(0, at + GAP_SECONDS - time.monotonic()))
        _visit(world, context, way, round_trip, table[way.name][1])
        context.close()
    return [row for pair in table.values() for row in pair]


def _visit(world: World, context: BrowserContext, way: Way, round_trip: float, row: Row) -> None:
    world.set_round_trip(round_trip)
    world.host.pages["/"] = HEAD + way.content(world)
    world.host.posts["/token"] = lambda: world.mint(way.user, way.target)
    page = context.new_page()
    world.service.take()
    page.goto(f"{world.host_url}/", wait_until="commit")
    milliseconds = way.milliseconds(page)
    page.wait_for_load_state("networkidle")
    page.close()
    (row.slow if round_trip else row.fast).append(Visit(milliseconds, world.service.take()))


@contextmanager
def _world(folder: Path) -> Iterator[World]:
    port = free_port()
    with ExitStack() as stack:
        host = stack.enter_context(site(keep_alive=True))
        world = World(stack.enter_context(line(port)), stack.enter_context(line(host.port)), host, port)
        limits = {f"{name}_RATE_LIMIT": MANY for name in ("MINT", "USER_MINT", "OPEN", "FAILURE")}
        env = limits | {
            "SECRET_KEY": KEY,
            "PUBLIC_URL": world.service_url,
            "DATABASE_URL": f"sqlite:///{folder / 'bench.db'}",
        }
        _fill(env, folder, world.host_url)
        stack.enter_context(gunicorn(env, workers=1, port=port, log=folder / "log"))
        yield world


def _fill(env: dict[str, str], folder: Path, origin: str) -> None:
    """Load the demo's people and orders."""
    app = create_app(Config.from_environment(env, folder))
    document = people.directory(origin)
    document["clients"] = [document["clients"][0] | {"secret": SECRET, "mint_limit": MANY}]
    with app.app_context():
        upgrade_schema()
        provision(app, document)
        with transaction() as connection:
            ids = {user.email: user.id for user in connection.execute(select(User.email, User.id))}
            rows.load_rows(connection, ids, datetime.now(UTC))


# ---- Results ----


def _table(rows: list[Row]) -> Iterator[str]:
    yield "| visit | round trips | of the fastest | requests | revalidations | kB | of them the app's page |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        yield f"| {' | '.join(row.cells())} |"


def _waterfall(rows: list[Row]) -> str:
    """Draw the requests of each row's median visit to the service, with a line for each round trip."""
    visits = [sorted(row.slow, key=lambda visit: visit.milliseconds)[len(row.slow) // 2] for row in rows]
    longest = max(visit.exchanges[-1].ended - _start(visit) for visit in visits) / ROUND_TRIP_SECONDS
    scale = (WIDTH - LEFT - END) / longest
    parts, top = [], 0
    for row, visit in zip(rows, visits, strict=True):
        top += 24
        parts.append(f'<text x="8" y="{top}" class="name">{row.name}</text>')
        for exchange in visit.exchanges:
            parts += _bar(exchange, _start(visit), top + 8, scale)
            top += BAR + 4
    marks = [
        f'<path d="M{LEFT + number * scale:.1f} 8V{top + 10}"/>'
        f'<text x="{LEFT + number * scale:.1f}" y="{top + 24}" text-anchor="middle">{number}</text>'
        for number in range(int(longest) + 1)
    ]
    marks.append(f'<text x="{LEFT - 8}" y="{top + 24}" text-anchor="end">round trips</text>')
    style = (
        "text{font:12px system-ui,sans-serif;fill:#57606a}.name{font-weight:600}"
        "rect{fill:#4f7cac}.new{fill:#c2410c}path{stroke:#d0d7de}"
        "@media(prefers-color-scheme:dark){text{fill:#adb5bd}rect{fill:#6c9bd1}.new{fill:#fb923c}"
        "path{stroke:#3d444d}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 36}" role="img">'
        f"<title>Requests to the service, by round trips; red: a new connection</title>"
        f"<style>{style}</style>{''.join([*marks, *parts])}</svg>\n"
    )


def _start(visit: Visit) -> float:
    return visit.exchanges[0].connected or visit.exchanges[0].began


def _bar(exchange: Exchange, start: float, top: int, scale: float) -> Iterator[str]:
    began, ended = ((at - start) / ROUND_TRIP_SECONDS for at in (exchange.began, exchange.ended))
    yield f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">{exchange.name}</text>'
    box = f'y="{top}" height="{BAR}" rx="2"'
    yield f'<rect x="{LEFT + began * scale:.1f}" width="{(ended - began) * scale:.1f}" {box}/>'
    if exchange.connected:
        yield f'<rect class="new" x="{LEFT + began * scale:.1f}" width="{scale:.1f}" {box}/>'
