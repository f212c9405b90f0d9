"""Which pages may frame an app or a launcher: its allowed origins, as this worker last knew them."""

import time
from math import inf
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from pat_service.rules.access import Place
from pat_service.shapes import is_uuid
from pat_service.storage.database import reading
from pat_service.storage.models import App, Workspace

#: A refusal that needs no database uses origins of at most this age, in seconds.
MAX_AGE: Final = 60
#: So many places are remembered. Past that the worker starts afresh, and asks once more for each.
MOST_KNOWN: Final = 10_000

_of_app = select(App.allowed_origins).where(App.id == bindparam("id"))
_of_launcher = select(Workspace.allowed_origins).where(Workspace.id == bindparam("id"))
_timer = time.monotonic
#: What the database said of a place, and until when that may be used.
_known: dict[Place, tuple[float, list[str]]] = {}


def learn(place: Place, origins: list[str]) -> None:
    """Remember what the database has just said of a place."""
    if len(_known) >= MOST_KNOWN and place not in _known:
        _known.clear()
    _known[place] = _timer() + MAX_AGE, origins


def remembered(place: Place) -> list[str]:
    """Return the place's allowed origins without asking the database: it has just failed this request."""
    return _remembered(place) or []


def last_known(place: Place) -> list[str]:
    """Return the place's allowed origins, asking the database at most once a minute for each.

    A place that does not exist, or a database that is away, allows none.
    """
    known = _remembered(place)
    return current(place) if known is None else known


def _remembered(place: Place) -> list[str] | None:
    until, origins = _known.get(place, (-inf, None))
    return origins if until > _timer() else None


def current(place: Place) -> list[str]:
    """Return the place's allowed origins as the database has them; while it is away, as last known."""
    statement, id_ = (_of_launcher, place.workspace_id) if place.app_id is None else (_of_app, place.app_id)
    if id_ is None or not is_uuid(id_):
        return []
    try:
        with reading() as connection:
            origins = list(connection.execute(statement, {"id": id_}).scalar() or [])
    except SQLAlchemyError:
        return remembered(place)
    learn(place, origins)
    return origins


def directive(origins: list[str]) -> str:
    """Return the policy's `frame-ancestors` (CSP Level 3); without origins nobody may frame the app."""
    return "frame-ancestors " + (" ".join(origins) or "'none'")
