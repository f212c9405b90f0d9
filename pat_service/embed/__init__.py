"""Frames: how they open, and how their apps answer requests.

This is the public API for apps: an app imports from here and from no other module of the service.
"""

from flask import Flask
from jinja2 import ChoiceLoader

from pat_service.embed import locale, script_texts, views
from pat_service.embed.answers import refusal_page
from pat_service.embed.app_limits import FORM_LIMIT_BYTES, WrongDeclaration
from pat_service.embed.embedded_app import EmbeddedApp, Page
from pat_service.embed.indentation import LeaveOutIndentation
from pat_service.embed.registry import Registry
from pat_service.http.static_files import static_files
from pat_service.rules.access import Viewer
from pat_service.storage.database import Model, UtcDateTime, reading, transaction
from pat_service.storage.models import new_id

__all__ = [
    "FORM_LIMIT_BYTES",
    "EmbeddedApp",
    "Model",
    "Page",
    "Registry",
    "UtcDateTime",
    "Viewer",
    "WrongDeclaration",
    "init_app",
    "new_id",
    "reading",
    "refusal_page",
    "transaction",
]


def init_app(app: Flask, registry: Registry, *, development: bool) -> None:
    """Serve the frames of apps and of workspaces. Raise WrongDeclaration if an app declares a wrong value."""
    registry.apply_limits(development=development)
    app.extensions["pat_service.registry"] = registry
    app.jinja_loader = ChoiceLoader([*filter(None, [app.jinja_loader]), registry.loader()])
    public = static_files(app)
    registry.follow(lambda name, folder: public.add(f"apps/{name}", folder / "static"))
    app.jinja_env.globals["_"] = locale.translate
    app.jinja_env.add_extension(LeaveOutIndentation)
    app.register_blueprint(views.blueprint)
    app.register_blueprint(views.launchers)
    app.register_blueprint(script_texts.blueprint)
