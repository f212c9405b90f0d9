"""What the frame's script says to people, with its page and on its own."""

from typing import Any

from flask import Blueprint, Response, jsonify

from pat_service.embed.advice import script_texts
from pat_service.embed.locale import language, locale, theme

blueprint = Blueprint("texts", __name__)


def wishes() -> dict[str, Any]:
    """Return locale and theme as the host or the browser wishes them, and the script's texts."""
    return {
        "locale": locale(),
        "language": language(),
        "theme": theme(),
        "texts": script_texts(language()),
    }


@blueprint.get("/embed-texts")
def texts() -> Response:
    """The texts in the language of `?locale=`, for a frame whose host changes it."""
    return jsonify(wishes())
