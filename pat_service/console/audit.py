"""The audit page: events with filters, followed live, and their export."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, Final

from flask import Response, g, stream_with_context

from pat_service.console import filters
from pat_service.console.blueprint import blueprint
from pat_service.console.filters import PAGE_ROWS, Filters
from pat_service.console.forms import read_text
from pat_service.console.pages import render
from pat_service.errors import InvalidPayload
from pat_service.rules import audit_export, events
from pat_service.rules.audit_export import EventFilter, EventPage, VisibleEvent

NAMES: Final = ("workspace", "app", "user", "client", "token", "session")
#: A followed page asks again in this interval.
POLL_SECONDS: Final = 5
#: A followed page stops after half an hour, so that it does not keep a forgotten session alive.
MAX_POLLS: Final = 360
TYPES: Final = sorted(
    {
        value
        for name, value in vars(events).items()
        if name.isupper() and isinstance(value, str) and ":" in value
    }
)
#: A spreadsheet reads a cell that begins so as a formula (OWASP: CSV injection).
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
FORMATS: Final = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}


@blueprint.get("/audit")
def audit() -> Response:
    """List the events that the operator sees, the newest first."""
    found, event_filter = _read()
    cursor, polls = _read_number("cursor"), _read_number("follow")
    listing = EventPage([], None)
    if not found.errors:
        listing = audit_export.list_latest(g.caller, event_filter, cursor, PAGE_ROWS)
    return render(
        "audit.html",
        filters=found,
        listing=listing,
        names=audit_export.read_names(g.caller, listing.items),
        types=TYPES,
        workspaces=filters.workspace_choices(),
        apps=filters.app_choices(),
        is_first=cursor is None,
        polls=polls,
        is_following=polls is not None and cursor is None and polls < MAX_POLLS,
        poll_seconds=POLL_SECONDS,
        pretty=_pretty,
    )


@blueprint.get("/audit/export")
def export_audit() -> Response:
    """Stream the matching events, the oldest first, as the API's export does."""
    found, event_filter = _read()
    if found.errors:
        raise InvalidPayload({name: [text] for name, text in found.errors.items()})
    format_ = read_text("format") or "csv"
    if format_ not in FORMATS:
        raise InvalidPayload({"format": [f"Must be one of {', '.join(FORMATS)}."]})
    batches = audit_export.export(g.caller, event_filter, 0)
    lines = _csv_lines(batches) if format_ == "csv" else _json_lines(batches)
    response = Response(stream_with_context(lines), content_type=FORMATS[format_])
    response.headers.set("Content-Disposition", "attachment", filename=f"events.{format_}")
    return response


def _pretty(details: dict[str, Any]) -> str:
    return json.dumps(details, indent=2, ensure_ascii=False)


def _json_lines(batches: Iterable[list[VisibleEvent]]) -> Iterator[str]:
    """Yield the lines of the API's export."""
    for batch in batches:
        yield "".join(f"{json.dumps(_dump(row))}\n" for row in batch)


def _csv_lines(batches: Iterable[list[VisibleEvent]]) -> Iterator[str]:
    yield _csv([[_camel(field.name) for field in fields(VisibleEvent)]])
    for batch in batches:
        yield _csv([[_cell(value) for value in _dump(row).values()] for row in batch])


def _csv(rows: Iterable[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _dump(row: VisibleEvent) -> dict[str, Any]:
    values = asdict(row) | {"id": str(row.id), "at": row.at.isoformat().replace("+00:00", "Z")}
    return {_camel(name): value for name, value in values.items()}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _read() -> tuple[Filters, EventFilter]:
    found = filters.read(*NAMES)
    values: dict[str, Any] = dict(found.ids)
    for name in ("type", "code"):
        if text := read_text(name, most=64):
            found.given[name] = values[name] = text
    for name in ("since", "until"):
        if text := read_text(name):
            found.given[name] = text
            try:
                values[name] = _parse_time(text)
            except (ValueError, OverflowError):
                found.errors[name] = "Must be a date and time, such as 2026-11-22T10:15."
    return found, EventFilter(**values)


def _parse_time(text: str) -> datetime:
    """Return the moment. Without a zone it is in UTC. Raise ValueError or OverflowError."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _read_number(name: str) -> int | None:
    text = read_text(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidPayload({name: ["Must be a number of up to 18 digits."]})
    return int(text)
