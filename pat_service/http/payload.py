"""Strict JSON bodies: one object, in UTF-8, no key twice, within 16 KiB."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from math import nan
from typing import IO, Any, Final
from urllib.parse import parse_qsl

from flask import Request, request
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.formparser import FormDataParser

from pat_service.credentials import redact
from pat_service.errors import InvalidPayload, PayloadTooLarge, Refused, UnsupportedMediaType, flatten

MAX_BODY_BYTES: Final = 16 * 1024
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
#: Limit for the headers of all parts of a multipart form, enough for 1000 fields with names of 80 characters.
#: The framework parses 1 MiB of such headers in 0.6 s, and this limit in 0.06 s.
MAX_PART_HEADERS_BYTES: Final = 128 * 1024
_BLANK_LINE: Final = re.compile(rb"\r\n\r\n|\r\r|\n\n")
#: More digits than any field allows. Python refuses to parse thousands of digits.
MAX_DIGITS: Final = 100
#: The name of the field in an error about the whole body.
BODY: Final = "body"


class DuplicateKey(ValueError):
    """A JSON object has a key twice; parsers differ in the value they use."""


def read_object() -> dict[str, Any]:
    """Return the request's JSON object (RFC 8259, with I-JSON's rules of RFC 7493).

    Raise PayloadTooLarge, UnsupportedMediaType or InvalidPayload, in this order.
    """
    body = read_body(MAX_BODY_BYTES)
    if request.mimetype != JSON:
        raise UnsupportedMediaType
    if body.startswith(BOM_UTF8):
        raise InvalidPayload({BODY: ["Must be JSON in UTF-8 without a byte order mark."]})
    try:
        value = json.loads(body.decode("utf-8"), **_HOOKS)
    except DuplicateKey as error:
        key = str(error)
        raise InvalidPayload({key: ["Must be given once."]}) from None
    except UnicodeDecodeError:
        raise InvalidPayload({BODY: ["Must be JSON in UTF-8."]}) from None
    except RecursionError:
        raise InvalidPayload({BODY: ["Must not be nested too deeply."]}) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidPayload({BODY: [f"Must be one JSON object: see {place}."]}) from None
    if not isinstance(value, dict):
        raise InvalidPayload({BODY: ["Must be one JSON object."]})
    return value


def read_object_or_form() -> dict[str, Any]:
    """Return the fields of a JSON object or an OAuth form. Raise as `read_object` does."""
    if request.mimetype not in (JSON, FORM):
        read_body(MAX_BODY_BYTES)
        raise UnsupportedMediaType(f"Send the body with Content-Type: {FORM} or {JSON}.")
    return read_object() if request.mimetype == JSON else _read_form()


def _read_form() -> dict[str, str]:
    try:
        pairs = parse_qsl(read_body(MAX_BODY_BYTES).decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise InvalidPayload({BODY: ["Must be a URL-encoded form in UTF-8."]}) from None
    # A parameter without a value counts as omitted (RFC 6749, 3.2).
    return _unique((name, value) for name, value in pairs if value)


def read_nothing() -> None:
    """Accept no body or an empty object. Raise as `read_object` does, and InvalidPayload for any field."""
    if read_body(MAX_BODY_BYTES) and (fields := read_object()):
        raise InvalidPayload({printable(name): ["Is not a field of this request."] for name in fields})


def read_query() -> dict[str, str]:
    """Return the parameters of the address. Raise InvalidPayload if one is given twice."""
    if any(pair.startswith(b"email=") and b"+" in pair for pair in request.query_string.split(b"&")):
        # A bare + means a blank there, which no email has.
        raise InvalidPayload({"email": ["Must have %2B in place of + in an address."]})
    return _unique(request.args.items(multi=True))


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise InvalidPayload({printable(name): ["Must be given once."]})
        values[name] = value
    return values


class _FormParser(FormDataParser):
    """Werkzeug's parser, with a limit for the headers of parts."""

    def parse(
        self,
        stream: IO[bytes],
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> Any:
        """Parse a form. Raise PayloadTooLarge beyond `MAX_PART_HEADERS_BYTES`."""
        boundary = (options or {}).get("boundary", "")
        if mimetype == MULTIPART and boundary.isascii():
            body = stream.read()
            _check_part_headers(body, boundary.encode())
            stream = BytesIO(body)
        return super().parse(stream, mimetype, content_length, options)


def _check_part_headers(body: bytes, boundary: bytes) -> None:
    # It counts text that resembles a boundary too, so that no header can hide behind such text.
    starts = re.compile(rb"--" + re.escape(boundary) + rb"[^\S\r\n]*(?:\r\n|\n|\r)")
    left = MAX_PART_HEADERS_BYTES
    for start in starts.finditer(body):
        end = _BLANK_LINE.search(body, start.end(), start.end() + left + len("\r\n\r\n"))
        left -= (end.start() if end else len(body)) - start.end()
        if left < 0:
            raise PayloadTooLarge(f"The headers of all parts may have {MAX_PART_HEADERS_BYTES} bytes.")


class FormRequest(Request):
    """Flask's request, with our limits for forms."""

    form_data_parser_class = _FormParser


def receive_body(limit_bytes: int) -> None:
    """Wait for the body before the caller's rights are checked.

    A sender can delay a body, and the rights may change before it arrives. `read_body` later refuses a wrong
    size.
    """
    environ = request.environ
    if not (environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ):
        return
    request.max_content_length = request.max_form_memory_size = limit_bytes + 1
    if (request.content_length or 0) <= limit_bytes:
        with suppress(Exception):
            request.get_data()


def read_body(limit_bytes: int) -> bytes:
    """Return the request's body, and cache it for later parsers.

    Raise PayloadTooLarge beyond the limit, and UnsupportedMediaType for a compressed body.
    """
    # Werkzeug silently cuts a chunked body off at the limit, so allow one byte more and count.
    request.max_content_length = request.max_form_memory_size = limit_bytes + 1
    if (request.content_length or 0) > limit_bytes:
        raise PayloadTooLarge
    try:
        body = request.get_data()
    except HTTPException:
        raise
    except Exception:
        # Each server raises its own error for malformed chunks.
        raise BadRequest from None
    if len(body) > limit_bytes:
        raise PayloadTooLarge
    if body and request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding.")
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise DuplicateKey(printable(key))
        members[key] = value
    return members


def _no_number(_: str) -> float:
    # No field accepts NaN, so the answer names the field.
    return nan


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= MAX_DIGITS else nan


_HOOKS: Final[dict[str, Any]] = {
    "object_pairs_hook": _object,
    "parse_constant": _no_number,
    "parse_int": _integer,
}


def printable(text: str) -> str:
    """Return a field's name for an answer: without secrets and lone surrogates, at most 100 characters."""
    return redact(text)[:100].encode("utf-8", "backslashreplace").decode("utf-8")


def invalid(messages: Mapping[str, Any]) -> InvalidPayload:
    """Return a schema's messages about a body as an error, by field."""
    return InvalidPayload({printable(name): texts for name, texts in flatten(messages, BODY).items()})


#: Where a request has its arguments → the function that reads them.
_READERS: Final = {"json": read_object, "json_or_form": read_object_or_form, "query": read_query}


def load(schema: Schema, location: str = "json") -> Any:
    """Return the request's arguments as the schema loads them.

    Raise InvalidPayload, and the errors of the location's reader.
    """
    try:
        return schema.load(_READERS[location]())
    except ValidationError as error:
        raise invalid(error.normalized_messages()) from None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a body, or the error that refuses it. The caller sees the error only after `get`."""

    loaded: Any
    refusal: Refused | HTTPException | None = None

    @classmethod
    def read(cls, schema: Schema) -> "Arguments":
        """Wait for the body, and load it with the schema."""
        try:
            return cls(load(schema))
        except (Refused, HTTPException) as refusal:
            return cls(None, refusal)

    def get(self) -> Any:
        """Return the arguments. Raise the errors of `load`."""
        if self.refusal is not None:
            raise self.refusal
        return self.loaded
