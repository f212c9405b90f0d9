"""Frames of a workspace over HTTP: a launcher with the apps that its visitor may open.

A workspace token opens it. Going to an app and back is a navigation of the same frame, by a form that
carries the session in its body, so that each address has a policy of its own.
"""

from flask import Blueprint, Response, current_app, g, jsonify, request

from pat_service.credentials import Secret
from pat_service.embed.answers import (
    HANDOVER,
    LAUNCHERS,
    check_request,
    current_origins,
    read_opening,
    read_token,
    record_session,
    refuse_nul,
)
from pat_service.embed.handover import read_handover
from pat_service.embed.hosts import require_common_host
from pat_service.embed.navigation import require_frame
from pat_service.embed.pages import facts, hand_over_launcher, launcher_path, show_launcher, show_waiting
from pat_service.http.authentication import bearer, count_request, keyring, utcnow
from pat_service.http.payload import MAX_BODY_BYTES, receive_body
from pat_service.http.public_url import TOKEN_PARAMETER
from pat_service.rules import sessions
from pat_service.rules.sessions import OpenLauncher

blueprint = Blueprint("launcher", __name__, url_prefix=f"{LAUNCHERS}/<workspace_id>")
blueprint.before_request(check_request)
blueprint.before_request(require_common_host)


@blueprint.get("")
def open_by_address(workspace_id: str) -> Response:
    """Open the launcher with the token in its address."""
    require_frame()
    return _open(workspace_id, request.args.getlist(TOKEN_PARAMETER))


@blueprint.post("")
def open_by_form(workspace_id: str) -> Response:
    """Open the launcher with the token in a form, or come back to it from an app."""
    require_frame()
    tokens, carried = read_opening()
    if carried is None:
        return _open(workspace_id, tokens)
    refuse_nul()
    session = count_request(sessions.check_launcher(keyring(), carried, workspace_id, utcnow()))
    return _show(session, Secret(carried))


@blueprint.get(HANDOVER)
def wait(workspace_id: str) -> Response:
    """A page that holds nothing, and is handed a token by the script of the page around it."""
    require_frame()
    # Before anybody knows of a session: from here its form may go to the apps.
    g.workspace_wide = True
    return show_waiting(launcher_path(workspace_id), current_origins(workspace_id))


@blueprint.post(HANDOVER)
def hand_over(workspace_id: str) -> Response:
    """Open a session for such a page, or a newer one for a launcher that is open."""
    handover = read_handover()
    session, signed = _opened(workspace_id, read_token([handover.token]), handover.parent)
    record_session(session)
    return hand_over_launcher(session, signed, handover)


def _open(workspace_id: str, given: list[str]) -> Response:
    return _show(*_opened(workspace_id, read_token(given)))


def _opened(workspace_id: str, token: Secret, parent: str | None = None) -> tuple[OpenLauncher, Secret]:
    most = current_app.config["MAX_SESSIONS_PER_TOKEN"]
    return sessions.open_launcher(keyring(), token, workspace_id, utcnow(), most=most, parent=parent)


def _show(session: OpenLauncher, signed: Secret) -> Response:
    record_session(session)
    return Response(show_launcher(session, signed))


@blueprint.get("/session")
def session_facts(workspace_id: str) -> Response:
    """The session's own facts, for the frame that holds it."""
    session = _session(workspace_id)
    return jsonify(facts(session, session.visitor))


@blueprint.delete("/session")
def end_session(workspace_id: str) -> tuple[str, int]:
    """End the session that sends this, at the launcher and at every app."""
    sessions.end(_session(workspace_id), utcnow())
    return "", 204


def _session(workspace_id: str) -> OpenLauncher:
    receive_body(MAX_BODY_BYTES)
    g.database_asked = True
    session = count_request(sessions.check_launcher(keyring(), bearer(), workspace_id, utcnow()))
    record_session(session)
    return session
