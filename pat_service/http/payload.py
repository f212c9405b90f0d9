"""Strict JSON bodies: one object, in UTF-8, no key twice, within 16 KiB."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import nan
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from flask import Request, request
from marshmallow import RAISE, ValidationError
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, HTTPException

from pat_service.credentials import redact
from pat_service.errors import InvalidPayload, PayloadTooLarge, UnsupportedMediaType, flat

MAX_BODY: Final = 16 * 1024
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
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
    if request.mimetype != JSON:
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


def read_object_or_form() -> dict[str, Any]:
    """Return the fields of the request, be it a JSON object or a form as OAuth has it; or raise likewise."""
    if request.mimetype not in (JSON, FORM):
        read_body(MAX_BODY)
        raise UnsupportedMediaType(f"Send the body with Content-Type: {FORM} or {JSON}.")
    return read_object() if request.mimetype == JSON else _read_form()


def _read_form() -> dict[str, str]:
    try:
        pairs = parse_qsl(read_body(MAX_BODY).decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidPayload({BODY: ["Must be an URL-encoded form in UTF-8."]}) from None
    # A parameter without a value counts as left out (RFC 6749, 3.2).
    return _each_once((name, value) for name, value in pairs if value)


def read_nothing() -> None:
    """Take no body, or an empty object, and raise as `read_object` does for any other."""
    if read_body(MAX_BODY) and (given := read_object()):
        raise InvalidPayload({printable(name): ["Is not a field of this request."] for name in given})


def read_query() -> dict[str, str]:
    """Return the parameters of the address, or raise InvalidPayload where one is given twice."""
    return _each_once(request.args.items(multi=True))


def _each_once(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidPayload({printable(name): ["Must be given once."]})
        found[name] = value
    return found


def receive(most: int) -> None:
    """Wait for the body, before it is decided who may do what with it.

    A sender may hold a body back for as long as it likes; what was decided before could be long out of
    date when the rest comes. Too much of it, or too little, is refused later, by `read_body`.
    """
    environ = request.environ
    if not (environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ):
        return
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
    """Return a field's name as an answer can carry it: without secrets, lone surrogates and end."""
    return redact(text)[:100].encode("utf-8", "backslashreplace").decode("utf-8")


def invalid(messages: Mapping[str, Any]) -> InvalidPayload:
    """Return what a schema found wrong with a body, by field."""
    return InvalidPayload({printable(name): found for name, found in flat(messages, BODY).items()})


class StrictParser(FlaskParser):
    """webargs with our reading of JSON and our shape of errors."""

    DEFAULT_VALIDATION_STATUS = 400
    DEFAULT_UNKNOWN_BY_LOCATION = FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION | {"query": RAISE}

    def load_json(self, req: Request, schema: Any) -> Any:
        return read_object()

    def load_json_or_form(self, req: Request, schema: Any) -> Any:
        return read_object_or_form()

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
        raise invalid(messages) from None
