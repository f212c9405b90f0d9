"""Counts of mints, openings, refusals and live sessions, by hour.

They come from the audit trail, so a mint and an opening cost nothing more. Each hour is counted once, when it
has ended `SETTLED` ago. The overview counts a few hours whenever it is read, the command `count-usage` counts
all of them, and a purge counts an hour before it deletes events of it. Refusals without an event are not
included: those of unknown clients and tokens.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, case, delete, func, insert, literal, select
from sqlalchemy.sql.elements import ColumnElement

from pat_service.rules import events
from pat_service.rules.callers import Caller, reaches_workspace
from pat_service.storage.database import UtcDateTime, add, reading, transaction
from pat_service.storage.models import LIVE_SESSION, Event, HourlyCount, Session
from pat_service.storage.paging import match

HOUR: Final = timedelta(hours=1)
#: Events may be recorded this long after they happened, and are then still counted.
SETTLED: Final = timedelta(minutes=5)
#: The longest period that is shown.
SHOWN: Final = timedelta(days=30)
#: A purge deletes counts that are older.
KEPT: Final = timedelta(days=400)

REFUSALS: Final = (events.MINT_REFUSED, events.OPEN_REFUSED, events.SESSION_REFUSED)
COUNTED: Final = (events.TOKEN_MINTED, events.SESSION_OPENED, *REFUSALS)
#: The type of rows with the sessions that were live at the end of the hour.
LIVE: Final = "sessions:live"
#: The type of the row that shows that its hour was counted.
MARK: Final = ""
#: Live sessions are sampled only for an hour that has just ended: later, those that ended are gone.
_SAMPLED_FOR: Final = 3 * HOUR


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Selects counts from `since` on. None matches every app or workspace."""

    since: datetime
    app_id: str | None = None
    workspace_id: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        ids = match(HourlyCount, app_id=self.app_id, workspace_id=self.workspace_id)
        return [HourlyCount.hour >= self.since, *ids, reaches_workspace(HourlyCount.workspace_id)]


@dataclass(frozen=True, slots=True)
class Usage:
    """Numbers of events: by hour and type, by type and code of refusals, and by app and type."""

    by_hour: dict[datetime, dict[str, int]]
    by_cause: dict[tuple[str, str], int]
    by_app: dict[str, dict[str, int]]

    def total(self, *types: str) -> int:
        return sum(counts.get(type_, 0) for counts in self.by_hour.values() for type_ in types)


def start_of_hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def last_hour(now: datetime) -> datetime:
    """Return the start of the last hour that can be counted."""
    return start_of_hour(now - SETTLED) - HOUR


def count_hours(now: datetime, most: int | None = None) -> int:
    """Count up to `most` of the shown hours that are not counted yet, the newest first.

    Return how many are left. Concurrent calls count an hour once.
    """
    waiting = list_uncounted(now)
    chosen = waiting if most is None else waiting[:most]
    for hour in chosen:
        with transaction() as connection:
            _count(connection, hour, is_recent=now - hour < _SAMPLED_FOR)
    return len(waiting) - len(chosen)


def list_uncounted(now: datetime) -> list[datetime]:
    """Return the shown hours that can be counted and are not, the newest first."""
    newest, oldest = last_hour(now), last_hour(now - SHOWN)
    with reading() as connection:
        first = connection.execute(_first_event).scalar()
        if first is None:
            return []
        done = set(connection.execute(_counted_hours, {"since": oldest}).scalars())
    hours, hour = [], newest
    while hour >= max(oldest, start_of_hour(first)):
        if hour not in done:
            hours.append(hour)
        hour -= HOUR
    return hours


def count_before_deletion(connection: Connection, moments: Collection[datetime]) -> None:
    """Count the hours of events that this transaction is going to delete, unless they were counted."""
    for hour in sorted({start_of_hour(moment) for moment in moments}):
        _count(connection, hour, is_recent=False)


def purge(now: datetime) -> None:
    """Delete counts that nothing shows any more."""
    with transaction() as connection:
        connection.execute(_delete_old, {"before": now - KEPT})


def read(caller: Caller, usage_filter: UsageFilter) -> Usage:
    """Return the counts in the caller's workspaces."""
    conditions, values = usage_filter.conditions(), caller.reach()
    with reading() as connection:
        by_hour: dict[datetime, dict[str, int]] = {}
        hours = _group(conditions, HourlyCount.hour, HourlyCount.type)
        for hour, type_, times in connection.execute(hours, values):
            by_hour.setdefault(hour, {})[type_] = int(times)
        refused = [*conditions, HourlyCount.type.in_(REFUSALS)]
        causes = connection.execute(_group(refused, HourlyCount.type, HourlyCount.code), values)
        by_cause = {(type_, code): int(times) for type_, code, times in causes}
        by_app: dict[str, dict[str, int]] = {}
        counted = [*conditions, HourlyCount.type.in_(COUNTED)]
        for app_id, type_, times in connection.execute(
            _group(counted, HourlyCount.app_id, HourlyCount.type), values
        ):
            by_app.setdefault(app_id, {})[type_] = int(times)
    return Usage(by_hour, by_cause, by_app)


def count_live(caller: Caller, usage_filter: UsageFilter, now: datetime, most: int) -> int:
    """Return the number of live sessions now, but count no more than `most`."""
    ids = match(Session, app_id=usage_filter.app_id, workspace_id=usage_filter.workspace_id)
    live = select(Session.id).where(*LIVE_SESSION, *ids, reaches_workspace(Session.workspace_id)).limit(most)
    with reading() as connection:
        statement = select(func.count()).select_from(live.subquery())
        return connection.scalar(statement, caller.reach() | {"now": now}) or 0


def _count(connection: Connection, hour: datetime, *, is_recent: bool) -> None:
    """Count an hour in this transaction, unless it was counted."""
    key = {"hour": hour, "workspace_id": "", "app_id": "", "type": MARK, "code": ""}
    # A concurrent count waits here for this one, and then finds the row.
    if not add(connection, HourlyCount, key | {"times": 0}):
        return
    values = {"start": hour, "end": hour + HOUR, "now": hour + HOUR}
    connection.execute(_count_events, values)
    if is_recent:
        connection.execute(_count_sessions, values)


def _group(conditions: list[ColumnElement[bool]], *columns: Any) -> Any:
    marked = HourlyCount.type != MARK
    return select(*columns, func.sum(HourlyCount.times)).where(marked, *conditions).group_by(*columns)


# Statements, built once.

_start: ColumnElement[datetime] = bindparam("start", type_=UtcDateTime)
_end: ColumnElement[datetime] = bindparam("end", type_=UtcDateTime)
_since: ColumnElement[datetime] = bindparam("since", type_=UtcDateTime)
_before: ColumnElement[datetime] = bindparam("before", type_=UtcDateTime)
_COLUMNS: Final = ("hour", "workspace_id", "app_id", "type", "code", "times")
_first_event = select(Event.at).order_by(Event.at).limit(1)
_counted_hours = select(HourlyCount.hour).where(HourlyCount.hour >= _since, HourlyCount.type == MARK)
_workspace, _app, _code = (
    func.coalesce(column, "") for column in (Event.workspace_id, Event.app_id, Event.code)
)
#: One event of a refusal may stand for several.
_times = case(
    (Event.type.in_(REFUSALS), func.coalesce(Event.details["times"].as_integer(), 1)),
    else_=literal(1),
)
_count_events = insert(HourlyCount).from_select(
    _COLUMNS,
    select(_start, _workspace, _app, Event.type, _code, func.sum(_times))
    .where(Event.at >= _start, Event.at < _end, Event.type.in_(COUNTED))
    .group_by(_workspace, _app, Event.type, _code),
)
_of_app = func.coalesce(Session.app_id, "")
_count_sessions = insert(HourlyCount).from_select(
    _COLUMNS,
    select(_start, Session.workspace_id, _of_app, literal(LIVE), literal(""), func.count())
    .where(*LIVE_SESSION, Session.created_at < _end)
    .group_by(Session.workspace_id, _of_app),
)
_delete_old = delete(HourlyCount).where(HourlyCount.hour < _before)
