"""The status of users in workspaces.

A client that is limited to workspaces sets the status there, and the status outlives the membership. So no
tenant decides about another tenant's workspace. `User.status` is the status in the whole installation.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, case, exists, or_, select, update
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement, SQLColumnExpression

from pat_service.rules import events
from pat_service.rules.directory.changes import Change
from pat_service.storage.database import add
from pat_service.storage.models import ACTIVE, ARCHIVED, ClientWorkspace, User, WorkspaceStatus

# An alias, since an enclosing statement may join the table too.
_status: Final = aliased(WorkspaceStatus)


def build_shown_status(workspace_id: SQLColumnExpression[str] | None = None) -> ColumnElement[str]:
    """Return the column with the status of `User` that the caller sees.

    The status is `archived` if the user is archived in the installation, in a workspace that a limited caller
    reaches, or in this workspace.
    """
    archived = exists().where(_status.user_id == User.id, _status.status == ARCHIVED)
    in_reach = archived.where(
        ClientWorkspace.workspace_id == _status.workspace_id, ClientWorkspace.client_id == bindparam("caller")
    )
    conditions = [User.status == ARCHIVED, in_reach]
    if workspace_id is not None:
        conditions.append(archived.where(_status.workspace_id == workspace_id))
    return case((or_(*conditions), ARCHIVED), else_=ACTIVE)


def list_reached(change: Change) -> Sequence[str]:
    """Return the ids of the workspaces to which the caller is limited, sorted."""
    return change.connection.execute(_reached, {"caller": change.caller.id}).scalars().all()


def put(change: Change, user_id: str, workspace_ids: Sequence[str], status: str) -> None:
    """Set the status of a locked user in these workspaces, and record each change there."""
    values = {"user": user_id, "workspaces": workspace_ids}
    current = {row.workspace_id: row.status for row in change.connection.execute(_current, values)}
    for workspace_id in workspace_ids:
        before = current.get(workspace_id, ACTIVE)
        if before == status:
            continue
        ids = {"workspace_id": workspace_id, "user_id": user_id}
        if not add(change.connection, WorkspaceStatus, ids | {"status": status}):
            row = (WorkspaceStatus.workspace_id == workspace_id, WorkspaceStatus.user_id == user_id)
            change.connection.execute(update(WorkspaceStatus).where(*row).values(status=status))
        details = {"before": {"status": before}, "after": {"status": status}}
        change.record(events.USER_CHANGED, details, **ids)


_reached = (
    select(ClientWorkspace.workspace_id)
    .where(ClientWorkspace.client_id == bindparam("caller"))
    .order_by(ClientWorkspace.workspace_id)
)
_current = select(WorkspaceStatus.workspace_id, WorkspaceStatus.status).where(
    WorkspaceStatus.user_id == bindparam("user"),
    WorkspaceStatus.workspace_id.in_(bindparam("workspaces", expanding=True)),
)
