"""Sign in by a link that works once, or with the OpenID provider, and sign out."""

from typing import Final

from flask import Response, current_app, g, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from pat_service.console import browsers, openid
from pat_service.console.blueprint import (
    COOKIE,
    EVERYONE,
    CrossSiteRequest,
    allow,
    authenticate,
    blueprint,
    public,
)
from pat_service.console.pages import is_local_path, redirect_with, render, set_cookie
from pat_service.credentials import Secret
from pat_service.errors import NotFound, SessionNotFound
from pat_service.http import limits
from pat_service.http.authentication import keyring, utcnow
from pat_service.http.payload import MAX_BODY_BYTES, check_body
from pat_service.http.static_files import StaticFiles
from pat_service.rules import console_sessions, events
from pat_service.rules.console_sessions import LIFETIME, SignInRequired

#: What the answer of the OpenID provider must fit.
OPENID_COOKIE: Final = "__Host-pat-console-oidc"


@blueprint.get("/sign-in")
@public
def sign_in() -> Response:
    """Show how to sign in. The secret of a link is in the fragment, which only the page's script reads."""
    return render("sign_in.html", next=_next(), has_oidc=openid.provider() is not None)


@blueprint.post("/sign-in/link")
@public
def use_link() -> BaseResponse:
    """Use a link and open a session."""
    check_body(MAX_BODY_BYTES)
    limits.hit_sign_in()
    link, now = Secret(request.form.get("link", "")), utcnow()
    with events.recording_refusals(events.SIGN_IN_REFUSED, now):
        cookie = console_sessions.sign_in_by_link(keyring(), link, browsers.describe(), now)
    return enter(cookie, _next())


@blueprint.get("/sign-in/oidc")
@public
def start_openid() -> BaseResponse:
    """Lead to the OpenID provider."""
    _require_own_tab()
    limits.hit_sign_in()
    address, cookie = openid.start(_require_provider(), keyring(), _next())
    response = redirect(address, 303)
    set_cookie(response, OPENID_COOKIE, cookie, openid.LIFETIME_SECONDS)
    return response


@blueprint.get("/sign-in/oidc/callback")
@public
def finish_openid() -> BaseResponse:
    """Open a session for the person whom the OpenID provider has signed in."""
    _require_own_tab()
    limits.hit_sign_in()
    provider, now = _require_provider(), utcnow()
    with events.recording_refusals(events.SIGN_IN_REFUSED, now):
        identity, next_ = openid.finish(
            provider, keyring(), request.cookies.get(OPENID_COOKIE, ""), request.args.to_dict()
        )
        cookie = console_sessions.sign_in_by_identity(
            keyring(),
            identity.issuer,
            identity.subject,
            identity.email,
            browsers.describe(),
            now,
            may_create=identity.email is not None and provider.may_create(identity.email),
        )
    response = enter(cookie, next_)
    response.delete_cookie(OPENID_COOKIE, secure=True, httponly=True, samesite="Lax")
    return response


def _require_own_tab() -> None:
    """Raise CrossSiteRequest for an image or frame of a page, which could use up the address's attempts."""
    if request.headers.get("Sec-Fetch-Dest", "document") != "document":
        raise CrossSiteRequest


def _require_provider() -> openid.Provider:
    provider = openid.provider()
    if provider is None:
        raise NotFound
    return provider


def enter(cookie: Secret, next_: str) -> BaseResponse:
    """Return the answer after a sign-in. The session that the browser had before ends."""
    _end_present_session()
    response = redirect(next_ or "/", 303)
    set_cookie(response, COOKIE, cookie.reveal(), int(LIFETIME.total_seconds()))
    return response


def _end_present_session() -> None:
    try:
        session = authenticate()
        console_sessions.end(session.operator_id, [session.session_id], utcnow())
    except (SignInRequired, SessionNotFound):
        return


def _next() -> str:
    text = request.values.get("next", "")
    return text if is_local_path(text) else ""


@blueprint.post("/sign-out")
@allow(*EVERYONE)
def sign_out() -> BaseResponse:
    """End the session of this browser."""
    console_sessions.end(g.signed_in.operator_id, [g.signed_in.session_id], utcnow())
    response = redirect_with("You are signed out.", "sign_in")
    response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="Lax")
    return response


@blueprint.get("/static/console/<path:filename>")
@public
def asset(filename: str) -> Response:
    """Serve a file of the console, or a library."""
    files: StaticFiles = current_app.extensions["pat_service.console_files"]
    name = filename if filename.startswith("vendor/") else f"console/{filename}"
    return files.answer(name, None)
