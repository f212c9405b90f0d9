"""Frames: how they open, and how the apps inside them answer.

This is the public API for apps: an app imports from here and from no other module of the service.
"""

from flask import Flask

from pat_service.embed import launcher, locale, script_texts, views
from pat_service.embed.answers import MAX_FORM, page_of
from pat_service.embed.registry import EmbeddedApp, Page, Registry
from pat_service.rules.access import Viewer
from pat_service.storage.database import Model, UtcDateTime, reading, transaction
from pat_service.storage.models import new_id

__all__ = [
    "MAX_FORM",
    "EmbeddedApp",
    "Model",
    "Page",
    "Registry",
    "UtcDateTime",
    "Viewer",
    "init_app",
    "new_id",
    "page_of",
    "reading",
    "transaction",
]


def init_app(app: Flask) -> None:
    """Serve the frames of apps and of workspaces."""
    app.jinja_env.globals["_"] = locale.translated
    app.register_blueprint(views.blueprint)
    app.register_blueprint(launcher.blueprint)
    app.register_blueprint(script_texts.blueprint)
