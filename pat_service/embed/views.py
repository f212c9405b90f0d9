"""Blueprints of frames: launchers of workspaces, and apps with their pages, forms and data.

A workspace token opens a launcher. A frame moves to an app and back by a form with the session in its
body, so that each address has a policy of its own.
"""

from typing import Any, Final

from flask import Response, jsonify, request
from marshmallow import ValidationError
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter

from pat_service.embed import answers, reports
from pat_service.embed.deep_link import PAGE_NAME
from pat_service.embed.embedded_app import Page
from pat_service.embed.frames import current_session, enter, frame_blueprint
from pat_service.embed.hosts import require_app_host
from pat_service.embed.pages import app_of, has_page, show
from pat_service.errors import InvalidPayload
from pat_service.http.payload import check_body
from pat_service.http.public_url import require_common_host
from pat_service.rules.sessions import OpenSession

launchers: Final = frame_blueprint("launcher", f"{answers.LAUNCHERS}/<workspace_id>", require_common_host)
blueprint: Final = frame_blueprint("embed", f"{answers.APPS}/<app_id>", require_app_host)
launchers.add_url_rule("/apps/<app_id>", view_func=enter, methods=["POST"])
blueprint.add_url_rule(answers.REPORTS, view_func=reports.receive_report, methods=["POST"])
blueprint.add_url_rule(reports.BLANK, view_func=reports.receive_blank, methods=["POST"])
blueprint.after_app_request(answers.frame_headers)


class PageName(BaseConverter):
    regex = PAGE_NAME


class DataName(BaseConverter):
    regex = "[a-z0-9][a-z0-9._-]*"


@blueprint.record_once
def _add_converters(state: Any) -> None:
    state.app.url_map.converters |= {"page_name": PageName, "data_name": DataName}


@blueprint.get("/pages/<page_name:name>")
def page(app_id: str, name: str) -> Response:
    """Answer with a page or part of the app."""
    session = _session()
    answers.refuse_nul()
    return show(session, Page(name))


@blueprint.post("/pages/<page_name:name>")
def submit(app_id: str, name: str) -> Response:
    """Pass a form to the app. An invalid form comes back as 422 with its error texts."""
    session = _session()
    app = app_of(session)
    form = app.forms.get(name)
    if form is None:
        raise MethodNotAllowed(["GET"]) if has_page(session, name) else NotFound()
    sent = answers.read_form(app.limits.upload_bytes)
    answers.refuse_nul()
    try:
        result = form.function(session.viewer)
    except ValidationError as error:
        return show(session, Page(form.page), status=422, errors=error.normalized_messages(), form=sent)
    if isinstance(result, Response):
        return result
    return show(session, result if isinstance(result, Page) else Page(form.page, result))


@blueprint.route("/data/<data_name:name>", methods=["GET", "POST"])
def data(app_id: str, name: str) -> Response:
    """Answer with JSON or a file from the app's function."""
    session = _session()
    app = app_of(session)
    function = app.data_functions.get((request.method, name))
    if function is None:
        methods = app.data_methods(name)
        raise MethodNotAllowed(methods) if methods else NotFound()
    check_body(app.limits.upload_bytes)
    answers.refuse_nul()
    try:
        result = function(session.viewer)
    except ValidationError as error:
        raise InvalidPayload({str(k): v for k, v in error.normalized_messages().items()}) from None
    return result if isinstance(result, Response) else jsonify(result)


def _session() -> OpenSession:
    session = current_session()
    assert isinstance(session, OpenSession)  # noqa: S101 - the path names an app
    return session
