"""The texts of frame.js, inside a page and as a separate response."""

from functools import cache
from typing import Any

from flask import Blueprint, Response, jsonify
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from pat_service.embed.advice import script_texts
from pat_service.embed.locale import language, locale, theme

blueprint = Blueprint("texts", __name__)


def preferences() -> dict[str, Any]:
    """Return the request's locale and theme, and the language of its texts."""
    return {"locale": locale(), "language": language(), "theme": theme()}


@cache
def texts_in(language: str) -> Markup:
    """Return the script's texts in one of `texts.LANGUAGES`, as JSON for a page."""
    return htmlsafe_json_dumps(script_texts(language))


@blueprint.app_template_global()
def embed_texts() -> Markup:
    """Return the script's texts in the language of this request."""
    return texts_in(language())


@blueprint.get("/embed-texts")
def texts() -> Response:
    """Return the texts in the language of `?locale=`, after the host has changed a frame's locale."""
    return jsonify(preferences() | {"texts": script_texts(language())})
