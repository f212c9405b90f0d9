"""A deployed installation: PostgreSQL, Redis, and enough users for many concurrent back ends."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from flask import Flask

from app import create_app
from config import Config
from pat_service.cli import upgrade_schema
from pat_service.storage.database import db
from tests.e2e.deploy.load import CROWD
from tests.support.people import KEY, PUBLIC_URL, WORLD, changed, provision
from tests.support.servers import Proxy, fresh_database

UNLIMITED = "1000000 per minute"


def add_crowd(app: Flask) -> None:
    """Add the users of `tests.e2e.deploy.load`, and let the portal mint without a limit."""
    provision(app, changed("clients", "portal", mint_limit=UNLIMITED))
    people = [{"email": email, "name": "Viewer", "workspaces": {"acme": "end-user"}} for email in CROWD]
    provision(
        app, {"users": people} | changed("apps", "orders", users=["ana@acme.test", "ben@acme.test", *CROWD])
    )


@pytest.fixture(scope="module")
def installation(
    postgres_server: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of an installation with a crowd of viewers and without limits."""
    with fresh_database(postgres_server) as url:
        environ = {
            "SECRET_KEY": KEY,
            "PUBLIC_URL": PUBLIC_URL,
            "DATABASE_URL": url,
            "REDIS_URL": redis_url,
            "OPEN_RATE_LIMIT": UNLIMITED,
            "TRUSTED_PROXIES": "1",
        }
        app = create_app(Config.from_environment(environ, tmp_path_factory.mktemp("instance")))
        with app.app_context():
            upgrade_schema()
        provision(app, WORLD)
        add_crowd(app)
        with app.app_context():
            db.engine.dispose()
        yield environ


def installed_or_skipped(
    make: Callable[[Path], AbstractContextManager[Proxy]],
) -> Callable[[Path], AbstractContextManager[Proxy]]:
    """Return the proxy, or skip the test if it is not installed. In CI a missing proxy is a failure."""

    @contextmanager
    def made(sockets: Path) -> Iterator[Proxy]:
        try:
            with make(sockets) as proxy:
                yield proxy
        except FileNotFoundError as missing:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))

    return made
