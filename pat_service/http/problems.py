"""The answer to every failure: a problem in one shape (RFC 9457)."""

import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import flask
from flask import Flask, Response, g, json, request
from limits.errors import StorageError
from sqlalchemy.exc import DBAPIError, TimeoutError
from werkzeug.exceptions import HTTPException, InternalServerError

import pat_service
from pat_service import errors, metrics
from pat_service.credentials import redact
from pat_service.errors import (
    AppUnavailable,
    InvalidPayload,
    PayloadTooLarge,
    RateLimited,
    Refused,
    TooManySessions,
    Unavailable,
)
from pat_service.shapes import is_loopback

#: Retry-After of a 503.
UNAVAILABLE_RETRY_SECONDS: Final = 5
#: Only a restart of the service brings a disabled app back. Scripts do not wait for this time.
APP_UNAVAILABLE_RETRY_SECONDS: Final = 300

#: The framework's errors, by status.
HTTP_ERRORS: Final[dict[int, type[Refused]]] = {
    error.status: error
    for error in (
        *(errors.BadRequest, errors.NotFound, errors.MethodNotAllowed, errors.Conflict),
        *(errors.PayloadTooLarge, errors.ContentTypeNotAccepted, errors.RateLimited),
        *(errors.InternalError, errors.Unavailable),
    )
}
#: The database is unavailable or damaged.
_DATABASE_ERRORS: Final = (DBAPIError, TimeoutError)
_log = logging.getLogger(__name__)

#: The blueprint whose views call the functions of apps.
FRAMES_OF_APPS: Final = "embed"
#: A traceback begins after the calls of this code.
_HIDDEN_CODE: Final = tuple(str(Path(file).parent) for file in (flask.__file__, pat_service.__file__))
MAX_TRACEBACK_CHARS: Final = 10_000

Problem = dict[str, Any]
#: Returns a problem as a page if the request asks for one, otherwise None.
PageOf = Callable[[Problem, int], Response | None]


def init_app(app: Flask, page_of: PageOf, *, redis: bool, development: bool) -> None:
    """Answer every error of the app with a problem, or with the page that `page_of` returns.

    `redis`: the limiter's store is Redis. In development, a problem of an app's frame has a traceback.
    """
    # Flask's debugger would take the place of the frame's page.
    app.config["PROPAGATE_EXCEPTIONS"] = False

    def answer(problem: Problem, headers: dict[str, str], error: BaseException | None = None) -> Response:
        shows_code = development and _is_from_this_machine()
        if shows_code and error is not None and request.blueprint == FRAMES_OF_APPS:
            problem["traceback"] = _format(error)
        g.code = problem["code"]
        metrics.count_refusal(g.code, _kind(request.endpoint))
        response = page_of(problem, problem["status"]) or _json(problem)
        response.headers.update(headers)
        return response

    def refused(refusal: Refused, cause: Exception | None = None) -> Response:
        found = problem(refusal, g.get("request_id", ""))
        if isinstance(refusal, InvalidPayload):
            found["errors"] = refusal.errors
        return answer(found, _headers(refusal), cause)

    def unavailable(error: Exception) -> Response:
        metrics.count_unavailable(_store(error))
        cause = getattr(error, "orig", None) or getattr(error, "storage_error", None) or error
        g.database_unavailable = isinstance(error, _DATABASE_ERRORS)
        _log.error("a store is unavailable: %s: %s", type(cause).__name__, str(cause).partition("\n")[0])
        return refused(Unavailable(), error)

    def busy(refusal: Unavailable) -> Response:
        metrics.count_unavailable(refusal.store)
        return refused(refusal)

    def failed(error: HTTPException) -> HTTPException | Response:
        status = error.code or 500
        if status < 400 or error.response is not None:
            return error
        headers = {k: v for k, v in error.get_headers() if k not in ("Content-Type", "Content-Length")}
        found = problem_of_status(status, error.name, g.get("request_id", ""))
        return answer(found, headers, getattr(error, "original_exception", None))

    app.register_error_handler(Refused, refused)
    # Rules raise Unavailable when a database answers, but is busy for too long.
    app.register_error_handler(Unavailable, busy)
    app.register_error_handler(HTTPException, failed)
    app.register_error_handler(InternalServerError, failed)
    for error in _store_errors(redis):
        app.register_error_handler(error, unavailable)


def _is_from_this_machine() -> bool:
    """Return whether a browser on this machine sends the request.

    A development server may listen on every address of the machine, or be behind a tunnel.
    """
    host = request.host.rpartition(":")[0] or request.host
    is_local = is_loopback(request.remote_addr or "") and is_loopback(host)
    return is_local and "X-Forwarded-For" not in request.headers


def _format(error: BaseException) -> str:
    """Return the traceback from the app's first call on, without secrets."""
    calls = error.__traceback__
    while calls and calls.tb_next and calls.tb_frame.f_code.co_filename.startswith(_HIDDEN_CODE):
        calls = calls.tb_next
    return redact("".join(traceback.format_exception(error.with_traceback(calls))))[-MAX_TRACEBACK_CHARS:]


def _kind(endpoint: str | None) -> str:
    """Return the kind of request for the metrics: `mint`, `open`, `session`, `api`, …"""
    if endpoint is None:
        return "none"
    blueprint, _, view = endpoint.rpartition(".")
    if view == "mint":
        return "mint"
    if view in ("open_by_address", "open_by_form", "open_session"):
        return "open"
    return "session" if blueprint in ("embed", "launcher") else blueprint or "static"


def _store_errors(redis: bool) -> tuple[type[Exception], ...]:
    """Return the errors of a store that is unavailable, damaged or changed during the request."""
    if not redis:
        return (*_DATABASE_ERRORS, StorageError)
    # Imported late: a service without REDIS_URL does not need it.
    from redis import RedisError

    return (*_DATABASE_ERRORS, StorageError, RedisError)


def _store(error: Exception) -> str:
    if not isinstance(error, _DATABASE_ERRORS):
        return "limiter"
    return "pool" if isinstance(error, TimeoutError) else "database"


def problem(error: Refused | type[Refused], request_id: str) -> Problem:
    """Return the members of a problem, except a 400's `errors`."""
    return {
        "type": f"urn:pat-service:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "requestId": request_id,
        "message": error.detail,
    }


def problem_of_status(status: int, name: str, request_id: str) -> Problem:
    """Return the problem for a framework's error: its status, and HTTP's name for that status."""
    if status in HTTP_ERRORS:
        found = problem(HTTP_ERRORS[status], request_id)
    else:
        error = Refused("The server refuses this request.")
        error.status, error.title, error.code = status, name, re.sub("[^a-z]+", "_", name.lower())
        found = problem(error, request_id)
    if status == 400:
        found["errors"] = {"request": [found["detail"]]}
    return found


def _json(problem: Problem) -> Response:
    return Response(json.dumps(problem), problem["status"], mimetype="application/problem+json")


def _headers(refusal: Refused) -> dict[str, str]:
    if isinstance(refusal, (RateLimited, TooManySessions)):
        return {"Retry-After": str(refusal.retry_after)}
    if isinstance(refusal, PayloadTooLarge) and refusal.limit_bytes:
        # The header of "Resumable Uploads for HTTP", an Internet-Draft.
        return {"Upload-Limit": f"max-size={refusal.limit_bytes}"}
    if isinstance(refusal, AppUnavailable):
        return {"Retry-After": str(APP_UNAVAILABLE_RETRY_SECONDS)}
    if isinstance(refusal, Unavailable):
        return {"Retry-After": str(UNAVAILABLE_RETRY_SECONDS)}
    if refusal.code == "invalid_client":
        return {"WWW-Authenticate": 'Basic realm="pat-service", charset="UTF-8"'}
    if refusal.status == 401:
        return {"WWW-Authenticate": f'Bearer realm="pat-service", error="{refusal.code}"'}
    return {}
