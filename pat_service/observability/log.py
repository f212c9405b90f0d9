"""Request ids, and one line for each request: what came of it, how long it took, to which ids."""

import re
import time
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from flask import Flask, Response, current_app, request

from pat_service import metrics
from pat_service.credentials import redact
from pat_service.http.headers import REQUEST_ID, request_state
from pat_service.observability.lines import LINES, render
from pat_service.rules import events
from pat_service.shapes import is_uuid

#: Of a path, in characters: a log must not grow as a stranger likes.
LONGEST_PATH: Final = 500
#: What is written, and counted, of an address or a method that is none of ours.
NO_ROUTE: Final = "none"
OTHER_METHOD: Final = "other"
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

_ID_FROM_PROXY = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)


def init_app(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    environ, known = request.environ, request_state()
    known["started"] = time.perf_counter()
    given = environ.get("HTTP_X_REQUEST_ID", "")
    # What a proxy hands on may still be a secret that somebody put there.
    trusted = given and current_app.config["TRUSTED_PROXIES"] and _ID_FROM_PROXY.fullmatch(given)
    id_ = redact(given) if trusted else str(uuid4())
    known["request_id"] = environ[REQUEST_ID] = id_
    events.request_id.set(id_)


def _finish(response: Response) -> Response:
    sent, known = request._get_current_object(), request_state()  # type: ignore[attr-defined]
    rule = sent.url_rule
    told = _Told(sent, known, NO_ROUTE if rule is None else rule.rule, response.status_code)
    if response.is_streamed and not response.direct_passthrough:
        # Its end is the end of the request, and so is whatever breaks it off.
        response.call_on_close(told)
    else:
        told()
    return response


class _Told:
    """What is to be told of a request when it is over: a line, and a count."""

    __slots__ = ("app_id", "known", "method", "path", "route", "status")

    def __init__(self, sent: Any, known: dict[str, Any], route: str, status: int) -> None:
        self.known, self.route, self.status = known, route, status
        self.method, self.path = sent.method, sent.path
        arguments = sent.view_args
        self.app_id = arguments and arguments.get("app_id")

    def __call__(self) -> None:
        known, status, method = self.known, self.status, self.method
        seconds = time.perf_counter() - known["started"]
        if method not in METHODS:
            method = OTHER_METHOD
        metrics.count_request(method, self.route, status, seconds)
        if "quiet" in known:
            return
        line = {
            "timestamp": f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z",
            "level": "error" if status >= 500 else "info",
            "event": "request",
            "method": method,
            "route": self.route,
            "path": redact(self.path[:LONGEST_PATH]),
            "status": status,
            "ms": round(seconds * 1000, 1),
            "request_id": known["request_id"],
        }
        # What an address has in place of an id may be anything, a secret too.
        if self.app_id and is_uuid(self.app_id):
            line["app_id"] = self.app_id
        for name in ("code", "client_id", "app_id", "session_id"):
            if name in known:
                line[name] = known[name]
        LINES.write(str(render(None, "info", line)))
