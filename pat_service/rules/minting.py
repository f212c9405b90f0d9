"""Mint a token. Read from top to bottom, this is the policy of minting."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, false, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.elements import ColumnElement

from pat_service.credentials import TOKEN_PREFIX, Keyring, Secret, generate
from pat_service.errors import AppForbidden, AppNotFound, SlugUnfit, UserNotFound, WorkspaceNotFound
from pat_service.rules import callers, events
from pat_service.rules.access import FACTS, facts_of, may_open, may_visit
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.rules.provisioning_jit import NewUser, provision_user
from pat_service.shapes import is_dns_label, normalize_email
from pat_service.storage.database import AnyRow, UtcDateTime, transaction
from pat_service.storage.models import App, Session, Token, User, Workspace, new_id
from pat_service.storage.prepared import Query, Writes

SCOPES: Final = (callers.MINT, callers.MINT_WORKSPACE)
LAST_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class MintRequest:
    """What a mint asks for: one of `email` and `user_id`, and one name of an app or of a workspace."""

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
    #: The app is to be served on a host of its own, which its slug names.
    own_host: bool = False

    @property
    def for_app(self) -> bool:
        return self.app_id is not None or self.app_slug is not None


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token, and the only sight of its secret. Without an app it is for the workspace."""

    id: str
    secret: Secret
    app_id: str | None
    app_slug: str | None
    workspace_id: str


def mint(caller: Caller, keyring: Keyring, request: MintRequest, now: datetime) -> Minted:
    """Give the pair of user and app, or of user and workspace, a new token.

    The one it had stops opening frames at that instant. Frames that are open go on, unless the wish
    ends them. Raise ScopeMissing, UserNotFound, AppNotFound, WorkspaceNotFound, SlugUnfit or AppForbidden;
    what is outside the caller's workspaces is not there.
    """
    with events.recording_refusals(events.MINT_REFUSED, now, client_id=caller.id):
        _require_scopes(caller, request)
        try:
            return _mint(caller, keyring, request, now)
        except IntegrityError:
            # Deleted since it was looked up: look again, to say what.
            return _mint(caller, keyring, request, now)


def _mint(caller: Caller, keyring: Keyring, request: MintRequest, now: datetime) -> Minted:
    facts = _facts_of_request(caller, request) if request.new_user is None else None
    if facts is not None and not request.end_sessions:
        return _replace(caller, keyring, request, facts, now)
    with transaction() as connection:
        facts = facts or _facts_with_new_user(connection, caller, request, now)
        minted = _replace(caller, keyring, request, facts, now, connection)
        if request.end_sessions:
            named = {"pair_target": minted.app_id or minted.workspace_id, "pair_user": facts.user_id}
            # Held in the order of everybody who ends several, so that nobody waits in a circle.
            connection.execute(_hold_sessions[request.for_app], named).all()
            connection.execute(_end_sessions[request.for_app], named | {"now": now})
    return minted


def _require_scopes(caller: Caller, request: MintRequest) -> None:
    caller.require(callers.MINT if request.for_app else callers.MINT_WORKSPACE)
    if request.new_user is not None:
        caller.require(callers.PROVISION)
        caller.require_role(request.new_user.role)


def _facts_of_request(caller: Caller, request: MintRequest, connection: Connection | None = None) -> AnyRow:
    facts = _look_up(caller, request, connection)
    if facts.user_id is None or not facts.user_reached:
        raise UserNotFound
    _require_target(facts, request)
    if not (may_open if request.for_app else may_visit)(facts):
        detail = None if request.for_app else "The user is no active member of this workspace."
        raise AppForbidden(detail).about(
            user_id=facts.user_id, app_id=facts.app_id, workspace_id=facts.workspace_id
        )
    return facts


def _require_target(facts: AnyRow, request: MintRequest) -> None:
    missing = AppNotFound if request.for_app else WorkspaceNotFound
    if facts.workspace_id is None or not facts.workspace_reached:
        raise missing().about(user_id=facts.user_id if facts.user_reached else None)
    if request.own_host and request.for_app and not is_dns_label(facts.app_slug):
        raise SlugUnfit(facts.app_slug).about(app_id=facts.app_id, workspace_id=facts.workspace_id)


def _facts_with_new_user(
    connection: Connection, caller: Caller, request: MintRequest, now: datetime
) -> AnyRow:
    """Return the facts once the wish's user has what was missing, unless that would not help."""
    facts = _look_up(caller, request, connection)
    # Somebody who is named by id is there already, or is nobody.
    if request.email is None and (facts.user_id is None or not facts.user_reached):
        raise UserNotFound
    _require_target(facts, request)
    # As everybody does, the token before what it hangs on: or a deletion and this would wait in a circle.
    connection.execute(
        _hold_pair[request.for_app],
        {"pair_target": facts.app_id or facts.workspace_id, "pair_user": facts.user_id},
    )
    assert request.new_user is not None  # noqa: S101 - this is the way of a wish that has one
    provision_user(
        connection,
        request.new_user,
        email=request.email,
        user_id=facts.user_id,
        workspace_id=facts.workspace_id,
        app_id=facts.app_id,
        by=caller.id,
        now=now,
    )
    try:
        return _facts_of_request(caller, request, connection)
    except AppForbidden:
        # Whom the client did not know before this mint it does not get to know by its refusal.
        if facts.user_id is None or not facts.user_reached:
            raise AppForbidden().about(app_id=facts.app_id, workspace_id=facts.workspace_id) from None
        # What else was missing has been made.
        raise AppForbidden("The user is archived, and a mint changes no status.").about(
            user_id=facts.user_id, app_id=facts.app_id, workspace_id=facts.workspace_id
        ) from None


def _look_up(caller: Caller, request: MintRequest, connection: Connection | None) -> AnyRow:
    user = normalize_email(request.email) if request.email is not None else request.user_id
    named = {
        "app_id": request.app_id,
        "app_slug": request.app_slug,
        "workspace_id": request.workspace_id,
        "workspace_slug": request.workspace_slug,
    }
    by, target = next((by, value) for by, value in named.items() if value is not None)
    query = _facts_queries[request.email is not None, by]
    facts: AnyRow = query.first({"user": user, "target": target} | caller.reach(), connection)
    return facts


def _replace(
    caller: Caller,
    keyring: Keyring,
    request: MintRequest,
    facts: AnyRow,
    now: datetime,
    connection: Connection | None = None,
) -> Minted:
    """Put the pair's new token in place of the one it had, and tell the trail."""
    minted = Minted(new_id(), generate(TOKEN_PREFIX), facts.app_id, facts.app_slug, facts.workspace_id)
    pair = {"app_id": facts.app_id, "workspace_id": facts.workspace_id, "user_id": facts.user_id}
    token = {
        **pair,
        "id": minted.id,
        "client_id": caller.id,
        "digest": keyring.current.digest(minted.secret),
        "key_id": keyring.current.id,
        "last_four": minted.secret.reveal()[-LAST_SHOWN:],
        # As read with the verdict: a move in between leaves a token that never opens.
        "moves": facts.app_moves if request.for_app else 0,
        "session_seconds": request.session_seconds,
        "attributes": request.attributes,
        "allowed_origins": request.allowed_origins,
        "single_use": request.single_use,
        "created_at": now,
        "expires_at": now + timedelta(seconds=request.pat_seconds),
    }
    told = events.row(events.TOKEN_MINTED, now, client_id=caller.id, token_id=minted.id, **pair)
    if request.end_sessions:
        told["details"] = {"ended_sessions": True}
    _store[request.for_app].run(
        {f"new_{name}": value for name, value in token.items()}, told, within=connection
    )
    return minted


# Statements, built once.


def _facts_query(user: ColumnElement[bool], by: str) -> Query:
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
    return Query(statement.select_from(facts_of(select(literal(1)).subquery("one"), app, user, workspace)))


#: By whether the user is named by email, and what names the app or workspace.
_facts_queries = {
    (by_email, by): _facts_query((User.email if by_email else User.id) == bindparam("user"), by)
    for by_email in (True, False)
    for by in ("app_id", "app_slug", "workspace_id", "workspace_slug")
}

#: Of a token's row, what the pair is not, and a new token brings.
_BROUGHT: Final = (
    "id",
    "workspace_id",
    "client_id",
    "digest",
    "key_id",
    "last_four",
    "moves",
    "session_seconds",
    "attributes",
    "allowed_origins",
    "single_use",
    "created_at",
    "expires_at",
)


def _upsert(insert: Callable[..., Any], for_app: bool) -> Any:
    # One statement, so that racing mints of a pair follow each other instead of tripping its index.
    columns = Token.__table__.c
    new = {
        name: bindparam(f"new_{name}", type_=columns[name].type) for name in ("app_id", "user_id", *_BROUGHT)
    }
    statement = insert(Token).values(new)
    unused = {"revoked_at": None, "first_used_at": None, "last_used_at": None}
    pair: dict[str, Any] = {"index_elements": ["app_id", "user_id"]}
    if not for_app:
        pair = {"index_elements": ["workspace_id", "user_id"], "index_where": Token.app_id.is_(None)}
    brought = {name: statement.excluded[name] for name in _BROUGHT}
    return statement.on_conflict_do_update(
        **pair, set_=brought | unused | {"superseded_digest": Token.digest}
    )


_store = {
    for_app: Writes(
        {"sqlite": _upsert(sqlite.insert, for_app), "postgresql": _upsert(postgresql.insert, for_app)},
        events.ROW,
    )
    for for_app in (True, False)
}


def _of_pair(table: type[Token | Session], for_app: bool) -> ColumnElement[bool]:
    target: ColumnElement[str] = bindparam("pair_target")
    place = table.app_id == target if for_app else and_(table.app_id.is_(None), table.workspace_id == target)
    return and_(place, table.user_id == bindparam("pair_user"))


_hold_pair = {
    for_app: select(Token.id).where(_of_pair(Token, for_app)).with_for_update() for for_app in (True, False)
}
_hold_sessions = {
    for_app: select(Session.id)
    .where(_of_pair(Session, for_app), Session.ended_at.is_(None))
    .order_by(Session.id)
    .with_for_update()
    for for_app in (True, False)
}
_end_sessions = {
    for_app: update(Session)
    .where(_of_pair(Session, for_app), Session.ended_at.is_(None))
    .values(ended_at=bindparam("now", type_=UtcDateTime))
    for for_app in (True, False)
}
