"""The pages of the documentation, for tests that run and check what they say."""

import re
from dataclasses import dataclass
from textwrap import dedent
from typing import Final

from tests.support.servers import PROJECT

FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
HEADING: Final = re.compile(r"^(#+) (.+)$", re.MULTILINE)
CODE: Final = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its language, its text, and the first code in the paragraph before it."""

    language: str
    text: str
    name: str


def text_of(page: str) -> str:
    return (PROJECT / page).read_text("utf-8")


def section(page: str, title: str) -> str:
    """Return the text below this heading, with its subsections."""
    text = text_of(page)
    # A comment in a fenced block is not a heading.
    masked = FENCE.sub(lambda block: " " * len(block[0]), text)
    headings = list(HEADING.finditer(masked))
    [found] = [heading for heading in headings if heading[2] == title]
    following = (h.start() for h in headings if h.start() > found.start() and len(h[1]) <= len(found[1]))
    return text[found.end() : next(following, len(text))]


def snippets(page: str, title: str) -> list[Snippet]:
    """Return the fenced blocks of the section, in order."""
    text = section(page, title)
    found = []
    for block in FENCE.finditer(text):
        before = FENCE.sub("", text[: block.start()]).rstrip().rpartition("\n\n")[2]
        named = CODE.search(before)
        found.append(Snippet(block[2], dedent(block[3]), named[1] if named else ""))
    return found


def rows(page: str, title: str) -> list[list[str]]:
    """Return the cells of every table of the section, without heads."""
    lines = FENCE.sub("", section(page, title)).splitlines()
    table_rows = [line for line in lines if line.startswith("|")]
    # A head is the line before a line of dashes.
    dashes = {place for place, line in enumerate(table_rows) if set(line) <= set("|-: ")}
    heads = {place - 1 for place in dashes}
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for place, line in enumerate(table_rows)
        if place not in dashes | heads
    ]


def codes_in(page: str, title: str, column: int = 0) -> list[str]:
    """Return every text in backticks in this column of the section's tables."""
    return [code for row in rows(page, title) for code in CODE.findall(row[column])]
