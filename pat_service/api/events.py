"""Views of the audit trail: a page, or a stream for a system that follows it."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from flask import Response, g, json, stream_with_context

from pat_service.api.blueprint import blueprint
from pat_service.api.events_schemas import (
    EVENT,
    EXAMPLE_EVENT,
    EventItemSchema,
    EventsQuerySchema,
    ExportQuerySchema,
)
from pat_service.api.fields import page_of
from pat_service.http.authentication import client_required
from pat_service.rules import audit_export, callers
from pat_service.rules.audit_export import VisibleEvent
from pat_service.storage.paging import Listing

NDJSON: Final = "application/x-ndjson"


@blueprint.route("/events", methods=["GET"])
@client_required(callers.AUDIT)
@blueprint.arguments(EventsQuerySchema, location="query")
@blueprint.response(200, page_of(EventItemSchema), example={"items": [EXAMPLE_EVENT], "nextCursor": "1042"})
def list_events(query: dict[str, Any]) -> Listing:
    """List audit events, newest first."""
    return audit_export.list_latest(g.caller, query["event_filter"], query["cursor"], query["limit"])


@blueprint.route("/events/export", methods=["GET"])
@client_required(callers.AUDIT)
@blueprint.arguments(ExportQuerySchema, location="query")
@blueprint.response(
    200,
    {"type": "string"},
    content_type=NDJSON,
    description="One event per line, as in the list",
    example=json.dumps(EXAMPLE_EVENT) + "\n",
)
def export_events(query: dict[str, Any]) -> Response:
    """Stream audit events up to now, oldest first, one JSON object per line.

    To follow the trail, send the `id` of the last line as `cursor` in the next request. Each event comes
    once. Resume an interrupted stream in the same way.
    """
    batches = audit_export.export(g.caller, query["event_filter"], query["cursor"] or 0)
    return Response(stream_with_context(format_lines(batches)), mimetype=NDJSON)


def format_lines(batches: Iterable[list[VisibleEvent]]) -> Iterator[str]:
    """Yield each batch of events as NDJSON."""
    for batch in batches:
        yield "".join(f"{json.dumps(EVENT.dump(row))}\n" for row in batch)
