"""Which pages may frame an app: its allowed origins, as this worker last knew them."""

from threading import Lock
from typing import Final

from cachetools import TTLCache
from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from pat_service.database import reading
from pat_service.models import App
from pat_service.shapes import is_uuid

#: A refusal that needs no database uses origins of at most this age, in seconds.
MAX_AGE: Final = 60

_origins = select(App.allowed_origins).where(App.id == bindparam("app"))
_known: TTLCache[str, list[str]] = TTLCache(maxsize=10_000, ttl=MAX_AGE)
_lock = Lock()


def learn(app_id: str, origins: list[str]) -> None:
    """Remember what the database has just said of an app."""
    with _lock:
        _known[app_id] = origins


def last_known(app_id: str) -> list[str]:
    """Return the app's allowed origins, asking the database at most once a minute for each app.

    An app that does not exist, or a database that is away, allows none.
    """
    with _lock:
        if app_id in _known:
            return _known[app_id]
    return current(app_id)


def current(app_id: str) -> list[str]:
    """Return the app's allowed origins as the database has them; while it is away, as last known."""
    if not is_uuid(app_id):
        return []
    try:
        with reading() as connection:
            origins = list(connection.execute(_origins, {"app": app_id}).scalar() or [])
    except SQLAlchemyError:
        with _lock:
            return _known.get(app_id, [])
    learn(app_id, origins)
    return origins


def directive(origins: list[str]) -> str:
    """Return the policy's `frame-ancestors` (CSP Level 3); without origins nobody may frame the app."""
    return "frame-ancestors " + (" ".join(origins) or "'none'")
