"""These tests share one app, and one service per module."""

import pytest

from tests.support.people import Service
from tests.support.shared_fixtures import MakeService, app

__all__ = ["app"]


@pytest.fixture(scope="module")
def shared(make_shared: MakeService) -> Service:
    """One service per module. Its tests keep the state that later tests need."""
    return make_shared()
