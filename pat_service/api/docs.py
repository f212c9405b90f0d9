"""The API's document as JSON and as a page. Both are public, since they hold no secret."""

from collections.abc import Callable
from typing import Any, Final

from flask import Blueprint, Response, jsonify, render_template, url_for

from pat_service.http.headers import csp_nonce

#: Swagger UI, unchanged, below static/. Other renderers that we tried fail under POLICY.
RENDERER: Final = "vendor/swagger-ui-5.35.0"
#: Swagger UI's style sheet has images as `data:`.
POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def blueprint(document: Callable[[], dict[str, Any]]) -> Blueprint:
    """Return the views of `/api/openapi.json` and `/api/docs`."""
    views = Blueprint("docs", __name__, url_prefix="/api")

    @views.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(document())

    @views.get("/docs")
    def page() -> Response:
        html = render_template(
            "api/docs.html", document=url_for("docs.openapi"), renderer=RENDERER, csp_nonce=csp_nonce()
        )
        return Response(html, headers={"Content-Security-Policy": POLICY.format(nonce=csp_nonce())})

    return views
