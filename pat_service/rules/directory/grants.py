"""A grant lets a user open an app, while the user is an active member of the app's workspace."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import Connection, bindparam, delete, select

from pat_service.errors import GrantNotFound
from pat_service.rules import events
from pat_service.rules.access import FACTS, AccessFacts, join_facts, may_open
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.rules.directory import members, statuses
from pat_service.rules.directory.changes import Change, changing
from pat_service.rules.directory.members import Person
from pat_service.rules.directory.reach import Reach, reading_as
from pat_service.storage.database import add
from pat_service.storage.models import App, Grant, Member, User, Workspace
from pat_service.storage.paging import Listing, PageRequest, page


@dataclass(frozen=True, slots=True)
class GrantView:
    """A grant. It is `effective` if its user may open the app now."""

    app_id: str
    app_slug: str
    user_id: str
    effective: bool
    user: Person


class _GrantRow(AccessFacts, Protocol):
    app_slug: str
    shown_status: str


def list_grants(caller: Caller, app_id: str, page_request: PageRequest) -> Listing:
    """Return a page of the app's grants to users whom the caller sees, or raise AppNotFound."""
    with reading_as(caller) as reached:
        reached.find_app(app_id)
        values = {"app": app_id} | caller.reach()
        listing = page(reached.connection, _grants, _grant.c.user_id, page_request, values)
    return replace(listing, items=[_build(row) for row in listing.items])


def list_grants_of_user(caller: Caller, user_id: str, page_request: PageRequest) -> Listing:
    """Return a page of the user's grants of apps in the caller's workspaces, or raise UserNotFound."""
    with reading_as(caller) as reached:
        reached.find_user(user_id)
        values = {"user": user_id} | caller.reach()
        listing = page(reached.connection, _grants_of_user, _grant.c.app_id, page_request, values)
    return replace(listing, items=[_build(row) for row in listing.items])


def read(caller: Caller, app_id: str, user_id: str) -> GrantView:
    """Return the grant, or raise AppNotFound or GrantNotFound."""
    with reading_as(caller) as reached:
        reached.find_app(app_id)
        return _read(reached, app_id, user_id)


def put(caller: Caller, app_id: str, user_id: str, now: datetime) -> tuple[GrantView, bool]:
    """Let the user open the app; return the grant and whether it is new.

    Raise AppNotFound, UserNotFound or ScopeMissing.
    """
    with changing(caller, now) as change:
        # The lock prevents a concurrent move: a grant must not follow the app to another workspace.
        app = change.find_app(app_id, share=True)
        change.find_user(user_id)
        members.require_rank(change, user_id)
        is_new = give(change, app_id, app.workspace_id, user_id)
        return _read(change, app_id, user_id), is_new


def remove(caller: Caller, app_id: str, user_id: str, now: datetime) -> None:
    """Remove the grant, or raise AppNotFound, GrantNotFound or ScopeMissing.

    The removal takes effect on the next request of every open frame.
    """
    with changing(caller, now) as change:
        app = change.find_app(app_id, share=True)
        _read(change, app_id, user_id)
        members.require_rank(change, user_id)
        _remove(change, app_id, app.workspace_id, user_id)


def put_all(change: Change, app_id: str, user_ids: Collection[str]) -> None:
    """Let exactly these users open the app."""
    app = change.find_app(app_id, lock=True)
    current = change.connection.execute(select(Grant.user_id).where(Grant.app_id == app_id)).scalars().all()
    for user_id in current:
        if user_id not in user_ids:
            _remove(change, app_id, app.workspace_id, user_id)
    for user_id in sorted(set(user_ids) - set(current)):
        give(change, app_id, app.workspace_id, user_id)


def give(change: Change, app_id: str, workspace_id: str, user_id: str) -> bool:
    """Grant the app unless the user already has a grant; return whether the grant is new."""
    is_new = add(change.connection, Grant, {"app_id": app_id, "user_id": user_id})
    if is_new:
        change.record(events.GRANT_ADDED, app_id=app_id, workspace_id=workspace_id, user_id=user_id)
    return is_new


def list_ineffective(connection: Connection, app_ids: Collection[str]) -> list[tuple[str, str]]:
    """Return the app slug and email of each grant whose user is not a member of the app's workspace."""
    statement = (
        select(App.slug, User.email)
        .join(Grant, Grant.app_id == App.id)
        .join(User, User.id == Grant.user_id)
        .outerjoin(Member, (Member.workspace_id == App.workspace_id) & (Member.user_id == User.id))
        .where(App.id.in_(app_ids), Member.user_id.is_(None))
        .order_by(App.slug, User.email)
    )
    return [(slug, email) for slug, email in connection.execute(statement)]


def _read(reached: Reach, app_id: str, user_id: str) -> GrantView:
    values = {"app": app_id, "user": user_id} | reached.caller.reach()
    row = reached.connection.execute(_grants.where(_grant.c.user_id == bindparam("user")), values).first()
    if row is None:
        raise GrantNotFound
    return _build(row)


def _build(row: _GrantRow) -> GrantView:
    person = Person(row.user_id, row.user_email, row.user_name, row.shown_status)
    return GrantView(row.app_id, row.app_slug, row.user_id, may_open(row), person)


def _remove(change: Change, app_id: str, workspace_id: str, user_id: str) -> None:
    statement = delete(Grant).where(Grant.app_id == app_id, Grant.user_id == user_id)
    if change.connection.execute(statement).rowcount:
        change.record(events.GRANT_REMOVED, app_id=app_id, workspace_id=workspace_id, user_id=user_id)


# Statements, built once.

_grant: Final = Grant.__table__.alias("grant_")
#: Select the facts of `access`, so `effective` follows the same rule as an opening.
_every = select(*FACTS, statuses.build_shown_status(App.workspace_id).label("shown_status")).select_from(
    join_facts(
        _grant, App.id == _grant.c.app_id, User.id == _grant.c.user_id, Workspace.id == App.workspace_id
    )
)
_grants = _every.add_columns(_grant.c.user_id.label("key")).where(
    _grant.c.app_id == bindparam("app"), reaches_user(User.id)
)
_grants_of_user = _every.add_columns(_grant.c.app_id.label("key")).where(
    _grant.c.user_id == bindparam("user"), reaches_workspace(App.workspace_id)
)
