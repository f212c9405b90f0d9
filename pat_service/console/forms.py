"""Read the fields of the console's forms. A wrong text raises InvalidPayload, never a server error."""

from typing import Final

from flask import request
from marshmallow import ValidationError

from pat_service.errors import InvalidPayload
from pat_service.shapes import check_email, check_text, normalize_email

#: In characters, for a field of a form or a filter.
MAX_TEXT: Final = 500


def read_text(name: str, *, most: int = MAX_TEXT) -> str:
    """Return a field of the form or a filter of the address, without white space around it."""
    text = request.values.get(name, "").strip()
    _check(name, text, most)
    return text


def read_texts(name: str, *, most: int = MAX_TEXT) -> list[str]:
    """Return all values of a field of the form."""
    texts = request.form.getlist(name)
    for text in texts:
        _check(name, text, most)
    return texts


def read_email(name: str) -> str:
    """Return an email in the form in which it is stored."""
    text = read_text(name)
    try:
        check_email(text)
    except ValidationError as error:
        raise InvalidPayload({name: [str(error.messages[0])]}) from None
    return normalize_email(text)


def _check(name: str, text: str, most: int) -> None:
    try:
        check_text(text)
    except ValidationError as error:
        raise InvalidPayload({name: [str(error.messages[0])]}) from None
    if len(text) > most:
        raise InvalidPayload({name: [f"Must be at most {most} characters long."]})
