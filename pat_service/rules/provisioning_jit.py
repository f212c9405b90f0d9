"""Just-in-time provisioning: a mint may create its user, so a client need not synchronize two directories.

The transaction of the mint creates the missing rows, and the workspace of the mint is the new user's home. It
never changes an existing row. So a user who is archived in the workspace stays archived, whatever their role.
"""

from dataclasses import dataclass

from pat_service.rules.directory import grants, members, users
from pat_service.rules.directory.changes import Change
from pat_service.shapes import normalize_email
from pat_service.storage.models import ACTIVE, LEAST_ROLE


@dataclass(frozen=True, slots=True)
class NewUser:
    """The values of a new user. The name defaults to the email."""

    name: str | None = None
    role: str = LEAST_ROLE


def provision_user(
    change: Change,
    new_user: NewUser,
    *,
    email: str | None,
    user_id: str | None,
    workspace_id: str,
    app_id: str | None,
) -> None:
    """Create the missing user (if an email names them), membership and grant.

    Constraints make concurrent mints for one person wait, so each finds the rows that the first has created.
    """
    if user_id is None:
        assert email is not None  # noqa: S101 - the schema of a mint requires an email or an id
        normalized = normalize_email(email)
        facts = {"email": normalized, "name": new_user.name or email, "status": ACTIVE}
        new_id = change.add(users.USER, facts | {"home_workspace_id": workspace_id}, [workspace_id])
        user_id = new_id or users.find_id(change.connection, normalized)
    # A concurrent request may have created and deleted the user. The mint then refuses.
    if user_id is not None:
        members.give(change, workspace_id, user_id, new_user.role)
        if app_id is not None:
            grants.give(change, app_id, workspace_id, user_id)
