"""Long lists, a page at a time. A cursor is the key of the last row that was seen.

Pages that follow one another show each row that stays exactly once, whatever is added or removed
meanwhile; no page is slower than the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select
from sqlalchemy.sql.elements import SQLColumnExpression

#: Rows of a page, where the caller names no number, and at most.
USUAL_LIMIT: Final = 50
MAX_LIMIT: Final = 200


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page: the one after `cursor` (None: the first), of at most `limit` rows."""

    cursor: str | None = None
    limit: int = USUAL_LIMIT


@dataclass(frozen=True, slots=True)
class Listing:
    """One page. `next_cursor` is None where nothing follows."""

    items: list[Any]
    next_cursor: str | None


def page(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    key: SQLColumnExpression[str],
    page_request: PageRequest,
    parameters: Mapping[str, Any],
) -> Listing:
    """Return the wanted page of the statement's rows, in the order of `key`, which is unique in them.

    The statement selects `key` under the label `key`.
    """
    if page_request.cursor is not None:
        statement = statement.where(key > page_request.cursor)
    # One row more tells whether another page follows.
    rows = list(connection.execute(statement.order_by(key).limit(page_request.limit + 1), parameters))
    items = rows[: page_request.limit]
    return Listing(items, items[-1].key if len(rows) > page_request.limit else None)
