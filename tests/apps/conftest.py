"""One service for the tests of the demo apps. Ana and Ben are customers of Acme, Ana also of Globex.

Cleo, Dora and Emil may open both apps at Acme. Cleo has no rows. Dora's rows belong to one test, and Emil's
to a module.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from demo.rows import load_rows
from pat_service.storage.database import transaction
from pat_service.storage.models import User, Workspace
from tests.support.people import (
    LEDGER,
    ORDERS,
    SUPPORT,
    Frame,
    Service,
    changed,
    long_lived_service,
    problem_of,
    provision,
)

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


@pytest.fixture(scope="module")
def viewer(service: Service) -> Callable[[str, str], Frame]:
    """Return the open frame of a person (`ana`, or `ana at globex`) in an app (`orders`, `support`)."""

    @cache
    def open_frame(app: str, person: str) -> Frame:
        name, _, workspace = person.partition(" at ")
        if workspace:
            return service.frame({"orders": LEDGER, "support": HELP}[app], client="rival")
        return service.frame({"orders": ORDERS, "support": SUPPORT}[app], email=f"{name}@acme.test")

    return open_frame


def refusal(
    service: Service, frame: Frame, method: str, path: str, status: int, code: str, **options: Any
) -> dict[str, Any]:
    """Send a request that must be refused, and return the problem."""
    headers = frame.bearer | {"Accept": "application/json"}
    if method == "POST":
        options = {"content_type": "application/x-www-form-urlencoded"} | options
    answer = service.client.open(
        f"/embed-apps/{frame.app_id}/{path}", method=method, headers=headers, **options
    )
    return problem_of(answer, status, code)


def place(answer: TestResponse) -> str:
    """Return the position of a list, such as 11–20 of 61."""
    found = re.search(r'<p class="muted small">([^<]+ of \d+)</p>', answer.text)
    return found[1] if found else "nothing"


def ids(service: Service, email: str, workspace: str) -> tuple[str, str]:
    ((workspace_id,),) = service.rows(select(Workspace.id).where(Workspace.slug == workspace))
    ((user_id,),) = service.rows(select(User.id).where(User.email == email))
    return workspace_id, user_id


def _frame_of(name: str, person: str) -> Any:
    @pytest.fixture(scope="module", name=name)
    def frame(viewer: Callable[[str, str], Frame], request: pytest.FixtureRequest) -> Frame:
        return viewer(request.module.APP, person)

    return frame


ana, ben, cleo, doras_frame = (
    _frame_of(*names) for names in (("ana", "ana"), ("ben", "ben"), ("cleo", "cleo"), ("doras_frame", "dora"))
)
ana_at_globex = _frame_of("ana_at_globex", "ana at globex")
