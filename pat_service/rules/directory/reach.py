"""Find the workspaces, users and apps within a caller's workspaces, and lock the tokens of a deletion.

A row outside the caller's workspaces raises the same error as a missing one. Until the transaction ends,
`lock` prevents every change of a row. `share` prevents only its move and its deletion.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Select, bindparam, select
from sqlalchemy.sql.elements import ColumnElement

from pat_service.errors import AppNotFound, Refused, UserNotFound, WorkspaceNotFound
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.storage.database import reading
from pat_service.storage.models import App, Token, User, Workspace

#: A condition on tokens, and the ids of the matching tokens that a transaction has locked.
LockedTokens = tuple[ColumnElement[bool], set[str]]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class TargetRow(Protocol):
    """A workspace, or the columns of an app that a workspace has too."""

    id: str
    slug: str
    name: str
    allowed_origins: list[str]


class UserRow(Protocol):
    """A user. `status` is that of the installation."""

    id: str
    email: str
    name: str
    status: str
    created_at: datetime
    home_workspace_id: str | None
    archived_at: datetime | None


class FoundUserRow(UserRow, Protocol):
    """A user, and whether the caller reaches the home."""

    home_reached: bool


class WorkspaceRow(TargetRow, Protocol):
    apps_url: str | None


class AppRow(TargetRow, Protocol):
    workspace_id: str
    template: str
    upstream: str | None
    start: str | None
    permissions: list[str] | None


@dataclass(frozen=True, slots=True)
class Reach:
    """Finds rows for a caller on one connection."""

    connection: Connection
    caller: Caller

    def find_workspace(self, workspace_id: str, *, lock: bool = False) -> WorkspaceRow:
        row: WorkspaceRow = self._find(_workspace, workspace_id, WorkspaceNotFound, lock=lock)
        return row

    def find_user(self, user_id: str, *, lock: bool = False) -> FoundUserRow:
        row: FoundUserRow = self._find(_user, user_id, UserNotFound, lock=lock)
        return row

    def find_app(self, app_id: str, *, lock: bool = False, share: bool = False) -> AppRow:
        statement = _app.with_for_update(read=True, key_share=True) if share else _app
        row: AppRow = self._find(statement, app_id, AppNotFound, lock=lock)
        return row

    def _find(
        self, statement: Select[*tuple[Any, ...]], id_: str, missing: type[Refused], *, lock: bool
    ) -> Any:
        statement = statement.with_for_update() if lock else statement
        row = self.connection.execute(statement, {"id": id_} | self.caller.reach()).first()
        if row is None:
            raise missing
        return row


@contextmanager
def reading_as(caller: Caller) -> Iterator[Reach]:
    """Yield a reach whose queries see the same state of the database."""
    with reading() as connection:
        yield Reach(connection, caller)


class NewTokens(Exception):
    """A token was minted while the existing tokens were being locked."""


def lock_tokens(connection: Connection, condition: ColumnElement[bool]) -> LockedTokens:
    """Lock the tokens that a deletion also deletes, and return them.

    An opening locks its token before the rows that its session references. To avoid a deadlock, lock the
    tokens first here too, in the order that every transaction uses.
    """
    order = (Token.user_id, Token.app_id, Token.workspace_id)
    statement = select(Token.id).where(condition).order_by(*order).with_for_update()
    return condition, set(connection.execute(statement).scalars())


def require_all_locked(connection: Connection, locked: LockedTokens) -> None:
    """Raise NewTokens if other tokens match now. Before this call, lock the row that they reference.

    Waiting for the new tokens could cause a deadlock with openings that wait for that row.
    """
    condition, ids = locked
    if not ids.issuperset(connection.execute(select(Token.id).where(condition)).scalars()):
        raise NewTokens


def retry_on_new_tokens(rule: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Repeat the rule until it has locked all tokens. NewTokens rolls back each earlier attempt."""

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
_user: Select[*tuple[Any, ...]] = select(
    *User.__table__.c, reaches_workspace(User.home_workspace_id).label("home_reached")
).where(User.id == bindparam("id"), reaches_user(User.id))
_app = select(App.__table__).where(App.id == bindparam("id"), reaches_workspace(App.workspace_id))
