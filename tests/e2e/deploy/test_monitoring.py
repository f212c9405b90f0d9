"""Monitoring of a deployed service: two workers, PostgreSQL and Redis, with faults during the scrapes."""

import contextlib
import http.client
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.faults.installation import Installation, on_postgres
from tests.support.http_calls import HttpConnection, call
from tests.support.people import KEY, ORDERS, SECRETS, make_secret
from tests.support.servers import WebServer, children_of, redis_server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.redis]

TOKEN = "metrics-" + make_secret("metrics")
#: Enough concurrent requests to reach both workers.
MANY = 24


@pytest.fixture(scope="module")
def monitored(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with on_postgres(postgres_server, tmp_path_factory.mktemp("instance")) as found, redis_server() as url:
        yield found.with_(REDIS_URL=url, METRICS_TOKEN=TOKEN)


@pytest.fixture(scope="module")
def fleet(monitored: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    log = tmp_path_factory.mktemp("log") / "log"
    with monitored.serving(2, log=log, app="tests.support.faulty_app:create_app()") as server:
        yield server


def mint(server: WebServer) -> str:
    with HttpConnection(server.port) as caller:
        token: str = caller.mint().json["personalAccessToken"]
        return token


def session(server: WebServer, token: str) -> dict[str, str]:
    with HttpConnection(server.port) as caller:
        return {"Authorization": f"Bearer {caller.exchange(token).json['signedPat']}"}


def at_once(do: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return [done.result() for done in [pool.submit(do) for _ in range(MANY)]]


def scrape(server: WebServer) -> dict[tuple[str, str], float]:
    answer = call(server, "GET", "/metrics", {"Authorization": f"Bearer {TOKEN}"})
    assert answer.status == 200
    families = text_string_to_metric_families(answer.text)
    return {(s.name, str(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def checks(server: WebServer) -> dict[str, str]:
    answer = call(server, "GET", "/readyz")
    found: dict[str, str] = answer.json["checks"]
    assert answer.status == (200 if set(found.values()) == {"ok"} else 503)
    return found


def all_are(server: WebServer, **states: str) -> bool:
    """Return whether every worker reports these states. Eight answers in a row cover both workers."""
    fine = {"database": "ok", "schema": "ok", "limiter": "ok"}
    return all(found == fine | states for found in at_once(lambda: checks(server))[:8])


MINTS = ("pat_mints_total", "[]")


def test_every_worker_reports_all_counts_and_a_killed_worker_loses_no_count(fleet: WebServer) -> None:
    before = scrape(fleet).get(MINTS, 0)
    at_once(lambda: mint(fleet))
    assert {found[MINTS] for found in at_once(lambda: scrape(fleet))} == {before + MANY}
    sizes = [key for key in scrape(fleet) if key[0] == "pat_database_pool_size"]
    assert len(sizes) <= 2

    boss = fleet.process.pid
    for pid in children_of(boss):
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: pid not in children_of(boss) and len(children_of(boss)) == 2)  # type: ignore[misc]
        wait_for(lambda: scrape(fleet)[MINTS] == before + MANY)
    at_once(lambda: mint(fleet))
    assert scrape(fleet)[MINTS] == before + 2 * MANY
    # A worker's slot keeps its three files when another process takes the slot.
    made = list(Path(os.environ.get("TMPDIR", "/tmp")).glob(f"pat-service-{fleet.process.pid}-*/*.db"))
    assert 0 < len(made) <= 6


def test_live_tokens_and_sessions_are_counted_on_postgresql(fleet: WebServer) -> None:
    session(fleet, mint(fleet))
    found = scrape(fleet)
    assert found["pat_live_tokens", "[]"] >= 1
    assert found["pat_up", "[('part', 'database')]"] == 1


def test_readiness_changes_when_redis_stops_and_returns(fleet: WebServer, monitored: Installation) -> None:
    with contextlib.closing(redis.Redis.from_url(monitored.environ["REDIS_URL"])) as connection:
        facts: Any = connection.info("server")
    assert all_are(fleet)
    os.kill(int(facts["process_id"]), signal.SIGSTOP)
    try:
        wait_for(lambda: all_are(fleet, limiter="unavailable"))
    finally:
        os.kill(int(facts["process_id"]), signal.SIGCONT)
    wait_for(lambda: all_are(fleet))


def test_readiness_changes_when_the_database_stops_and_returns(
    fleet: WebServer, monitored: Installation, postgres_server: str
) -> None:
    name = monitored.environ["DATABASE_URL"].rpartition("/")[2]
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            wait_for(lambda: all_are(fleet, database="unavailable", schema="unknown"))
            assert call(fleet, "GET", "/healthz").status == 200
            found = scrape(fleet)
            assert found["pat_up", "[('part', 'database')]"] == 0
            assert MINTS in found
        finally:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    wait_for(lambda: all_are(fleet))
    mint(fleet)


def test_readiness_reports_a_read_only_database_and_an_old_schema(
    fleet: WebServer, monitored: Installation
) -> None:
    database = monitored.environ["DATABASE_URL"]
    name = database.rpartition("/")[2]
    with psycopg.connect(database, autocommit=True) as admin:
        (version,) = admin.execute("SELECT min(version_num) FROM alembic_version").fetchone() or ("",)
        admin.execute("UPDATE alembic_version SET version_num = '0001' WHERE version_num = %s", [version])
        wait_for(lambda: all_are(fleet, schema="behind"))
        admin.execute("UPDATE alembic_version SET version_num = %s WHERE version_num = '0001'", [version])
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
        admin.execute(others, [name, admin.info.backend_pid])
        wait_for(lambda: all_are(fleet, database="read-only"))
        admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        admin.execute(others, [name, admin.info.backend_pid])
    wait_for(lambda: all_are(fleet))


def test_every_log_line_is_json_and_hides_secrets_that_an_app_prints(fleet: WebServer) -> None:
    token = mint(fleet)
    bearer = session(fleet, token)
    before = len(fleet.log.read_text())
    for name in ("quote", "break-off"):
        with contextlib.suppress(http.client.HTTPException):
            call(fleet, "GET", f"/embed-apps/{ORDERS}/data/{name}?t={token}&secret=horse", bearer)
    call(fleet, "GET", f"/embed-apps/{ORDERS}?personal-access-token={token}&secret=horse")
    wait_for(lambda: fleet.log.read_text()[before:].count('"event": "request"') == 3)
    text = fleet.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"gunicorn.error", "app"} <= {line.get("logger") for line in lines}
    requests = [(line["path"], line["status"]) for line in lines if line["event"] == "request"][-3:]
    assert (f"/embed-apps/{ORDERS}/data/quote", 500) in requests
    assert (f"/embed-apps/{ORDERS}/data/break-off", 200) in requests
    failures = [line for line in lines if "RuntimeError" in line.get("exception", "")]
    assert len(failures) >= 2
    jwt = bearer["Authorization"][7:]
    for secret in (token, token[4:40], jwt, jwt.rpartition(".")[2], "horse", TOKEN, KEY, *SECRETS.values()):
        assert secret not in text
    assert not re.search(r"pat_[0-9a-f]{20}", text)
