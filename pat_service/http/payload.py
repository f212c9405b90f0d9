"""Strict JSON bodies: one object, in UTF-8, no key twice, within 16 KiB."""

import json
import logging
import mmap
import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom, BytesIO
from math import nan
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO, Any, Final, cast
from urllib.parse import parse_qsl

from flask import Request, request
from marshmallow import Schema, ValidationError
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.formparser import FormDataParser

from pat_service.credentials import redact
from pat_service.errors import (
    InvalidPayload,
    NoSpace,
    PayloadTooLarge,
    Refused,
    UnsupportedMediaType,
    flatten,
)

MAX_BODY_BYTES: Final = 16 * 1024
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
#: Larger bodies, which only some apps accept, are received to disk.
MAX_IN_MEMORY_BYTES: Final = 1024 * 1024
COPY_BYTES: Final = 64 * 1024
#: Limits for a URL-encoded form, and for the number of its fields.
MAX_FIELDS_BYTES: Final = MAX_IN_MEMORY_BYTES
MAX_FIELDS: Final = 1000
#: Limit for the files of a form on disk. Each can have a file descriptor, of which a process often has 1024.
MAX_FILES: Final = 100
#: Smaller files of a form on disk are in memory.
MAX_SPOOLED_BYTES: Final = MAX_IN_MEMORY_BYTES // MAX_FILES
#: Limit for the headers of all parts of a multipart form, enough for 1000 fields with names of 80 characters.
#: The framework parses 1 MiB of such headers in 0.6 s, and this limit in 0.06 s.
MAX_PART_HEADERS_BYTES: Final = 128 * 1024
_BLANK_LINE: Final = re.compile(rb"\r\n\r\n|\r\r|\n\n")
#: More digits than any field allows. Python refuses to parse thousands of digits.
MAX_DIGITS: Final = 100
#: The name of the field in an error about the whole body.
BODY: Final = "body"
_log = logging.getLogger(__name__)


class DuplicateKey(ValueError):
    """A JSON object has a key twice; parsers differ in the value they use."""


def read_object() -> dict[str, Any]:
    """Return the request's JSON object (RFC 8259, with I-JSON's rules of RFC 7493).

    Raise PayloadTooLarge, UnsupportedMediaType or InvalidPayload, in this order.
    """
    body = read_body(MAX_BODY_BYTES)
    if request.mimetype != JSON:
        raise UnsupportedMediaType
    return parse_object(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body, or raise InvalidPayload."""
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
    """Werkzeug's parser, with limits for the fields and for the headers of parts."""

    def parse(
        self,
        stream: IO[bytes],
        mimetype: str,
        content_length: int | None,
        options: dict[str, str] | None = None,
    ) -> Any:
        """Parse a form. Raise PayloadTooLarge beyond `MAX_FIELDS` or `MAX_PART_HEADERS_BYTES`."""
        boundary = (options or {}).get("boundary", "")
        if mimetype == FORM:
            body = _read_fields(stream)
            stream = BytesIO(body)
        elif mimetype == MULTIPART and boundary.isascii():
            view = _view(stream)
            _check_part_headers(view, boundary.encode())
            stream = BytesIO(view) if isinstance(view, bytes) else stream
        with _storing():
            return super().parse(stream, mimetype, content_length, options)


def _read_fields(stream: IO[bytes]) -> bytes:
    """Return a URL-encoded form, whose fields are all in memory."""
    body = stream.read(MAX_FIELDS_BYTES + 1)
    if len(body) > MAX_FIELDS_BYTES:
        raise too_large(MAX_FIELDS_BYTES)
    # Half a million empty fields take seconds to parse. The parser limits multipart itself.
    if body.count(b"&") > MAX_FIELDS:
        raise PayloadTooLarge(f"A form may have at most {MAX_FIELDS} fields.")
    return body


def _view(stream: IO[bytes]) -> bytes | mmap.mmap:
    """Return the whole body for a search: mapped, if it is on disk."""
    if not isinstance(stream, BufferedRandom):
        return stream.read()
    # The mapping ends with the search, since an open match object would forbid to close it.
    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if _size_of(stream) else b""


def _size_of(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _check_part_headers(body: bytes | mmap.mmap, boundary: bytes) -> None:
    # It counts text that resembles a boundary too, so that no header can hide behind such text.
    starts = re.compile(rb"--" + re.escape(boundary) + rb"[^\S\r\n]*(?:\r\n|\n|\r)")
    left = MAX_PART_HEADERS_BYTES
    for start in starts.finditer(body):
        end = _BLANK_LINE.search(body, start.end(), start.end() + left + len("\r\n\r\n"))
        left -= (end.start() if end else len(body)) - start.end()
        if left < 0:
            raise PayloadTooLarge(f"The headers of all parts may have {MAX_PART_HEADERS_BYTES} bytes.")


class _Parameters(ImmutableMultiDict[str, str]):
    """Werkzeug's dict. It builds an HTTP exception for each absent parameter: 3% of an opening."""

    def get(self, key: str, default: Any = None, type: Any = None) -> Any:  # type: ignore[override]
        return super().get(key, default, type) if key in self else default


@contextmanager
def _storing() -> Iterator[None]:
    """Raise NoSpace if a file cannot be opened or written."""
    try:
        yield
    except OSError as error:
        _log.error("a body cannot be stored: %s", error)
        raise NoSpace from None


class FormRequest(Request):
    """Flask's request, with our limits for forms, and with large bodies on disk."""

    form_data_parser_class = _FormParser
    parameter_storage_class = _Parameters
    #: The body, if it was received to disk.
    on_disk: IO[bytes] | None = None
    #: The error that `check_body` raises, since the body could not be stored.
    no_space: NoSpace | None = None
    #: The files that `close` closes.
    _open: tuple[IO[bytes], ...] = ()

    def receive_to_disk(self, most_bytes: int) -> None:
        """Copy at most this much of the body into a file without a name. It is deleted with the request."""
        try:
            self._copy_to_disk(most_bytes)
        except NoSpace as error:
            self.no_space = error

    def _copy_to_disk(self, most_bytes: int) -> None:
        with _storing():
            file = self.on_disk = TemporaryFile()  # noqa: SIM115 - `close` closes it
            self._open = (file,)
        while most_bytes and (part := self.stream.read(min(most_bytes, COPY_BYTES))):
            with _storing():
                most_bytes -= file.write(part)
        with _storing():
            file.seek(0)
        self.__dict__["stream"] = file

    def _get_file_stream(self, *args: Any, **kwargs: Any) -> IO[bytes]:
        """Return a file for a part of a form. Raise PayloadTooLarge beyond `MAX_FILES`."""
        if self.on_disk is None:
            return super()._get_file_stream(*args, **kwargs)
        if len(self._open) > MAX_FILES:
            raise PayloadTooLarge(f"A form over {MAX_FIELDS_BYTES // 1024**2} MB may have {MAX_FILES} files.")
        file = cast(IO[bytes], SpooledTemporaryFile(max_size=MAX_SPOOLED_BYTES))  # noqa: SIM115
        self._open = (*self._open, file)
        return file

    def close(self) -> None:
        for file in self._open:
            # It may still have bytes that the disk does not take.
            with suppress(OSError):
                file.close()
        super().close()


def may_be_longer(limit_bytes: int) -> bool:
    """Return whether the request announces a longer body, or a body of unknown length."""
    return (request.content_length or 0) > limit_bytes or "HTTP_TRANSFER_ENCODING" in request.environ


def receive_body(limit_bytes: int) -> None:
    """Wait for the body before the caller's rights are checked.

    A sender can delay a body, and the rights may change before it arrives. `check_body` later refuses a wrong
    size. With a limit above `MAX_IN_MEMORY_BYTES` the body goes to disk.
    """
    environ = request.environ
    if not (environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ):
        return
    _limit_request(limit_bytes)
    if (request.content_length or 0) <= limit_bytes:
        with suppress(Exception):
            if limit_bytes > MAX_IN_MEMORY_BYTES:
                cast(FormRequest, request).receive_to_disk(limit_bytes + 1)
            else:
                request.get_data()


def read_body(limit_bytes: int) -> bytes:
    """Return the request's body, and cache it for later parsers. Raise as `check_body` does."""
    check_body(limit_bytes)
    return request.get_data()


def check_body(limit_bytes: int) -> None:
    """Raise PayloadTooLarge beyond the limit, UnsupportedMediaType for a compressed body, or NoSpace."""
    _limit_request(limit_bytes)
    if (request.content_length or 0) > limit_bytes:
        raise too_large(limit_bytes)
    size = _received_bytes()
    if size > limit_bytes:
        raise too_large(limit_bytes)
    if size and request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding.")


def too_large(limit_bytes: int) -> PayloadTooLarge:
    """Return the refusal of a body above the limit."""
    mib = 1024 * 1024
    size = f"{limit_bytes // mib} MB" if limit_bytes >= mib else f"{limit_bytes // 1024} KB"
    text = f"The body is larger than this address accepts: at most {size}."
    return PayloadTooLarge(text, limit_bytes=limit_bytes)


def _limit_request(limit_bytes: int) -> None:
    # Werkzeug silently cuts a chunked body off at the limit, so allow one byte more and count.
    request.max_content_length = limit_bytes + 1
    request.max_form_memory_size = min(limit_bytes, MAX_IN_MEMORY_BYTES) + 1


def _received_bytes() -> int:
    on_disk: IO[bytes] | None = getattr(request, "on_disk", None)
    if no_space := getattr(request, "no_space", None):
        raise no_space
    try:
        if on_disk is None:
            return len(request.get_data())
        if request.stream is not on_disk:
            # It broke off.
            raise BadRequest
        return _size_of(on_disk)
    except HTTPException:
        raise
    except Exception:
        # Each server raises its own error for malformed chunks.
        raise BadRequest from None


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
