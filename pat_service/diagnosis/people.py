"""Checks of a user at an app or launcher: access, tokens and sessions."""

from collections.abc import Sequence
from datetime import datetime
from shlex import quote
from typing import Final

from sqlalchemy import bindparam, false, func, literal, or_, select
from sqlalchemy.sql.elements import BindParameter

from pat_service.credentials import Keyring
from pat_service.diagnosis.origins import Parent, Target, allows, explain_mismatch
from pat_service.errors import AccessRevoked
from pat_service.findings import Finding, at_most_warning, ok, problem, warning
from pat_service.rules.access import (
    FACTS,
    join_facts,
    may_open,
    may_visit,
    narrow_origins,
    require_viewer,
    require_visitor,
)
from pat_service.rules.openings import CODE_LIFE
from pat_service.rules.tokens import is_used
from pat_service.storage.database import AnyRow, reading
from pat_service.storage.models import (
    ACTIVE,
    ARCHIVED,
    COUNTED_SESSION,
    LEAST_ROLE,
    LIVE_SESSION,
    App,
    Session,
    Token,
    User,
    Workspace,
)

ACCESS: Final = "access"
TOKEN: Final = "token"
SESSIONS: Final = "sessions"
MINT_AGAIN: Final = "Mint again; the portal's back end mints for each opening."


def check_access(email: str, user_id: str, target: Target) -> list[Finding]:
    """Check whether the user may open the target, and what is missing."""
    with reading() as connection:
        facts = connection.execute(_facts[target.kind], {"user": user_id, "target": target.id}).one()
    if (may_open if target.kind == "app" else may_visit)(facts):
        return [
            ok(ACCESS, f"{email} may open {target}, as {facts.role} of workspace {facts.workspace_slug}.")
        ]
    found = []
    if facts.user_status != ACTIVE:
        found.append(
            problem(
                ACCESS,
                f"{email} is archived in the whole installation.",
                f"flask --app app user activate {quote(email)}",
            )
        )
    if facts.status_in_workspace == ARCHIVED:
        found.append(
            problem(
                ACCESS,
                f"{email} is archived in workspace {facts.workspace_slug}.",
                f"flask --app app user activate {quote(email)} --workspace {facts.workspace_slug}",
            )
        )
    if facts.role is None:
        found.append(
            problem(
                ACCESS,
                f"{email} is not a member of workspace {facts.workspace_slug}.",
                f"flask --app app member add {quote(email)} {facts.workspace_slug} --role {LEAST_ROLE}",
            )
        )
    if target.kind == "app" and facts.granted is None:
        moved = " (a move of the app drops its grants)" if facts.app_moved_from else ""
        found.append(
            problem(
                ACCESS,
                f"{email} has no grant of {target}{moved}.",
                f"flask --app app grant add {quote(email)} {target.slug}",
            )
        )
    return found


def check_tokens(
    keyring: Keyring,
    user_id: str,
    target: Target,
    parents: Sequence[Parent],
    now: datetime,
    max_sessions: int | None,
    *,
    admitted: bool,
) -> list[Finding]:
    """Check the user's tokens for the target: for the app, and for its workspace.

    `admitted`: whether the user may open it now. Without access, sessions stay open but their requests are
    refused.
    """
    values = {"user": user_id, "target": target.id, "now": now, "code_since": now - CODE_LIFE}
    with reading() as connection:
        rows = connection.execute(_tokens[target.kind], values).all()
        (sessions,) = connection.execute(_sessions[target.kind], values).one()
    found = [ok(SESSIONS, f"The user has {sessions} open frame(s) here.")]
    if sessions and not admitted:
        found = [
            ok(SESSIONS, f"The user has {sessions} session(s) here, which are refused until access is back.")
        ]
    for row in rows:
        of_row = [
            _check_token(keyring, row, target, now),
            *_check_narrowing(row, target, parents),
            *_check_session_count(row, max_sessions),
        ]
        # The app's own frame does not need the workspace token.
        own = row.target_app is not None or target.kind == "workspace"
        found += of_row if own else map(at_most_warning, of_row)
    if not rows:
        found.append(
            warning(TOKEN, f"There is no token for {target}: none was minted, or it was purged.", MINT_AGAIN)
        )
    return found


def _check_token(keyring: Keyring, row: AnyRow, target: Target, now: datetime) -> Finding:
    """Check the token by the rules of an opening, in their order.

    An expired token is fine, since the next opening mints a new one.
    """
    kind = "token" if row.target_app else "workspace token"
    name = f"The {kind} that client {row.client_id} minted at {_format(row.created_at)}"
    expired = row.expires_at <= now
    if keyring.get(row.key_id) is None and not expired:
        change = "Mint again, or add that key to SECRET_KEY_FALLBACKS."
        return problem(TOKEN, f"{name} uses a key that is not configured, so it is invalid.", change)
    if row.revoked_at is not None:
        return problem(TOKEN, f"{name} was revoked at {_format(row.revoked_at)}.", MINT_AGAIN)
    if expired:
        return ok(TOKEN, f"{name} expired at {_format(row.expires_at)}; the next mint replaces it.")
    if is_used(row, now, row.repeat_by):
        text = f"{name} was for single use, and was used at {_format(row.first_used_at)}."
        return warning(TOKEN, text, MINT_AGAIN)
    try:
        (require_viewer if target.kind == "app" else require_visitor)(row)
    except AccessRevoked:
        if row.target_app is not None and row.moves != row.app_moves:
            text = f"{name} ended for good when the app moved to another workspace."
            return problem(TOKEN, text, MINT_AGAIN)
        text = f"{name} opens nothing until the user has access again."
        return problem(TOKEN, text, "Follow the findings about access.")
    last = f"last used {_format(row.last_used_at)}" if row.last_used_at else "not used yet"
    return ok(
        TOKEN, f"{name} opens frames until {_format(row.expires_at)}: {last}. Older ones are superseded."
    )


def _check_narrowing(row: AnyRow, target: Target, parents: Sequence[Parent]) -> list[Finding]:
    """Find parents that the target allows but the token's own origins do not."""
    left = narrow_origins(list(target.origins), row.allowed_origins)
    return [
        problem(
            TOKEN,
            f"The token was minted for fewer origins, without {parent.origin}: "
            f"{explain_mismatch(parent.origin, left)}",
            "Mint with every parent of the frame in allowedOrigins, or without allowedOrigins.",
        )
        for parent in parents
        if parent.origin and allows(target.origins, parent.origin) and not allows(left, parent.origin)
    ]


def _check_session_count(row: AnyRow, max_sessions: int | None) -> list[Finding]:
    """Check whether the token has reached its maximum of sessions."""
    if max_sessions is None or row.live_sessions < max_sessions:
        return []
    return [
        problem(
            SESSIONS,
            f"{row.live_sessions} sessions of this token are open. MAX_SESSIONS_PER_TOKEN is "
            f"{max_sessions}, so it opens no more.",
            f"flask --app app session end --user {row.user_email}; or raise MAX_SESSIONS_PER_TOKEN.",
        )
    ]


def _format(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


# Statements, built once.

_user: BindParameter[str] = bindparam("user")
_target: BindParameter[str] = bindparam("target")
_one = select(literal(1)).subquery("one")
_facts = {
    "app": select(*FACTS).select_from(
        join_facts(_one, App.id == _target, User.id == _user, Workspace.id == App.workspace_id)
    ),
    "workspace": select(*FACTS).select_from(
        join_facts(_one, false(), User.id == _user, Workspace.id == _target)
    ),
}
_of_token = select(func.count()).select_from(Session).where(Session.token_id == Token.id, *COUNTED_SESSION)
_columns = (
    *FACTS,
    Token.client_id,
    Token.app_id.label("target_app"),
    Token.key_id,
    Token.moves,
    Token.attributes,
    Token.allowed_origins,
    Token.single_use,
    Token.created_at,
    Token.first_used_at,
    Token.repeat_by,
    Token.last_used_at,
    Token.expires_at,
    Token.revoked_at,
    _of_token.scalar_subquery().label("live_sessions"),
)
_token = Token.__table__
_home = select(App.workspace_id).where(App.id == _target).scalar_subquery()
_tokens = {
    # Workspace tokens count only for the app's present workspace.
    "app": select(*_columns)
    .select_from(
        join_facts(_token, App.id == _target, User.id == Token.user_id, Workspace.id == Token.workspace_id)
    )
    .where(
        Token.user_id == _user,
        or_(Token.app_id == _target, Token.app_id.is_(None) & (Token.workspace_id == _home)),
    )
    .order_by(Token.app_id.is_(None)),
    "workspace": select(*_columns)
    .select_from(join_facts(_token, false(), User.id == Token.user_id, Workspace.id == Token.workspace_id))
    .where(Token.user_id == _user, Token.app_id.is_(None), Token.workspace_id == _target),
}
_counted = select(func.count()).select_from(Session).where(Session.user_id == _user, *LIVE_SESSION)
_sessions = {
    "app": _counted.where(Session.app_id == _target),
    "workspace": _counted.where(Session.app_id.is_(None), Session.workspace_id == _target),
}
