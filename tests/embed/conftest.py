"""These tests share one app, and one service for each module."""

import pytest

from tests.support.shared import Make, app
from tests.support.world import Service

__all__ = ["app"]


@pytest.fixture(scope="module")
def lasting(make_lasting: Make) -> Service:
    """One service for the module: its tests leave what the others need."""
    return make_lasting()
