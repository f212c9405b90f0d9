"""The command that prints the audit trail: aligned in a terminal, otherwise as NDJSON."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import click
from flask.cli import with_appcontext
from marshmallow import ValidationError

from pat_service.api.events_schemas import EVENT, EVENT_TYPE_PATTERN
from pat_service.api.fields import Moment
from pat_service.cli.common import TIME_FORMAT, find_id, is_terminal, plain_errors
from pat_service.cli.lists import View, show_json, with_json
from pat_service.errors import Unavailable
from pat_service.rules import audit_export, clients
from pat_service.rules.audit_export import EventFilter
from pat_service.rules.callers import OPERATOR

FOLLOW_INTERVAL_SECONDS: Final = 1


def _parse_time(_context: Any, _parameter: Any, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time_: Any = Moment().deserialize(text)
    except ValidationError as error:
        raise click.BadParameter(str(error.messages[0])) from None
    return time_  # type: ignore[no-any-return]


def _check_type(_context: Any, _parameter: Any, text: str | None) -> str | None:
    if text is not None and re.fullmatch(EVENT_TYPE_PATTERN, text) is None:
        raise click.BadParameter("Must be a type such as token:minted.")
    return text


@click.command()
@with_appcontext
@click.option(
    "--type", "type_", metavar="TYPE", callback=_check_type, help="Only this type, such as token:minted."
)
@click.option("--user", "email", metavar="EMAIL", help="Only events of this user.")
@click.option("--app", "app_slug", metavar="SLUG", help="Only events of this app.")
@click.option("--client", "client_id", metavar="ID", help="Only events that this client caused.")
@click.option(
    "--since", metavar="TIME", callback=_parse_time, help="From this time on, such as 2026-11-22T10:15:00Z."
)
@click.option(
    "--after", type=click.IntRange(0, 10**18), default=0, metavar="ID", help="Only events after this one."
)
@click.option("--follow", is_flag=True, help="Wait for new events until interrupted.")
@with_json
@plain_errors()
def events(
    type_: str | None,
    email: str | None,
    app_slug: str | None,
    client_id: str | None,
    since: datetime | None,
    after: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the audit trail, oldest first.

    In a pipe, or with --json, each line is a JSON object.
    """
    event_filter = EventFilter(
        type=type_,
        user_id=find_id("user", email),
        app_id=find_id("app", app_slug),
        client_id=None if client_id is None else clients.require_existing(client_id),
        since=since,
    )
    pages = _iterate(event_filter, after, follow=follow)
    try:
        if as_json or not is_terminal():
            for page in pages:
                for row in page:
                    show_json(EVENT.dump(row))
        else:
            _VIEW.show_list(pages, as_json=False)
    except KeyboardInterrupt:
        if not follow:
            raise


def _iterate(event_filter: EventFilter, after: int, *, follow: bool) -> Iterator[Sequence[Any]]:
    """Yield the events after the event with this id, then wait for more if `follow`.

    Raise Unavailable only before the first wait: an outage does not end the waiting.
    """
    is_waiting = False
    while True:
        try:
            for page in audit_export.export(OPERATOR, event_filter, after):
                yield page
                after = page[-1].id
        except Unavailable:
            if not is_waiting:
                raise
        if not follow:
            return
        is_waiting = True
        time.sleep(FOLLOW_INTERVAL_SECONDS)


def _list_subjects(row: Any) -> list[str]:
    """Return the ids in the event by kind."""
    ids = {kind: getattr(row, f"{kind}_id") for kind in ("workspace", "app", "user", "token", "session")}
    return [f"{kind} {id_}" for kind, id_ in ids.items() if id_ is not None]


_VIEW: Final = View(
    {
        "ID": lambda row: row.id,
        "TIME": lambda row: f"{row.at:{TIME_FORMAT}}",
        "TYPE": lambda row: row.type,
        "CODE": lambda row: row.code,
        "CLIENT": lambda row: row.client_id,
        "ABOUT": _list_subjects,
        "DETAILS": lambda row: row.details and json.dumps(row.details),
    },
    EVENT.dump,
)
