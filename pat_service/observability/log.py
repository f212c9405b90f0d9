"""Request ids, and one log line for each request: its outcome, duration and ids."""

import re
import time
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from flask import Flask, Request, Response, current_app, request

from pat_service import metrics
from pat_service.credentials import redact
from pat_service.http.headers import REQUEST_ID, request_state
from pat_service.observability.lines import LINES, render
from pat_service.rules import events
from pat_service.shapes import is_uuid

#: Limits the text that an unknown client can add to the log.
MAX_PATH_CHARS: Final = 500
#: The values logged and counted for an unknown address or method.
NO_ROUTE: Final = "none"
OTHER_METHOD: Final = "other"
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

_ID_FROM_PROXY = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)


def init_app(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    environ, state = request.environ, request_state()
    state["started"] = time.perf_counter()
    sent = environ.get("HTTP_X_REQUEST_ID", "")
    # A proxy may pass on a secret that its caller sent as the id.
    trusted = sent and current_app.config["TRUSTED_PROXIES"] and _ID_FROM_PROXY.fullmatch(sent)
    id_ = redact(sent) if trusted else str(uuid4())
    state["request_id"] = environ[REQUEST_ID] = id_
    events.request_id.set(id_)


def _finish(response: Response) -> Response:
    ended, state = request._get_current_object(), request_state()  # type: ignore[attr-defined]

    def record() -> None:
        _record(ended, state, response.status_code)

    if response.is_streamed and not response.direct_passthrough:
        # A stream ends, or breaks off, after this hook.
        response.call_on_close(record)
    else:
        record()
    return response


def _record(ended: Request, state: dict[str, Any], status: int) -> None:
    """Count a request that is over, and log it unless its view set `g.quiet`."""
    seconds = time.perf_counter() - state["started"]
    method = ended.method if ended.method in METHODS else OTHER_METHOD
    route = NO_ROUTE if ended.url_rule is None else ended.url_rule.rule
    metrics.count_request(method, route, status, seconds)
    if "quiet" in state:
        return
    line = {
        "timestamp": f"{datetime.now(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z",
        "level": "error" if status >= 500 else "info",
        "event": "request",
        "method": method,
        "route": route,
        "path": redact(ended.path[:MAX_PATH_CHARS]),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "request_id": state["request_id"],
    }
    app_id = (ended.view_args or {}).get("app_id")
    # The id in an address may be any text, even a secret.
    if app_id and is_uuid(app_id):
        line["app_id"] = app_id
    for name in ("code", "client_id", "app_id", "session_id", "address", "claimed_client"):
        if state.get(name) is not None:
            line[name] = state[name]
    LINES.write(render(line))
