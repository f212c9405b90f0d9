"""The answer at `/`: what this server is. In development the demo portal is there, if it has its apps."""

from typing import Final

from flask import Blueprint, Response, jsonify, render_template, request

from pat_service.http.headers import csp_nonce
from pat_service.http.public_url import require_common_host

POLICY: Final = (
    "default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
#: Public addresses. The version is only at `/healthz`.
ADDRESSES: Final = {"docs": "/api/docs", "openapi": "/api/openapi.json", "health": "/healthz"}

blueprint: Final = Blueprint("home", __name__)


@blueprint.get("/")
def home() -> Response:
    """Answer with a page for browsers and with JSON for programs, on the common host only."""
    require_common_host()
    if "text/html" not in request.headers.get("Accept", ""):
        return jsonify(name="pat-service", **ADDRESSES)
    page = render_template("api/home.html", addresses=ADDRESSES, csp_nonce=csp_nonce())
    return Response(page, headers={"Content-Security-Policy": POLICY.format(nonce=csp_nonce())})
