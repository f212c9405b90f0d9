"""Services for the tests of one module: a new one would cost more than most of these tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.shared import app, standing
from tests.world import Service, lasting_service

__all__ = ["app", "standing"]

Make = Callable[..., Service]


@pytest.fixture(scope="module")
def make_lasting(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Build a service with its people, with these variables in its environment."""
    with ExitStack() as stack:
        yield lambda **environ: stack.enter_context(
            lasting_service(schema, tmp_path_factory.mktemp("lasting"), **environ)
        )


@pytest.fixture(scope="module")
def lasting(make_lasting: Make) -> Service:
    """One for all: what a test does there must be of no concern to another."""
    return make_lasting()
