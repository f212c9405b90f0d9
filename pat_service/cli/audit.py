"""The command that prints the audit trail as NDJSON."""

import re
import time
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import click
from flask import json
from flask.cli import with_appcontext
from marshmallow import ValidationError

from pat_service.api.events_schemas import EVENT, EVENT_TYPE_PATTERN
from pat_service.api.fields import Moment
from pat_service.cli.common import find_id, plain_errors, show
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
def events(
    type_: str | None,
    email: str | None,
    app_slug: str | None,
    client_id: str | None,
    since: datetime | None,
    after: int,
    follow: bool,
) -> None:
    """Print the audit trail, oldest first, one JSON object per line."""
    with plain_errors():
        event_filter = EventFilter(
            type=type_,
            user_id=find_id("user", email or None),
            app_id=find_id("app", app_slug or None),
            client_id=clients.require_existing(client_id) if client_id else None,
            since=since,
        )
        after = _print(event_filter, after)
    with suppress(KeyboardInterrupt), plain_errors():
        while follow:
            time.sleep(FOLLOW_INTERVAL_SECONDS)
            with suppress(Unavailable):
                after = _print(event_filter, after)


def _print(event_filter: EventFilter, after: int) -> int:
    """Print the events after the event with this id. Return the id of the last one."""
    for batch in audit_export.export(OPERATOR, event_filter, after):
        for row in batch:
            show(json.dumps(EVENT.dump(row)))
            after = row.id
    return after
