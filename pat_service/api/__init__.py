"""The HTTP API for back ends: PAT creation and the management API."""

from pat_service.api import directory, events, token_admin, views  # noqa: F401 - they join the blueprint
from pat_service.api.blueprint import blueprint
from pat_service.api.document import DocumentedApi
from pat_service.api.home import blueprint as home

__all__ = ["DocumentedApi", "blueprint", "home"]
