"""Grants: this user may open this app. One works while its holder is an active member of the workspace."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, select

from pat_service.errors import GrantNotFound
from pat_service.rules import events
from pat_service.rules.access import FACTS, join_facts, may_open
from pat_service.rules.callers import OPERATOR, Caller, reaches_user
from pat_service.rules.directory import reach
from pat_service.rules.directory.changes import changing
from pat_service.rules.directory.members import Person
from pat_service.storage.database import AnyRow, add, reading
from pat_service.storage.models import App, Grant, Member, User, Workspace
from pat_service.storage.paging import Listing, PageRequest, page


@dataclass(frozen=True, slots=True)
class GrantView:
    """A grant. It is `effective` where its holder may open the app at this moment."""

    app_id: str
    user_id: str
    effective: bool
    user: Person


def list_grants(caller: Caller, app_id: str, page_request: PageRequest) -> Listing:
    """Return a page of the app's grants, or raise AppNotFound. Whom the caller may not know is left out."""
    with reading() as connection:
        reach.app(connection, caller, app_id)
        found = page(connection, _of_app, _held.c.user_id, page_request, {"app": app_id} | caller.reach())
    return replace(found, items=[_grant(row) for row in found.items])


def read(caller: Caller, app_id: str, user_id: str) -> GrantView:
    """Return the grant, or raise AppNotFound or GrantNotFound."""
    with reading() as connection:
        reach.app(connection, caller, app_id)
        return _read(connection, caller, app_id, user_id)


def put(caller: Caller, app_id: str, user_id: str, now: datetime) -> tuple[GrantView, bool]:
    """Let the user open the app; tell whether they had no grant. Raise AppNotFound or UserNotFound."""
    with changing(caller, now) as connection:
        # Held: a grant that comes late must not follow the app to another workspace.
        app = reach.app(connection, caller, app_id, hold=True)
        reach.user(connection, caller, user_id)
        is_new = _give(connection, caller, app, user_id, now)
        return _read(connection, caller, app_id, user_id), is_new


def remove(caller: Caller, app_id: str, user_id: str, now: datetime) -> None:
    """Take the grant away, or raise AppNotFound or GrantNotFound.

    It counts on the next request of every open frame.
    """
    with changing(caller, now) as connection:
        app = reach.app(connection, caller, app_id, hold=True)
        _read(connection, caller, app_id, user_id)
        _take(connection, caller, app, user_id, now)


def put_all(connection: Connection, app_id: str, user_ids: Collection[str], now: datetime) -> None:
    """Let these users open the app, and no others."""
    app = reach.app(connection, OPERATOR, app_id, lock=True)
    held = connection.execute(select(Grant.user_id).where(Grant.app_id == app_id)).scalars().all()
    for user_id in held:
        if user_id not in user_ids:
            _take(connection, OPERATOR, app, user_id, now)
    for user_id in sorted(set(user_ids) - set(held)):
        _give(connection, OPERATOR, app, user_id, now)


def ineffective(connection: Connection, app_ids: Collection[str]) -> list[tuple[str, str]]:
    """Return (app slug, email) of grants that open nothing, as their holder is no member of the workspace."""
    statement = (
        select(App.slug, User.email)
        .join(Grant, Grant.app_id == App.id)
        .join(User, User.id == Grant.user_id)
        .outerjoin(Member, (Member.workspace_id == App.workspace_id) & (Member.user_id == User.id))
        .where(App.id.in_(app_ids), Member.user_id.is_(None))
        .order_by(App.slug, User.email)
    )
    return [(slug, email) for slug, email in connection.execute(statement)]


def _read(connection: Connection, caller: Caller, app_id: str, user_id: str) -> GrantView:
    statement = _of_app.where(_held.c.user_id == bindparam("user"))
    row = connection.execute(statement, {"app": app_id, "user": user_id} | caller.reach()).first()
    if row is None:
        raise GrantNotFound
    return _grant(row)


def _grant(row: AnyRow) -> GrantView:
    holder = Person(row.user_id, row.user_email, row.user_name, row.user_status)
    return GrantView(row.app_id, row.user_id, may_open(row), holder)


def _give(connection: Connection, caller: Caller, app: AnyRow, user_id: str, now: datetime) -> bool:
    if not add(connection, Grant, {"app_id": app.id, "user_id": user_id}):
        return False
    events.record(connection, events.GRANT_ADDED, now, **_ids(caller, app, user_id))
    return True


def _take(connection: Connection, caller: Caller, app: AnyRow, user_id: str, now: datetime) -> None:
    taken = connection.execute(delete(Grant).where(Grant.app_id == app.id, Grant.user_id == user_id))
    if taken.rowcount:
        events.record(connection, events.GRANT_REMOVED, now, **_ids(caller, app, user_id))


def _ids(caller: Caller, app: AnyRow, user_id: str) -> dict[str, Any]:
    return {
        "client_id": caller.id,
        "app_id": app.id,
        "workspace_id": app.workspace_id,
        "user_id": user_id,
    }


# Statements, built once.

_held: Final = Grant.__table__.alias("held")
#: With the facts of `access`, so that a grant is effective by the very rule that opens the app.
_of_app = (
    select(*FACTS, _held.c.user_id.label("key"))
    .select_from(
        join_facts(
            _held, App.id == _held.c.app_id, User.id == _held.c.user_id, Workspace.id == App.workspace_id
        )
    )
    .where(_held.c.app_id == bindparam("app"), reaches_user(User.id))
)
