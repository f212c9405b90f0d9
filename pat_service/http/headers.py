"""Security headers of every answer. Frames set a policy of their own; everything else is in no frame."""

import secrets
from typing import Final

from flask import Flask, Response, g, request

NOT_FRAMED: Final = "default-src 'none'; frame-ancestors 'none'"
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


def init_app(app: Flask, *, https: bool, apart: bool) -> None:
    """Send them. `apart`: each app has an origin of its own."""
    fixed = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": PERMISSIONS,
    }
    if https:
        fixed["Strict-Transport-Security"] = HSTS
    if apart:
        # Without it two hosts of one domain share a process, and could agree on a common `document.domain`.
        fixed["Origin-Agent-Cluster"] = "?1"

    def add(response: Response) -> Response:
        response.headers.update(fixed)
        response.headers.setdefault("Content-Security-Policy", NOT_FRAMED)
        if request.endpoint != "static":
            response.headers["Cache-Control"] = "no-store"
        return response

    app.after_request(add)
