"""Security headers of every answer. Frames set a policy of their own; everything else is in no frame."""

import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, g

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: Where public files are, which alone may be kept.
STATIC: Final = "/static/"
NOT_STORED: Final = ("Cache-Control", "no-store")
NOT_FRAMED: Final = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
PERMISSIONS: Final = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "browsing-topics",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "hid",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "publickey-credentials-get",
        "serial",
        "usb",
    )
)
#: A year, in seconds.
HSTS: Final = "max-age=31536000"


def csp_nonce() -> str:
    """Return the nonce of this answer, for its policy and its templates."""
    if "csp_nonce" not in g:
        g.csp_nonce = secrets.token_urlsafe(16)
    nonce: str = g.csp_nonce
    return nonce


def init_app(app: Flask, *, https: bool) -> None:
    """Give every answer its headers, around the application: each costs a search where Flask sets it."""
    fixed = [
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Permissions-Policy", PERMISSIONS),
    ]
    if https:
        fixed.append(("Strict-Transport-Security", HSTS))
    ours = {name.lower() for name, _ in fixed}
    inner = app.wsgi_app

    def wsgi_app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        static = environ["PATH_INFO"].startswith(STATIC)

        def start(status: str, headers: list[tuple[str, str]], *failure: Any) -> Callable[[bytes], object]:
            given = {name.lower() for name, _ in headers}
            replaced = ours if static else ours | {"cache-control"}
            if given & replaced:
                headers = [pair for pair in headers if pair[0].lower() not in replaced]
            headers += fixed
            if not static:
                headers.append(NOT_STORED)
            if "content-security-policy" not in given:
                headers.append(NOT_FRAMED)
            return start_response(status, headers, *failure)

        return inner(environ, start)

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]
