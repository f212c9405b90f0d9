"""Long lists, one page at a time. A cursor is the key of the last row of a page.

Consecutive pages show each lasting row exactly once, despite concurrent inserts and deletes. No page is
slower than the first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select
from sqlalchemy.sql.elements import ColumnElement, SQLColumnExpression

#: Rows of a page: by default, and at most.
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The page after `cursor` (None: the first), of at most `limit` rows.

    `descending` shows the last key first.
    """

    cursor: str | None = None
    limit: int = DEFAULT_LIMIT
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """One page. `next_cursor` is None on the last."""

    items: list[Any]
    next_cursor: str | None


def page(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    key: SQLColumnExpression[str],
    page_request: PageRequest,
    parameters: Mapping[str, Any],
) -> Listing:
    """Return the requested page of the statement's rows, ordered by the unique `key`.

    The statement selects `key` under the label `key`.
    """
    if page_request.cursor is not None:
        after = key < page_request.cursor if page_request.descending else key > page_request.cursor
        statement = statement.where(after)
    order = key.desc() if page_request.descending else key
    # One more row shows whether another page follows.
    rows = list(connection.execute(statement.order_by(order).limit(page_request.limit + 1), parameters))
    items = rows[: page_request.limit]
    return Listing(items, items[-1].key if len(rows) > page_request.limit else None)


def match(table: type[Any], **values: object) -> list[ColumnElement[bool]]:
    """Return a condition for each column and its value. Skip a column if its value is None."""
    return [getattr(table, name) == value for name, value in values.items() if value is not None]
