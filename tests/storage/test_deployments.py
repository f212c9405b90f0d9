"""The same journeys on each database and each store of the limits that a deployment may have."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path

import pytest
import redis
from sqlalchemy import select

from pat_service.cli import upgrade_schema
from pat_service.storage.database import db
from pat_service.storage.models import Token, User
from tests.support.crowd import use_at_once
from tests.support.people import ORDERS, WORLD, Service, build_on, changed, provision
from tests.support.servers import fresh_database, pgbouncer, redis_server, redis_with_tls

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

POOLERS: dict[str, Callable[[str], AbstractContextManager[str]]] = {
    "PostgreSQL": nullcontext,
    "PgBouncer by session": lambda url: pgbouncer(url, "session"),
    "PgBouncer by transaction": lambda url: pgbouncer(url, "transaction"),
}


@pytest.fixture(scope="module", params=["SQLite", *POOLERS])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "SQLite":
        yield f"sqlite:///{tmp_path_factory.mktemp('database') / 'pat.db'}"
        return
    server = request.getfixturevalue("postgres_server")
    with fresh_database(server) as url, POOLERS[request.param](url) as pooled:
        yield pooled


@pytest.fixture(scope="module", params=["no Redis", "Redis", "Redis with TLS"])
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "no Redis":
            yield ""
        elif request.param == "Redis":
            yield stack.enter_context(redis_server())
        else:
            url, authority = stack.enter_context(redis_with_tls())
            yield f"{url}?ssl_ca_certs={authority}"


@pytest.fixture(scope="module")
def service(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    if redis_url:
        with closing(redis.Redis.from_url(redis_url)) as store:
            store.flushall()
    folder: Path = tmp_path_factory.mktemp("instance")
    app = build_on(database_url, folder, REDIS_URL=redis_url)
    with app.app_context():
        upgrade_schema()
    provision(app, WORLD)
    yield Service(app.test_client())
    with app.app_context():
        db.engine.dispose()


def test_the_service_is_ready_and_its_check_finds_nothing(service: Service) -> None:
    assert service.client.get("/readyz").json == {
        "status": "ok",
        "checks": {"database": "ok", "schema": "ok", "limiter": "ok"},
    }
    done = service.app.test_cli_runner().invoke(args=["check"])
    assert (done.exit_code, done.stderr) == (0, "")


def test_people_mint_open_and_end_their_sessions(service: Service) -> None:
    assert use_at_once(service) == {200}
    frame, token = service.frame(), service.token()
    provision(service.app, changed("users", "ana@acme.test", status="archived"))
    assert service.get(frame, "session").json["code"] == "access_revoked"  # type: ignore[index]
    assert service.refusal(token) == "access_revoked"
    provision(service.app, WORLD)
    assert service.get(frame, "session").status_code == 200
    address = f"/embed-apps/{ORDERS}/session"
    assert service.client.delete(address, headers=frame.bearer).status_code == 204
    assert service.get(frame, "session").json["code"] == "session_revoked"  # type: ignore[index]


def test_concurrent_mints_leave_one_token_and_exceed_no_limit(service: Service) -> None:
    provision(service.app, changed("clients", "everywhere", mint_limit="5 per hour"))

    def mint(_: int) -> int:
        own = Service(service.app.test_client())
        return own.mint(client="everywhere", email="ben@acme.test").status_code

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(mint, range(8))) == [201] * 5 + [429] * 3
    tokens = select(Token.id).join(User, User.id == Token.user_id).where(User.email == "ben@acme.test")
    assert len(service.rows(tokens)) == 1
