"""Frames: how they open, and how the apps inside them answer.

An app's own module imports `EmbeddedApp` and `Page` from here.
"""

from pat_service.embed.registry import EmbeddedApp, Page, Registry
from pat_service.embed.views import MAX_FORM, blueprint, page_of

__all__ = ["MAX_FORM", "EmbeddedApp", "Page", "Registry", "blueprint", "page_of"]
