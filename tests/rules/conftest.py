"""These tests share one app. Each starts with a fresh copy of the database."""

from tests.support.shared_fixtures import app

__all__ = ["app"]
