"""What a frame's page sends once the host's script has handed it a token."""

from dataclasses import dataclass, field
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load
from marshmallow.validate import Length, Regexp

from pat_service.http.headers import NONCE
from pat_service.http.payload import invalid, read_object
from pat_service.shapes import MAX_ORIGIN_LENGTH


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
