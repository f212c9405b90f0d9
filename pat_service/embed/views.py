"""Frames of apps over HTTP: open, the session's own facts, the app's pages and data."""

from typing import Any

from flask import Blueprint, Response, current_app, g, jsonify, request
from marshmallow import ValidationError
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter

from pat_service.credentials import Secret
from pat_service.embed.answers import (
    APPS,
    FORM_LIMIT_BYTES,
    HANDOVER,
    check_request,
    current_origins,
    frame_headers,
    read_form,
    read_opening,
    read_token,
    record_session,
    refuse_nul,
)
from pat_service.embed.handover import read_handover
from pat_service.embed.hosts import expected_slug, require_app_host
from pat_service.embed.navigation import require_frame
from pat_service.embed.pages import app_path, facts, hand_over_app, has_page, show, show_waiting
from pat_service.embed.registry import EmbeddedApp, Page, Registry
from pat_service.errors import InvalidPayload
from pat_service.http import limits
from pat_service.http.authentication import bearer, count_request, keyring, utcnow
from pat_service.http.payload import read_body, receive_body
from pat_service.http.public_url import TOKEN_PARAMETER
from pat_service.rules import sessions
from pat_service.rules.sessions import OpenSession

blueprint = Blueprint("embed", __name__, url_prefix=f"{APPS}/<app_id>")
blueprint.before_request(check_request)
blueprint.before_request(require_app_host)
blueprint.after_app_request(frame_headers)


class PageName(BaseConverter):
    regex = "[a-z0-9-]+"


class DataName(BaseConverter):
    regex = "[a-z0-9][a-z0-9._-]*"


@blueprint.record_once
def _name_forms(state: Any) -> None:
    state.app.url_map.converters |= {"page_name": PageName, "data_name": DataName}


@blueprint.get("")
def open_by_address(app_id: str) -> Response:
    """Open a frame with the token in its address."""
    require_frame()
    return _open(app_id, request.args.getlist(TOKEN_PARAMETER))


@blueprint.post("")
def open_by_form(app_id: str) -> Response:
    """Open a frame with the token in a form that the host targets at it, or come from another frame."""
    require_frame()
    tokens, carried = read_opening()
    return _open(app_id, tokens) if carried is None else _enter(app_id, carried)


@blueprint.get(HANDOVER)
def wait(app_id: str) -> Response:
    """A page that holds nothing, and is handed a token by the script of the page around it."""
    require_frame()
    return show_waiting(app_path(app_id), current_origins(app_id))


@blueprint.post(HANDOVER)
def hand_over(app_id: str) -> Response:
    """Open a session for such a page, or a newer one for a frame that is open."""
    handover = read_handover()
    session, signed = _opened(app_id, read_token([handover.token]), handover.parent)
    return hand_over_app(session, signed, _app_of(session), handover)


def _open(app_id: str, given: list[str]) -> Response:
    session, signed = _opened(app_id, read_token(given))
    return show(session, _app_of(session), Page("index"), opened_with=signed)


def _opened(app_id: str, token: Secret, parent: str | None = None) -> tuple[OpenSession, Secret]:
    most = current_app.config["MAX_SESSIONS_PER_TOKEN"]
    session, signed = sessions.open(
        keyring(), token, app_id, utcnow(), most=most, parent=parent, slug=expected_slug()
    )
    record_session(session)
    return session, signed


def _enter(app_id: str, carried: str) -> Response:
    refuse_nul()
    session = count_request(sessions.check(keyring(), carried, app_id, utcnow(), slug=expected_slug()))
    limits.hit("enter", current_app.config["OPEN_RATE_LIMIT"], session.id)
    sessions.enter(session, utcnow())
    record_session(session)
    return show(session, _app_of(session), Page("index"), opened_with=Secret(carried))


@blueprint.get("/session")
def session_facts(app_id: str) -> Response:
    """The session's own facts, for the frame that holds it."""
    session = _session(app_id)
    return jsonify(facts(session, session.viewer))


@blueprint.delete("/session")
def end_session(app_id: str) -> tuple[str, int]:
    """End the session that sends this."""
    sessions.end(_session(app_id), utcnow())
    return "", 204


@blueprint.get("/pages/<page_name:name>")
def page(app_id: str, name: str) -> Response:
    """A page or part of the app."""
    session = _session(app_id)
    refuse_nul()
    return show(session, _app_of(session), Page(name))


@blueprint.post("/pages/<page_name:name>")
def submit(app_id: str, name: str) -> Response:
    """A form of the app's own. One that does not validate comes back as 422, with its texts."""
    session = _session(app_id)
    app = _app_of(session)
    form = app.forms.get(name)
    if form is None:
        raise MethodNotAllowed(["GET"]) if has_page(session, app, name) else NotFound()
    sent = read_form(FORM_LIMIT_BYTES)
    refuse_nul()
    try:
        result = form.function(session.viewer)
    except ValidationError as error:
        errors = error.normalized_messages()
        return show(session, app, Page(form.page), status=422, errors=errors, form=sent)
    if isinstance(result, Response):
        return result
    return show(session, app, result if isinstance(result, Page) else Page(form.page, result))


@blueprint.route("/data/<data_name:name>", methods=["GET", "POST"])
def data(app_id: str, name: str) -> Response:
    """JSON, or a file, from the app's own function."""
    session = _session(app_id)
    app = _app_of(session)
    function = app.data_functions.get((request.method, name))
    if function is None:
        methods = app.data_methods(name)
        raise MethodNotAllowed(methods) if methods else NotFound()
    read_body(FORM_LIMIT_BYTES)
    refuse_nul()
    try:
        result = function(session.viewer)
    except ValidationError as error:
        raise InvalidPayload({str(k): v for k, v in error.normalized_messages().items()}) from None
    return result if isinstance(result, Response) else jsonify(result)


def _session(app_id: str) -> OpenSession:
    receive_body(FORM_LIMIT_BYTES)
    g.database_asked = True
    session = count_request(sessions.check(keyring(), bearer(), app_id, utcnow(), slug=expected_slug()))
    record_session(session)
    return session


def _app_of(session: OpenSession) -> EmbeddedApp:
    registry: Registry = current_app.extensions["pat_service.registry"]
    return registry.get(session.viewer.app.template)
