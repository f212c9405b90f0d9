"""Mint a token for a user and an app, or for a user and a workspace.

`mint` checks in this order: scopes, the user's rate, user, app or workspace, slug, access. It checks the
app's slug only if PUBLIC_URL contains `{app}`. A slug that cannot be part of a host name is a conflict.
Before `mint`, `http` and `api` check the client, its rate, and the body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, Protocol

from sqlalchemy import Connection, bindparam, case, false, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from pat_service.credentials import TOKEN_PREFIX, Keyring, Secret, generate
from pat_service.errors import (
    AppForbidden,
    AppNotFound,
    Conflict,
    InvalidClient,
    UserNotFound,
    WorkspaceNotFound,
)
from pat_service.rules import callers, events
from pat_service.rules.access import DECIDING, DecidingFacts, join_facts, may_open, may_visit, require_host
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.rules.directory.changes import Change
from pat_service.rules.provisioning_jit import NewUser, provision_user
from pat_service.rules.tokens import in_pair
from pat_service.shapes import normalize_email
from pat_service.storage.database import transaction
from pat_service.storage.models import App, Client, Session, Token, User, Workspace, new_id
from pat_service.storage.prepared import Query, Writes

SCOPES: Final = (callers.MINT, callers.MINT_WORKSPACE)
LAST_SHOWN: Final = 4
#: The fields of `MintRequest` that can name an app or a workspace.
_TARGETS: Final = ("app_id", "app_slug", "workspace_id", "workspace_slug")


@dataclass(frozen=True, slots=True)
class MintRequest:
    """The options of a mint. They name a user by `email` or `user_id`, and one app or one workspace."""

    pat_seconds: int
    session_seconds: int
    email: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    app_slug: str | None = None
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
    def user(self) -> str | None:
        """The email or id of the user. All spellings of an email are one text."""
        return self.user_id if self.email is None else normalize_email(self.email)

    @property
    def target(self) -> tuple[str, str]:
        """The field that names the app or workspace, and its value."""
        return next((name, value) for name in _TARGETS if (value := getattr(self, name)) is not None)

    @property
    def for_app(self) -> bool:
        return self.app_id is not None or self.app_slug is not None


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token with its secret, which is not stored. Without an app it is for the workspace.

    `viewer_tag` is that of the viewer's host at an upstream app. `apps_url` is the workspace's own address.
    """

    id: str
    secret: Secret
    app_id: str | None
    app_slug: str | None
    workspace_id: str
    viewer_tag: str | None
    apps_url: str | None


class MintFacts(DecidingFacts, Protocol):
    """The facts of a mint, and whether the caller reaches the user and the workspace."""

    user_reached: bool
    workspace_reached: bool


def authenticate(
    request: MintRequest | None, keyring: Keyring, client_id: str, secret: Secret, now: datetime
) -> tuple[Caller, MintFacts | None]:
    """Return the caller, and the facts of the request if the same query can read them.

    It queries no user or app unless the secret is right, so its time tells nothing about them. Raise
    InvalidClient.
    """
    # A mint that provisions reads the facts in its transaction.
    if request is None or request.new_user is not None:
        return callers.authenticate(keyring, client_id, secret, now), None
    query, values = _facts_query(request, with_client=True)
    caller, row = callers.authenticate_by(query, values, keyring, client_id, secret, now)
    # The query has compared the secret's digest under the current key only.
    return caller, row if row.key_id == keyring.current.id else None


def mint(
    caller: Caller,
    keyring: Keyring,
    request: MintRequest,
    now: datetime,
    *,
    count_user: Callable[[str], None],
    facts: MintFacts | None = None,
) -> Minted:
    """Replace the token of the user and app, or of the user and workspace, with a new one.

    `facts` are those that `authenticate` has read. `count_user` counts a mint for the named user, and raises
    RateLimited beyond the limit.

    The old token stops opening frames at once. Open frames continue, unless `end_sessions` is set. Raise
    ScopeMissing, UserNotFound, AppNotFound, WorkspaceNotFound, SlugUnfit, AppForbidden or InvalidClient. A
    user, app or workspace outside the caller's workspaces counts as not found.
    """
    with events.recording_refusals(events.MINT_REFUSED, now, client_id=caller.id):
        _require_scopes(caller, request)
        count_user(f"{'email' if request.email is not None else 'id'}:{request.user}")
        try:
            return _mint(caller, keyring, request, now, facts)
        except IntegrityError:
            # A row was deleted after the check, so check again to raise the right error.
            return _mint(caller, keyring, request, now, None)


def _mint(
    caller: Caller, keyring: Keyring, request: MintRequest, now: datetime, facts: MintFacts | None
) -> Minted:
    if request.new_user is None:
        facts = _require_access(facts or _query_facts(caller, request), request)
        if not request.end_sessions:
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


def _require_access(facts: MintFacts, request: MintRequest) -> MintFacts:
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
    if request.for_app:
        try:
            require_host(facts, own_host=request.own_host)
        except Conflict as refusal:
            raise refusal.about(app_id=facts.app_id, workspace_id=facts.workspace_id) from None


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
        return _require_access(_query_facts(caller, request, connection), request)
    except AppForbidden:
        # Don't reveal that the user exists if the client couldn't see them before.
        if facts.user_id is None or not facts.user_reached:
            raise AppForbidden().about(app_id=facts.app_id, workspace_id=facts.workspace_id) from None
        # The membership and the grant exist now, so only the status can be missing.
        raise AppForbidden("The user is archived, and a mint changes no status.").about(
            user_id=facts.user_id, app_id=facts.app_id, workspace_id=facts.workspace_id
        ) from None


def _query_facts(caller: Caller, request: MintRequest, connection: Connection | None = None) -> MintFacts:
    query, values = _facts_query(request)
    facts: MintFacts = query.first(values | caller.reach(), connection)
    return facts


def _facts_query(request: MintRequest, *, with_client: bool = False) -> tuple[Query, dict[str, Any]]:
    """Return the query for the names that the request uses, and its values."""
    by, target = request.target
    query = _build_facts_query(request.email is not None, by, with_client=with_client)
    return query, {"user": request.user, "target": target}


def _replace_token(
    caller: Caller,
    keyring: Keyring,
    request: MintRequest,
    facts: MintFacts,
    now: datetime,
    connection: Connection | None = None,
) -> Minted:
    """Store a new token in place of the old one, and record the event."""
    tag = None
    if facts.app_upstream is not None:
        tag = keyring.current.viewer_tag(facts.app_id, facts.user_id, request.attributes)
    minted = Minted(
        new_id(),
        generate(TOKEN_PREFIX),
        facts.app_id,
        facts.app_slug,
        facts.workspace_id,
        tag,
        facts.workspace_apps_url,
    )
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


@cache
def _build_facts_query(by_email: bool, by: str, *, with_client: bool) -> Query:
    """Return the query for a user (by email or id), and for an app or workspace by the field `by`."""
    user: ColumnElement[Any] = bindparam("user")
    target: ColumnElement[Any] = bindparam("target")
    if with_client:
        # The names are null without the right secret, so neither the answer nor its time depends on them.
        user, target = case((callers.IS_PRESENTED, user)), case((callers.IS_PRESENTED, target))
    conditions: dict[str, tuple[ColumnElement[bool], ColumnElement[bool]]] = {
        "app_id": (App.id == target, Workspace.id == App.workspace_id),
        "app_slug": (App.slug == target, Workspace.id == App.workspace_id),
        "workspace_id": (false(), Workspace.id == target),
        "workspace_slug": (false(), Workspace.slug == target),
    }
    app, workspace = conditions[by]
    reach = (Client.id, Client.all_workspaces) if with_client else ()
    facts = (
        *DECIDING,
        reaches_user(User.id, *reach).label("user_reached"),
        reaches_workspace(Workspace.id, *reach).label("workspace_reached"),
    )
    source = callers.SECRETS if with_client else select(literal(1)).subquery("one")
    joined = join_facts(source, app, (User.email if by_email else User.id) == user, workspace)
    if with_client:
        return Query(select(*callers.COLUMNS, *facts).select_from(joined).where(callers.IS_LIVE))
    return Query(select(*facts).select_from(joined))


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
