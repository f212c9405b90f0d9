"""Change the directory: one transaction for each change, with its audit event."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from pat_service.errors import Conflict
from pat_service.rules import events
from pat_service.rules.callers import Caller
from pat_service.rules.directory.reach import Reach
from pat_service.storage.database import add, transaction
from pat_service.storage.models import App, User, Workspace, new_id


@dataclass(frozen=True, slots=True)
class Noun:
    """A table of the directory, the types of its events, and the columns that they show.

    `id_name` is the name of the row's id in an event.
    """

    table: type[Workspace | User | App]
    id_name: str
    created: str
    changed: str
    deleted: str
    audited: tuple[str, ...]

    def audit(self, row: object, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row's audited values, without null. The facts override them."""
        values = {name: facts[name] if name in facts else getattr(row, name) for name in self.audited}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Change(Reach):
    """A transaction in which a caller changes the directory.

    An event with `workspace_ids` is recorded once per workspace, since each tenant has its own trail.
    """

    now: datetime

    def add(
        self,
        noun: Noun,
        facts: Mapping[str, Any],
        workspace_ids: Collection[str] = (),
        id_: str | None = None,
    ) -> str | None:
        """Add a row and return its id. Return None if one of its keys is taken."""
        facts, id_ = _clean(facts), id_ or new_id()
        if not add(self.connection, noun.table, {**facts, "id": id_, "created_at": self.now}):
            return None
        self._record(noun.created, noun, id_, workspace_ids, {"after": noun.audit(None, facts)})
        return id_

    def update(
        self, noun: Noun, row: Any, facts: Mapping[str, Any], workspace_ids: Collection[str] = ()
    ) -> None:
        """Update a locked row, if the facts differ from it."""
        before, after = difference(row, facts)
        if after:
            self.connection.execute(update(noun.table).where(noun.table.id == row.id).values(after))
            self._record(noun.changed, noun, row.id, workspace_ids, {"before": before, "after": after})

    def record_deletion(self, noun: Noun, row: Any, workspace_ids: Collection[str]) -> None:
        self._record(noun.deleted, noun, row.id, workspace_ids, {"before": noun.audit(row, {})})

    def _record(
        self, type_: str, noun: Noun, id_: str, workspace_ids: Collection[str], details: dict[str, Any]
    ) -> None:
        for workspace_id in workspace_ids or (None,):
            self.record(type_, details, **{"workspace_id": workspace_id, noun.id_name: id_})

    def record(self, type_: str, details: dict[str, Any] | None = None, **ids: str | None) -> None:
        """Record an event that the caller causes."""
        events.record(self.connection, type_, self.now, client_id=self.caller.id, details=details, **ids)


@contextmanager
def changing(caller: Caller, now: datetime) -> Iterator[Change]:
    """Yield a change, and record a refusal that the block raises.

    Raise Conflict if a concurrent change made this one violate a constraint.
    """
    with events.recording_refusals(events.CLIENT_REFUSED, now, client_id=caller.id):
        try:
            with transaction() as connection:
                yield Change(connection, caller, now)
        except IntegrityError:
            raise Conflict("A concurrent request changed the same data; read it and try again.") from None


def difference(row: object, facts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the row's values that the facts change: before and after."""
    after = {name: value for name, value in _clean(facts).items() if getattr(row, name) != value}
    return {name: getattr(row, name) for name in after}, after


def edit_origins(origins: list[str], add: Collection[str], remove: Collection[str]) -> dict[str, Any]:
    """Return the facts that add some allowed origins and remove others."""
    return {"allowed_origins": [*(origin for origin in origins if origin not in remove), *add]}


def _clean(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts with each allowed origin once."""
    origins = (
        {"allowed_origins": list(dict.fromkeys(facts["allowed_origins"]))}
        if "allowed_origins" in facts
        else {}
    )
    return {**facts, **origins}
