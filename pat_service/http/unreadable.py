"""The answer to a request that gunicorn cannot parse, which no application sees."""

import json
import logging
from http import HTTPStatus
from uuid import uuid4

from werkzeug.datastructures import Headers

from pat_service.http.headers import FIXED, FOR_OWN_ORIGIN, NOT_FRAMED, NOT_STORED, REQUEST_ID_HEADER
from pat_service.http.problems import problem_of_status

_log = logging.getLogger(__name__)


def answer(status: int) -> bytes:
    """Return the whole HTTP answer: a problem (RFC 9457) that closes the connection."""
    reason, request_id = HTTPStatus(status).phrase, str(uuid4())
    _log.warning("a request could not be parsed: %s %s, request id %s", status, reason, request_id)
    body = json.dumps(problem_of_status(status, reason, request_id)).encode()
    headers = Headers([*FIXED, NOT_STORED, NOT_FRAMED, FOR_OWN_ORIGIN])
    headers["Content-Type"] = "application/problem+json"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    headers[REQUEST_ID_HEADER] = request_id
    return f"HTTP/1.1 {status} {reason}\r\n{headers}".encode("latin-1") + body
