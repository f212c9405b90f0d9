"""The colours of frames are legible in both themes (WCAG 2.2, level AA)."""

import re
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).parent.parent.parent
SHEET: Final = (PROJECT / "static" / "embed" / "embed.css").read_text()
#: By property: its colour in light and in dark.
COLOURS: Final = {
    name: (light, dark)
    for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", SHEET)
}
#: Text colours and their backgrounds.
TEXTS: Final = [
    *((text, ground) for text in ("text", "muted", "accent") for ground in ("bg", "surface", "sunken")),
    *((text, f"{text}-soft") for text in ("ok", "warn", "bad", "info")),
    *(("text", f"{ground}-soft") for ground in ("ok", "warn", "bad", "info")),
    ("accent-strong", "accent-soft"),
    ("bad-strong", "bad-soft"),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    ("bad", "surface"),
    ("surface", "bad"),
    ("muted", "line"),
]
#: Borders, focus rings and spinners: visible, but not read.
MARKS: Final = [(mark, ground) for mark in ("control", "accent") for ground in ("bg", "surface")]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lower, higher = sorted((luminance(one), luminance(other)))
    return (higher + 0.05) / (lower + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_ana_can_read_every_text_in_either_theme(theme: int) -> None:
    for pairs, least in ((TEXTS, 4.5), (MARKS, 3)):
        for text, ground in pairs:
            found = contrast(COLOURS[text][theme], COLOURS[ground][theme])
            assert found >= least, f"--{text} on --{ground}: {found:.2f}"


@pytest.mark.parametrize(
    "sheet", ["static/embed/embed.css", "apps/orders/static/orders.css", "apps/support/static/support.css"]
)
def test_no_style_sheet_ignores_the_hosts_theme(sheet: str) -> None:
    """`light-dark()` follows the host's theme; `prefers-color-scheme` does not."""
    assert "prefers-color-scheme" not in (PROJECT / sheet).read_text()


def test_browsers_without_light_dark_get_every_light_colour() -> None:
    [fallback] = re.findall(r"@supports not \(color: light-dark\(.*?\n}", SHEET, re.S)
    assert dict(re.findall(r"--([\w-]+): (#\w{6});", fallback)) == {
        name: light for name, (light, _) in COLOURS.items()
    }
