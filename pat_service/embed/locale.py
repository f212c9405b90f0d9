"""Read a frame's locale, language and theme from its host and browser.

Invalid preferences are ignored. These functions never raise, and parse short texts only.
"""

import re
from functools import lru_cache
from typing import Final

from flask import request
from werkzeug.datastructures import Accept
from werkzeug.http import parse_accept_header

from pat_service.embed import texts
from pat_service.http.headers import request_state

#: Parameters of a frame's address. They take precedence over the headers.
LOCALE_PARAMETER: Final = "locale"
THEME_PARAMETER: Final = "theme"
#: frame.js sends this header after the host has changed the theme of an open frame.
THEME_HEADER: Final = "X-Embed-Theme"
THEMES: Final = ("auto", "light", "dark")

#: RFC 5646 (section 4.4.1) has no longer tag. Browsers send lists of a few dozen characters.
MAX_TAG_LENGTH: Final = 35
MAX_LIST_LENGTH: Final = 1000
#: Language, script and region; other subtags are dropped. Some hosts write es_MX.
_TAG: Final = re.compile(
    r"(?P<language>[a-z]{2,3})(?:[-_](?P<script>[a-z]{4}))?(?:[-_](?P<region>[a-z]{2}|[0-9]{3}))?"
    r"(?:[-_][a-z0-9]{1,8})*",
    re.ASCII | re.IGNORECASE,
)


def locale() -> str:
    """Return the host's locale, else the browser's first one, as a tag: `es-MX`, or `en`."""
    return _preferences()[0]


def language() -> str:
    """Return the best of `texts.LANGUAGES` for the host's locale, else for the browser's."""
    return _preferences()[1]


def translate(text: str) -> str:
    """Translate a text into the language of this request. Templates call it `_`."""
    return texts.translator(language())(text)


def theme() -> str:
    """Return the host's theme, `light` or `dark`; else `auto`, which follows the viewer's system."""
    return _preferences()[2]


def _preferences() -> tuple[str, str, str]:
    """Return locale, language and theme. They are parsed once a request."""
    known = request_state()
    found: tuple[str, str, str] | None = known.get("preferences")
    if found is None:
        requested = _normalise_tag(request.args.get(LOCALE_PARAMETER, "")[: MAX_TAG_LENGTH + 1])
        accepted = request.headers.get("Accept-Language", "")[: MAX_LIST_LENGTH + 1]
        tags = (requested,) if requested else _accepted_tags(accepted)
        theme = request.args.get(THEME_PARAMETER) or request.headers.get(THEME_HEADER, "")
        found = known["preferences"] = tags[0], _language(tags), theme if theme in THEMES else THEMES[0]
    return found


def _language(tags: tuple[str, ...]) -> str:
    primary = (tag.partition("-")[0] for tag in tags)
    return next((language for language in primary if language in texts.LANGUAGES), texts.SOURCE)


@lru_cache(maxsize=256)
def _accepted_tags(accept: str) -> tuple[str, ...]:
    """Return the tags of an Accept-Language header, best first. The result has at least one tag."""
    # A truncated list could end in half a tag.
    given = parse_accept_header(accept, Accept) if len(accept) <= MAX_LIST_LENGTH else Accept()
    tags = (_normalise_tag(tag) for tag, quality in given if quality > 0)
    return tuple(filter(None, tags)) or (texts.SOURCE,)


@lru_cache(maxsize=256)
def _normalise_tag(tag: str) -> str:
    """Return language, script and region of a tag in their usual case, or an empty text."""
    found = _TAG.fullmatch(tag) if len(tag) <= MAX_TAG_LENGTH else None
    if found is None:
        return ""
    script, region = found["script"] or "", found["region"] or ""
    return "-".join(filter(None, (found["language"].lower(), script.title(), region.upper())))
