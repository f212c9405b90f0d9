"""The request of a frame's page after the host's script has handed it a token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flask import request
from marshmallow import Schema, fields, post_load
from marshmallow.validate import Length, Regexp

from pat_service.embed.deep_link import PAGE_PARAMETER, PARAMS_PARAMETER
from pat_service.embed.hosts import launcher_origins
from pat_service.http import payload
from pat_service.http.headers import NONCE
from pat_service.shapes import ANY_ORIGIN, MAX_ANCESTORS, MAX_ORIGIN_LENGTH

#: This parameter of a frame's address holds the host page's origin, as embed.js writes it.
PARENT_PARAMETER: Final = "parent"


@dataclass(frozen=True, slots=True)
class Handover:
    """A token or one-time code, the origins around the frame, the former session, and the page's nonce.

    Origins may be any text, such as `null`: they are compared and never stored. `ancestors` is None if the
    browser does not report them. Without a nonce the answer has no page.
    """

    token: str = field(repr=False)
    parent: str
    ancestors: tuple[str, ...] | None
    session: str | None = field(repr=False)
    nonce: str | None
    #: At most one text each.
    pages: tuple[str, ...] = ()
    params: tuple[str, ...] = ()


class _HandoverSchema(Schema):
    access_token = fields.String(required=True, data_key="accessToken")
    parent_origin = fields.String(
        required=True, data_key="parentOrigin", validate=Length(1, MAX_ORIGIN_LENGTH)
    )
    ancestor_origins = fields.List(
        fields.String(validate=Length(1, MAX_ORIGIN_LENGTH)),
        data_key="ancestorOrigins",
        load_default=None,
        allow_none=True,
        validate=Length(1, MAX_ANCESTORS),
    )
    session = fields.String(load_default=None, allow_none=True)
    nonce = fields.String(load_default=None, allow_none=True, validate=Regexp(rf"{NONCE}\Z"))
    page = fields.String(load_default=None, allow_none=True)
    params = fields.String(load_default=None, allow_none=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Handover:
        given = data["ancestor_origins"]
        ancestors = None if given is None else tuple(origin.lower() for origin in given)
        return Handover(
            data["access_token"],
            data["parent_origin"],
            ancestors,
            data["session"],
            data["nonce"],
            _given(data[PAGE_PARAMETER]),
            _given(data[PARAMS_PARAMETER]),
        )


def _given(text: str | None) -> tuple[str, ...]:
    return (text,) if text else ()


_schema = _HandoverSchema()


def read_handover() -> Handover:
    """Return the handover in the body. Raise InvalidPayload, PayloadTooLarge or UnsupportedMediaType."""
    handover: Handover = payload.load(_schema)
    return handover


def named_parent(allowed: Sequence[str]) -> dict[str, str]:
    """Return the origin in the frame's address as `parent`, if it may frame; else an empty dict."""
    named = request.args.get(PARENT_PARAMETER, "")
    is_allowed = named.lower() in allowed or (ANY_ORIGIN in allowed and len(named) <= MAX_ORIGIN_LENGTH)
    return {"parent": named} if is_allowed and named not in ("", ANY_ORIGIN) else {}


def is_in_launcher() -> bool:
    """Return whether the frame's address names a launcher of this installation as its parent."""
    # Most requests of frames have no query, and parsing it takes 3% of a session check.
    named = request.args.get(PARENT_PARAMETER, "").lower() if request.query_string else ""
    return named != "" and named in launcher_origins()
