"""What a frame's page sends once the host's script has handed it a token."""

from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load
from marshmallow.validate import Length, Regexp

from pat_service.credentials import Secret
from pat_service.embed.answers import the_token
from pat_service.errors import InvalidPayload, flat
from pat_service.http.headers import NONCE
from pat_service.http.payload import BODY, printable, read_object
from pat_service.shapes import MAX_ORIGIN_LENGTH


@dataclass(frozen=True, slots=True)
class Handover:
    """A token, the origin of the page that it came from, and where a page is wanted, the nonce for that.

    The origin is compared and never kept, so that any text may be one; browsers also say `null`.
    """

    token: Secret
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
        return Handover(the_token([data["access_token"]]), data["parent_origin"], data["nonce"])


_schema = _HandoverSchema()


def read_handover() -> Handover:
    """Return what the body holds, its token within its limit; or raise InvalidPayload or as `the_token`."""
    try:
        handover: Handover = _schema.load(read_object())
    except ValidationError as error:
        texts = flat(error.normalized_messages(), BODY)
        raise InvalidPayload({printable(name): found for name, found in texts.items()}) from None
    return handover
