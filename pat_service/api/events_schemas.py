"""Requests and answers of the audit trail. They check shape only."""

import re
from typing import Any, Final

from marshmallow import ValidationError, fields, post_load

from pat_service.api.fields import (
    EXAMPLE_ID,
    EXAMPLE_MOMENT,
    AnswerSchema,
    Moment,
    RequestSchema,
    limit,
    text,
    uuid,
)
from pat_service.rules.audit_export import EventFilter

EXAMPLE_EVENT: Final = {
    "id": "1042",
    "at": EXAMPLE_MOMENT,
    "type": "session:open-refused",
    "code": "token_superseded",
    "requestId": "6f1c9a52-0c3e-4f7a-9d0b-5a8e2f4c7b11",
    "clientId": "portal",
    "workspaceId": "2c4f0a3e-7f58-4d1c-8a55-0f6f4f3f9c01",
    "appId": EXAMPLE_ID,
    "userId": "9b0e6c1d-3d62-4a0f-b7c4-5d1f0a2e8c33",
    "tokenId": "4e7d2b90-61aa-4c55-9f0e-7c3b1d5a6f22",
    "sessionId": None,
    "details": {"times": 3},
}
EVENT_TYPE_PATTERN: Final = "[a-z-]{1,32}:[a-z-]{1,32}"
#: Every number of 18 digits fits into a 64-bit counter.
_EVENT_ID: Final = "[0-9]{1,18}"


def _matching(pattern: str, error_text: str, **options: Any) -> fields.String:
    """Return a field for texts that match the whole pattern."""

    def check(value: str) -> None:
        if re.fullmatch(pattern, value, re.ASCII) is None:
            raise ValidationError(error_text)

    metadata = {"pattern": f"^{pattern}$"} | options.pop("metadata", {})
    return text(validate=check, metadata=metadata, **options)


def _event_id(description: str) -> fields.String:
    metadata = {"example": "1042", "description": description}
    return _matching(_EVENT_ID, "Must be the id of an event: up to 18 digits.", metadata=metadata)


class _EventQuerySchema(RequestSchema):
    """Filters for events. An event must match all of them."""

    type = _matching(
        EVENT_TYPE_PATTERN,
        "Must be a type such as token:minted.",
        metadata={"example": "token:minted"},
    )
    code = _matching(
        "[a-z_]{1,64}", "Must be a code such as token_expired.", metadata={"example": "token_expired"}
    )
    client_id = _matching("[!-~]{1,64}", "Must be the id of a client.", metadata={"example": "portal"})
    workspace_id = uuid()
    app_id = uuid()
    user_id = uuid()
    token_id = uuid()
    session_id = uuid()
    since = Moment(metadata={"description": "At this time or later."})
    until = Moment(metadata={"description": "Before this time."})

    @post_load
    def make(self, query: dict[str, Any], **_: Any) -> dict[str, Any]:
        cursor, limit = query.pop("cursor", None), query.pop("limit", None)
        return {"event_filter": EventFilter(**query), "cursor": cursor and int(cursor), "limit": limit}


class EventsQuerySchema(_EventQuerySchema):
    """A page of the trail, newest first."""

    cursor = _event_id("`nextCursor` of the previous page. Leave it out for the first page.")
    limit = limit()


class ExportQuerySchema(_EventQuerySchema):
    """Where the export starts."""

    cursor = _event_id("The `id` of the last line that you have. Leave it out to get all.")


class EventItemSchema(AnswerSchema):
    """An audit event. Values that are unknown or do not apply are null."""

    id = fields.String(metadata={"pattern": f"^{_EVENT_ID}$"})
    at = Moment()
    type = fields.String()
    code = fields.String(allow_none=True)
    request_id = fields.String(allow_none=True)
    client_id = fields.String(allow_none=True)
    workspace_id = fields.String(allow_none=True)
    app_id = fields.String(allow_none=True)
    user_id = fields.String(allow_none=True)
    token_id = fields.String(allow_none=True)
    session_id = fields.String(allow_none=True)
    details = fields.Dict(
        allow_none=True,
        metadata={
            "description": "For a change, `before` and `after`. For a refusal, how many `times` it happened."
        },
    )


EVENT = EventItemSchema()
