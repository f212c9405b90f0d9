"""Refused and blank embeds: the origins that may not frame an app, and the counted refusals by cause.

The origins come from browsers, so a row is a claim. It is verified if a token that was recognised for the app
came with it. The rows of an app and day are bounded, the verified and the unverified ones apart, so that
strangers neither fill the table nor hide what is verified.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import and_, bindparam, case, delete, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from pat_service.errors import Conflict
from pat_service.rules import usage
from pat_service.rules.callers import Caller, reaches_workspace
from pat_service.rules.directory import apps
from pat_service.shapes import ANY_ORIGIN
from pat_service.storage.database import AnyRow, UtcDateTime, add, reading, transaction
from pat_service.storage.models import App, HourlyCount, RefusedOrigin
from pat_service.storage.paging import MAX_LIMIT, match

DAY: Final = timedelta(days=1)
#: The longest period that is shown. A purge deletes origins that are older.
KEPT: Final = timedelta(days=30)
#: Origins that are kept for an app and a day. Concurrent workers may each add one more.
MAX_VERIFIED: Final = 50
MAX_UNVERIFIED: Final = 20
CAUSE: Final = "origin_not_allowed"
_NOT_SEEN: Final = (
    "No page of this origin came with a token of the app. Check the origin, and add it to the app."
)


@dataclass(frozen=True, slots=True)
class ProblemFilter:
    """Selects from `since` up to but not including `until`. None matches every app or cause."""

    since: datetime
    until: datetime
    app_id: str | None = None
    cause: str | None = None


def start_of_day(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def count_origin(app_id: str, origin: str, now: datetime, *, verified: bool) -> bool:
    """Count an attempt to frame the app. Return False if the origin is allowed by now, or there are too many.

    `origin` is a result of `shapes.parse_origin`.
    """
    key = {"day": start_of_day(now), "app_id": app_id, "verified": verified, "origin": origin}
    with transaction() as connection:
        app = connection.execute(_of_app, {"app_id": app_id}).first()
        if app is None or not {origin, ANY_ORIGIN}.isdisjoint(app.allowed_origins):
            return False
        values = {f"of_{name}": value for name, value in key.items()} | {"now": now}
        if connection.execute(_increment, values).rowcount:
            return True
        if (connection.scalar(_count_of_day, values) or 0) >= (MAX_VERIFIED if verified else MAX_UNVERIFIED):
            return False
        row = key | {"workspace_id": app.workspace_id, "times": 1, "last_at": now}
        if not add(connection, RefusedOrigin, row):
            connection.execute(_increment, values)
    return True


def list_origins(caller: Caller, problem_filter: ProblemFilter) -> list[AnyRow]:
    """Return the latest origins that may not frame an app: at most `MAX_LIMIT`, the newest first.

    `verified` and `unverified` are numbers of attempts. The list has no origin that was allowed since.
    """
    if problem_filter.cause not in (None, CAUSE):
        return []
    conditions = [
        RefusedOrigin.day >= problem_filter.since,
        RefusedOrigin.day < problem_filter.until,
        *match(RefusedOrigin, app_id=problem_filter.app_id),
        reaches_workspace(RefusedOrigin.workspace_id),
    ]
    grouped = (
        select(
            RefusedOrigin.app_id,
            RefusedOrigin.workspace_id,
            RefusedOrigin.origin,
            func.sum(case((RefusedOrigin.verified, RefusedOrigin.times), else_=0)).label("verified"),
            func.sum(case((RefusedOrigin.verified, 0), else_=RefusedOrigin.times)).label("unverified"),
            func.max(RefusedOrigin.last_at).label("last_at"),
        )
        .where(*conditions)
        .group_by(RefusedOrigin.app_id, RefusedOrigin.workspace_id, RefusedOrigin.origin)
        .subquery()
    )
    statement = (
        select(grouped, App.name, App.allowed_origins)
        .join(App, and_(App.id == grouped.c.app_id, App.workspace_id == grouped.c.workspace_id))
        .order_by(grouped.c.last_at.desc(), grouped.c.origin)
        .limit(MAX_LIMIT)
    )
    with reading() as connection:
        rows = connection.execute(statement, caller.reach()).all()
    return [row for row in rows if {row.origin, ANY_ORIGIN}.isdisjoint(row.allowed_origins)]


def list_refusals(caller: Caller, problem_filter: ProblemFilter) -> list[AnyRow]:
    """Return the counted refusals by app, type and code: at most `MAX_LIMIT`, the most frequent first.

    `last_hour` is the start of the last hour with one. Apps that are gone have no name.
    """
    times = func.sum(HourlyCount.times).label("times")
    grouped = (
        select(
            HourlyCount.workspace_id,
            HourlyCount.app_id,
            HourlyCount.type,
            HourlyCount.code,
            times,
            func.max(HourlyCount.hour).label("last_hour"),
        )
        .where(
            HourlyCount.hour >= problem_filter.since,
            HourlyCount.hour < problem_filter.until,
            HourlyCount.type.in_(usage.REFUSALS),
            *match(HourlyCount, app_id=problem_filter.app_id, code=problem_filter.cause),
            reaches_workspace(HourlyCount.workspace_id),
        )
        .group_by(HourlyCount.workspace_id, HourlyCount.app_id, HourlyCount.type, HourlyCount.code)
        .order_by(times.desc(), HourlyCount.code, HourlyCount.app_id)
        .limit(MAX_LIMIT)
        .subquery()
    )
    statement = (
        select(grouped, App.name)
        .join(App, and_(App.id == grouped.c.app_id, App.workspace_id == grouped.c.workspace_id), isouter=True)
        .order_by(grouped.c.times.desc(), grouped.c.code, grouped.c.app_id)
    )
    with reading() as connection:
        return list(connection.execute(statement, caller.reach()).all())


def allow_origin(caller: Caller, app_id: str, origin: str, now: datetime) -> str:
    """Let pages of a verified origin frame the app; return the app's name.

    Raise AppNotFound, or Conflict if no token of the app came with the origin.
    """
    app = apps.read(caller, app_id)
    values = {
        "of_app_id": app_id,
        "of_origin": origin,
        "of_workspace_id": app.workspace_id,
        "since": start_of_day(now - KEPT),
    }
    with reading() as connection:
        if connection.execute(_verified, values).first() is None:
            raise Conflict(_NOT_SEEN)
    return apps.change_origins(caller, app_id, now, add=[origin]).name


def purge(now: datetime) -> None:
    """Delete origins that nothing shows any more."""
    with transaction() as connection:
        connection.execute(_delete_old, {"before": start_of_day(now - KEPT)})


# Statements, built once.

_day: ColumnElement[datetime] = bindparam("of_day", type_=UtcDateTime)
_now: ColumnElement[datetime] = bindparam("now", type_=UtcDateTime)
_of_app = select(App.workspace_id, App.allowed_origins).where(App.id == bindparam("app_id"))
_of_day = (
    RefusedOrigin.day == _day,
    RefusedOrigin.app_id == bindparam("of_app_id"),
    RefusedOrigin.verified == bindparam("of_verified"),
)
_increment = (
    update(RefusedOrigin)
    .where(*_of_day, RefusedOrigin.origin == bindparam("of_origin"))
    .values(times=RefusedOrigin.times + 1, last_at=_now)
)
_count_of_day = select(func.count()).select_from(RefusedOrigin).where(*_of_day)
_verified = (
    select(RefusedOrigin.app_id)
    .where(
        RefusedOrigin.app_id == bindparam("of_app_id"),
        RefusedOrigin.workspace_id == bindparam("of_workspace_id"),
        RefusedOrigin.origin == bindparam("of_origin"),
        RefusedOrigin.verified,
        RefusedOrigin.day >= bindparam("since", type_=UtcDateTime),
    )
    .limit(1)
)
_delete_old = delete(RefusedOrigin).where(RefusedOrigin.day < bindparam("before", type_=UtcDateTime))
