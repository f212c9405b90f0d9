"""The operators' console: pages on an origin of its own (`http/console_host.py`)."""

from collections.abc import Sequence

from flask import Flask

from pat_service.console import (
    apps,
    audit,
    clients,
    doctor,
    health,
    live,
    operators,
    overview,
    people,
    previews,
    problems,
    sign_in,
)
from pat_service.console.blueprint import blueprint
from pat_service.console.openid import Provider
from pat_service.console.pages import refusal_page

__all__ = ["Provider", "init_app", "refusal_page"]

#: Modules with pages. Their import adds the pages to the blueprint.
PAGES = (overview, problems, live, audit, apps, previews, people, clients, operators, health, doctor, sign_in)


def init_app(app: Flask, settings: Sequence[str], provider: Provider | None) -> None:
    """Add the console. `settings` are the names of the settings that its health page shows."""
    app.extensions["pat_service.openid"] = provider
    app.extensions["pat_service.console_settings"] = tuple(settings)
    app.register_blueprint(blueprint)
