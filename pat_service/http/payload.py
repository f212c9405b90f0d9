"""Strict JSON bodies: one object, in UTF-8, no key twice, within 16 KiB."""

import json
from collections.abc import Mapping
from contextlib import suppress
from math import nan
from typing import Any, Final, NoReturn

from flask import Request, request
from marshmallow import RAISE, ValidationError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, HTTPException

from pat_service.errors import InvalidPayload, PayloadTooLarge, UnsupportedMediaType

MAX_BODY: Final = 16 * 1024
#: Far more than any field takes, and few enough for Python to read.
MAX_DIGITS: Final = 100
#: The name under which an error that belongs to no field is told.
BODY: Final = "body"


class DuplicateKey(ValueError):
    """A JSON object has a key twice; parsers differ in which value they take."""


def read_object() -> dict[str, Any]:
    """Return the request's JSON object (RFC 8259, and I-JSON's rules of RFC 7493), or raise.

    PayloadTooLarge and UnsupportedMediaType come before InvalidPayload.
    """
    body = read_body(MAX_BODY)
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    try:
        value = json.loads(body.decode("utf-8"), **_HOOKS)
    except DuplicateKey as error:
        key = str(error)
        raise InvalidPayload({key: ["Must be given once."]}) from None
    except UnicodeDecodeError:
        raise InvalidPayload({BODY: ["Must be JSON in UTF-8."]}) from None
    except RecursionError:
        raise InvalidPayload({BODY: ["Must not be nested deeply."]}) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidPayload({BODY: [f"Must be one JSON object: see {place}."]}) from None
    if not isinstance(value, dict):
        raise InvalidPayload({BODY: ["Must be one JSON object."]})
    return value


def read_query() -> dict[str, str]:
    """Return the parameters of the address, or raise InvalidPayload where one is given twice."""
    found: dict[str, str] = {}
    for name, value in request.args.items(multi=True):
        if name in found:
            raise InvalidPayload({printable(name): ["Must be given once."]})
        found[name] = value
    return found


def receive(most: int) -> None:
    """Wait for the body, before it is decided who may do what with it.

    A sender may hold a body back for as long as it likes; what was decided before could be long out of
    date when the rest comes. Too much of it, or too little, is refused later, by `read_body`.
    """
    request.max_content_length = request.max_form_memory_size = most + 1
    if (request.content_length or 0) <= most:
        with suppress(Exception):
            request.get_data()


def read_body(most: int) -> bytes:
    """Return the request's body, or raise PayloadTooLarge where it has more than `most` bytes.

    What parses the body afterwards finds it read.
    """
    # A chunked body is cut off at the limit without a word, so one byte more is let in, and counted.
    request.max_content_length = request.max_form_memory_size = most + 1
    if (request.content_length or 0) > most:
        raise PayloadTooLarge
    try:
        body = request.get_data()
    except HTTPException:
        raise
    except Exception:
        # Each server has a word of its own for chunks that it cannot take apart.
        raise BadRequest from None
    if len(body) > most:
        raise PayloadTooLarge
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DuplicateKey(printable(key))
        found[key] = value
    return found


def _no_number(_: str) -> float:
    # No field takes it, so that the answer names the field.
    return nan


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= MAX_DIGITS else nan


_HOOKS: Final[dict[str, Any]] = {
    "object_pairs_hook": _object,
    "parse_constant": _no_number,
    "parse_int": _integer,
}


def printable(text: str) -> str:
    """Return a field's name as an answer can carry it: without lone surrogates, and not endless."""
    return text[:100].encode("utf-8", "backslashreplace").decode("utf-8")


class StrictParser(FlaskParser):
    """webargs with our reading of JSON and our shape of errors."""

    DEFAULT_VALIDATION_STATUS = 400
    DEFAULT_UNKNOWN_BY_LOCATION = FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION | {"query": RAISE}

    def load_json(self, req: Request, schema: Any) -> Any:
        return read_object()

    def load_querystring(self, req: Request, schema: Any) -> Any:
        return read_query()

    def handle_error(
        self,
        error: ValidationError,
        req: Request,
        schema: Any,
        *,
        error_status_code: int | None,
        error_headers: Mapping[str, str] | None,
    ) -> NoReturn:
        # webargs files the messages under the place that the values came from.
        messages = {k: v for place in error.normalized_messages().values() for k, v in place.items()}
        raise InvalidPayload({_field(name): _texts(found) for name, found in messages.items()}) from None


def _field(name: Any) -> str:
    return BODY if name == "_schema" else printable(str(name))


def _texts(found: Any) -> list[str]:
    return [str(text) for text in found] if isinstance(found, list) else [str(found)]
