"""What the frame's script says to people, with its page and on its own."""

from functools import cache
from typing import Any

from flask import Blueprint, Response, jsonify
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from pat_service.embed.advice import script_texts
from pat_service.embed.locale import language, locale, theme

blueprint = Blueprint("texts", __name__)


def wishes() -> dict[str, Any]:
    """Return locale and theme as the host or the browser wishes them, and the language of the texts."""
    return {"locale": locale(), "language": language(), "theme": theme()}


@cache
def texts_in(language: str) -> Markup:
    """Return the script's texts in one of `texts.LANGUAGES`, for a block of JSON in a page."""
    return htmlsafe_json_dumps(script_texts(language))


@blueprint.app_template_global()
def embed_texts() -> Markup:
    """Return the script's texts in the language of this request."""
    return texts_in(language())


@blueprint.get("/embed-texts")
def texts() -> Response:
    """The texts in the language of `?locale=`, for a frame whose host changes it."""
    return jsonify(wishes() | {"texts": script_texts(language())})
