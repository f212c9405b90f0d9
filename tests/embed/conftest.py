"""These tests share one service per module."""

import pytest

from tests.support.people import Service
from tests.support.shared_fixtures import MakeService


@pytest.fixture(scope="module")
def shared(make_shared: MakeService) -> Service:
    """One service per module. Its tests keep the state that later tests need."""
    return make_shared()
