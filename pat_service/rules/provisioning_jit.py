"""Just in time: a mint may bring its user along, so that nobody has to keep two directories in step.

What is missing is made in the transaction of the mint; what exists is never changed.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from pat_service.rules import events
from pat_service.shapes import normalize_email
from pat_service.storage.database import add
from pat_service.storage.models import Grant, Member, User, new_id


@dataclass(frozen=True, slots=True)
class NewUser:
    """What to make of somebody who is not there yet. Without a name, the email stands for it."""

    name: str | None
    role: str


def provision_user(
    connection: Connection,
    new_user: NewUser,
    *,
    email: str | None,
    user_id: str | None,
    workspace_id: str,
    app_id: str | None,
    by: str,
    now: datetime,
) -> None:
    """Make the user (where named by email), the membership and the grant that are missing.

    Racing arrivals of one person meet in the constraints, and each finds what the first has made.
    """
    if user_id is None:
        assert email is not None  # noqa: S101 - the mint's schema asks for one of the two
        user_id = new_id()
        facts = {"email": normalize_email(email), "name": new_user.name or email, "status": "active"}
        if add(connection, User, facts | {"id": user_id, "created_at": now}):
            made = {"client_id": by, "user_id": user_id, "workspace_id": workspace_id}
            events.record(connection, events.USER_CREATED, now, details={"after": facts}, **made)
        else:
            # Somebody was faster; and where they are gone again, the mint's own look-up says so.
            user_id = connection.execute(_by_email, {"email": facts["email"]}).scalar()
            if user_id is None:
                return
    ids: dict[str, Any] = {"user_id": user_id, "workspace_id": workspace_id}
    if add(connection, Member, ids | {"role": new_user.role}):
        details = {"after": {"role": new_user.role}}
        events.record(connection, events.MEMBER_ADDED, now, client_id=by, details=details, **ids)
    if app_id is not None and add(connection, Grant, {"app_id": app_id, "user_id": user_id}):
        events.record(connection, events.GRANT_ADDED, now, client_id=by, app_id=app_id, **ids)


_by_email = select(User.id).where(User.email == bindparam("email"))
