"""The nouns, the constraints that the database itself keeps, and when a session is live.

Ids are lower-case UUID texts. Rules address these tables with Core statements; the classes give the
columns names and types, and migrations their shape.
"""

import secrets
import time
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    and_,
    bindparam,
    or_,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from pat_service.storage.database import Model, UtcDateTime

#: The highest first.
ROLES: Final = ("admin", "builder", "end-user")
USER_STATUSES: Final = ("active", "archived")
#: The role that is given where none is named, and the least of them.
LEAST_ROLE: Final = ROLES[-1]

#: Row ids that count up: SQLite counts in INTEGER primary keys only.
Counter = BigInteger().with_variant(Integer, "sqlite")
Id = String(36)


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): what is made together lies together in an index of any size."""
    milliseconds = time.time_ns() // 1_000_000
    chance = secrets.randbits(74)
    value = milliseconds << 80 | 7 << 76 | (chance >> 62) << 64 | 2 << 62 | chance & (1 << 62) - 1
    text_ = f"{value:032x}"
    return f"{text_[:8]}-{text_[8:12]}-{text_[12:16]}-{text_[16:20]}-{text_[20:]}"


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _where(condition: str) -> dict[str, Any]:
    """The options of an index on some of the rows alone."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Workspace(Model):
    """A tenant. Its allowed origins are those of its launcher; each app has its own."""

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    allowed_origins: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class User(Model):
    """A person. `email` is made by `shapes.normalize_email`."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint(_one_of("status", USER_STATUSES), "status"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    email: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Member(Model):
    __tablename__ = "members"
    __table_args__ = (CheckConstraint(_one_of("role", ROLES), "role"),)

    workspace_id: Mapped[str] = mapped_column(ForeignKey(Workspace.id, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey(User.id, ondelete="CASCADE"), primary_key=True, index=True
    )
    role: Mapped[str] = mapped_column(Text)


class App(Model):
    """What is embedded. `moves` counts its changes of workspace.

    Tokens and sessions carry the count that they were made under, so that a move ends all of them for
    good in one write, those included that a racing mint is about to make. `moved_from` is the workspace
    that it was in before the last of them.
    """

    __tablename__ = "apps"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    workspace_id: Mapped[str] = mapped_column(ForeignKey(Workspace.id), index=True)
    template: Mapped[str] = mapped_column(Text)
    allowed_origins: Mapped[list[str]] = mapped_column(JSON)
    moves: Mapped[int] = mapped_column(Integer, default=0)
    moved_from: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Grant(Model):
    __tablename__ = "grants"

    app_id: Mapped[str] = mapped_column(ForeignKey(App.id, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey(User.id, ondelete="CASCADE"), primary_key=True, index=True
    )


class Client(Model):
    """A calling back end. `all_workspaces` is true where it is limited to none in particular.

    It can give members no role above `highest_role`.
    """

    __tablename__ = "clients"
    __table_args__ = (CheckConstraint(_one_of("highest_role", ROLES), "highest_role"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    all_workspaces: Mapped[bool]
    mint_limit: Mapped[str | None] = mapped_column(Text)
    highest_role: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ClientWorkspace(Model):
    __tablename__ = "client_workspaces"

    client_id: Mapped[str] = mapped_column(ForeignKey(Client.id, ondelete="CASCADE"), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(
        ForeignKey(Workspace.id, ondelete="CASCADE"), primary_key=True, index=True
    )


class ClientSecret(Model):
    """A secret of a client, as a digest. Two may overlap; one that was ended stays, so that it stays dead."""

    __tablename__ = "client_secrets"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    client_id: Mapped[str] = mapped_column(ForeignKey(Client.id, ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    key_id: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Token(Model):
    """The one token of a pair: of app and user, or, where `app_id` is null, of workspace and user.

    The pair is unique, so minting again replaces the row's token; `superseded_digest` stays, so that
    the holder of the one just replaced can be told. `id` names the token and changes with it.
    `workspace_id` is the app's workspace at the mint.
    """

    __tablename__ = "tokens"
    __table_args__ = (
        UniqueConstraint("app_id", "user_id"),
        Index(
            "uq_tokens_workspace_id_user_id",
            "workspace_id",
            "user_id",
            unique=True,
            **_where("app_id IS NULL"),
        ),
        Index("ix_tokens_workspace_id_id", "workspace_id", "id"),
        Index("ix_tokens_expires_at_revoked_at", "expires_at", "revoked_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    app_id: Mapped[str | None] = mapped_column(ForeignKey(App.id, ondelete="CASCADE"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey(Workspace.id, ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    client_id: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    key_id: Mapped[str] = mapped_column(Text)
    last_four: Mapped[str | None] = mapped_column(String(4))
    superseded_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32), index=True)
    moves: Mapped[int] = mapped_column(Integer)
    session_seconds: Mapped[int] = mapped_column(Integer)
    attributes: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    allowed_origins: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    single_use: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    first_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Session(Model):
    """One opened frame. `id` is the `jti` of its JWT; `ended_at` ends it at once.

    `app_id` is null for a session of a workspace token: it is good for any app of its workspace. What
    the token said of the viewer is kept here too, since the token may be replaced meanwhile.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_app_id_user_id", "app_id", "user_id"),
        Index("ix_sessions_workspace_id_id", "workspace_id", "id"),
        Index("ix_sessions_expires_at_ended_at", "expires_at", "ended_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    token_id: Mapped[str] = mapped_column(Id, index=True)
    client_id: Mapped[str] = mapped_column(Text)
    app_id: Mapped[str | None] = mapped_column(ForeignKey(App.id, ondelete="CASCADE"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey(Workspace.id, ondelete="CASCADE"))
    user_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    key_id: Mapped[str] = mapped_column(Text)
    moves: Mapped[int] = mapped_column(Integer)
    attributes: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    allowed_origins: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


#: The conditions that a session is live at the moment `now`, which the statement is given.
LIVE_SESSION: Final = (Session.ended_at.is_(None), Session.expires_at > bindparam("now", type_=UtcDateTime))
#: The condition that token and session are of one pair, whichever of its tokens opened the session.
OF_ONE_PAIR: Final = and_(
    Token.user_id == Session.user_id,
    or_(
        Token.app_id == Session.app_id,
        and_(Token.app_id.is_(None), Session.app_id.is_(None), Token.workspace_id == Session.workspace_id),
    ),
)


class Event(Model):
    """A line of the audit trail. It outlives what it tells of, so nothing here is a foreign key."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_workspace_id_id", "workspace_id", "id"),
        Index("ix_events_user_id_id", "user_id", "id"),
    )

    id: Mapped[int] = mapped_column(Counter, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    type: Mapped[str] = mapped_column(Text)
    code: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    client_id: Mapped[str | None] = mapped_column(Text)
    workspace_id: Mapped[str | None] = mapped_column(Id)
    app_id: Mapped[str | None] = mapped_column(Id)
    user_id: Mapped[str | None] = mapped_column(Id)
    token_id: Mapped[str | None] = mapped_column(Id)
    session_id: Mapped[str | None] = mapped_column(Id)
    details: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
