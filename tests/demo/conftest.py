"""The service on a developer's machine, and a folder of the test's own for the demo's file."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask


@pytest.fixture
def app(make_app: Callable[..., Flask], tmp_path: Path) -> Flask:
    """Nobody is in its database, and the demo is not loaded."""
    app = make_app(PUBLIC_URL="", FAILURE_RATE_LIMIT="10000 per minute")
    app.instance_path = str(tmp_path / "instance")
    return app
