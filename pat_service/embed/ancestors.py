"""The allowed origins and limits of apps and launchers, as this worker last read them."""

import time
from math import inf
from typing import Final, NamedTuple

from sqlalchemy import bindparam, null, select
from sqlalchemy.exc import SQLAlchemyError

from pat_service.rules.access import Place
from pat_service.shapes import is_uuid
from pat_service.storage.database import reading
from pat_service.storage.models import App, Workspace

#: A refusal that needs no database uses origins of at most this age.
MAX_AGE_SECONDS: Final = 60
#: The worker forgets all places if it knows more than this.
MAX_PLACES: Final = 10_000

_of_app = select(App.allowed_origins, App.template, null(), App.permissions).where(App.id == bindparam("id"))
_upstream_in = (
    select(App.template)
    .where(App.workspace_id == Workspace.id, App.upstream.is_not(None))
    .limit(1)
    .scalar_subquery()
)
_of_launcher = select(Workspace.allowed_origins, _upstream_in, Workspace.apps_url, null()).where(
    Workspace.id == bindparam("id")
)
_timer = time.monotonic


class Framed(NamedTuple):
    """What decides the policy of an app's or launcher's frame.

    These are its allowed origins, the app's template, the `apps_url` of a launcher's workspace, and the
    permissions of an upstream app. A launcher has the template of upstream apps if its workspace has any.
    """

    origins: list[str]
    template: str | None = None
    apps_url: str | None = None
    permissions: frozenset[str] = frozenset()


UNKNOWN: Final = Framed([])
#: Place → the time until which its facts may be used, and the facts.
_known: dict[Place, tuple[float, Framed]] = {}


def remember(place: Place, framed: Framed) -> None:
    """Remember what the database has just returned for a place."""
    if len(_known) >= MAX_PLACES and place not in _known:
        _known.clear()
    _known[place] = _timer() + MAX_AGE_SECONDS, framed


def remembered(place: Place) -> Framed:
    """Return the facts of the place without a query, since the database has just failed."""
    return _remembered(place) or UNKNOWN


def recent(place: Place) -> Framed:
    """Return the facts of the place, at most MAX_AGE_SECONDS old.

    They are `UNKNOWN` if the place does not exist or the database is unavailable.
    """
    return _remembered(place) or current(place)


def _remembered(place: Place) -> Framed | None:
    until, framed = _known.get(place, (-inf, None))
    return framed if until > _timer() else None


def current(place: Place) -> Framed:
    """Query the facts of the place; return the remembered ones if the database is unavailable."""
    statement, id_ = (_of_launcher, place.workspace_id) if place.app_id is None else (_of_app, place.app_id)
    if id_ is None or not is_uuid(id_):
        return UNKNOWN
    try:
        with reading() as connection:
            row = connection.execute(statement, {"id": id_}).one_or_none()
    except SQLAlchemyError:
        return remembered(place)
    framed = UNKNOWN if row is None else Framed(list(row[0]), row[1], row[2], frozenset(row[3] or ()))
    remember(place, framed)
    return framed


def frame_ancestors(origins: list[str]) -> str:
    """Return the policy's `frame-ancestors` (CSP Level 3). Without origins no page may frame the app."""
    return "frame-ancestors " + (" ".join(origins) or "'none'")
