"""Frames over HTTP: open, the session's own facts, the app's pages and data, and refusals as pages."""

import re
from typing import Any, Final

from flask import Blueprint, Response, current_app, g, jsonify, render_template, request
from marshmallow import ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter

from pat_service import sessions
from pat_service.credentials import parse_token
from pat_service.embed import ancestors
from pat_service.embed.advice import ADVICE
from pat_service.embed.navigation import require_frame
from pat_service.embed.pages import has_page, show
from pat_service.embed.registry import EmbeddedApp, Page, Registry
from pat_service.errors import (
    InvalidPayload,
    PayloadTooLarge,
    TokenInvalid,
    TokenMissing,
    UnsupportedMediaType,
)
from pat_service.http import limits
from pat_service.http.authentication import keyring, session_of, utcnow
from pat_service.http.headers import csp_nonce
from pat_service.http.payload import read_body, receive
from pat_service.http.public_url import TOKEN_PARAMETER
from pat_service.sessions import OpenSession

PREFIX: Final = "/embed-apps"
#: The largest body of an app's own form, and of the form that opens a frame, in bytes.
MAX_FORM: Final = 1024 * 1024
MAX_OPENING: Final = 16 * 1024
MAX_FIELDS: Final = 1000
FORM_TYPES: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
LONGEST_ACCEPT: Final = 1000
POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; media-src 'self' blob:; "
    "form-action 'none'; base-uri 'none'; {ancestors}"
)

#: What scripts call: their errors are JSON whatever they accept.
_FOR_SCRIPTS: Final = re.compile(rf"{PREFIX}/[^/]*/(session$|data/)")

blueprint = Blueprint("embed", __name__, url_prefix=f"{PREFIX}/<app_id>")


class PageName(BaseConverter):
    regex = "[a-z0-9-]+"


class DataName(BaseConverter):
    regex = "[a-z0-9][a-z0-9._-]*"


@blueprint.record_once
def _name_forms(state: Any) -> None:
    state.app.url_map.converters |= {"page_name": PageName, "data_name": DataName}


@blueprint.before_request
def _refuse_head() -> None:
    # It would run the GET view, and so open a session for nobody.
    if request.method == "HEAD":
        adapter = current_app.create_url_adapter(request)
        allowed = set(adapter.allowed_methods()) if adapter else set()
        raise MethodNotAllowed(sorted(allowed - {"HEAD"}))


@blueprint.get("")
def open_by_address(app_id: str) -> Response:
    """Open a frame with the token in its address."""
    require_frame()
    return _open(app_id, request.args.getlist(TOKEN_PARAMETER))


@blueprint.post("")
def open_by_form(app_id: str) -> Response:
    """Open a frame with the token in a form that the host targets at it."""
    require_frame()
    return _open(app_id, _read_form(MAX_OPENING).getlist(TOKEN_PARAMETER) if request.mimetype else [])


def _open(app_id: str, given: list[str]) -> Response:
    if not any(given):
        raise TokenMissing
    if len(given) > 1:
        raise TokenInvalid("The access token is given more than once.")
    token = parse_token(given[0])
    _refuse_nul()
    limits.hit_open(token)
    g.database_asked = True
    session, signed = sessions.open(keyring(), token, app_id, utcnow())
    _opened(session)
    return show(session, _app_of(session), Page("index"), opened_with=signed)


@blueprint.get("/session")
def session_facts(app_id: str) -> Response:
    """The session's own facts, for the frame that holds it."""
    session = _session(app_id)
    viewer = session.viewer
    return jsonify(
        sessionId=session.id,
        expiresIn=session.expires_in,
        user={"id": viewer.user.id, "email": viewer.user.email, "name": viewer.user.name},
        app={"id": viewer.app.id, "slug": viewer.app.slug, "name": viewer.app.name},
        workspace={"id": viewer.workspace.id, "slug": viewer.workspace.slug, "name": viewer.workspace.name},
    )


@blueprint.delete("/session")
def end_session(app_id: str) -> tuple[str, int]:
    """End the session that sends this."""
    sessions.end(_session(app_id), utcnow())
    return "", 204


@blueprint.get("/pages/<page_name:name>")
def page(app_id: str, name: str) -> Response:
    """A page or part of the app."""
    session = _session(app_id)
    _refuse_nul()
    return show(session, _app_of(session), Page(name))


@blueprint.post("/pages/<page_name:name>")
def submit(app_id: str, name: str) -> Response:
    """A form of the app's own. One that does not validate comes back as 422, with its texts."""
    session = _session(app_id)
    app = _app_of(session)
    form = app.forms.get(name)
    if form is None:
        raise MethodNotAllowed(["GET"]) if has_page(session, app, name) else NotFound()
    sent = _read_form(MAX_FORM)
    _refuse_nul()
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
    read_body(MAX_FORM)
    _refuse_nul()
    try:
        result = function(session.viewer)
    except ValidationError as error:
        raise InvalidPayload({str(k): v for k, v in error.normalized_messages().items()}) from None
    return result if isinstance(result, Response) else jsonify(result)


def _session(app_id: str) -> OpenSession:
    receive(MAX_FORM)
    g.database_asked = True
    session = session_of(app_id)
    _opened(session)
    return session


def _opened(session: OpenSession) -> None:
    g.session_id = session.id
    g.origins = session.origins
    ancestors.learn(session.viewer.app.id, session.own_origins)


def _app_of(session: OpenSession) -> EmbeddedApp:
    registry: Registry = current_app.extensions["pat_service.registry"]
    return registry.get(session.viewer.app.template)


def _read_form(most: int) -> MultiDict[str, str]:
    body = read_body(most)
    if body.count(b"&") > MAX_FIELDS and request.mimetype == FORM_TYPES[0]:
        # Half a million empty fields take seconds to read; multipart has a limit of its own.
        raise PayloadTooLarge(f"A form may have at most {MAX_FIELDS} fields.")
    if request.mimetype not in FORM_TYPES:
        raise UnsupportedMediaType("Send the form URL-encoded or as multipart/form-data.")
    return request.form


def _refuse_nul() -> None:
    # PostgreSQL takes no NUL in a text; an app's author should not have to think of it.
    for values in (request.args, request.form):
        for name, value in values.items(multi=True):
            if "\0" in name or "\0" in value:
                raise InvalidPayload({name.replace("\0", ""): ["Must not contain NUL characters."]})


@blueprint.after_app_request
def _frame_headers(response: Response) -> Response:
    if _is_embed():
        policy = POLICY.format(nonce=csp_nonce(), ancestors=ancestors.directive(_origins()))
        response.headers["Content-Security-Policy"] = policy
        # Nor may an app's own Response bring cookies back in, or keep the frame from being one.
        for name in ("Set-Cookie", "X-Frame-Options"):
            response.headers.remove(name)
        if response.allow:
            response.allow = [method for method in response.allow if method != "HEAD"]
    return response


def _is_embed() -> bool:
    return request.path == PREFIX or request.path.startswith(f"{PREFIX}/")


def _origins() -> list[str]:
    if "origins" not in g:
        app_id = request.path.removeprefix(f"{PREFIX}/").partition("/")[0]
        look_up = ancestors.current if g.get("database_asked") else ancestors.last_known
        g.origins = look_up(app_id)
    origins: list[str] = g.origins
    return origins


def _prefers_json() -> bool:
    # One of hundreds of kilobytes would take seconds to read.
    if len(request.headers.get("Accept", "")) > LONGEST_ACCEPT:
        return False
    kinds = ["text/html", "application/json", "application/problem+json"]
    return request.accept_mimetypes.best_match(kinds, "text/html") != "text/html"


def page_of(problem: dict[str, Any], status: int) -> Response | None:
    """Answer a problem of a frame as a page inside it; None where the caller wants JSON."""
    if not _is_embed() or _FOR_SCRIPTS.match(request.path):
        return None
    if _prefers_json():
        return None
    title, advice = ADVICE.get(problem["code"], (problem["title"], problem["detail"]))
    html = render_template(
        "embed/error.html",
        problem=problem,
        title=title,
        advice=advice,
        parents=_origins(),
        csp_nonce=csp_nonce(),
    )
    return Response(html, status)
