"""What the JSON of the audit trail looks like. Shape only."""

import re
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, post_load

from pat_service.api.fields import EXAMPLE_ID, EXAMPLE_MOMENT, Moment, QueryInteger, Request, text, uuid
from pat_service.rules.audit_export import EventFilter
from pat_service.shapes import parse_uuid
from pat_service.storage.paging import DEFAULT_LIMIT, MAX_LIMIT

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
#: A counter of a database has no more digits.
_EVENT_ID: Final = "[0-9]{1,18}"


def _like(pattern: str, wanted: str, **options: Any) -> fields.String:
    """A text that the pattern describes whole."""

    def check(value: str) -> None:
        if re.fullmatch(pattern, value, re.ASCII) is None:
            raise ValidationError(wanted)

    metadata = {"pattern": f"^{pattern}$"} | options.pop("metadata", {})
    return text(validate=check, metadata=metadata, **options)


def _event_id(description: str) -> fields.String:
    metadata = {"example": "1042", "description": description}
    return _like(_EVENT_ID, "Must be the id of an event: up to 18 digits.", metadata=metadata)


def _id_of(thing: str) -> fields.String:
    return uuid(data_key=f"{thing}Id")


class _EventQuery(Request):
    """Which events: those for which all that is given holds."""

    type = _like(
        "[a-z-]{1,32}:[a-z-]{1,32}",
        "Must be a type such as token:minted.",
        metadata={"example": "token:minted"},
    )
    code = _like(
        "[a-z_]{1,64}", "Must be a code such as token_expired.", metadata={"example": "token_expired"}
    )
    client_id = _like(
        "[!-~]{1,64}", "Must be the id of a client.", data_key="clientId", metadata={"example": "portal"}
    )
    workspace_id = _id_of("workspace")
    app_id = _id_of("app")
    user_id = _id_of("user")
    token_id = _id_of("token")
    session_id = _id_of("session")
    since = Moment(metadata={"description": "From this moment on."})
    until = Moment(metadata={"description": "Before this moment."})

    @post_load
    def make(self, query: dict[str, Any], **_: Any) -> dict[str, Any]:
        cursor, limit = query.pop("cursor", None), query.pop("limit", None)
        ids = ("workspace_id", "app_id", "user_id", "token_id", "session_id")
        found = query | {name: parse_uuid(query[name]) for name in ids if name in query}
        cursor = None if cursor is None else int(cursor)
        return {"event_filter": EventFilter(**found), "cursor": cursor, "limit": limit}


class EventsQuery(_EventQuery):
    """Which page of the trail, the newest first."""

    cursor = _event_id("`nextCursor` of the page before; leave it out for the first.")
    limit = QueryInteger(
        MAX_LIMIT, load_default=DEFAULT_LIMIT, metadata={"description": "Items of a page, at most."}
    )


class ExportQuery(_EventQuery):
    """From where on to export."""

    cursor = _event_id("The `id` of the last line that you have; leave it out for all.")


class EventItem(Schema):
    """What happened, when, to which ids. What was not known, or plays no part, is null."""

    id = fields.String(required=True, metadata={"pattern": f"^{_EVENT_ID}$"})
    at = Moment(required=True)
    type = fields.String(required=True)
    code = fields.String(required=True, allow_none=True)
    request_id = fields.String(data_key="requestId", required=True, allow_none=True)
    client_id = fields.String(data_key="clientId", required=True, allow_none=True)
    workspace_id = fields.String(data_key="workspaceId", required=True, allow_none=True)
    app_id = fields.String(data_key="appId", required=True, allow_none=True)
    user_id = fields.String(data_key="userId", required=True, allow_none=True)
    token_id = fields.String(data_key="tokenId", required=True, allow_none=True)
    session_id = fields.String(data_key="sessionId", required=True, allow_none=True)
    details = fields.Dict(
        required=True,
        allow_none=True,
        metadata={
            "description": "Of a change, what was `before` and is `after`; of a refusal, how many `times`."
        },
    )


EVENT = EventItem()
EVENTS = EventsQuery()
EXPORT = ExportQuery()
