"""Refuse requests that this framework reads differently from a proxy or the standard."""

from flask import Flask, request
from werkzeug.exceptions import BadRequest, NotFound


def init_app(app: Flask) -> None:
    """Check every request before anything else handles it."""
    app.before_request(_check)


def _check() -> None:
    environ = request.environ
    # RFC 9112, 3.2. gunicorn also accepts HTTP/1.2.
    if environ.get("SERVER_PROTOCOL") != "HTTP/1.0" and not environ.get("HTTP_HOST"):
        raise BadRequest
    # The framework takes //metrics for /metrics, but no rule of a proxy does.
    if environ["PATH_INFO"].startswith("//"):
        raise NotFound
