"""Open an app or a launcher within the limits of this installation."""

from typing import Any

from flask import current_app, g

from pat_service.credentials import Secret
from pat_service.http import limits
from pat_service.http.authentication import keyring, utcnow
from pat_service.rules import sessions
from pat_service.rules.sessions import OpenLauncher, OpenSession


def open_app(
    token: Secret, app_id: str, *, parent: str | None = None, slug: str | None = None
) -> tuple[OpenSession, Secret]:
    """Open the app as `sessions.open` does, or raise RateLimited."""
    return sessions.open(keyring(), token, app_id, utcnow(), parent=parent, slug=slug, **_limit(token))


def open_launcher(
    token: Secret, workspace_id: str, *, parent: str | None = None
) -> tuple[OpenLauncher, Secret]:
    """Open the launcher as `sessions.open_launcher` does, or raise RateLimited."""
    return sessions.open_launcher(keyring(), token, workspace_id, utcnow(), parent=parent, **_limit(token))


def _limit(token: Secret) -> dict[str, Any]:
    limits.hit_open(token)
    g.database_asked = True
    return {"max_sessions": current_app.config["MAX_SESSIONS_PER_TOKEN"]}
