"""These tests share one app. Each test gets a fresh database."""

from tests.support.shared_fixtures import app

__all__ = ["app"]
