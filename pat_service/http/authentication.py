"""Who sends this request: a client with Basic credentials, or a frame with its session."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, TypeVar

from flask import current_app, g, request
from werkzeug.datastructures import Authorization

from pat_service.credentials import Keyring, Secret
from pat_service.errors import InvalidClient, Refused, SessionInvalid
from pat_service.http import limits
from pat_service.http.payload import MAX_BODY, receive
from pat_service.rules import callers, events
from pat_service.rules.callers import Caller
from pat_service.rules.sessions import Opened

AnySession = TypeVar("AnySession", bound=Opened)


def keyring() -> Keyring:
    found: Keyring = current_app.extensions["pat_service.keyring"]
    return found


def utcnow() -> datetime:
    return datetime.now(UTC)


def client_required(
    *scopes: str, minting: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a view be called by clients with one of these scopes; `g.caller` is the one who called.

    The order is the contract's: who, then whether, then, of mints, how often; the body is looked at
    after that.
    """

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def called(*args: Any, **kwargs: Any) -> Any:
            receive(MAX_BODY)
            g.caller = caller = _caller()
            try:
                caller.require(*scopes)
                if minting:
                    limits.hit("mint", caller.mint_limit or current_app.config["MINT_RATE_LIMIT"], caller.id)
            except Refused as refusal:
                kind = events.MINT_REFUSED if minting else events.CLIENT_REFUSED
                events.refused(kind, refusal, utcnow(), client_id=caller.id)
                raise
            return view(*args, **kwargs)

        # For the API's document.
        called.scopes = scopes  # type: ignore[attr-defined]
        return called

    return decorate


def _authorization() -> Authorization | None:
    try:
        return request.authorization
    except ValueError:
        # The parser takes some non-ASCII headers apart and others not.
        return None


def _caller() -> Caller:
    sent = _authorization()
    try:
        if sent is None or sent.type != "basic" or not sent.username or not sent.password:
            raise InvalidClient
        caller = callers.authenticate(keyring(), sent.username, Secret(sent.password), utcnow())
    except InvalidClient:
        # Counted by address alone: the client whose name was claimed keeps its quota.
        limits.hit_failure()
        raise
    g.client_id = caller.id
    return caller


def bearer() -> str:
    """Return the session that the request carries as a Bearer token, good or not; or raise SessionInvalid."""
    sent = _authorization()
    if sent is None or sent.type != "bearer" or not sent.token:
        raise SessionInvalid("Send the session as a Bearer token.")
    return sent.token


def counted(session: AnySession) -> AnySession:
    """Return the session, within the limit of its requests; or raise RateLimited."""
    g.session_id = session.id
    limits.hit("session", current_app.config["SESSION_RATE_LIMIT"], session.id)
    return session
