"""Refuse requests that this framework reads differently from a proxy or the standard, and those for an app.

At the hosts of upstream apps' viewers, every path belongs to the app except the few of `_OURS`.
"""

import re
from typing import Final

from flask import Flask, request
from werkzeug.exceptions import BadRequest, NotFound

from pat_service.errors import NotServedHere
from pat_service.http.public_url import is_for_viewers

#: The paths of this service at a viewer's host: frames, their files and texts, the doctor's probe, and
#: what a proxy asks.
_OURS: Final = re.compile(
    r"/embed-apps/.*|/embed-static/.*|/embed-texts|/embed-probe|/internal/embed-[a-z]+", re.DOTALL
)


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
    if is_for_viewers() and not _OURS.fullmatch(environ["PATH_INFO"]):
        raise NotServedHere
