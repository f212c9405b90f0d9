"""How the directory is changed: one transaction, told to the trail, and no race that trips it."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from pat_service.errors import Conflict
from pat_service.rules import events
from pat_service.rules.callers import Caller
from pat_service.storage.database import AnyRow, transaction


@contextmanager
def changing(caller: Caller, now: datetime) -> Iterator[Connection]:
    """Yield the connection of a transaction; a refusal that leaves it is told to the trail.

    A race that trips a constraint is a Conflict: what was free is taken, or what was there is gone.
    """
    with events.recording_refusals(events.CLIENT_REFUSED, now, client_id=caller.id):
        try:
            with transaction() as connection:
                yield connection
        except IntegrityError:
            raise Conflict(
                "Another request changed the same thing meanwhile; read it and try again."
            ) from None


def difference(row: AnyRow, facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the facts would change of the row, as it is and as it would be."""
    after = {name: value for name, value in facts.items() if getattr(row, name) != value}
    return {name: getattr(row, name) for name in after}, after


def told(row: AnyRow | Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return what an event says of a thing as a whole."""
    facts = row if isinstance(row, Mapping) else row._mapping
    return {name: facts[name] for name in names}


def each_once(origins: Collection[str]) -> list[str]:
    return list(dict.fromkeys(origins))


def altered(row: AnyRow, add: Collection[str], remove: Collection[str]) -> dict[str, Any]:
    """Return the row's allowed origins with some more and some less, as a change of it."""
    kept = (origin for origin in row.allowed_origins if origin not in remove)
    return {"allowed_origins": each_once([*kept, *add])}
