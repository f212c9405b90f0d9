"""Workspaces, users, members, apps and grants: who exists, and who may open what.

The functions take part in the caller's transaction, so that several changes count together. Finders
return a row or raise Conflict.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from pat_service import events
from pat_service.database import AnyRow
from pat_service.errors import Conflict
from pat_service.models import App, Grant, Member, User, Workspace, new_id
from pat_service.shapes import email_key


def workspace_by_slug(connection: Connection, slug: str) -> AnyRow:
    row = connection.execute(select(Workspace.__table__).where(Workspace.slug == slug)).first()
    if row is None:
        raise Conflict(f"There is no workspace {slug!r}.")
    return row


def user_by_email(connection: Connection, email: str) -> AnyRow:
    row = connection.execute(select(User.__table__).where(User.email == email_key(email))).first()
    if row is None:
        raise Conflict(f"There is no user {email!r}.")
    return row


def put_workspace(
    connection: Connection, slug: str, *, name: str, allowed_origins: Sequence[str], now: datetime
) -> None:
    """Create the workspace, or make it be just this."""
    facts = {"name": name, "allowed_origins": list(dict.fromkeys(allowed_origins))}
    changed = connection.execute(update(Workspace).where(Workspace.slug == slug).values(facts))
    if not changed.rowcount:
        connection.execute(insert(Workspace), facts | {"id": new_id(), "slug": slug, "created_at": now})


def put_user(
    connection: Connection,
    email: str,
    *,
    name: str,
    status: str,
    roles: Mapping[str, str],
    now: datetime,
) -> None:
    """Create the user or make them be just this, with these roles by workspace slug and no others."""
    key = email_key(email)
    changed = connection.execute(update(User).where(User.email == key).values(name=name, status=status))
    if not changed.rowcount:
        row = {"id": new_id(), "email": key, "name": name, "status": status, "created_at": now}
        connection.execute(insert(User), row)
    user = user_by_email(connection, email)
    connection.execute(delete(Member).where(Member.user_id == user.id))
    for slug, role in roles.items():
        workspace = workspace_by_slug(connection, slug)
        row = {"workspace_id": workspace.id, "user_id": user.id, "role": role}
        connection.execute(insert(Member), row)


def put_app(
    connection: Connection,
    slug: str,
    *,
    id_: str | None,
    name: str,
    workspace: str,
    template: str,
    allowed_origins: Sequence[str],
    users: Collection[str],
    now: datetime,
) -> None:
    """Create the app or make it be just this, with grants for these emails and no others.

    An app is found by its id where one is given, else by its slug. Another workspace than before
    moves it, which ends its tokens and sessions for good.
    """
    home = workspace_by_slug(connection, workspace)
    facts = {
        "slug": slug,
        "name": name,
        "workspace_id": home.id,
        "template": template,
        "allowed_origins": list(dict.fromkeys(allowed_origins)),
    }
    found = App.slug == slug if id_ is None else App.id == id_
    # Locked, so that of two racing moves each sees the other's.
    current = connection.execute(select(App.__table__).where(found).with_for_update()).first()
    taken = connection.execute(select(App.id).where(App.slug == slug)).scalar()
    if taken is not None and (current is None or taken != current.id):
        raise Conflict(f"The slug {slug!r} belongs to the app {taken}, not to {id_}.")
    if current is None:
        app_id = id_ or new_id()
        connection.execute(insert(App), facts | {"id": app_id, "moves": 0, "created_at": now})
    else:
        app_id = current.id
        connection.execute(update(App).where(App.id == app_id), facts)
        if current.workspace_id != home.id:
            connection.execute(update(App).where(App.id == app_id).values(moves=App.moves + 1))
            events.record(
                connection,
                events.APP_MOVED,
                now,
                app_id=app_id,
                workspace_id=home.id,
                details={"from": current.workspace_id},
            )
    connection.execute(delete(Grant).where(Grant.app_id == app_id))
    for user_id in {user_by_email(connection, email).id for email in users}:
        grant(connection, app_id, user_id)


def grant(connection: Connection, app_id: str, user_id: str) -> None:
    """Let the user open the app, which works while they are an active member of its workspace."""
    take_grant(connection, app_id, user_id)
    connection.execute(insert(Grant), {"app_id": app_id, "user_id": user_id})


def take_grant(connection: Connection, app_id: str, user_id: str) -> None:
    """Take the grant away, if there is one. It counts on the next request of every open frame."""
    connection.execute(delete(Grant).where(Grant.app_id == app_id, Grant.user_id == user_id))


def ineffective_grants(connection: Connection, app_slugs: Collection[str]) -> list[tuple[str, str]]:
    """Return (app slug, email) of grants that open nothing, as their holder is no member of the workspace."""
    statement = (
        select(App.slug, User.email)
        .join(Grant, Grant.app_id == App.id)
        .join(User, User.id == Grant.user_id)
        .outerjoin(Member, (Member.workspace_id == App.workspace_id) & (Member.user_id == User.id))
        .where(App.slug.in_(app_slugs), Member.user_id.is_(None))
        .order_by(App.slug, User.email)
    )
    return [(slug, email) for slug, email in connection.execute(statement)]
