"""These tests share one app, on a database that each finds as new."""

from tests.support.shared import app

__all__ = ["app"]
