"""What a frame's page sends once the host's script has handed it a token."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flask import request
from marshmallow import Schema, ValidationError, fields, post_load
from marshmallow.validate import Length, Regexp

from pat_service.http.headers import NONCE
from pat_service.http.payload import invalid, read_object
from pat_service.shapes import ANY_ORIGIN, MAX_ORIGIN_LENGTH

#: Parameter of a frame's address: the origin of the page around, as the host's script gives it.
PARENT_PARAMETER: Final = "parent"


@dataclass(frozen=True, slots=True)
class Handover:
    """What is given for a token, the origin that it came from, and where a page is wanted, its nonce.

    The origin is compared and never kept, so that any text may be one; browsers also say `null`.
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
    def _made(self, data: dict[str, Any], **_: Any) -> Handover:
        return Handover(data["access_token"], data["parent_origin"], data["nonce"])


_schema = _HandoverSchema()


def read_handover() -> Handover:
    """Return what the body holds, or raise as `read_object`."""
    try:
        handover: Handover = _schema.load(read_object())
    except ValidationError as error:
        raise invalid(error.normalized_messages()) from None
    return handover


def named_parent(allowed: Sequence[str]) -> dict[str, str]:
    """Return, as `parent`, the origin that the frame's address names, if it may frame; and nothing else."""
    named = request.args.get(PARENT_PARAMETER, "")
    known = named.lower() in allowed or (ANY_ORIGIN in allowed and len(named) <= MAX_ORIGIN_LENGTH)
    return {"parent": named} if known and named not in ("", ANY_ORIGIN) else {}
