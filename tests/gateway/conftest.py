"""The service with an upstream app, on SQLite or on both databases."""

from collections.abc import Iterator

import pytest

from pat_service.cli import upgrade_schema
from pat_service.storage.database import db
from tests.support.people import WORLD, Service, build_on, provision
from tests.support.servers import fresh_database
from tests.support.shared_fixtures import MakeService
from tests.support.upstreams import SETTINGS, Gateway, add_sales


@pytest.fixture(scope="module")
def gateway(make_shared: MakeService) -> Gateway:
    """The gateway on SQLite, for tests that do not depend on the database."""
    return make_gateway(make_shared(**SETTINGS))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def on_both(
    request: pytest.FixtureRequest, make_shared: MakeService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """The gateway, once on each database. Tests undo what they change."""
    if request.param == "sqlite":
        yield make_gateway(make_shared(**SETTINGS))
        return
    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        app = build_on(url, tmp_path_factory.mktemp("instance"), **SETTINGS)
        with app.app_context():
            upgrade_schema()
        provision(app, WORLD)
        yield make_gateway(Service(app.test_client()))
        with app.app_context():
            db.engine.dispose()


def make_gateway(service: Service) -> Gateway:
    add_sales(service)
    return Gateway(service)
