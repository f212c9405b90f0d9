"""Frames: how they open, and how the apps inside them answer.

An app's own module imports `EmbeddedApp` and `Page` from here.
"""

from flask import Flask

from pat_service.embed import launcher, locale, script_texts, views
from pat_service.embed.answers import MAX_FORM, page_of
from pat_service.embed.registry import EmbeddedApp, Page, Registry

__all__ = ["MAX_FORM", "EmbeddedApp", "Page", "Registry", "init_app", "page_of"]


def init_app(app: Flask) -> None:
    """Serve the frames of apps and of workspaces."""
    app.jinja_env.globals["_"] = locale.translated
    app.register_blueprint(views.blueprint)
    app.register_blueprint(launcher.blueprint)
    app.register_blueprint(script_texts.blueprint)
