"""Views of tokens, sessions and introspection."""

from typing import Any

from flask import g

from pat_service import credentials
from pat_service.api.blueprint import blueprint, problems
from pat_service.api.fields import page_of
from pat_service.api.token_admin_schemas import (
    EndedAnswerSchema,
    IntrospectAnswerSchema,
    IntrospectRequestSchema,
    RevokedAnswerSchema,
    SessionFiltersSchema,
    SessionItemSchema,
    SessionsRequestSchema,
    TokenFiltersSchema,
    TokenItemSchema,
    TokensRequestSchema,
)
from pat_service.http.authentication import client_required, keyring, utcnow
from pat_service.rules import callers, introspection, token_admin
from pat_service.rules.access import Viewer
from pat_service.rules.token_admin import TokenFilter
from pat_service.storage.paging import Listing


@blueprint.route("/personal-access-tokens", methods=["GET"])
@client_required(*token_admin.READERS)
@blueprint.arguments(TokensRequestSchema, location="query")
@blueprint.response(200, page_of(TokenItemSchema))
def list_tokens(query: dict[str, Any]) -> Listing:
    """List tokens.

    A client sees the tokens that it minted. With the scope `audit` or `provision` it sees all tokens in its
    workspaces.
    """
    return token_admin.list_tokens(
        g.caller, query["token_filter"], query["page_request"], utcnow(), live=query.get("live")
    )


@blueprint.route("/personal-access-tokens/<id:token_id>", methods=["GET"])
@client_required(*token_admin.READERS)
@blueprint.response(200, TokenItemSchema)
@problems(404)
def read_token(token_id: str) -> Any:
    """Read a token's user, app or workspace, and status. The answer never has the token itself."""
    return token_admin.read_token(g.caller, token_id, utcnow())


@blueprint.route("/personal-access-tokens/<id:token_id>", methods=["DELETE"])
@client_required(*token_admin.ENDERS)
@blueprint.response(204)
@problems(404)
def revoke_token(token_id: str) -> None:
    """Revoke a token, and end every open session of its user and app. Repeating it changes nothing."""
    token_admin.revoke_token(g.caller, token_id, utcnow())


@blueprint.route("/personal-access-tokens", methods=["DELETE"])
@client_required(*token_admin.ENDERS)
@blueprint.arguments(TokenFiltersSchema, location="query")
@blueprint.response(200, RevokedAnswerSchema)
def revoke_tokens(token_filter: TokenFilter) -> dict[str, int]:
    """Revoke the tokens of an app, a user, a workspace or a client, and end their sessions.

    A client without the scope `provision` revokes only tokens that it minted.
    """
    revoked = token_admin.revoke_tokens(g.caller, token_filter, utcnow())
    return {"revoked": revoked.tokens, "ended_sessions": revoked.sessions}


@blueprint.route("/sessions", methods=["GET"])
@client_required(*token_admin.READERS)
@blueprint.arguments(SessionsRequestSchema, location="query")
@blueprint.response(200, page_of(SessionItemSchema))
def list_sessions(query: dict[str, Any]) -> Listing:
    """List live sessions.

    A client sees the sessions of the tokens that it minted. With the scope `audit` or `provision` it sees all
    in its workspaces.
    """
    return token_admin.list_sessions(g.caller, query["token_filter"], query["page_request"], utcnow())


@blueprint.route("/sessions/<id:session_id>", methods=["GET"])
@client_required(*token_admin.READERS)
@blueprint.response(200, SessionItemSchema)
@problems(404)
def read_session(session_id: str) -> Any:
    """Read a session, live or not."""
    return token_admin.read_session(g.caller, session_id)


@blueprint.route("/sessions/<id:session_id>", methods=["DELETE"])
@client_required(*token_admin.ENDERS)
@blueprint.response(204)
@problems(404)
def end_session(session_id: str) -> None:
    """End a session. Its next request is refused. Repeating it changes nothing."""
    token_admin.end_session(g.caller, session_id, utcnow())


@blueprint.route("/sessions", methods=["DELETE"])
@client_required(*token_admin.ENDERS)
@blueprint.arguments(SessionFiltersSchema, location="query")
@blueprint.response(200, EndedAnswerSchema)
def end_sessions(token_filter: TokenFilter) -> dict[str, int]:
    """End the sessions of an app, a user, a workspace, a client or a token. The tokens stay valid.

    A client without the scope `provision` ends only sessions of tokens that it minted.
    """
    return {"ended": token_admin.end_sessions(g.caller, token_filter, utcnow())}


@blueprint.route("/introspect", methods=["POST"])
@client_required(*callers.SCOPES)
@blueprint.arguments(IntrospectRequestSchema, location="json_or_form")
@blueprint.response(200, IntrospectAnswerSchema)
@blueprint.doc(requestBody={"content": {"application/json": {"schema": IntrospectRequestSchema}}})
def introspect(request: dict[str, str]) -> dict[str, Any]:
    """Return whether a token or session is active now, and its user (RFC 7662)."""
    found = introspection.introspect(g.caller, keyring(), request["token"], utcnow())
    if found is None:
        return {"active": False}
    viewer = found.viewer
    return {
        "active": True,
        "token_type": found.kind,
        "client_id": found.client_id,
        "username": viewer.user.email,
        "sub": viewer.user.id,
        "aud": credentials.build_audience(found.app_id, viewer.workspace.id),
        "iss": credentials.ISSUER,
        "jti": found.id,
        "iat": int(found.issued_at.timestamp()),
        "exp": int(found.expires_at.timestamp()),
        "workspace": viewer.workspace,
        "app": viewer.app if isinstance(viewer, Viewer) else None,
        "role": viewer.role,
        "attributes": viewer.attributes,
    }
