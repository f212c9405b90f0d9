"""Request ids, one JSON line a request, and logs that cannot show a secret."""

import json
import logging
import re
import time
from typing import Final
from uuid import uuid4

from flask import Flask, Response, current_app, g, request

from pat_service import events
from pat_service.credentials import redact

REQUEST_ID_HEADER: Final = "X-Request-Id"
#: Of a path, in characters: a log must not grow as a stranger likes.
LONGEST_PATH: Final = 500
_ID_FROM_PROXY = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)
_access = logging.getLogger("pat_service.access")


class RedactingFormatter(logging.Formatter):
    """Hides tokens, secrets and JWTs in whatever a line holds, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure() -> None:
    """Send the process's log to standard error, redacted. Doing it again changes nothing."""
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, RedactingFormatter) for handler in root.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    if not _access.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(RedactingFormatter("%(message)s"))
        _access.addHandler(handler)
        _access.propagate = False
        _access.setLevel(logging.INFO)
    # The development server's own line of a request has the query in it, and so the token.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


def init_app(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    g.started = time.perf_counter()
    given = request.headers.get(REQUEST_ID_HEADER, "")
    trusted = current_app.config["TRUSTED_PROXIES"] and _ID_FROM_PROXY.fullmatch(given)
    g.request_id = given if trusted else str(uuid4())
    events.request_id.set(g.request_id)


def _finish(response: Response) -> Response:
    response.headers[REQUEST_ID_HEADER] = g.request_id
    line = {
        "method": request.method,
        "path": request.path[:LONGEST_PATH],
        "status": response.status_code,
        "ms": round((time.perf_counter() - g.started) * 1000, 1),
        "request_id": g.request_id,
    }
    for name in ("client_id", "session_id"):
        if name in g:
            line[name] = g.get(name)
    _access.info(json.dumps(line))
    return response
