"""Read the audit trail: a page of it, newest first, or all that is new, in the order that it was written.

A caller sees the events of its workspaces, and its own of those that concern no workspace.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import chain, islice
from typing import Final

from sqlalchemy import Connection, and_, bindparam, func, select, text, true, union_all
from sqlalchemy.sql.elements import ColumnElement

from pat_service.errors import InvalidClient, Unavailable
from pat_service.rules.callers import OPERATOR, Caller
from pat_service.storage.database import STATEMENT_TIMEOUT_MS, AnyRow, reading
from pat_service.storage.models import Client, ClientWorkspace, Event
from pat_service.storage.paging import Listing

#: Rows that an export reads, and holds in memory, at a time.
BATCH: Final = 500
#: So many workspaces are looked at one by one.
FEW: Final = 20
#: How long an export waits for events that are being written, in milliseconds, and between looks in seconds.
PATIENCE: Final = STATEMENT_TIMEOUT_MS
LOOK_EVERY: Final = 0.01


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events: those for which all that is given holds. `since` is part of the time, `until` is not."""

    type: str | None = None
    code: str | None = None
    client_id: str | None = None
    workspace_id: str | None = None
    app_id: str | None = None
    user_id: str | None = None
    token_id: str | None = None
    session_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        since, until = given.pop("since"), given.pop("until")
        found = [getattr(Event, name) == value for name, value in given.items() if value is not None]
        found += [Event.at >= since] if since else []
        found += [Event.at < until] if until else []
        return found


def latest(caller: Caller, event_filter: EventFilter, before: int | None, limit: int) -> Listing:
    """Return the newest events that the caller may see, of those that are older than the one `before`."""
    conditions = event_filter.conditions() + ([] if before is None else [Event.id < before])
    with reading() as connection:
        # One row more tells whether another page follows.
        rows = _read(connection, caller, conditions, limit + 1, newest_first=True)
    return Listing(rows[:limit], str(rows[limit - 1].id) if len(rows) > limit else None)


def export(caller: Caller, event_filter: EventFilter, after: int) -> Iterator[list[AnyRow]]:
    """Return the events behind the one with the id `after`, oldest first, up to now, in batches.

    Whoever asks again with the last id that it got misses none: ids may be given out in another order
    than they become visible in, so this waits until what is being written at this moment has been.
    Raise Unavailable where that takes too long. The first batch is read at once, the others when asked for.
    """
    with reading() as connection:
        end = connection.execute(_last).scalar() or 0
        _await_writers(connection)
    batches = _batches(caller, [*event_filter.conditions(), Event.id <= end], after)
    return chain(list(islice(batches, 1)), batches)


def _batches(caller: Caller, conditions: list[ColumnElement[bool]], after: int) -> Iterator[list[AnyRow]]:
    while True:
        with reading() as connection:
            _require_live(connection, caller)
            rows = _read(connection, caller, [*conditions, Event.id > after], BATCH, newest_first=False)
        if rows:
            yield rows
        if len(rows) < BATCH:
            return
        after = rows[-1].id


def _require_live(connection: Connection, caller: Caller) -> None:
    """Raise InvalidClient where the client was revoked meanwhile: a stream may be read for hours."""
    if caller is not OPERATOR and connection.execute(_live, {"caller": caller.id}).first() is None:
        raise InvalidClient


def _await_writers(connection: Connection) -> None:
    """Wait until every transaction is over that may hold an id and has not committed its event.

    Whoever writes an event has locked the table, in the mode that writers share, before it draws the id.
    """
    if connection.dialect.name == "sqlite":
        return  # with one writer, ids become visible in their order
    deadline = time.monotonic() + PATIENCE / 1000
    writing = set(connection.execute(_writers).scalars())
    while writing:
        if time.monotonic() > deadline:
            raise Unavailable
        time.sleep(LOOK_EVERY)
        writing &= set(connection.execute(_writers).scalars())


def _read(
    connection: Connection,
    caller: Caller,
    conditions: list[ColumnElement[bool]],
    limit: int,
    *,
    newest_first: bool,
) -> list[AnyRow]:
    """Return so many events at most: of each side of the caller's so many, and of these the first."""
    found = [
        select(Event.__table__)
        .where(side, *conditions)
        .order_by(Event.id.desc() if newest_first else Event.id)
        .limit(limit)
        .subquery()
        for side in _sides(connection, caller)
    ]
    all_ = union_all(*(select(side) for side in found)).subquery()
    statement = select(all_).order_by(all_.c.id.desc() if newest_first else all_.c.id).limit(limit)
    return list(connection.execute(statement, caller.reach()))


def _sides(connection: Connection, caller: Caller) -> list[ColumnElement[bool]]:
    """Return conditions, no two of which hold of one event, that together hold of what the caller sees.

    Each of a few workspaces is a side of its own: its index has the order that is asked for, so that
    the trail of a small workspace is found at once beside large ones.
    """
    if caller.all_workspaces:
        return [true()]
    reached = list(connection.execute(_reached.limit(FEW + 1), {"caller": caller.id}).scalars())
    near = [Event.workspace_id == id_ for id_ in reached] if len(reached) <= FEW else [_in_reach]
    return [*near, _of_no_workspace]


# Statements, built once.

_live = select(Client.id).where(Client.id == bindparam("caller"), Client.revoked_at.is_(None))
_reached = select(ClientWorkspace.workspace_id).where(ClientWorkspace.client_id == bindparam("caller"))
_in_reach: ColumnElement[bool] = Event.workspace_id.in_(_reached)
_of_no_workspace: ColumnElement[bool] = and_(
    Event.workspace_id.is_(None), Event.client_id == bindparam("caller")
)
_last = select(func.max(Event.id))
_writers = text(
    "SELECT virtualtransaction FROM pg_locks"
    " WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND relation = 'events'::regclass"
)
