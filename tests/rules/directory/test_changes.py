"""What a change of the directory records, and what it answers when another change came first."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import insert

from pat_service.errors import Conflict
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory.changes import altered, changing, difference
from pat_service.storage.models import Grant
from tests.support.directory import UNKNOWN
from tests.support.people import ORDERS, Service


def test_an_event_holds_changed_columns_alone() -> None:
    row = cast(Any, SimpleNamespace(name="Orders", slug="orders"))
    assert difference(row, {"name": "Sales", "slug": "orders"}) == ({"name": "Orders"}, {"name": "Sales"})
    assert difference(row, {"name": "Orders"}) == ({}, {})


def test_origins_are_added_and_removed_once() -> None:
    row = cast(Any, SimpleNamespace(allowed_origins=["https://a.example", "https://b.example"]))
    changed = altered(row, add=["https://c.example", "https://b.example"], remove=["https://a.example"])
    assert changed == {"allowed_origins": ["https://b.example", "https://c.example"]}


def test_a_tripped_constraint_is_a_conflict(service: Service) -> None:
    with (
        service.app.app_context(),
        pytest.raises(Conflict),
        changing(OPERATOR, datetime.now(UTC)) as connection,
    ):
        connection.execute(insert(Grant), {"app_id": ORDERS, "user_id": UNKNOWN})
