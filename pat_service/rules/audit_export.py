"""Read the audit trail: a page with the newest events first, or an export with the oldest first.

A caller sees the events of its workspaces, and its own events that have no workspace. It sees the emails and
names of users whom it still reaches.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, bindparam, func, select, text, true, union_all
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from pat_service.errors import InvalidClient, Unavailable
from pat_service.rules.callers import OPERATOR, REACHED, Caller, reaches_user, reaches_workspace
from pat_service.storage.database import STATEMENT_TIMEOUT_MS, AnyRow, reading
from pat_service.storage.models import App, Client, Event, Operator, User, Workspace
from pat_service.storage.paging import Listing, match

#: Rows that an export reads and keeps in memory at a time.
BATCH_ROWS: Final = 500
#: With at most this many workspaces, each is queried separately, through its own index.
MAX_SINGLE_WORKSPACES: Final = 20
#: An export waits at most this time for uncommitted events.
WRITERS_TIMEOUT_MS: Final = STATEMENT_TIMEOUT_MS
POLL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Selects events that match every given value, from `since` up to but not including `until`."""

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
        given = asdict(self)
        since, until = given.pop("since"), given.pop("until")
        conditions = match(Event, **given)
        conditions += [Event.at >= since] if since else []
        conditions += [Event.at < until] if until else []
        return conditions


@dataclass(frozen=True, slots=True)
class VisibleEvent:
    """An event as the caller sees it."""

    id: int
    at: datetime
    type: str
    code: str | None
    request_id: str | None
    client_id: str | None
    workspace_id: str | None
    app_id: str | None
    user_id: str | None
    token_id: str | None
    session_id: str | None
    details: dict[str, Any] | None


def list_latest(caller: Caller, event_filter: EventFilter, before: int | None, limit: int) -> Listing:
    """Return the newest events that the caller sees, older than the event with the id `before`."""
    conditions = event_filter.conditions() + ([] if before is None else [Event.id < before])
    with reading() as connection:
        # One extra row shows whether another page follows.
        rows = _read(connection, caller, conditions, limit + 1, newest_first=True)
    return Listing(rows[:limit], str(rows[limit - 1].id) if len(rows) > limit else None)


def read_names(caller: Caller, rows: Sequence[VisibleEvent]) -> dict[str, str]:
    """Return the present names of the users, apps and workspaces of these events, by id.

    Those that were deleted, or that the caller does not reach, have none.
    """
    names: dict[str, str] = {}
    with reading() as connection:
        for kind, statement in _names.items():
            ids = {id_ for row in rows if (id_ := getattr(row, kind)) is not None}
            if ids:
                found = connection.execute(statement, {"ids": sorted(ids)} | caller.reach())
                names |= {row.id: row.name for row in found}
    return names


def export(caller: Caller, event_filter: EventFilter, after: int) -> Iterator[list[VisibleEvent]]:
    """Return the events after the id `after`, up to now, oldest first, in batches.

    Read the first batch at once and the others on demand. Transactions may commit in another order than their
    ids, so this waits for uncommitted ones. Then a caller that continues with the last id misses no event.
    Raise Unavailable if the wait takes too long.
    """
    with reading() as connection:
        end = connection.execute(_last).scalar() or 0
        _wait_for_writers(connection)
    batches = _batches(caller, [*event_filter.conditions(), Event.id <= end], after)
    return chain(list(islice(batches, 1)), batches)


def _batches(
    caller: Caller, conditions: list[ColumnElement[bool]], after: int
) -> Iterator[list[VisibleEvent]]:
    while True:
        with reading() as connection:
            _require_live(connection, caller)
            rows = _read(connection, caller, [*conditions, Event.id > after], BATCH_ROWS, newest_first=False)
        if rows:
            yield rows
        if len(rows) < BATCH_ROWS:
            return
        after = rows[-1].id


def _require_live(connection: Connection, caller: Caller) -> None:
    """Raise InvalidClient if the client was revoked or the operator removed: an export may take hours."""
    if caller is not OPERATOR and connection.execute(_live, {"caller": caller.id}).first() is None:
        raise InvalidClient


def _wait_for_writers(connection: Connection) -> None:
    """Wait for each transaction that may have taken an event id but not yet committed the event.

    Before it takes an id, a transaction locks the table in the mode that writers share.
    """
    if connection.dialect.name == "sqlite":
        return  # SQLite has one writer, so it commits ids in order
    deadline = time.monotonic() + WRITERS_TIMEOUT_MS / 1000
    writing = set(connection.execute(_writers).scalars())
    while writing:
        if time.monotonic() > deadline:
            raise Unavailable
        time.sleep(POLL_SECONDS)
        writing &= set(connection.execute(_writers).scalars())


def _read(
    connection: Connection,
    caller: Caller,
    conditions: list[ColumnElement[bool]],
    limit: int,
    *,
    newest_first: bool,
) -> list[VisibleEvent]:
    """Query up to `limit` events of each part, and return the first `limit` of them all."""
    parts = [
        select(Event.__table__)
        .where(part, *conditions)
        .order_by(Event.id.desc() if newest_first else Event.id)
        .limit(limit)
        .subquery()
        for part in _build_parts(connection, caller)
    ]
    all_ = union_all(*(select(part) for part in parts)).subquery()
    statement = select(all_, reaches_user(all_.c.user_id).label("user_reached"))
    statement = statement.order_by(all_.c.id.desc() if newest_first else all_.c.id).limit(limit)
    return [_build(row) for row in connection.execute(statement, caller.reach())]


def _build(row: AnyRow) -> VisibleEvent:
    event = row._asdict()
    if not event.pop("user_reached") and row.user_id is not None and row.details is not None:
        event["details"] = {name: _hide_person(value) for name, value in row.details.items()}
    return VisibleEvent(**event)


def _hide_person(value: Any) -> Any:
    """Return the values before or after a change, without the email and the name of a user."""
    if not isinstance(value, dict):
        return value
    return {name: one for name, one in value.items() if name not in ("email", "name")}


def _build_parts(connection: Connection, caller: Caller) -> list[ColumnElement[bool]]:
    """Return disjoint conditions that together match the events that the caller sees.

    A few workspaces become one part each, since the index of a workspace has the right order. Reading a small
    workspace is then fast, even if others are large.
    """
    if caller.all_workspaces:
        return [true()]
    statement = _reached.limit(MAX_SINGLE_WORKSPACES + 1)
    reached = connection.execute(statement, {"caller": caller.id}).scalars().all()
    is_few = len(reached) <= MAX_SINGLE_WORKSPACES
    parts = [Event.workspace_id == id_ for id_ in reached] if is_few else [_in_reach]
    return [*parts, _without_workspace]


# Statements, built once.

_live = union_all(
    select(Client.id).where(Client.id == bindparam("caller"), Client.revoked_at.is_(None)),
    select(Operator.id).where(Operator.id == bindparam("caller"), Operator.archived_at.is_(None)),
)
_reached = select(REACHED.c.workspace_id).where(REACHED.c.caller_id == bindparam("caller"))
_in_reach: ColumnElement[bool] = Event.workspace_id.in_(_reached)
_without_workspace: ColumnElement[bool] = and_(
    Event.workspace_id.is_(None), Event.client_id == bindparam("caller")
)
_last = select(func.max(Event.id))
_ids: BindParameter[list[str]] = bindparam("ids", expanding=True)
_names: Final[dict[str, Select[str, str]]] = {
    "user_id": select(User.id, User.email.label("name")).where(User.id.in_(_ids), reaches_user(User.id)),
    "app_id": select(App.id, App.slug.label("name")).where(
        App.id.in_(_ids), reaches_workspace(App.workspace_id)
    ),
    "workspace_id": select(Workspace.id, Workspace.slug.label("name")).where(
        Workspace.id.in_(_ids), reaches_workspace(Workspace.id)
    ),
}
_writers = text(
    "SELECT virtualtransaction FROM pg_locks"
    " WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND relation = 'events'::regclass"
)
