"""A service with a console, and a browser for each operator."""

from collections.abc import Callable

import pytest
from sqlalchemy import delete

from pat_service.storage.models import (
    ConsoleSession,
    Event,
    Operator,
    UsedLink,
)
from tests.support.console import CONSOLE_URL, Browser, add_operators
from tests.support.people import Service
from tests.support.shared_fixtures import MakeService


@pytest.fixture(scope="module")
def with_console(make_shared: MakeService) -> Service:
    return make_shared(CONSOLE_URL=CONSOLE_URL)


@pytest.fixture
def console(with_console: Service) -> Service:
    """A service whose console has its three operators, and no session."""
    for table in (ConsoleSession, UsedLink, Operator, Event):
        with_console.change(delete(table))
    add_operators(with_console)
    return with_console


@pytest.fixture
def sign_in(console: Service) -> Callable[[str], Browser]:
    """Return a browser in which this operator is signed in."""
    return lambda email: Browser(console, email)
