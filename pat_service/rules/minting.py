"""Mint a token for a user and an app, or for a user and a workspace.

`mint` checks in this order: scopes, the user's rate, user, app or workspace, slug, access. It checks the
app's slug only if PUBLIC_URL contains `{app}`. A slug that cannot be part of a host name is a conflict.
Before `mint`, `http` and `api` check the client, its rate, and the body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import Connection, bindparam, false, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from pat_service.credentials import TOKEN_PREFIX, Keyring, Secret, generate
from pat_service.errors import (
    AppForbidden,
    AppNotFound,
    InvalidClient,
    SlugUnfit,
    UserNotFound,
    WorkspaceNotFound,
)
from pat_service.rules import callers, events
from pat_service.rules.access import FACTS, AccessFacts, join_facts, may_open, may_visit
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.rules.directory.changes import Change
from pat_service.rules.provisioning_jit import NewUser, provision_user
from pat_service.rules.tokens import in_pair
from pat_service.shapes import is_dns_label, normalize_email
from pat_service.storage.database import transaction
from pat_service.storage.models import App, Client, Session, Token, User, Workspace, new_id
from pat_service.storage.prepared import Query, Writes

SCOPES: Final = (callers.MINT, callers.MINT_WORKSPACE)
LAST_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class MintRequest:
    """The options of a mint. They name a user by `email` or `user_id`, and one app or one workspace."""

    email: str | None
    user_id: str | None
    app_id: str | None
    app_slug: str | None
    pat_seconds: int
    session_seconds: int
    end_sessions: bool = False
    workspace_id: str | None = None
    workspace_slug: str | None = None
    new_user: NewUser | None = None
    attributes: dict[str, Any] | None = None
    allowed_origins: list[str] | None = None
    single_use: bool = False
    #: Each app has its own host, whose name contains the app's slug.
    own_host: bool = False

    @property
    def named_user(self) -> str:
        """The user as the request names them. All spellings of an email are one name."""
        if self.email is not None:
            return f"email:{normalize_email(self.email)}"
        return f"id:{self.user_id}"

    @property
    def for_app(self) -> bool:
        return self.app_id is not None or self.app_slug is not None


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token with its secret, which is not stored. Without an app it is for the workspace."""

    id: str
    secret: Secret
    app_id: str | None
    app_slug: str | None
    workspace_id: str


class MintFacts(AccessFacts, Protocol):
    """The facts of a mint, and whether the caller reaches the user and the workspace."""

    user_reached: bool
    workspace_reached: bool


def mint(
    caller: Caller,
    keyring: Keyring,
    request: MintRequest,
    now: datetime,
    *,
    count_user: Callable[[str], None],
) -> Minted:
    """Replace the token of the user and app, or of the user and workspace, with a new one.

    `count_user` counts a mint for the named user, and raises RateLimited beyond the limit.

    The old token stops opening frames at once. Open frames continue, unless `end_sessions` is set. Raise
    ScopeMissing, UserNotFound, AppNotFound, WorkspaceNotFound, SlugUnfit, AppForbidden or InvalidClient. A
    user, app or workspace outside the caller's workspaces counts as not found.
    """
    with events.recording_refusals(events.MINT_REFUSED, now, client_id=caller.id):
        _require_scopes(caller, request)
        count_user(request.named_user)
        try:
            return _mint(caller, keyring, request, now)
        except IntegrityError:
            # A row was deleted after the check, so check again to raise the right error.
            return _mint(caller, keyring, request, now)


def _mint(caller: Caller, keyring: Keyring, request: MintRequest, now: datetime) -> Minted:
    facts = _require_access(caller, request) if request.new_user is None else None
    if facts is not None and not request.end_sessions:
        return _replace_token(caller, keyring, request, facts, now)
    with transaction() as connection:
        facts = facts or _provision_and_require_access(connection, caller, request, now)
        minted = _replace_token(caller, keyring, request, facts, now, connection)
        if request.end_sessions:
            _end_sessions(connection, facts, now)
    return minted


def _require_scopes(caller: Caller, request: MintRequest) -> None:
    caller.require(callers.MINT if request.for_app else callers.MINT_WORKSPACE)
    if request.new_user is not None:
        caller.require(callers.PROVISION)
        caller.require_role(request.new_user.role)


def _require_access(caller: Caller, request: MintRequest, connection: Connection | None = None) -> MintFacts:
    facts = _query_facts(caller, request, connection)
    _require_user(facts)
    _require_target(facts, request)
    if not (may_open if request.for_app else may_visit)(facts):
        detail = None if request.for_app else "The user is not an active member of this workspace."
        raise AppForbidden(detail).about(
            user_id=facts.user_id, app_id=facts.app_id, workspace_id=facts.workspace_id
        )
    return facts


def _require_user(facts: MintFacts) -> None:
    if facts.user_id is None or not facts.user_reached:
        raise UserNotFound


def _require_target(facts: MintFacts, request: MintRequest) -> None:
    missing = AppNotFound if request.for_app else WorkspaceNotFound
    if facts.workspace_id is None or not facts.workspace_reached:
        raise missing().about(user_id=facts.user_id if facts.user_reached else None)
    if request.own_host and request.for_app and not is_dns_label(facts.app_slug):
        raise SlugUnfit(facts.app_slug).about(app_id=facts.app_id, workspace_id=facts.workspace_id)


def _provision_and_require_access(
    connection: Connection, caller: Caller, request: MintRequest, now: datetime
) -> MintFacts:
    """Create the missing user, membership and grant; then require access."""
    facts = _query_facts(caller, request, connection)
    if request.email is None:
        _require_user(facts)
    _require_target(facts, request)
    # Lock the token before the rows it references, as everywhere, to avoid a deadlock with a delete.
    pair = in_pair(Token, facts.user_id, facts.app_id, facts.workspace_id)
    connection.execute(select(Token.id).where(*pair).with_for_update())
    assert request.new_user is not None  # noqa: S101 - `_mint` has checked it
    provision_user(
        Change(connection, caller, now),
        request.new_user,
        email=request.email,
        user_id=facts.user_id,
        workspace_id=facts.workspace_id,
        app_id=facts.app_id,
    )
    try:
        return _require_access(caller, request, connection)
    except AppForbidden:
        # Don't reveal that the user exists if the client couldn't see them before.
        if facts.user_id is None or not facts.user_reached:
            raise AppForbidden().about(app_id=facts.app_id, workspace_id=facts.workspace_id) from None
        # The membership and the grant exist now, so only the status can be missing.
        raise AppForbidden("The user is archived, and a mint changes no status.").about(
            user_id=facts.user_id, app_id=facts.app_id, workspace_id=facts.workspace_id
        ) from None


def _query_facts(caller: Caller, request: MintRequest, connection: Connection | None) -> MintFacts:
    user = normalize_email(request.email) if request.email is not None else request.user_id
    targets = {
        "app_id": request.app_id,
        "app_slug": request.app_slug,
        "workspace_id": request.workspace_id,
        "workspace_slug": request.workspace_slug,
    }
    by, target = next((by, value) for by, value in targets.items() if value is not None)
    query = _facts_queries[request.email is not None, by]
    facts: MintFacts = query.first({"user": user, "target": target} | caller.reach(), connection)
    return facts


def _replace_token(
    caller: Caller,
    keyring: Keyring,
    request: MintRequest,
    facts: MintFacts,
    now: datetime,
    connection: Connection | None = None,
) -> Minted:
    """Store a new token in place of the old one, and record the event."""
    minted = Minted(new_id(), generate(TOKEN_PREFIX), facts.app_id, facts.app_slug, facts.workspace_id)
    pair = {"app_id": facts.app_id, "workspace_id": facts.workspace_id, "user_id": facts.user_id}
    token = {
        **pair,
        "id": minted.id,
        "client_id": caller.id,
        "digest": keyring.current.digest(minted.secret),
        "key_id": keyring.current.id,
        "last_four": minted.secret.reveal()[-LAST_SHOWN:],
        # Store the count that was checked: if the app has moved since, the token never opens.
        "moves": facts.app_moves if request.for_app else 0,
        "session_seconds": request.session_seconds,
        "attributes": request.attributes,
        "allowed_origins": request.allowed_origins,
        "single_use": request.single_use,
        "created_at": now,
        "expires_at": now + timedelta(seconds=request.pat_seconds),
    }
    event = events.build(events.TOKEN_MINTED, now, client_id=caller.id, token_id=minted.id, **pair)
    if request.end_sessions:
        event["details"] = {"ended_sessions": True}
    values = {f"new_{name}": value for name, value in token.items()}
    if not _store[request.for_app].run(values, event, within=connection):
        # The client was revoked after its authentication.
        raise InvalidClient().about(client_id=caller.id)
    return minted


def _end_sessions(connection: Connection, facts: MintFacts, now: datetime) -> None:
    live = (*in_pair(Session, facts.user_id, facts.app_id, facts.workspace_id), Session.ended_at.is_(None))
    # Every transaction locks several sessions in the order of their ids, to avoid a deadlock.
    connection.execute(select(Session.id).where(*live).order_by(Session.id).with_for_update()).all()
    connection.execute(update(Session).where(*live).values(ended_at=now))


# Statements, built once.


def _build_facts_query(user: ColumnElement[bool], by: str) -> Query:
    target: ColumnElement[str] = bindparam("target")
    conditions: dict[str, tuple[ColumnElement[bool], ColumnElement[bool]]] = {
        "app_id": (App.id == target, Workspace.id == App.workspace_id),
        "app_slug": (App.slug == target, Workspace.id == App.workspace_id),
        "workspace_id": (false(), Workspace.id == target),
        "workspace_slug": (false(), Workspace.slug == target),
    }
    app, workspace = conditions[by]
    statement = select(
        *FACTS,
        reaches_user(User.id).label("user_reached"),
        reaches_workspace(Workspace.id).label("workspace_reached"),
    )
    return Query(statement.select_from(join_facts(select(literal(1)).subquery("one"), app, user, workspace)))


#: The keys say whether an email names the user, and which field names the app or workspace.
_facts_queries = {
    (by_email, by): _build_facts_query((User.email if by_email else User.id) == bindparam("user"), by)
    for by_email in (True, False)
    for by in ("app_id", "app_slug", "workspace_id", "workspace_slug")
}

_CLEARED: Final = ("revoked_at", "first_used_at", "last_used_at", "repeat_by")
#: The columns that a new token replaces in the row of its user and app.
_REPLACED: Final = tuple(
    name
    for name in Token.__table__.c.keys()  # noqa: SIM118 - no dict: it iterates over columns
    if name not in ("app_id", "user_id", "superseded_digest", *_CLEARED)
)


def _build_upsert(insert: Callable[..., Any], for_app: bool) -> Any:
    # One statement, so concurrent mints for one user and app wait for each other.
    columns = Token.__table__.c
    new = {
        name: bindparam(f"new_{name}", type_=columns[name].type) for name in ("app_id", "user_id", *_REPLACED)
    }
    # The lock makes `clients.wait_for_mints` wait, but no other mint and no change of the client.
    live = (
        select(*new.values())
        .where(Client.id == new["client_id"], Client.revoked_at.is_(None))
        .with_for_update(of=Client, read=True, key_share=True)
    )
    statement = insert(Token).from_select(list(new), live)
    conflict: dict[str, Any] = {"index_elements": ["app_id", "user_id"]}
    if not for_app:
        conflict = {"index_elements": ["workspace_id", "user_id"], "index_where": Token.app_id.is_(None)}
    replaced = {name: statement.excluded[name] for name in _REPLACED}
    cleared = dict.fromkeys(_CLEARED)
    return statement.on_conflict_do_update(
        **conflict, set_=replaced | cleared | {"superseded_digest": Token.digest}
    )


_store = {
    for_app: Writes(
        {
            "sqlite": _build_upsert(sqlite.insert, for_app),
            "postgresql": _build_upsert(postgresql.insert, for_app),
        },
        events.ROW,
    )
    for for_app in (True, False)
}
