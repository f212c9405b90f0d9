"""Which host is the console's. It serves the console alone, and no other host serves the console.

The rules of the console have a subdomain of their own in the URL map. So an address of the console is unknown
on every other host, and every other address is unknown on the console's host.
"""

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from flask import Flask, current_app, request

from pat_service.addresses import CONSOLE_IN_DEVELOPMENT

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: The subdomain of the console's rules in the URL map. The map needs a name; no host has it.
SUBDOMAIN: Final = "console"
_KEY: Final = "pat_service.console_host"


def init_app(app: Flask, url: str | None) -> None:
    """Serve the console on the host of this URL, and without a URL on `CONSOLE_IN_DEVELOPMENT`."""
    app.extensions[_KEY] = None if url is None else urlsplit(url)


def is_on(app: Flask) -> bool:
    """Return whether the app serves the console."""
    return _KEY in app.extensions


def turn_off(app: Flask) -> None:
    """Serve no console."""
    app.extensions.pop(_KEY, None)


def url(port: int | str) -> str:
    """Return the console's origin. `port` is the port of the server, for development without a URL."""
    parts: Any = current_app.extensions[_KEY]
    return f"http://{CONSOLE_IN_DEVELOPMENT}:{port}" if parts is None else f"{parts.scheme}://{parts.netloc}"


def origin() -> str:
    """Return the console's origin during a request to it."""
    return url(request.environ["SERVER_PORT"])


def is_console(app: Flask, environ: "WSGIEnvironment") -> bool:
    """Return whether the request's Host is the console's."""
    if _KEY not in app.extensions:
        return False
    parts = app.extensions[_KEY]
    host: str = environ.get("HTTP_HOST", "").lower()
    # Browsers omit a scheme's default port; some proxies add it.
    default = ":443" if parts is not None and parts.scheme == "https" else ":80"
    own: str = f"{CONSOLE_IN_DEVELOPMENT}:{environ['SERVER_PORT']}" if parts is None else parts.netloc
    return host.removesuffix(default) == own.removesuffix(default)
