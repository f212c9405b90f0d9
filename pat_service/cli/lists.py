"""Lists and details: aligned under headings in a terminal, separated by tabs in a pipe, or JSON.

A script can rely on the pipe's form: one row a line, no headings, the same columns. No text is cut off. If a
row does not fit into the terminal, each column gets a line of its own.
"""

import json
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final

import click

from pat_service.cli.common import is_terminal, show
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import workspaces
from pat_service.shapes import visible
from pat_service.storage.paging import MAX_LIMIT, Listing, PageRequest

#: A list has a line for each of its texts in a terminal.
Cell = str | int | None | Sequence[str]

Columns = Mapping[str, Callable[[Any], Cell]]

GAP: Final = "  "
NOTHING: Final = "-"
with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@dataclass(frozen=True, slots=True)
class View:
    """How commands show a kind of row: the cell of each column by its heading, and the object for JSON.

    Only `show_one` shows `details`, so that lists fit into a terminal.
    """

    columns: Columns
    dump: Callable[[Any], Any]
    details: Columns = field(default_factory=dict)

    def show_list(self, pages: Iterable[Sequence[Any]], *, as_json: bool) -> None:
        if as_json:
            _show_array(self.dump(row) for page in pages for row in page)
        elif is_terminal():
            self._show_table(pages)
        else:
            for page in pages:
                for row in page:
                    show(*(", ".join(_texts(cell(row))) for cell in self.columns.values()))

    def show_one(self, row: Any, *, as_json: bool) -> None:
        columns = {**self.columns, **self.details}
        if as_json:
            show_json(self.dump(row))
        elif is_terminal():
            _show_records(list(columns), [_lines(columns, row)], is_first=True)
        else:
            for heading, cell in columns.items():
                show(heading, ", ".join(_texts(cell(row))))

    def show_changed(self, sentence: str, row: Any, *, as_json: bool) -> None:
        """Show the result of a change: what happened in a sentence, or the row as JSON."""
        if as_json:
            show_json(self.dump(row))
        else:
            show(sentence)

    def _show_table(self, pages: Iterable[Sequence[Any]]) -> None:
        headings = list(self.columns)
        widths, is_first = [len(heading) for heading in headings], True
        for page in filter(None, pages):
            rows = [_lines(self.columns, row) for row in page]
            widths = [max(width, *_widths(rows, column)) for column, width in enumerate(widths)]
            if not _fits(widths):
                _show_records(headings, rows, is_first=is_first)
            else:
                if is_first:
                    _show_line(headings, widths)
                for texts in (texts for cells in rows for texts in zip_longest(*cells, fillvalue="")):
                    _show_line(texts, widths)
            is_first = False
        if is_first:
            show("Nothing to list.")


def iterate_pages(read: Callable[[PageRequest], Listing]) -> Iterator[list[Any]]:
    """Yield the items of each page."""
    cursor = None
    while True:
        listing = read(PageRequest(cursor, MAX_LIMIT))
        yield listing.items
        cursor = listing.next_cursor
        if cursor is None:
            return


def read_workspace_slugs() -> dict[str, str]:
    """Return the slugs of all workspaces by id."""
    pages = iterate_pages(lambda page_request: workspaces.list_workspaces(OPERATOR, page_request))
    return {row.id: row.slug for page in pages for row in page}


def show_json(value: Any) -> None:
    """Print a JSON value on one line."""
    show(_dump(value))


def _show_array(items: Iterable[Any]) -> None:
    """Print a JSON array while its items are being read, an item a line."""
    show("[")
    last = None
    for item in map(_dump, items):
        if last is not None:
            show(f"{last},")
        last = item
    if last is not None:
        show(last)
    show("]")


def _dump(value: Any) -> str:
    # JSON in ASCII has no character that controls a terminal, except this one.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _texts(cell: Cell) -> list[str]:
    if cell is None or cell == "":
        return []
    return [str(cell)] if isinstance(cell, (str, int)) else list(cell)


def _lines(columns: Columns, row: Any) -> list[list[str]]:
    """Return the lines of each cell as a terminal shows them."""
    return [[visible(text) for text in _texts(cell(row))] or [NOTHING] for cell in columns.values()]


def _show_records(headings: Sequence[str], rows: Iterable[list[list[str]]], *, is_first: bool) -> None:
    """Print a column a line, and an empty line between the rows."""
    width = max(map(len, headings))
    for cells in rows:
        if not is_first:
            show("")
        is_first = False
        for heading, lines in zip(headings, cells, strict=True):
            for label, line in zip_longest([heading], lines, fillvalue=""):
                show(f"{label:{width}}{GAP}{line}")


def _widths(rows: Iterable[list[list[str]]], column: int) -> list[int]:
    return [_width(line) for cells in rows for line in cells[column]]


def _fits(widths: Sequence[int]) -> bool:
    return sum(widths) + len(GAP) * (len(widths) - 1) <= shutil.get_terminal_size().columns


def _show_line(texts: Sequence[str], widths: Sequence[int]) -> None:
    padded = (text + " " * (width - _width(text)) for text, width in zip(texts, widths, strict=True))
    show(GAP.join(padded).rstrip())


def _width(text: str) -> int:
    """Return how many columns of a terminal a visible text takes (UAX 11)."""
    return sum(_width_of(character) for character in text)


def _width_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
