"""Changes of the directory: their differences, and conflicts of concurrent changes."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from sqlalchemy import insert

from pat_service.errors import Conflict
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory.changes import changing, difference, edit_origins
from pat_service.storage.models import Grant
from tests.support.directory import UNKNOWN
from tests.support.people import ORDERS, Service


def test_a_difference_contains_only_changed_columns() -> None:
    row = SimpleNamespace(name="Orders", slug="orders")
    assert difference(row, {"name": "Sales", "slug": "orders"}) == ({"name": "Orders"}, {"name": "Sales"})
    assert difference(row, {"name": "Orders"}) == ({}, {})


def test_origins_are_added_and_removed_once() -> None:
    row = SimpleNamespace(allowed_origins=["https://a.example", "https://b.example"])
    facts = edit_origins(
        row.allowed_origins, add=["https://c.example", "https://b.example"], remove=["https://a.example"]
    )
    _, after = difference(row, facts)
    assert after == {"allowed_origins": ["https://b.example", "https://c.example"]}


def test_a_violated_constraint_is_a_conflict(service: Service) -> None:
    with service.app.app_context(), pytest.raises(Conflict), changing(OPERATOR, datetime.now(UTC)) as change:
        change.connection.execute(insert(Grant), {"app_id": ORDERS, "user_id": UNKNOWN})
