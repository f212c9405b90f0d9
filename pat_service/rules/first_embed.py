"""What is there already for a first embed, and which apps no page may frame yet."""

from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import bindparam, exists, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from pat_service.rules.callers import Caller, reaches_workspace
from pat_service.storage.database import AnyRow, Base, reading
from pat_service.storage.models import App, Client, ClientWorkspace, Grant, Session, Token


@dataclass(frozen=True, slots=True)
class Progress:
    """The steps to a first embed in the caller's workspaces: whether each is done."""

    app: bool
    grant: bool
    origin: bool
    client: bool
    mint: bool
    opening: bool

    @property
    def is_complete(self) -> bool:
        return all(getattr(self, field.name) for field in fields(self))


def read_progress(caller: Caller) -> Progress:
    """Return which steps are done. Each query stops at the first row."""
    with reading() as connection:
        return Progress(*connection.execute(_progress, caller.reach()).one())


def list_unframed(caller: Caller, limit: int) -> list[AnyRow]:
    """Return up to `limit` apps in the caller's workspaces without an allowed origin."""
    with reading() as connection:
        return list(connection.execute(_unframed, caller.reach() | {"limit": limit}))


def _any(model: type[Base], *conditions: ColumnElement[bool]) -> Any:
    # A condition for a caller with all workspaces may name no table: the query would then have no FROM.
    return exists(select(1).select_from(model).where(*conditions))


_has_origins: Final = func.json_array_length(App.allowed_origins) > 0
_reached_app = reaches_workspace(App.workspace_id)
_mints_here = or_(
    Client.all_workspaces,
    exists().where(ClientWorkspace.client_id == Client.id, reaches_workspace(ClientWorkspace.workspace_id)),
)
_progress = select(
    _any(App, _reached_app),
    _any(Grant, Grant.app_id == App.id, _reached_app),
    _any(App, _has_origins, _reached_app),
    _any(Client, Client.revoked_at.is_(None), _mints_here),
    _any(Token, reaches_workspace(Token.workspace_id)),
    _any(Session, reaches_workspace(Session.workspace_id), Session.preview_role.is_(None)),
)
_unframed = (
    select(App.id, App.name, App.slug)
    .where(~_has_origins, _reached_app)
    .order_by(App.id)
    .limit(bindparam("limit"))
)
