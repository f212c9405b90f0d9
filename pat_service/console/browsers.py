"""A browser's own name in a few words, for the list of sessions."""

import re
from typing import Final

from flask import request

#: The first that matches counts, since browsers also name those that they resemble.
_BROWSERS: Final = (
    ("Edge", "Edg"),
    ("Opera", "OPR"),
    ("Samsung Internet", "SamsungBrowser"),
    ("Firefox", "Firefox"),
    ("Firefox", "FxiOS"),
    ("Chrome", "(?:Headless)?Chrome"),
    ("Chrome", "CriOS"),
    ("Safari", "Version"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("macOS", "Mac OS X|Macintosh"),
    ("ChromeOS", "CrOS"),
    ("Linux", "Linux"),
)
UNKNOWN: Final = "Unknown browser"


def describe() -> str:
    """Return the request's browser and system, such as `Firefox 140 on Linux`."""
    text = request.headers.get("User-Agent", "")
    browser = UNKNOWN
    for name, pattern in _BROWSERS:
        if found := re.search(rf"\b{pattern}/(\d{{1,4}})", text, re.ASCII):
            browser = f"{name} {found[1]}"
            break
    system = next((name for name, pattern in _SYSTEMS if re.search(pattern, text, re.ASCII)), None)
    return browser if system is None else f"{browser} on {system}"
