"""Check the request that a proxy asks about, as far as this needs no session.

A page around the app, and every other frame on that page, can send requests that have the cookie. So the
browser must report that a page of the app itself sends the request.
"""

import re
from posixpath import normpath
from typing import Final
from urllib.parse import unquote

from flask import current_app, request

from pat_service.errors import MethodNotAllowed, NotFound, NotServedHere
from pat_service.gateway.refusals import CrossSite
from pat_service.http.public_url import own_origins, requested_host
from pat_service.rules.access import Host

#: Methods that no browser sends, and that ask a server or proxy to do something else.
_REFUSED_METHODS: Final = ("CONNECT", "TRACE", "TRACK")
_METHOD: Final = re.compile(r"[A-Z][A-Z_-]{0,31}", re.ASCII)
#: Our own paths at a viewer's host. No spelling of them is for the app.
_OURS: Final = re.compile(
    r"/(?:embed-apps|embed-static|embed-texts|internal/embed-[a-z]+)(?:/.*)?", re.DOTALL
)
#: A path is decoded this often. No proxy decodes it more often.
_DECODINGS: Final = 3


def check_request() -> Host:
    """Return the viewer's host of the request.

    Raise NotServedHere, MethodNotAllowed, NotFound or CrossSite.
    """
    host = requested_host()
    if host is None or host.viewer is None:
        raise NotServedHere
    if not _is_allowed_method(forwarded("METHOD")):
        raise MethodNotAllowed
    if not _is_path_of_app(forwarded("URI")):
        raise NotFound
    if not _is_from_own_page():
        raise CrossSite
    return host


def forwarded(name: str) -> str:
    """Return what the proxy says of the request that it asks about. Without a trusted proxy this is empty."""
    trusted = current_app.config["TRUSTED_PROXIES"]
    text: str = request.environ.get(f"HTTP_X_FORWARDED_{name}", "") if trusted else ""
    return text


def _is_allowed_method(method: str) -> bool:
    return _METHOD.fullmatch(method) is not None and method not in _REFUSED_METHODS


def _is_path_of_app(uri: str) -> bool:
    """Return whether the request's target is one path, and not one of ours in any spelling."""
    path = uri.partition("?")[0]
    if not path.startswith("/") or path.startswith("//"):
        return False
    for _ in range(_DECODINGS):
        if "\0" in path or _OURS.fullmatch(_normalize(path)):
            return False
        path = unquote(path)
    return True


def _normalize(path: str) -> str:
    """Return the path as the most tolerant proxy reads it."""
    return "/" + normpath(path.replace("\\", "/")).lstrip("/").lower()


def _is_from_own_page() -> bool:
    """Return whether a page of the app sends the request, as the browser reports it.

    Every browser with partitioned cookies sends `Sec-Fetch-Site`, but Chromium sends none for a WebSocket.
    """
    environ = request.environ
    # Caddy sends an empty header in place of none.
    origin, site = environ.get("HTTP_ORIGIN") or None, environ.get("HTTP_SEC_FETCH_SITE") or None
    # The app's service worker would also receive the requests of our frame.
    if environ.get("HTTP_SEC_FETCH_DEST") == "serviceworker" or environ.get("HTTP_SERVICE_WORKER"):
        return False
    if site not in (None, "same-origin") or (origin is not None and origin not in own_origins()):
        return False
    if forwarded("UPGRADE").strip().lower() == "websocket":
        return origin is not None
    return origin is not None or site is not None
