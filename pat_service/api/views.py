"""Views that mint a token, and open a session with one."""

from functools import partial
from typing import Any

from flask import g

from pat_service import metrics
from pat_service.api.blueprint import blueprint, problems
from pat_service.api.examples import MINT_EXAMPLES, MINTED_EXAMPLES
from pat_service.api.schemas import (
    MintAnswerSchema,
    MintRequestSchema,
    SessionAnswerSchema,
    SessionRequestSchema,
)
from pat_service.credentials import parse_token
from pat_service.http import limits, opening
from pat_service.http.authentication import keyring, minting_client_required, utcnow
from pat_service.http.public_url import app_url, frame_url, launcher_url
from pat_service.rules import minting
from pat_service.rules.access import Place
from pat_service.rules.minting import Minted, MintFacts, MintRequest
from pat_service.rules.openings import Attempt, Framing, Ready
from pat_service.rules.sessions import OpenSession


# The contract fixes the order of checks, from top to bottom:
@blueprint.route("/users/personal-access-token", methods=["POST"])  # 405 method
@blueprint.arguments(MintRequestSchema, deferred=True, examples=MINT_EXAMPLES)
@minting_client_required  # 401 client, 403 scope, 429 the client's rate, 413 size, 415 type, 400 payload
@blueprint.response(201, MintAnswerSchema, examples=MINTED_EXAMPLES)
@problems(404, 409)
def mint(request: MintRequest, facts: MintFacts | None) -> dict[str, Any]:
    """Mint a token for a user and an app, or all apps of a workspace. The new token replaces the former
    one."""
    # 403 scope of the target, 429 the user's rate, 404 user, 404 app or workspace,
    # 409 the app's slug (with `{app}` in PUBLIC_URL), 403 access
    count_user = partial(limits.hit_user_mint, g.caller)
    minted = minting.mint(g.caller, keyring(), request, utcnow(), count_user=count_user, facts=facts)
    metrics.MINTS.inc()
    if minted.app_id:
        g.app_id = minted.app_id
    return {
        "personal_access_token": minted.secret.reveal(),
        "redirect_url": _redirect_url(minted),
        "token_id": minted.id,
        "expires_in": request.pat_seconds,
        "session_expires_in": request.session_seconds,
        **({"single_use": True} if request.single_use else {}),
    }


def _redirect_url(minted: Minted) -> str:
    if minted.app_id is None or minted.app_slug is None:
        return launcher_url(minted.workspace_id, minted.secret)
    origin = app_url(minted.app_slug, tag=minted.viewer_tag, own_url=minted.apps_url)
    return frame_url(minted.app_id, origin, minted.secret)


@blueprint.route("/users/session", methods=["POST"])
@blueprint.arguments(SessionRequestSchema)
@blueprint.response(201, SessionAnswerSchema)
def open_session(request: dict[str, Any]) -> dict[str, Any]:
    """Open a session for a program, with a token, as a frame does."""
    token, parent = parse_token(request["access_token"]), request["parent_origin"]
    framing = None if parent is None else Framing(parent)
    return opening.open_session(token, Attempt(Place(app_id=request["app_id"]), framing=framing), _describe)


def _describe(ready: Ready) -> dict[str, Any]:
    session = ready.session
    assert isinstance(session, OpenSession) and ready.signed  # noqa: S101, PT018 - a program opens an app at once
    g.session_id = session.id
    g.app_id = session.viewer.app.id
    return {
        "signed_pat": ready.signed.reveal(),
        "session": {"id": session.id, "expires_in": session.expires_in},
        "user": session.viewer.user,
        "app": session.viewer.app,
    }
