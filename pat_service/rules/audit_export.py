"""Read the audit trail: a page with the newest events first, or an export with the oldest first.

A caller sees the events of its workspaces, and its own events that have no workspace. It sees the emails and
names of users whom it still reaches.

A filter can match few of many events. So a statement walks an index in the order of ids, and searches at most
`SEARCHED_ROWS` events. The next page or batch continues there.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Select,
    and_,
    bindparam,
    func,
    or_,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from pat_service.errors import InvalidClient, Unavailable
from pat_service.rules import events
from pat_service.rules.callers import OPERATOR, REACHED, Caller, reaches_user, reaches_workspace
from pat_service.storage.database import STATEMENT_TIMEOUT_MS, AnyRow, UtcDateTime, reading
from pat_service.storage.models import (
    FREQUENT_EVENTS,
    RARE_EVENT,
    App,
    Client,
    Event,
    Operator,
    User,
    Workspace,
)
from pat_service.storage.paging import Listing, match

#: Rows that an export reads and keeps in memory at a time.
BATCH_ROWS: Final = 500
#: An event is recorded at most this long before the time it names, despite clocks that differ.
CLOCK_SKEW: Final = timedelta(minutes=5)
#: Events that a page or batch searches for those that match its filter.
SEARCHED_ROWS: Final = 50_000
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

    def narrowest(self) -> ColumnElement[bool] | None:
        """Return the condition whose index leaves the fewest events, or None if no index helps."""
        if self.user_id is not None:
            return Event.user_id == self.user_id
        if self.code is not None:
            return Event.code == self.code
        if self.type is not None and self.type not in FREQUENT_EVENTS:
            return and_(Event.type == self.type, RARE_EVENT)
        if self.workspace_id is not None:
            return Event.workspace_id == self.workspace_id
        return None


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


@dataclass(frozen=True, slots=True)
class EventPage(Listing):
    """One page. It can have few items or none before the last page: it ends at `searched_to` then."""

    searched_to: datetime | None = None


def list_latest(caller: Caller, event_filter: EventFilter, before: int | None, limit: int) -> EventPage:
    """Return the newest events that the caller sees, older than the event with the id `before`."""
    bounds = [] if before is None else [Event.id < before]
    with reading() as connection:
        # One extra row shows whether another page follows.
        rows, stop = _search(connection, caller, event_filter, bounds, limit + 1, newest_first=True)
    if len(rows) > limit:
        return EventPage(rows[:limit], str(rows[limit - 1].id))
    return EventPage(rows, None) if stop is None else EventPage(rows, str(stop.id), stop.at)


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
    batches = _batches(caller, event_filter, after, end)
    return chain(list(islice(batches, 1)), batches)


def _batches(caller: Caller, event_filter: EventFilter, after: int, end: int) -> Iterator[list[VisibleEvent]]:
    while True:
        bounds = [Event.id > after, Event.id <= end]
        with reading() as connection:
            _require_live(connection, caller)
            rows, stop = _search(connection, caller, event_filter, bounds, BATCH_ROWS, newest_first=False)
        if rows:
            yield rows
        if len(rows) == BATCH_ROWS:
            after = rows[-1].id
        elif stop is not None:
            after = stop.id
        else:
            return


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


def _search(
    connection: Connection,
    caller: Caller,
    event_filter: EventFilter,
    bounds: list[ColumnElement[bool]],
    limit: int,
    *,
    newest_first: bool,
) -> tuple[list[VisibleEvent], AnyRow | None]:
    """Return the first `limit` events within the bounds, and the event at which the search stopped early.

    All earlier ones were searched, in the direction of the search. It is None if the search came to the end.
    """
    parts, conditions = _build_parts(connection, caller, event_filter)
    if event_filter.since and (older := _find_older(connection, event_filter.since)):
        bounds = [*bounds, Event.id > older]
    order = Event.id.desc() if newest_first else Event.id
    stop = None
    if conditions:
        walks = [
            select(Event.id, Event.at).where(part, *bounds).order_by(order).offset(SEARCHED_ROWS).limit(1)
            for part in parts
        ]
        ends = connection.execute(_union(walks), caller.reach()).all()
        stop = (max if newest_first else min)(ends, key=lambda row: row.id, default=None)
    if stop is not None:
        bounds = [*bounds, Event.id >= stop.id if newest_first else Event.id <= stop.id]
    found = [
        select(Event.__table__).where(part, *conditions, *bounds).order_by(order).limit(limit)
        for part in parts
    ]
    all_ = _union(found).subquery()
    statement = select(all_, reaches_user(all_.c.user_id).label("user_reached"))
    statement = statement.order_by(all_.c.id.desc() if newest_first else all_.c.id).limit(limit)
    return [_build(row) for row in connection.execute(statement, caller.reach())], stop


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


def _find_older(connection: Connection, moment: datetime) -> int | None:
    """Return the id of a late event that was recorded before `moment`, as were all with a lower id.

    A purge records an expiry long after it happened, so the time of an expiry does not count.
    """
    earliest = datetime.min.replace(tzinfo=UTC) + 2 * CLOCK_SKEW
    return connection.scalar(_older, {"moment": max(moment, earliest) - 2 * CLOCK_SKEW})


def _union(parts: Sequence[Select[*tuple[Any, ...]]]) -> CompoundSelect[*tuple[Any, ...]]:
    """Return the rows of all parts. A subquery lets each part have its own order and limit."""
    return union_all(*(select(part.subquery()) for part in parts))


def _build_parts(
    connection: Connection, caller: Caller, event_filter: EventFilter
) -> tuple[list[ColumnElement[bool]], list[ColumnElement[bool]]]:
    """Return disjoint parts of the trail, each with an index in the order of ids, and more conditions.

    Together they match the events that the caller sees and the filter selects. A few workspaces become one
    part each. Reading a small workspace is then fast, even if others are large.
    """
    conditions = event_filter.conditions()
    narrow = event_filter.narrowest()
    if narrow is not None:
        return [narrow], conditions if caller.all_workspaces else [*conditions, _visible]
    if caller.all_workspaces:
        return [true()], conditions
    statement = _reached.limit(MAX_SINGLE_WORKSPACES + 1)
    reached = connection.execute(statement, {"caller": caller.id}).scalars().all()
    is_few = len(reached) <= MAX_SINGLE_WORKSPACES
    parts = [Event.workspace_id == id_ for id_ in reached] if is_few else [_in_reach]
    return [*parts, _without_workspace], conditions


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
_visible = or_(_in_reach, _without_workspace)
_last = select(func.max(Event.id))
_EXPIRIES: Final = (events.TOKEN_EXPIRED, events.SESSION_EXPIRED)
_older = (
    select(Event.id)
    .where(Event.at < bindparam("moment", type_=UtcDateTime), Event.type.not_in(_EXPIRIES))
    .order_by(Event.at.desc())
    .limit(1)
)
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
