"""The compared servers on one machine: the service, the limit, and a bare view."""

import http.client
import json
import os
import random
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from bench import load
from bench.limit import JWT_PLACE
from tests.support.people import KEY, make_secret
from tests.support.servers import PROJECT, WebServer, fresh_database, gunicorn, postgres, redis_server

APP: Final = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
CLIENT: Final = "bench"
SECRET: Final = make_secret("portal")
MINT: Final = "/api/ext/users/personal-access-token"
#: Users with a token each. One half belongs to the service, the other to the limit.
PEOPLE: Final = 1000
MANY: Final = "100000000 per minute"
GARBAGE: Final = f"pat_{'0123456789abcdef' * 4}00000000"
#: The servers run in the project's folder and load modules of this package.
PATHS: Final = {"PYTHONPATH": str(PROJECT)}
#: Statuses other than 200, by kind of work.
STATUSES: Final = {"mint": 201, "garbage": 401}
FILL: Final = (
    "import json, sys; from app import create_app; from tests.support.people import provision; "
    "provision(create_app(), json.load(sys.stdin))"
)


@dataclass(frozen=True)
class Plan:
    """The plan of a measurement: interleaved rounds of slices, with their seconds and connections."""

    rounds: int
    seconds: float
    connections: int
    workers: int


def settings(database: str, redis: str | None) -> dict[str, str]:
    limits = {f"{name}_RATE_LIMIT": MANY for name in ("MINT", "USER_MINT", "OPEN", "FAILURE")}
    own = {"SECRET_KEY": KEY, "PUBLIC_URL": "https://embed.example", "DATABASE_URL": database}
    return limits | own | ({"REDIS_URL": redis} if redis else {})


def world(people: int = PEOPLE) -> dict[str, Any]:
    """Return the directory to provision: users of one workspace, who may all open one app."""
    users = [
        {"email": f"user{number}@acme.test", "name": f"User {number}", "workspaces": {"acme": "end-user"}}
        for number in range(people)
    ]
    return {
        "workspaces": [{"slug": "acme", "name": "Acme"}],
        "users": users,
        "apps": [
            {
                "id": APP,
                "slug": "bench",
                "name": "Bench",
                "workspace": "acme",
                "template": "bench",
                "allowed_origins": ["https://portal.example"],
                "users": [user["email"] for user in users],
            }
        ],
        "clients": [{"id": CLIENT, "secret": SECRET, "workspaces": ["acme"], "mint_limit": MANY}],
    }


@dataclass
class Target:
    """A running server, and the requests that measure it."""

    name: str
    server: WebServer
    people: range
    requests: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def workers(self) -> list[int]:
        return load.children_of(self.server.process.pid)

    def run(self, work: str, plan: Plan, seconds: float | None = None) -> load.Run:
        requests = self.requests[work]
        start = random.randrange(len(requests))  # noqa: S311 - no secret
        wanted = cycle(requests[start:] + requests[:start])
        run = load.run(self.server.port, wanted, plan.connections, seconds or plan.seconds, self.workers)
        expected = 200 if self.name == "bare" else STATUSES.get(work, 200)
        if set(run.statuses) != {expected}:
            raise RuntimeError(f"{self.name} answered {work} with {dict(run.statuses)}")
        return run

    def only(self, number: int) -> "Target":
        """Return the same server, measured with one user only."""
        place = self.people.index(number)
        requests = {work: its[place : place + 1] for work, its in self.requests.items() if work != "garbage"}
        return replace(self, requests=requests)

    def prepare(self) -> None:
        """Mint a token for each user and open a frame with each, through the server."""
        self.requests["mint"] = [mint_request(number) for number in self.people]
        tokens = [self.call(request)["personalAccessToken"] for request in self.requests["mint"]]
        self.requests["open"] = [open_request(token) for token in tokens]
        self.requests["session"] = [
            session_request(session_of(self.send(request))) for request in self.requests["open"]
        ]
        self.requests["garbage"] = [open_request(GARBAGE)]

    def call(self, request: bytes) -> Any:
        return json.loads(self.send(request))

    def send(self, request: bytes) -> str:
        """Send one request, and return the content of the answer."""
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines if not line.startswith("Content-Length"))
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)) as connection:
            connection.request(method, path, body or None, headers)
            return connection.getresponse().read().decode()


def _request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    usual = {"Host": "embed.example", "Accept": "*/*"} | headers
    if body:
        usual |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in usual.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def mint_request(number: int, app: str = "bench") -> bytes:
    body = {"email": f"user{number}@acme.test", "appSlug": app, "sessionExpiry": 60, "patExpiry": 1_000_000}
    credentials = b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    return _request("POST", MINT, {"Authorization": f"Basic {credentials}"}, json.dumps(body).encode())


def open_request(token: str, app_id: str = APP) -> bytes:
    return _request("GET", f"/embed-apps/{app_id}?personal-access-token={token}", {})


def session_request(jwt: str, app_id: str = APP) -> bytes:
    return _request("GET", f"/embed-apps/{app_id}/session", {"Authorization": f"Bearer {jwt}"})


def get_request(path: str, **headers: str) -> bytes:
    """Return a request for a path, as the client unless the headers say more."""
    credentials = b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    return _request("GET", path, headers or {"Authorization": f"Basic {credentials}"})


def session_of(page: str) -> str:
    """Return the JWT in a page."""
    return page[page.index("eyJ") :].partition('"')[0]


def interleaved(targets: Mapping[str, Target], work: str, plan: Plan) -> dict[str, list[load.Run]]:
    """Run the targets in turn in each round, so that changes of the machine affect all."""
    runs: dict[str, list[load.Run]] = {name: [] for name in targets}
    for target in targets.values():
        target.run(work, plan, seconds=0.3)  # warm up
    for _ in range(plan.rounds):
        for name, target in targets.items():
            runs[name].append(target.run(work, plan))
    return runs


@contextmanager
def servers(database: str, redis: str | None, folder: Path, plan: Plan) -> Iterator[dict[str, Target]]:
    """Start the service, the limit and the bare view on the first processor, the rest on the others."""
    half = PEOPLE // 2
    with ExitStack() as stack:
        served = stack.enter_context(service("service", database, redis, folder, plan))
        page = served.send(served.requests["open"][0])
        (folder / "page.html").write_text(page.replace(session_of(page), JWT_PLACE))
        environ = settings(database, redis) | PATHS | {"BENCH_PAGE": str(folder / "page.html")}

        def start(name: str, people: range) -> Target:
            started = gunicorn(
                environ, workers=plan.workers, log=folder / f"{name}.log", app=f"bench.{name}:create_app()"
            )
            with at_processor(0):
                return Target(name, stack.enter_context(started), people)

        limit, bare = start("limit", range(half, PEOPLE)), start("bare", range(0))
        limit.prepare()
        bare.requests = served.requests
        with at_processor(LAST_PROCESSOR):
            yield {target.name: target for target in (served, limit, bare)}


@contextmanager
def service(
    name: str, database: str, redis: str | None, folder: Path, plan: Plan, **more: str
) -> Iterator[Target]:
    """Start the service on this database, and mint and open for half of its users. `more` are settings."""
    environ = settings(database, redis) | more | PATHS
    with ExitStack() as stack:
        with at_processor(0):
            app, log = "bench.service:create_app()", folder / f"{name}.log"
            server = stack.enter_context(gunicorn(environ, workers=plan.workers, log=log, app=app))
        target = Target(name, server, range(PEOPLE // 2))
        target.prepare()
        yield target


#: The processors that the servers do not use.
LAST_PROCESSOR: Final = (os.cpu_count() or 1) - 1


@contextmanager
def at_processor(number: int) -> Iterator[None]:
    """Bind this process and its children to one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def stores(kind: str, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Start the database and the limiter's store: durable, and not on the servers' processor."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'bench.db'}", None
        return
    with ExitStack() as stack:
        with at_processor(LAST_PROCESSOR):
            server = stack.enter_context(postgres(durable=True))
            redis = stack.enter_context(redis_server())
        yield stack.enter_context(fresh_database(server)), redis


def fill(database: str, redis: str | None) -> None:
    """Create the schema, and load the users."""
    environ = clean(settings(database, redis))
    flask = [sys.executable, "-m", "flask", "--app", "app"]
    subprocess.run([*flask, "db", "upgrade"], cwd=PROJECT, env=environ, check=True, capture_output=True)
    people = json.dumps(world())
    subprocess.run(
        [sys.executable, "-c", FILL], cwd=PROJECT, env=environ, check=True, input=people, text=True
    )


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that a command of the service needs, and nothing else from this shell."""
    return {"PATH": os.environ["PATH"], "FLASK_SKIP_DOTENV": "1"} | dict(environ)
