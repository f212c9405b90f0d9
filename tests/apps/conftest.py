"""One service for all tests of a demo app: Ana and Ben are customers of Acme, Ana of Globex as well.

Cleo, Dora and Emil may open both apps at Acme. Cleo never has any rows, Dora those that a test gives her,
Emil those that the tests of a module share.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select

from demo.rows import load_rows
from pat_service.storage.database import transaction
from pat_service.storage.models import User
from tests.support.people import Service, changed, long_lived_service, provision

HELP: Final = "22222222-2222-4333-8444-555555555555"
EVERYBODY: Final = [f"{name}@acme.test" for name in ("ana", "ben", "cleo", "dora", "emil")]
PLACES: Final[tuple[dict[str, Any], ...]] = (
    changed("users", "ana@acme.test", workspaces={"acme": "end-user", "globex": "builder"}),
    {
        "users": [
            {"email": f"{name.lower()}@acme.test", "name": name, "workspaces": {"acme": "end-user"}}
            for name in ("Cleo", "Dora", "Emil")
        ]
    },
    changed("apps", "orders", users=EVERYBODY),
    changed("apps", "support", users=EVERYBODY),
    changed("apps", "ledger", users=["ana@acme.test", "mallory@globex.test"]),
    changed("apps", "support", id=HELP, slug="help", workspace="globex", users=["ana@acme.test"]),
)


@pytest.fixture(scope="module")
def service(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with long_lived_service(schema, tmp_path_factory.mktemp("apps")) as service:
        for place in PLACES:
            provision(service.app, place)
        with service.app.app_context(), transaction() as connection:
            users = {user.email: user.id for user in connection.execute(select(User.email, User.id))}
            load_rows(connection, users, datetime.now(UTC))
        yield service
