"""What a caller may know of. What is outside its workspaces is not there: the same answer either way.

The finders return a row or raise. `hold` keeps others from moving or deleting it until the transaction
ends, `lock` also from changing it and from adding to it.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.sql.elements import ColumnElement

from pat_service.errors import AppNotFound, UserNotFound, WorkspaceNotFound
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.storage.database import AnyRow
from pat_service.storage.models import App, Token, User, Workspace

#: Which tokens are held: the condition that they fulfil, and their ids.
LockedTokens = tuple[ColumnElement[bool], set[str]]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


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


class NewTokens(Exception):
    """Tokens were minted while those that were there already were being held."""


def lock_tokens(connection: Connection, condition: ColumnElement[bool]) -> LockedTokens:
    """Lock the tokens that a deletion is about to take along, and return which.

    Before anything else: an opening locks its token first, and what its session hangs on after that.
    In the one order of everybody who locks several.
    """
    of_pairs = (Token.user_id, Token.app_id, Token.workspace_id)
    statement = select(Token.id).where(condition).order_by(*of_pairs).with_for_update()
    return condition, set(connection.execute(statement).scalars())


def require_all_locked(connection: Connection, locked: LockedTokens) -> None:
    """Raise TokensCame where there are others by now, once what they hang on is locked: no more can come.

    To wait for these would be to wait in a circle, for openings that wait for what is locked.
    """
    condition, ids = locked
    if not ids.issuperset(connection.execute(select(Token.id).where(condition)).scalars()):
        raise NewTokens


def retry_on_new_tokens(rule: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let the rule begin again until it holds all tokens; what it did before is undone."""

    @wraps(rule)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        while True:
            try:
                return rule(*args, **kwargs)
            except NewTokens:
                continue

    return run


_workspace = select(Workspace.__table__).where(
    Workspace.id == bindparam("id"), reaches_workspace(Workspace.id)
)
_user = select(User.__table__).where(User.id == bindparam("id"), reaches_user(User.id))
_app = select(App.__table__).where(App.id == bindparam("id"), reaches_workspace(App.workspace_id))
