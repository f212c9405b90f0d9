"""Helpers of both demo apps: tidy texts, and lists in pages."""

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
# Control characters except the line feed, and lone surrogates. Databases store no NUL.
UNPRINTABLE: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def tidy(text: str) -> str:
    """Return the text with plain line ends, without control characters and without space around it.

    A text without visible characters becomes empty, for example if it has only zero-width characters.
    """
    text = UNPRINTABLE.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    is_visible = any(unicodedata.category(character)[0] not in "CZ" for character in text)
    return text if is_visible else ""


def one_line(text: str) -> str:
    """Return the tidy text on one line, with single spaces."""
    return " ".join(tidy(text).split())


def is_id(text: str) -> bool:
    return ID.fullmatch(text) is not None


def page_number(text: str) -> int:
    """Return the requested page number, or 1 if the text is not a number."""
    return int(text) if NUMBER.fullmatch(text) else 1


@dataclass(frozen=True, slots=True)
class Paging:
    """A page of `size` rows out of `total`. `number` counts from 1 and always names an existing page."""

    number: int
    size: int
    total: int

    @classmethod
    def nearest(cls, number: int, size: int, total: int) -> "Paging":
        """Return the page with this number, or the nearest existing one."""
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
