"""The answer to a request that gunicorn cannot parse, which no application sees."""

import json
import logging
from http import HTTPStatus
from uuid import uuid4

from flask import Flask
from werkzeug.datastructures import Headers

from pat_service.addresses import may_share_domain
from pat_service.http.headers import (
    ALONE,
    FIXED_HERE,
    FOR_OWN_ORIGIN,
    NOT_FRAMED,
    NOT_STORED,
    REQUEST_ID_HEADER,
)
from pat_service.http.problems import problem_of_status
from pat_service.http.public_url import has_app_origins, public_url

_log = logging.getLogger(__name__)


def answer(app: Flask, status: int) -> bytes:
    """Return the whole HTTP answer: a problem (RFC 9457) that closes the connection."""
    reason, request_id = HTTPStatus(status).phrase, str(uuid4())
    _log.warning("a request could not be parsed: %s %s, request id %s", status, reason, request_id)
    body = json.dumps(problem_of_status(status, reason, request_id)).encode()
    headers = Headers([*app.extensions[FIXED_HERE], NOT_STORED, ALONE, NOT_FRAMED, FOR_OWN_ORIGIN])
    headers["Content-Type"] = "application/problem+json"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    headers[REQUEST_ID_HEADER] = request_id
    if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE and _may_clear_cookies(app):
        headers["Clear-Site-Data"] = '"cookies"'
    return f"HTTP/1.1 {status} {reason}\r\n{headers}".encode("latin-1") + body


def _may_clear_cookies(app: Flask) -> bool:
    """Return whether a browser may delete every cookie of the registrable domain, also of other hosts.

    An app can set cookies for the whole domain, which then lock the viewer out of every other app. But no app
    may sign an operator out of the console.
    """
    console_url = app.config["CONSOLE_URL"]
    with app.app_context():
        return has_app_origins() and not (console_url and may_share_domain(console_url, public_url()))
