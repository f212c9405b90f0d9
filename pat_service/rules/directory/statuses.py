"""The status of users in workspaces.

A client that is limited to workspaces sets the status there, and the status outlives the membership. So no
tenant decides about another tenant's workspace. `User.status` is the status in the whole installation.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, case, exists, insert, or_, select, update
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement, SQLColumnExpression

from pat_service.rules import events
from pat_service.rules.callers import REACHED
from pat_service.rules.directory.changes import Change
from pat_service.storage.models import ACTIVE, ARCHIVED, User, WorkspaceStatus

# An alias, since an enclosing statement may join the table too.
_status: Final = aliased(WorkspaceStatus)


def build_shown_status(workspace_id: SQLColumnExpression[str] | None = None) -> ColumnElement[str]:
    """Return the column with the status of `User` that the caller sees.

    The status is `archived` if the user is archived in the installation, in a workspace that a limited caller
    reaches, or in this workspace.
    """
    archived = exists().where(_status.user_id == User.id, _status.status == ARCHIVED)
    in_reach = archived.where(
        REACHED.c.workspace_id == _status.workspace_id, REACHED.c.caller_id == bindparam("caller")
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
    stored = {row.workspace_id: row.status for row in change.connection.execute(_current, values)}
    before = {id_: stored.get(id_, ACTIVE) for id_ in workspace_ids}
    changed = [id_ for id_ in workspace_ids if before[id_] != status]
    changed_rows = {"user": user_id, "workspaces": [id_ for id_ in changed if id_ in stored]}
    change.connection.execute(_update.values(status=status), changed_rows)
    new = [id_ for id_ in changed if id_ not in stored]
    if new:
        rows = [{"workspace_id": id_, "user_id": user_id, "status": status} for id_ in new]
        change.connection.execute(insert(WorkspaceStatus), rows)
    recorded = [
        events.build(
            events.USER_CHANGED,
            change.now,
            client_id=change.caller.id,
            workspace_id=id_,
            user_id=user_id,
            details={"before": {"status": before[id_]}, "after": {"status": status}},
        )
        for id_ in changed
    ]
    events.record_many(change.connection, recorded)


_reached = (
    select(REACHED.c.workspace_id)
    .where(REACHED.c.caller_id == bindparam("caller"))
    .order_by(REACHED.c.workspace_id)
)
_in_workspaces = (
    WorkspaceStatus.user_id == bindparam("user"),
    WorkspaceStatus.workspace_id.in_(bindparam("workspaces", expanding=True)),
)
_current = select(WorkspaceStatus.workspace_id, WorkspaceStatus.status).where(*_in_workspaces)
_update = update(WorkspaceStatus).where(*_in_workspaces)
