"""Open an app or a launcher within the limits of this installation."""

from flask import current_app, g

from pat_service.credentials import Secret
from pat_service.http import limits
from pat_service.http.authentication import keyring, utcnow
from pat_service.rules import sessions
from pat_service.rules.access import Place
from pat_service.rules.sessions import AnySession


def open_session(token: Secret, place: Place, parent: str | None = None) -> tuple[AnySession, Secret]:
    """Open the place as `sessions.open` does, or raise RateLimited."""
    limits.hit_open(token)
    g.database_asked = True
    max_sessions = current_app.config["MAX_SESSIONS_PER_TOKEN"]
    return sessions.open(keyring(), token, place, utcnow(), max_sessions=max_sessions, parent=parent)
