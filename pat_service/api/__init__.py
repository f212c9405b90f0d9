"""The HTTP API for back ends: PAT creation and its siblings."""

from pat_service.api.document import DocumentedApi
from pat_service.api.views import blueprint

__all__ = ["DocumentedApi", "blueprint"]
