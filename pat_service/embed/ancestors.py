"""The allowed origins of apps and launchers, as this worker last read them."""

import time
from math import inf
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from pat_service.rules.access import Place
from pat_service.shapes import is_uuid
from pat_service.storage.database import reading
from pat_service.storage.models import App, Workspace

#: A refusal that needs no database uses origins of at most this age.
MAX_AGE_SECONDS: Final = 60
#: The worker forgets all places if it knows more than this.
MAX_PLACES: Final = 10_000

_of_app = select(App.allowed_origins).where(App.id == bindparam("id"))
_of_launcher = select(Workspace.allowed_origins).where(Workspace.id == bindparam("id"))
_timer = time.monotonic
#: Place → the time until which its origins may be used, and the origins.
_known: dict[Place, tuple[float, list[str]]] = {}


def remember(place: Place, origins: list[str]) -> None:
    """Remember the origins that the database has just returned for a place."""
    if len(_known) >= MAX_PLACES and place not in _known:
        _known.clear()
    _known[place] = _timer() + MAX_AGE_SECONDS, origins


def remembered_origins(place: Place) -> list[str]:
    """Return the place's allowed origins without a query, since the database has just failed."""
    return _remembered(place) or []


def recent_origins(place: Place) -> list[str]:
    """Return the place's allowed origins, at most MAX_AGE_SECONDS old.

    The list is empty if the place does not exist or the database is unavailable.
    """
    known = _remembered(place)
    return current_origins(place) if known is None else known


def _remembered(place: Place) -> list[str] | None:
    until, origins = _known.get(place, (-inf, None))
    return origins if until > _timer() else None


def current_origins(place: Place) -> list[str]:
    """Query the place's allowed origins; return the remembered ones if the database is unavailable."""
    statement, id_ = (_of_launcher, place.workspace_id) if place.app_id is None else (_of_app, place.app_id)
    if id_ is None or not is_uuid(id_):
        return []
    try:
        with reading() as connection:
            origins = list(connection.execute(statement, {"id": id_}).scalar() or [])
    except SQLAlchemyError:
        return remembered_origins(place)
    remember(place, origins)
    return origins


def frame_ancestors(origins: list[str]) -> str:
    """Return the policy's `frame-ancestors` (CSP Level 3). Without origins no page may frame the app."""
    return "frame-ancestors " + (" ".join(origins) or "'none'")
