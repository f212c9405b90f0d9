"""Authentication: a client with Basic credentials, or a frame with its session."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any, Final, TypeVar

from flask import current_app, g, request
from werkzeug.datastructures import Authorization

from pat_service.credentials import Keyring, Secret, redact
from pat_service.errors import InvalidClient, SessionInvalid
from pat_service.http import limits
from pat_service.http.payload import MAX_BODY_BYTES, Arguments, receive_body
from pat_service.rules import callers, events, minting
from pat_service.rules.clients import MIN_SECRET_LENGTH
from pat_service.rules.sessions import Opened
from pat_service.shapes import is_client_id

#: A proxy may pass on any text as the address, so longer texts are cut.
MAX_ADDRESS_CHARS: Final = 64

AnySession = TypeVar("AnySession", bound=Opened)
Checked = TypeVar("Checked")


def keyring() -> Keyring:
    ring: Keyring = current_app.extensions["pat_service.keyring"]
    return ring


def utcnow() -> datetime:
    return datetime.now(UTC)


def client_required(*scopes: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Allow only clients with one of these scopes to call a view, and set `g.caller`."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def called(*args: Any, **kwargs: Any) -> Any:
            receive_body(MAX_BODY_BYTES)
            caller = _authenticate(callers.authenticate)
            g.caller, g.client_id = caller, caller.id
            with events.recording_refusals(events.CLIENT_REFUSED, utcnow(), client_id=caller.id):
                caller.require(*scopes)
            return view(*args, **kwargs)

        # The OpenAPI document lists the scopes.
        called.scopes = scopes  # type: ignore[attr-defined]
        return called

    return decorate


def minting_client_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """Allow only clients that may mint to call a view, and set `g.caller`. The view also gets the facts.

    The order of checks is part of the contract: client, scope, the client's mint limit, then the body. The
    body has been read before, so that one query reads the client and the facts of its request.
    """

    @wraps(view)
    def called(body: Arguments) -> Any:
        caller, facts = _authenticate(partial(minting.authenticate, body.loaded))
        g.caller, g.client_id = caller, caller.id
        with events.recording_refusals(events.MINT_REFUSED, utcnow(), client_id=caller.id):
            caller.require(*minting.SCOPES)
            limits.hit_mint(caller)
        return view(body.get(), facts)

    called.scopes = minting.SCOPES  # type: ignore[attr-defined]
    return called


def _authorization() -> Authorization | None:
    try:
        return request.authorization
    except ValueError:
        # Werkzeug's parser fails on some non-ASCII headers.
        return None


def _authenticate(check: Callable[[Keyring, str, Secret, datetime], Checked]) -> Checked:
    """Return the result of `check` for the request's credentials. Raise InvalidClient."""
    sent = _authorization()
    try:
        if sent is None or sent.type != "basic" or not sent.username or not sent.password:
            raise InvalidClient
        return check(keyring(), sent.username, Secret(sent.password), utcnow())
    except InvalidClient as refusal:
        g.address = redact(limits.address())[:MAX_ADDRESS_CHARS]
        g.claimed_client = refusal.subject.get("client_id") or _claimed_client(sent)
        # Counted per address, so that the real client of this id keeps its quota.
        limits.hit_failure()
        raise


def _claimed_client(sent: Authorization | None) -> str | None:
    """Return an unknown client's id for the log. A longer text may be a secret that was sent as the id."""
    text = sent.username if sent is not None and sent.type == "basic" else None
    return redact(text) if text and len(text) < MIN_SECRET_LENGTH and is_client_id(text) else None


def bearer() -> str:
    """Return the request's Bearer token, unverified. Raise SessionInvalid without one."""
    sent = _authorization()
    if sent is None or sent.type != "bearer" or not sent.token:
        raise SessionInvalid("Send the session as a Bearer token.")
    return sent.token


def count_request(session: AnySession) -> AnySession:
    """Count a request of the session and return the session. Raise RateLimited beyond its limit."""
    g.session_id = session.id
    limits.hit("session", current_app.config["SESSION_RATE_LIMIT"], session.id)
    return session
