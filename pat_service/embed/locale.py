"""What the host and the browser wish of a frame: a locale, a language for its own texts, a theme.

A wish that means nothing is overlooked: these never raise, and never read more than a short text.
"""

import re
from functools import lru_cache
from typing import Final

from flask import request
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from pat_service.embed import texts
from pat_service.http.headers import request_state

#: Parameters of a frame's address, which come before the headers.
LOCALE_PARAMETER: Final = "locale"
THEME_PARAMETER: Final = "theme"
#: What frame.js sends once the host has changed the theme of an open frame.
THEME_HEADER: Final = "X-Embed-Theme"
THEMES: Final = ("auto", "light", "dark")

#: RFC 5646 (section 4.4.1) knows of no longer tag; a list of a browser takes some dozen characters.
LONGEST_TAG: Final = 35
LONGEST_LIST: Final = 1000
#: Language, script, region; what follows is read and left out. Some write es_MX.
_TAG: Final = re.compile(
    r"(?P<language>[a-z]{2,3})(?:[-_](?P<script>[a-z]{4}))?(?:[-_](?P<region>[a-z]{2}|[0-9]{3}))?"
    r"(?:[-_][a-z0-9]{1,8})*",
    re.ASCII | re.IGNORECASE,
)


def locale() -> str:
    """Return the tag of what the host wishes, else of what the browser likes best: `es-MX`, or `en`."""
    return _wished()[0]


def language() -> str:
    """Return which of `texts.LANGUAGES` fits best what the host wishes, else what the browser likes."""
    return _wished()[1]


def translated(text: str) -> str:
    """Return a text of the code in the language of this request; `_` in the frame's own templates."""
    return texts.translator(language())(text)


def theme() -> str:
    """Return `light` or `dark` where the host wishes it, else `auto`: as the viewer's system is."""
    return _wished()[2]


def _wished() -> tuple[str, str, str]:
    """Return locale, language and theme, made out once a request: a page asks for each in several places."""
    known = request_state()
    found: tuple[str, str, str] | None = known.get("wishes")
    if found is None:
        asked = _normalised(request.args.get(LOCALE_PARAMETER, "")[: LONGEST_TAG + 1])
        accepted = request.headers.get("Accept-Language", "")[: LONGEST_LIST + 1]
        tags = (asked,) if asked else _liked(accepted)
        theme = request.args.get(THEME_PARAMETER) or request.headers.get(THEME_HEADER, "")
        found = known["wishes"] = tags[0], _language(tags), theme if theme in THEMES else THEMES[0]
    return found


@lru_cache(maxsize=256)
def _language(wishes: tuple[str, ...]) -> str:
    primary = (tag.partition("-")[0] for tag in wishes)
    return next((language for language in primary if language in texts.LANGUAGES), texts.SOURCE)


@lru_cache(maxsize=256)
def _liked(accept: str) -> tuple[str, ...]:
    """Return the tags of an Accept-Language, the best first; never none."""
    # A list that was cut off could end in half a tag.
    given = parse_accept_header(accept, Accept) if len(accept) <= LONGEST_LIST else Accept()
    tags = (_normalised(tag) for tag, quality in given if quality > 0)
    return tuple(filter(None, tags)) or (texts.SOURCE,)


@lru_cache(maxsize=256)
def _normalised(tag: str) -> str:
    """Return language, script and region of a tag, spelled as usual; an empty text where it is none."""
    found = _TAG.fullmatch(tag) if len(tag) <= LONGEST_TAG else None
    if found is None:
        return ""
    script, region = found["script"] or "", found["region"] or ""
    return "-".join(filter(None, (found["language"].lower(), script.title(), region.upper())))
