"""The request of a frame's page after the host's script has handed it a token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flask import request
from marshmallow import Schema, fields, post_load
from marshmallow.validate import Length, Regexp

from pat_service.http.headers import NONCE
from pat_service.http.payload import StrictParser
from pat_service.shapes import ANY_ORIGIN, MAX_ORIGIN_LENGTH

#: This parameter of a frame's address holds the host page's origin, as embed.js writes it.
PARENT_PARAMETER: Final = "parent"


@dataclass(frozen=True, slots=True)
class Handover:
    """A token, the origin of its sender, and the nonce for the page to return, if any.

    The origin may be any text, such as `null`: it is compared and never stored.
    """

    token: str = field(repr=False)
    parent: str
    nonce: str | None


class _HandoverSchema(Schema):
    access_token = fields.String(required=True, data_key="accessToken")
    parent_origin = fields.String(
        required=True, data_key="parentOrigin", validate=Length(1, MAX_ORIGIN_LENGTH)
    )
    nonce = fields.String(load_default=None, allow_none=True, validate=Regexp(rf"{NONCE}\Z"))

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Handover:
        return Handover(data["access_token"], data["parent_origin"], data["nonce"])


def read_handover() -> Handover:
    """Return the handover in the body. Raise InvalidPayload, PayloadTooLarge or UnsupportedMediaType."""
    handover: Handover = StrictParser().parse(_HandoverSchema(), request)
    return handover


def named_parent(allowed: Sequence[str]) -> dict[str, str]:
    """Return the origin in the frame's address as `parent`, if it may frame; else an empty dict."""
    named = request.args.get(PARENT_PARAMETER, "")
    is_allowed = named.lower() in allowed or (ANY_ORIGIN in allowed and len(named) <= MAX_ORIGIN_LENGTH)
    return {"parent": named} if is_allowed and named not in ("", ANY_ORIGIN) else {}
