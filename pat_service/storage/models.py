"""The tables with their constraints, and the condition for a live session.

Ids are lower-case UUID texts. Rules use these tables with Core statements. The classes name and type the
columns; migrations create them.
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
    ForeignKeyConstraint,
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
ACTIVE: Final = "active"
ARCHIVED: Final = "archived"
USER_STATUSES: Final = (ACTIVE, ARCHIVED)
#: The default role.
LEAST_ROLE: Final = ROLES[-1]
#: Roles of operators in the console, the highest first.
OWNER: Final = "owner"
VIEWER: Final = "viewer"
OPERATOR_ROLES: Final = (OWNER, "operator", VIEWER)

#: Types of events that each viewer causes. The index by type leaves them out, so an opening costs no more.
FREQUENT_EVENTS: Final = (
    "session:ended",
    "session:expired",
    "session:opened",
    "session:replaced",
    "token:expired",
    "token:minted",
)
_RARE_EVENT: Final = f"type NOT IN ({', '.join(map(repr, FREQUENT_EVENTS))})"
#: A query needs the very words of the index's condition, since databases compare them as text.
RARE_EVENT: Final = text(_RARE_EVENT)

#: Row ids that count up. SQLite counts only in INTEGER primary keys.
Counter = BigInteger().with_variant(Integer, "sqlite")
Id = String(36)


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): rows of one time are neighbours in an index."""
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    value = milliseconds << 80 | 7 << 76 | (random >> 62) << 64 | 2 << 62 | random & (1 << 62) - 1
    text_ = f"{value:032x}"
    return f"{text_[:8]}-{text_[8:12]}-{text_[12:16]}-{text_[16:20]}-{text_[20:]}"


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _where(condition: str) -> dict[str, Any]:
    """Return the options of a partial index."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Workspace(Model):
    """A tenant. The allowed origins may frame its launcher; each app has its own list.

    `apps_url` is the workspace's own address of its upstream apps, with `{app}` in its host.
    """

    __tablename__ = "workspaces"
    __table_args__ = (Index("uq_workspaces_apps_url", "apps_url", unique=True),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    allowed_origins: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    apps_url: Mapped[str | None] = mapped_column(Text)


class User(Model):
    """A person. `email` is the result of `shapes.normalize_email`.

    `home_workspace_id` has no foreign key, so a deletion of the workspace locks no users. If the workspace is
    deleted, the user has no home. `status` holds in the whole installation. `archived_at` is null if the user
    was archived before workspaces had statuses of their own.
    """

    __tablename__ = "users"
    __table_args__ = (CheckConstraint(_one_of("status", USER_STATUSES), "status"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    email: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    home_workspace_id: Mapped[str | None] = mapped_column(Id)
    archived_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Member(Model):
    __tablename__ = "members"
    __table_args__ = (CheckConstraint(_one_of("role", ROLES), "role"),)

    workspace_id: Mapped[str] = mapped_column(ForeignKey(Workspace.id, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey(User.id, ondelete="CASCADE"), primary_key=True, index=True
    )
    role: Mapped[str] = mapped_column(Text)


class WorkspaceStatus(Model):
    """The status of a user in one workspace, set by its clients. Without a row the user is active there.

    A row outlives the membership. It also shows that the workspace has known the user.
    """

    __tablename__ = "workspace_statuses"
    __table_args__ = (CheckConstraint(_one_of("status", USER_STATUSES), "status"),)

    workspace_id: Mapped[str] = mapped_column(ForeignKey(Workspace.id, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey(User.id, ondelete="CASCADE"), primary_key=True, index=True
    )
    status: Mapped[str] = mapped_column(Text)


class Upstream(Model):
    """An address at which apps run elsewhere, and the one workspace whose apps may have it.

    The row stays when the last app gives the address up. Another workspace may then take it.
    """

    __tablename__ = "upstreams"
    __table_args__ = (UniqueConstraint("address", "workspace_id"),)

    address: Mapped[str] = mapped_column(Text, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(ForeignKey(Workspace.id, ondelete="CASCADE"), index=True)


class App(Model):
    """An embedded app. `moved_from` is its previous workspace.

    `moves` counts its changes of workspace, and those between a template and an upstream. Tokens and
    sessions carry the count of their creation. So one write ends all of them for good, even those of a
    concurrent mint.

    An upstream app runs elsewhere, at the address `upstream`. `start` is the path of its first page, and
    `permissions` are the browser features of its frame. All three are null for an app with a template of its
    own. The foreign key is checked at commit, so that an address can move together with its app.
    """

    __tablename__ = "apps"
    __table_args__ = (
        ForeignKeyConstraint(
            ["upstream", "workspace_id"],
            [Upstream.address, Upstream.workspace_id],
            deferrable=True,
            initially="DEFERRED",
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    workspace_id: Mapped[str] = mapped_column(ForeignKey(Workspace.id), index=True)
    template: Mapped[str] = mapped_column(Text)
    allowed_origins: Mapped[list[str]] = mapped_column(JSON)
    moves: Mapped[int] = mapped_column(Integer, default=0)
    moved_from: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    upstream: Mapped[str | None] = mapped_column(Text)
    start: Mapped[str | None] = mapped_column(Text)
    permissions: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))


class ReleasedSlug(Model):
    """A slug that an app gave up. It outlives the workspace, so there is no foreign key."""

    __tablename__ = "released_slugs"

    slug: Mapped[str] = mapped_column(Text, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(Id)
    released_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Grant(Model):
    __tablename__ = "grants"

    app_id: Mapped[str] = mapped_column(ForeignKey(App.id, ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey(User.id, ondelete="CASCADE"), primary_key=True, index=True
    )


class Client(Model):
    """A back end that calls the API. With `all_workspaces` it is not limited to some workspaces.

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
    """A client's secret, as a digest. Two may be valid at once. A revoked one stays, so it cannot return."""

    __tablename__ = "client_secrets"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    client_id: Mapped[str] = mapped_column(ForeignKey(Client.id, ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    key_id: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Token(Model):
    """The one token of a pair: of app and user, or of workspace and user if `app_id` is null.

    The pair is unique, so a new mint replaces the token and the `id` of the row. `superseded_digest`
    identifies the replaced token, to answer its holder. `workspace_id` is the app's workspace at the mint.
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
    repeat_by: Mapped[str | None] = mapped_column(Text)


class Session(Model):
    """One opened frame. `id` is the `jti` of its JWT; `ended_at` ends it at once.

    `app_id` is null for a launcher's session. The session copies the token's `attributes` and
    `allowed_origins`, since a new mint may replace the token. `workspace_token`: a token for the whole
    workspace opened the session. `launcher_session_id` is the session of the launcher that opened the app.
    `code_digest` is the digest of a one-time code that claims the session. `replaced_by` is the session that
    a renewal opened. The first request of an `unconfirmed` session ends the session that it replaces, and the
    repeat of its token. `preview_role` is set if an operator previews the app as the user: in this role, and
    framed by `allowed_origins` alone.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_app_id_user_id", "app_id", "user_id"),
        Index("ix_sessions_workspace_id_id", "workspace_id", "id"),
        Index("ix_sessions_expires_at_ended_at", "expires_at", "ended_at"),
        Index("ix_sessions_code_digest", "code_digest", **_where("code_digest IS NOT NULL")),
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
    workspace_token: Mapped[bool | None]
    launcher_session_id: Mapped[str | None] = mapped_column(Id)
    code_digest: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    replaced_by: Mapped[str | None] = mapped_column(Id)
    unconfirmed: Mapped[bool | None]
    preview_role: Mapped[str | None] = mapped_column(Text)


#: A session is live at the statement's parameter `now`.
LIVE_SESSION: Final = (Session.ended_at.is_(None), Session.expires_at > bindparam("now", type_=UtcDateTime))
#: A frame has claimed the session, or its one-time code can still claim it.
OPENED_SESSION: Final = or_(
    Session.code_digest.is_(None), Session.created_at > bindparam("code_since", type_=UtcDateTime)
)
#: A launcher with its open apps counts as one frame, and so does a session with its successor.
COUNTED_SESSION: Final = (
    *LIVE_SESSION,
    OPENED_SESSION,
    Session.launcher_session_id.is_(None),
    Session.replaced_by.is_(None),
)
#: A token for one app opened the session. `OF_WORKSPACE`: a token for the whole workspace.
OF_APP: Final = and_(Session.app_id.is_not(None), Session.workspace_token.is_not(True))
OF_WORKSPACE: Final = or_(Session.app_id.is_(None), Session.workspace_token.is_(True))
#: Token and session have the same pair; another token of the pair may have opened the session.
SAME_PAIR: Final = and_(
    Token.user_id == Session.user_id,
    or_(
        and_(Token.app_id == Session.app_id, OF_APP),
        and_(Token.app_id.is_(None), OF_WORKSPACE, Token.workspace_id == Session.workspace_id),
    ),
)


class Operator(Model):
    """A person who uses the console. `id` names the operator in events, and no client can have it.

    `email` is the result of `shapes.normalize_email`. `issuer` and `subject` are the identity at the OpenID
    provider, from the first sign-in there. A removed operator is archived, so that the id stays taken.
    """

    __tablename__ = "operators"
    __table_args__ = (
        CheckConstraint(_one_of("role", OPERATOR_ROLES), "role"),
        UniqueConstraint("issuer", "subject"),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    email: Mapped[str] = mapped_column(Text, unique=True)
    role: Mapped[str] = mapped_column(Text)
    issuer: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    archived_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class OperatorWorkspace(Model):
    """A workspace of an operator. Owners have all workspaces, and no rows."""

    __tablename__ = "operator_workspaces"

    operator_id: Mapped[str] = mapped_column(ForeignKey(Operator.id, ondelete="CASCADE"), primary_key=True)
    workspace_id: Mapped[str] = mapped_column(
        ForeignKey(Workspace.id, ondelete="CASCADE"), primary_key=True, index=True
    )


class ConsoleSession(Model):
    """A signed-in browser of an operator. The cookie's value is stored as a digest.

    `method` is the way of the sign-in. `browser` is the browser's own name, for the operator's list.
    """

    __tablename__ = "console_sessions"
    __table_args__ = (CheckConstraint(_one_of("method", ("link", "oidc")), "method"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    operator_id: Mapped[str] = mapped_column(ForeignKey(Operator.id, ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    method: Mapped[str] = mapped_column(Text)
    browser: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class UsedLink(Model):
    """A sign-in link that was used. The row can go once the link has expired."""

    __tablename__ = "used_links"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Event(Model):
    """An audit event. It outlives the rows it names, so it has no foreign keys."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_workspace_id_id", "workspace_id", "id"),
        Index("ix_events_user_id_id", "user_id", "id"),
        Index("ix_events_type_id", "type", "id", **_where(_RARE_EVENT)),
        Index("ix_events_code_id", "code", "id", **_where("code IS NOT NULL")),
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


class HourlyCount(Model):
    """How often events of a type happened in an hour that has ended. `times` counts refusals one by one.

    An id or code that the events lack is an empty text, so that the key can have it. A row of the type `""`
    shows that the hour has been counted.
    """

    __tablename__ = "hourly_counts"

    hour: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(Id, primary_key=True)
    app_id: Mapped[str] = mapped_column(Id, primary_key=True)
    type: Mapped[str] = mapped_column(Text, primary_key=True)
    code: Mapped[str] = mapped_column(Text, primary_key=True)
    times: Mapped[int] = mapped_column(BigInteger)


class RefusedOrigin(Model):
    """How often pages of an origin that may not frame the app tried it on one day (UTC).

    `verified`: a token that was recognised for the app came with the origin. `workspace_id` is the app's
    workspace on that day, so that another workspace does not get the app's past. The cause is always
    `origin_not_allowed`.
    """

    __tablename__ = "refused_origins"

    day: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    app_id: Mapped[str] = mapped_column(ForeignKey(App.id, ondelete="CASCADE"), primary_key=True, index=True)
    verified: Mapped[bool] = mapped_column(primary_key=True)
    origin: Mapped[str] = mapped_column(Text, primary_key=True)
    workspace_id: Mapped[str] = mapped_column(Id)
    times: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime] = mapped_column(UtcDateTime)
