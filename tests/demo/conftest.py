"""The service on a developer's machine, with an instance folder for each test."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask


@pytest.fixture
def app(make_app: Callable[..., Flask], tmp_path: Path) -> Flask:
    """Its database has no users, and the demo is not loaded."""
    app = make_app(PUBLIC_URL="", FAILURE_RATE_LIMIT="10000 per minute")
    app.instance_path = str(tmp_path / "instance")
    return app
