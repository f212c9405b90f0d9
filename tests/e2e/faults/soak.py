"""Memory under a soak: `python -m tests.e2e.faults.soak [REQUESTS]`, on SQLite and on PostgreSQL with Redis.

It sends mixed requests to gunicorn and reports the resident memory of its processes. It exits with 1 if
memory grows by more than MOST_GROWTH in the second half.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from tests.e2e.faults.installation import CROWD, PAIRS, PLACES, Installation, installed, on_postgres
from tests.support.http_calls import EXCHANGE, Answer, HttpConnection
from tests.support.people import SUPPORT, basic
from tests.support.servers import WebServer, children_of, postgres, redis_server

CALLERS: Final = 8
JSON: Final = {"Content-Type": "application/json"}
MOST_GROWTH: Final = 0.03
#: When memory is measured, as fractions of all requests.
MARKS: Final = (0.1, 0.25, 0.5, 0.75, 1.0)


class Visitor:
    """One caller, with its current token and session."""

    def __init__(self, caller: HttpConnection, number: int) -> None:
        self.caller, self.chance = caller, Random(number)
        self.email, self.slug = PAIRS[number % len(PAIRS)]
        self.place = PLACES[self.slug]
        self.token = self.jwt = ""
        self.kinds: list[Callable[[], Answer]] = [
            self.mint,
            self.exchange,
            self.exchange,
            lambda: self.caller.open(self.token, self.place),
            *[lambda: self.caller.facts(self.jwt, self.place)] * 6,
            lambda: self.caller.mint(email=f"{self.chance.random()}@nowhere.test"),
            lambda: self.caller.mint(secret=f"{self.chance.random()}" * 2),
            lambda: self.caller.mint(email=CROWD[0], appSlug=f"nowhere{self.chance.randrange(10**9)}"),
            lambda: self.caller.open(f"pat_{self.chance.getrandbits(288):072x}", self.place),
            lambda: self.caller.facts(self.jwt + "x", SUPPORT),
            lambda: self.caller.call("GET", f"/nowhere/{self.chance.random()}"),
            lambda: self.caller.call("POST", EXCHANGE, JSON, "{" * self.chance.randrange(5000)),
            lambda: self.caller.call("GET", "/api/ext/events?limit=20", basic("manager")),
        ]
        self.mint()
        self.exchange()

    def mint(self) -> Answer:
        answer = self.caller.mint(email=self.email, appSlug=self.slug)
        self.token = answer.json["personalAccessToken"]
        return answer

    def exchange(self) -> Answer:
        answer = self.caller.exchange(self.token, self.place)
        self.jwt = answer.json["signedPat"]
        return answer

    def call(self, times: int) -> Counter[int]:
        return Counter(self.chance.choice(self.kinds)().status for _ in range(times))


def resident(server: WebServer) -> int:
    """Return the resident memory of all gunicorn workers in KiB."""
    lines = (
        line
        for pid in children_of(server.process.pid)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def soak(installation: Installation, requests: int) -> bool:
    """Send this many requests, and return whether memory stayed flat."""
    name = "PostgreSQL and Redis" if installation.on_postgres else "SQLite"
    found: dict[float, int] = {}
    statuses: Counter[int] = Counter()
    with installation.serving() as server, ExitStack() as stack:
        visitors = [Visitor(stack.enter_context(HttpConnection(server.port)), n) for n in range(CALLERS)]
        workers = children_of(server.process.pid)
        sent = 0
        with ThreadPoolExecutor(CALLERS) as threads:
            for mark in MARKS:
                each = (int(requests * mark) - sent) // CALLERS
                for counted in threads.map(Visitor.call, visitors, [each] * CALLERS):
                    statuses += counted
                sent += each * CALLERS
                found[mark] = resident(server)
                print(f"{name}: {found[mark] / 1024:7.1f} MiB after {sent} requests", flush=True)
        assert children_of(server.process.pid) == workers
    growth = found[1.0] / found[0.5] - 1
    print(f"{name}: {growth:+.1%} in the second half; {dict(sorted(statuses.items()))}", flush=True)
    return growth <= MOST_GROWTH and not any(status >= 500 for status in statuses)


def installations() -> Iterator[Installation]:
    with TemporaryDirectory() as folder:
        yield installed(Path(folder), f"sqlite:///{folder}/pat-service.db")
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        found = stack.enter_context(on_postgres(stack.enter_context(postgres()), Path(folder)))
        yield found.with_(REDIS_URL=stack.enter_context(redis_server()))


if __name__ == "__main__":
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    flat = [soak(installation, requests) for installation in installations()]
    sys.exit(0 if all(flat) else 1)
