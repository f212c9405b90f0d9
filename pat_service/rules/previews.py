"""An operator looks at an app as a person.

A preview is a session, not a token: the operator gets a one-time code, as a launcher does. It lasts
`PREVIEW_LIFE` and cannot be renewed. Only the console may frame it. The access rules are the person's own at
each request, so a preview never shows what the person may not see.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, insert, literal, select

from pat_service.credentials import CODE_PREFIX, Keyring, Secret, generate
from pat_service.errors import AppForbidden, AppNotFound, InvalidPayload
from pat_service.rules import access, events
from pat_service.rules.access import FACTS, AccessFacts, ViewedApp, Viewer, join_facts
from pat_service.rules.callers import Caller, reaches_user, reaches_workspace
from pat_service.storage.database import transaction
from pat_service.storage.models import ROLES, App, Session, User, Workspace, new_id

PREVIEW_LIFE: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Preview:
    """What to look at. Without a role it is the person's own."""

    app_id: str
    user_id: str
    role: str | None
    attributes: dict[str, Any]


def open(
    keyring: Keyring, caller: Caller, preview: Preview, origin: str, now: datetime, *, own_host: bool
) -> tuple[Secret, Viewer]:
    """Open a preview, and return a one-time code for its frame, and its viewer.

    `origin` is the console's, `own_host` says that each app has a host. Raise AppNotFound if the caller does
    not reach app and person, AppForbidden if the person may not open the app, InvalidPayload for a role above
    the person's own, or the errors of `access.require_host`.
    """
    values = {"app": preview.app_id, "user": preview.user_id} | caller.reach()
    refusals = events.recording_refusals(events.CLIENT_REFUSED, now, client_id=caller.id)
    with refusals, transaction() as connection:
        # The session will reference the user. Lock them in the order of a deletion, to avoid a deadlock.
        connection.execute(_share_user, values)
        facts: AccessFacts | None = connection.execute(_facts, values).first()
        if facts is None:
            raise AppNotFound("No such app and person in your workspaces.")
        ids = {"app_id": facts.app_id, "user_id": facts.user_id, "workspace_id": facts.workspace_id}
        access.require_host(facts, own_host=own_host)
        if not access.may_open(facts):
            raise AppForbidden("This person may not open the app, so there is nothing to preview.").about(
                **ids
            )
        role = preview.role or facts.role
        if ROLES.index(role) < ROLES.index(facts.role):
            raise InvalidPayload({"role": [f"Must not be above the person's own role, {facts.role}."]})
        code, session_id = generate(CODE_PREFIX), new_id()
        session = ids | {
            "id": session_id,
            # No token opened it. The id matches none, so that no list finds a wrong one.
            "token_id": new_id(),
            "client_id": caller.id,
            "key_id": keyring.current.id,
            "moves": facts.app_moves,
            "attributes": preview.attributes or None,
            "allowed_origins": [origin],
            "created_at": now,
            "expires_at": now + PREVIEW_LIFE,
            "code_digest": keyring.current.digest(code),
            "preview_role": role,
        }
        connection.execute(insert(Session), session)
        details = {"role": role} | ({"attributes": sorted(preview.attributes)} if preview.attributes else {})
        events.record(
            connection,
            events.SESSION_PREVIEWED,
            now,
            client_id=caller.id,
            session_id=session_id,
            details=details,
            **ids,
        )
    return code, _build_viewer(facts, role, preview.attributes)


def _build_viewer(facts: AccessFacts, role: str, attributes: dict[str, Any]) -> Viewer:
    app = ViewedApp(facts.app_id, facts.app_slug, facts.app_name, facts.app_template, facts.app_upstream)
    user, workspace = access.build_user(facts), access.build_workspace(facts)
    return Viewer(user, workspace, role, attributes, app, preview=True)


_share_user = select(User.id).where(User.id == bindparam("user")).with_for_update(read=True, key_share=True)
_one = select(literal(1)).subquery("one")
_facts = (
    select(*FACTS)
    .select_from(
        join_facts(
            _one,
            App.id == bindparam("app"),
            User.id == bindparam("user"),
            Workspace.id == App.workspace_id,
        )
    )
    .where(
        reaches_workspace(App.workspace_id), reaches_user(User.id), App.id.is_not(None), User.id.is_not(None)
    )
)
