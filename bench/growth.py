"""The service with little data against the service with a million tokens, loaded in bulk."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import create_engine, text

from bench import rig
from bench.load import Run
from bench.report import Results, Series
from pat_service.console.filters import PAGE_ROWS
from pat_service.storage.database import parse_url
from tests.support.servers import PROJECT, fresh_database

TOKENS: Final = 1_000_000
#: Tokens of each user that fills the database, and sessions and events of each token.
APPS, SESSIONS, EVENTS = 10, 1, 5
#: Tokens of one user, compared with a user who has one token.
HOARD: Final = 10_000
#: One session in this many expired long ago, so that the purge has work.
STALE: Final = 10
AIM: Final = 0.9
CONSOLE_URL: Final = "https://console.example"
#: A page of HTML against a list in JSON.
PAGE_AIM: Final = 0.25
#: Pages of the console. Each shows a page of a list.
PAGES: Final = (
    "/",
    "/problems",
    "/apps",
    "/health",
    "/people",
    "/people?q=filler9",
    "/people?q=nobody",
    "/clients",
    "/live",
    "/live?show=tokens",
    "/live?user=user1@acme.test",
    "/audit",
    "/audit?user=user1@acme.test",
    "/audit?type=token:minted",
    "/audit?type=app:deleted",
    "/audit?code=app_forbidden",
    "/audit?app=filler1",
    "/audit?client=nobody",
)
#: Signs an owner in, and prints the cookie.
SIGN_IN: Final = (
    "from datetime import UTC, datetime; from app import create_app; "
    "from pat_service.rules import console_sessions, operators; now = datetime.now(UTC); app = create_app(); "
    "app.app_context().push(); keyring = app.extensions['pat_service.keyring']; "
    "operators.put('olga@acme.test', 'owner', (), now); "
    "link = console_sessions.create_link(keyring, 'olga@acme.test', now); "
    "print(console_sessions.sign_in_by_link(keyring, link, 'bench', now).reveal())"
)

_UUID = {
    "sqlite": "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' "
    "|| substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))",
    "postgresql": "gen_random_uuid()::text",
}
_BYTES = {
    "sqlite": "randomblob(32)",
    "postgresql": "sha256((random()::text || clock_timestamp()::text || {n})::bytea)",
}
_SERIES = {
    "sqlite": "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {most}) "
    "SELECT n FROM s)",
    "postgresql": "(SELECT generate_series(1, {most}) AS n)",
}
_AT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '{days} days')",
    "postgresql": "now() + interval '{days} days'",
}


def statements(kind: str, tokens: int) -> Iterator[str]:
    """Yield the SQL that fills the database. No value comes from outside this module."""
    uuid, now, later, past = _UUID[kind], _at(kind, 0), _at(kind, 30), _at(kind, -40)

    def series(most: int, name: str) -> str:
        return f"{_SERIES[kind].format(most=most)} {name}"

    def random_bytes(seed: str) -> str:
        return _BYTES[kind].format(n=f"{seed}::text")

    acme = "(SELECT id FROM workspaces WHERE slug = 'acme')"
    hoarder = "(SELECT id FROM users WHERE email = 'user1@acme.test')"
    no = "0" if kind == "sqlite" else "false"
    token = (
        "id, app_id, workspace_id, user_id, client_id, digest, key_id, moves, session_seconds, single_use, "
        "created_at, expires_at"
    )
    yield (
        f"INSERT INTO users (id, email, name, status, created_at) "
        f"SELECT {uuid}, 'filler' || n || '@acme.test', 'Filler', 'active', {now} "
        f"FROM {series(tokens // APPS, 's')}"
    )
    yield (
        f"INSERT INTO members (workspace_id, user_id, role) "
        f"SELECT {acme}, id, 'end-user' FROM users WHERE name = 'Filler'"
    )
    for name, number in (("filler", APPS), ("hoard", HOARD)):
        yield (
            f"INSERT INTO apps (id, slug, name, workspace_id, template, allowed_origins, moves, created_at) "
            f"SELECT {uuid}, '{name}' || n, '{name}', {acme}, 'bench', '[]', 0, {now} "
            f"FROM {series(number, 's')}"
        )
    yield (
        "INSERT INTO grants (app_id, user_id) "
        "SELECT a.id, u.id FROM apps a CROSS JOIN users u WHERE a.name = 'filler' AND u.name = 'Filler'"
    )
    yield f"INSERT INTO grants (app_id, user_id) SELECT id, {hoarder} FROM apps WHERE name = 'hoard'"
    yield (
        f"INSERT INTO tokens ({token}) "
        f"SELECT {uuid}, g.app_id, a.workspace_id, g.user_id, 'bench', "
        f"{random_bytes('g.user_id || g.app_id')}, 'filler', 0, 3600, {no}, {now}, {later} "
        "FROM grants g JOIN apps a ON a.id = g.app_id "
        "WHERE a.name IN ('filler', 'hoard')"
    )
    stale = "abs(random()) % {0} = 0" if kind == "sqlite" else "random() * {0} < 1"
    yield (
        "INSERT INTO sessions (id, token_id, client_id, app_id, workspace_id, user_id, key_id, moves, "
        "created_at, expires_at) "
        f"SELECT {uuid}, id, client_id, app_id, workspace_id, user_id, key_id, 0, {now}, "
        f"CASE WHEN {stale.format(STALE)} THEN {past} ELSE {later} END FROM tokens WHERE key_id = 'filler'"
    )
    yield (
        "INSERT INTO events (at, type, request_id, client_id, workspace_id, app_id, user_id, token_id) "
        f"SELECT {now}, 'token:minted', {uuid}, client_id, workspace_id, app_id, user_id, id "
        f"FROM tokens CROSS JOIN {series(EVENTS, 's')} WHERE key_id = 'filler'"
    )
    yield "ANALYZE" if kind == "sqlite" else "VACUUM ANALYZE"


def _at(kind: str, days: int) -> str:
    return _AT[kind].format(days=f"{days:+d}")


def grow(kind: str, database: str, tokens: int) -> None:
    """Load the data that an operator's database would have after years."""
    engine = create_engine(parse_url(database), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if kind == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.exec_driver_sql("PRAGMA synchronous = OFF")
        for statement in statements(kind, tokens):
            connection.execute(text(statement.replace(":", r"\:")))
        if kind == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()


def measure(kind: str, plan: rig.Plan, scale: float, folder: Path, results: Results) -> None:
    with ExitStack() as stack:
        small, redis = stack.enter_context(rig.stores(kind, folder))
        if kind == "sqlite":
            large = f"sqlite:///{folder / 'large.db'}"
        else:
            large = stack.enter_context(fresh_database(small))
        for database in (small, large):
            rig.fill(database, redis)
        began = time.monotonic()
        grow(kind, large, int(TOKENS * scale))
        results.say(
            f"{kind}: {int(TOKENS * scale)} tokens, sessions and events in {time.monotonic() - began:.0f} s"
        )
        targets = {}
        for name, database in (("small", small), ("large", large)):
            service = rig.service(name, database, redis, folder, plan, CONSOLE_URL=CONSOLE_URL)
            targets[name] = stack.enter_context(service)
        _measure_console(kind, plan, targets["large"], rig.settings(large, redis), results)
        for work in ("mint", "open", "session"):
            names = ["large", "small", "small again"]
            runs = rig.interleaved({name: targets[name.split()[0]] for name in names}, work, plan)
            results.add(kind, f"{work}, grown", "small", AIM, [Series(name, runs[name]) for name in names])
            if work == "mint":
                for target in targets.values():
                    target.prepare()
        _measure_hoard(kind, plan, targets["large"], results)
        _measure_purge(kind, plan, targets["large"], rig.settings(large, redis), results)


def _measure_console(
    kind: str, plan: rig.Plan, large: rig.Target, environ: dict[str, str], results: Results
) -> None:
    """Compare each page of the console with the API's list of tokens, of as many rows."""
    command = [sys.executable, "-c", SIGN_IN]
    env = rig.clean(environ | rig.PATHS | {"CONSOLE_URL": CONSOLE_URL})
    cookie = subprocess.check_output(command, cwd=PROJECT, env=env, text=True).strip()
    base = "list of tokens"
    requests = {base: rig.get_request(f"/api/ext/personal-access-tokens?limit={PAGE_ROWS}")}
    for path in PAGES:
        requests[path] = rig.get_request(
            path, Host=urlsplit(CONSOLE_URL).netloc, Cookie=f"__Host-pat-console={cookie}"
        )
    targets = {name: replace(large, requests={"read": [request]}) for name, request in requests.items()}
    runs = rig.interleaved(targets, "read", plan)
    for path in PAGES:
        results.add(kind, path, base, PAGE_AIM, [Series("page", runs[path]), Series(base, runs[base])])


def _measure_hoard(kind: str, plan: rig.Plan, large: rig.Target, results: Results) -> None:
    """Compare a user who has many tokens with a user who has one."""
    for work in ("mint", "open"):
        both = {name: large.only(number) for name, number in (("one of many", 1), ("one of one", 2))}
        runs = rig.interleaved(both, work, plan)
        series = [Series(name, runs[name]) for name in both]
        results.add(kind, f"{work}, {HOARD} tokens of the user", "one of one", AIM, series)
        large.prepare()


def _measure_purge(
    kind: str, plan: rig.Plan, large: rig.Target, environ: dict[str, str], results: Results
) -> None:
    """Compare mints during a purge with mints without one."""
    runs: dict[str, list[Run]] = {"during a purge": [], "alone": []}
    for _ in range(plan.rounds):
        with _purging(environ):
            runs["during a purge"].append(large.run("mint", plan))
        runs["alone"].append(large.run("mint", plan))
    results.add(kind, "mint, purge", "alone", AIM, [Series(name, its) for name, its in runs.items()])


@contextmanager
def _purging(environ: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "flask", "--app", "app", "purge"]
    process = subprocess.Popen(command, cwd=PROJECT, env=rig.clean(environ), stdout=subprocess.DEVNULL)
    time.sleep(3)  # wait until the purge has started
    if process.poll() is not None:
        raise RuntimeError("the purge ended before the measurement")
    try:
        yield
    finally:
        process.terminate()
        process.wait()
