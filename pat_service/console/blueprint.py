"""The console's blueprint. Each request passes its guard: origin, session, CSRF token, role."""

import hmac
from collections.abc import Callable
from typing import Any, Final, TypeVar

from flask import Blueprint, current_app, g, request

from pat_service.credentials import redact
from pat_service.errors import Refused
from pat_service.http import console_host
from pat_service.http.authentication import keyring, utcnow
from pat_service.http.payload import MAX_BODY_BYTES, check_body, receive_body
from pat_service.rules import console_sessions, events
from pat_service.rules.console_sessions import SignedIn, SignInRequired
from pat_service.storage.models import OPERATOR_ROLES, OWNER, VIEWER

#: The prefix binds the cookie to this host, and browsers store it only from a secure origin (RFC 6265bis).
COOKIE: Final = "__Host-pat-console"
#: The name of a form's field.
CSRF_FIELD: Final = "csrf_token"
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
OWNERS: Final = (OWNER,)
CHANGERS: Final = tuple(role for role in OPERATOR_ROLES if role != VIEWER)
EVERYONE: Final = OPERATOR_ROLES

View = TypeVar("View", bound=Callable[..., Any])

blueprint: Final = Blueprint("console", __name__, subdomain=console_host.SUBDOMAIN)


class RoleMissing(Refused):
    status, code, title = 403, "role_missing", "Not for your role"
    detail = "Your role in the console does not allow this. Ask an owner."


class CrossSiteRequest(Refused):
    """A page of another site may have caused the request."""

    status, code, title = 403, "cross_site_request", "Not from this console"
    detail = "This request did not come from a page of this console. Reload the page and try again."


def allow(*roles: str) -> Callable[[View], View]:
    """Allow only operators with one of these roles to call the view.

    Without this, everyone may read a page, and viewers may change nothing.
    """

    def decorate(view: View) -> View:
        view.roles = roles  # type: ignore[attr-defined]
        return view

    return decorate


def public(view: View) -> View:
    """Let anyone call the view, without a session."""
    view.is_public = True  # type: ignore[attr-defined]
    return view


def roles_of(view: Callable[..., Any], method: str) -> tuple[str, ...]:
    """Return the roles that may call the view with this method."""
    default = EVERYONE if method in SAFE_METHODS else CHANGERS
    roles: tuple[str, ...] = getattr(view, "roles", default)
    return roles


def signed_in() -> SignedIn | None:
    """Return the session of the request, or None on a public page."""
    found: SignedIn | None = g.get("signed_in")
    return found


def csrf_token(session_id: str) -> str:
    """Return the token that forms of this session send."""
    return keyring().current.derive(f"console-csrf/{session_id}").hex()


@blueprint.before_request
def guard() -> None:
    view = current_app.view_functions[str(request.endpoint)]
    changes = request.method not in SAFE_METHODS
    if changes:
        receive_body(MAX_BODY_BYTES)
        _require_own_page()
    if getattr(view, "is_public", False):
        return
    session = authenticate()
    if changes:
        check_body(MAX_BODY_BYTES)
        _require_csrf_token(session.session_id)
    with events.recording_refusals(events.CLIENT_REFUSED, utcnow(), client_id=session.operator_id):
        if session.role not in roles_of(view, request.method):
            raise RoleMissing
    events.operator_id.set(session.operator_id)


@blueprint.teardown_request
def _forget_operator(_error: BaseException | None) -> None:
    events.operator_id.set(None)


def authenticate() -> SignedIn:
    """Return the session of the request's cookie, and set `g.caller`. Raise SignInRequired."""
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        raise SignInRequired
    session = console_sessions.authenticate(keyring(), cookie, utcnow())
    g.signed_in, g.caller, g.client_id = session, session.caller, redact(session.operator_id)
    return session


def _require_own_page() -> None:
    """Raise CrossSiteRequest unless the browser says that a page of the console sent the request."""
    # With `Referrer-Policy: no-referrer` browsers send `null` from the console too.
    origin = request.headers.get("Origin", "null")
    if request.headers.get("Sec-Fetch-Site") != "same-origin" or origin not in (
        "null",
        console_host.origin(),
    ):
        raise CrossSiteRequest


def _require_csrf_token(session_id: str) -> None:
    sent = request.form.get(CSRF_FIELD, "").encode()
    tokens = [key.derive(f"console-csrf/{session_id}").hex().encode() for key in keyring().keys]
    if not any(hmac.compare_digest(sent, token) for token in tokens):
        raise CrossSiteRequest
