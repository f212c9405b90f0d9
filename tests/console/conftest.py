"""A service with a console, and a browser for each operator."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from sqlalchemy import delete, insert, select

from pat_service.storage.database import transaction
from pat_service.storage.models import (
    ConsoleSession,
    Event,
    Operator,
    OperatorWorkspace,
    UsedLink,
)
from tests.support.console import CONSOLE_URL, Browser, add_operators
from tests.support.people import Service
from tests.support.shared_fixtures import MakeService


@pytest.fixture(scope="module")
def with_console(make_shared: MakeService) -> Service:
    return make_shared(CONSOLE_URL=CONSOLE_URL)


@pytest.fixture(scope="module")
def initial_rows(with_console: Service) -> dict[Any, list[dict[str, Any]]]:
    """The three operators. They are older than the times to which tests move the clock."""
    with time_machine.travel(datetime(2026, 1, 1, tzinfo=UTC)):
        add_operators(with_console)
    return {
        table: [dict(row._mapping) for row in with_console.rows(select(table.__table__))]
        for table in (Operator, OperatorWorkspace)
    }


@pytest.fixture
def console(with_console: Service, initial_rows: dict[Any, list[dict[str, Any]]]) -> Service:
    """A service whose console has its three operators, and no session or event."""
    with with_console.app.app_context(), transaction() as connection:
        for table in (ConsoleSession, UsedLink, Operator, Event):
            connection.execute(delete(table))
        for table, rows in initial_rows.items():
            connection.execute(insert(table), rows)
    return with_console


@pytest.fixture
def sign_in(console: Service) -> Callable[[str], Browser]:
    """Return a browser in which this operator is signed in."""
    return lambda email: Browser(console, email)
