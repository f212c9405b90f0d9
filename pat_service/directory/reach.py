"""What a caller may know of. What is outside its workspaces is not there: the same answer either way.

The finders return a row or raise. `hold` keeps others from moving or deleting it until the transaction
ends, `lock` also from changing it and from adding to it.
"""

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.sql.elements import ColumnElement

from pat_service.clients import Caller, reaches_user, reaches_workspace
from pat_service.database import AnyRow
from pat_service.errors import AppNotFound, UserNotFound, WorkspaceNotFound
from pat_service.models import App, Token, User, Workspace


def workspace(connection: Connection, caller: Caller, workspace_id: str, *, lock: bool = False) -> AnyRow:
    statement = _workspace.with_for_update() if lock else _workspace
    row = connection.execute(statement, {"id": workspace_id} | caller.reach()).first()
    if row is None:
        raise WorkspaceNotFound
    return row


def user(connection: Connection, caller: Caller, user_id: str, *, lock: bool = False) -> AnyRow:
    statement = _user.with_for_update() if lock else _user
    row = connection.execute(statement, {"id": user_id} | caller.reach()).first()
    if row is None:
        raise UserNotFound
    return row


def app(
    connection: Connection, caller: Caller, app_id: str, *, hold: bool = False, lock: bool = False
) -> AnyRow:
    statement = _app.with_for_update() if lock else _app
    if hold:
        statement = _app.with_for_update(read=True, key_share=True)
    row = connection.execute(statement, {"id": app_id} | caller.reach()).first()
    if row is None:
        raise AppNotFound
    return row


def hold_tokens(connection: Connection, condition: ColumnElement[bool]) -> None:
    """Lock the tokens that a deletion is about to take along.

    Before anything else: an opening locks its token first, and what its session hangs on after that.
    In the one order of everybody who locks several.
    """
    of_pairs = (Token.user_id, Token.app_id, Token.workspace_id)
    connection.execute(select(Token.id).where(condition).order_by(*of_pairs).with_for_update()).all()


_workspace = select(Workspace.__table__).where(
    Workspace.id == bindparam("id"), reaches_workspace(Workspace.id)
)
_user = select(User.__table__).where(User.id == bindparam("id"), reaches_user(User.id))
_app = select(App.__table__).where(App.id == bindparam("id"), reaches_workspace(App.workspace_id))
