"""The embedded apps: one module each, named after its template folder. What the demo's two share is here."""

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
# Controls but for the line feed (no database text may hold a NUL), and halves of surrogate pairs.
UNFIT: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def tidy(text: str) -> str:
    """Return the text with plain line ends, without control characters and without space around it.

    Text that shows nothing, such as zero-width characters alone, comes back empty.
    """
    text = UNFIT.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    shows = any(unicodedata.category(character)[0] not in "CZ" for character in text)
    return text if shows else ""


def one_line(text: str) -> str:
    """Return the tidy text on one line, with single spaces."""
    return " ".join(tidy(text).split())


def is_id(text: str) -> bool:
    return ID.fullmatch(text) is not None


def page_number(text: str) -> int:
    """Return the number of a page that a visitor asked for, or 1 where it is none."""
    return int(text) if NUMBER.fullmatch(text) else 1


@dataclass(frozen=True, slots=True)
class Paging:
    """Which of `total` rows one page shows. `number` counts from 1 and always names a page that exists."""

    number: int
    size: int
    total: int

    @classmethod
    def nearest(cls, number: int, size: int, total: int) -> "Paging":
        """Return the page of this number, or the nearest one that exists."""
        return cls(max(1, min(number, math.ceil(total / size))), size, total)

    @property
    def pages(self) -> int:
        return max(1, math.ceil(self.total / self.size))

    @property
    def offset(self) -> int:
        return (self.number - 1) * self.size

    @property
    def first(self) -> int:
        return min(self.offset + 1, self.total)

    @property
    def last(self) -> int:
        return min(self.offset + self.size, self.total)

    @property
    def previous(self) -> int | None:
        return self.number - 1 if self.number > 1 else None

    @property
    def following(self) -> int | None:
        return self.number + 1 if self.number < self.pages else None
