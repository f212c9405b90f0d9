"""The shapes of texts that come from outside: emails, ids, origins, limits.

The checks raise marshmallow's ValidationError, so that schemas of the API, of the provisioning file
and of the environment use them as they are.
"""

import re
import unicodedata
from typing import Final

import limits
from marshmallow import ValidationError

MAX_EMAIL_LENGTH: Final = 254
MAX_NAME_LENGTH: Final = 200
ANY_ORIGIN: Final = "*"
#: In characters: a host has at most 253 (RFC 1035), besides scheme and port.
MAX_ORIGIN_LENGTH: Final = len("https://") + 253 + len(":65535")

#: Bounds of a rate limit: more requests are no limit, and a longer window (in seconds) is a slip.
MAX_HITS: Final = 10**9
MAX_WINDOW: Final = 366 * 86400

#: Control characters, and halves of surrogate pairs, which no database takes.
_UNFIT: Final = ("Cc", "Cs")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
#: Besides what RFC 1123 takes: a browser reads xn-- as Punycode, and turns most of what follows it down.
_LABEL = re.compile(r"(?!xn--)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_UUID_PATTERN: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(_UUID_PATTERN, re.ASCII)

#: A host as policies name it in every browser: no underscore, no IPv6 address, no dot at its end.
_HOST: Final = r"[a-z0-9-]+(?:\.[a-z0-9-]+)*"
_PORT: Final = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
#: Besides web pages: shells of mobile and desktop apps, and extensions of browsers. What stands in place of a
#: host, and how that is told. A port none of them has.
_SHELL: Final = ("localhost", "localhost")
_EXTENSION: Final = (_UUID_PATTERN, "<the extension's UUID>")
_OTHER_ORIGINS: Final = {
    "capacitor": _SHELL,
    "ionic": _SHELL,
    "tauri": _SHELL,
    "chrome-extension": ("[a-p]{32}", "<the extension's id: 32 letters from a to p>"),
    "moz-extension": _EXTENSION,
    "safari-web-extension": _EXTENSION,
}
_OTHERS: Final = "|".join(f"{scheme}://{host}" for scheme, (host, _) in _OTHER_ORIGINS.items())
#: An origin in lower case, or `*`, for the API's document: in JSON Schema's regular expressions.
ORIGIN_PATTERN: Final = rf"^(?:\*|https?://{_HOST}(?::(?:{_PORT}))?|{_OTHERS})$"
_WEB_ORIGIN = re.compile(rf"(?P<scheme>https?)://(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?", re.ASCII)
_OTHER_ORIGIN = re.compile(_OTHERS, re.ASCII)


def check_text(text: str) -> None:
    """Refuse a text with control characters or lone surrogates."""
    if any(unicodedata.category(character) in _UNFIT for character in text):
        raise ValidationError("Must not contain control characters.")


def check_name(text: str) -> None:
    """Refuse what is no name to show."""
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        raise ValidationError(f"Must be a text of 1 to {MAX_NAME_LENGTH} characters.")
    check_text(text)


def check_slug(text: str) -> None:
    """Refuse what is no slug of a workspace, an app or a template."""
    if _SLUG.fullmatch(text) is None:
        raise ValidationError("Must be a slug: up to 64 of a-z, 0-9, - and _.")


def is_client_id(text: str) -> bool:
    """Tell whether a client can have this id."""
    return _CLIENT_ID.fullmatch(text) is not None


def is_label(slug: str) -> bool:
    """Tell whether the slug can be a label of a host's name, in DNS, certificates and browsers."""
    return _LABEL.fullmatch(slug) is not None


def check_email(text: str) -> None:
    """Refuse what is not an email as the contract wants it."""
    check_text(text)
    local, _, domain = text.partition("@")
    if not local or not domain or "@" in domain:
        raise ValidationError("Must be an email address with one @.")
    if max(len(text), len(email_key(text))) > MAX_EMAIL_LENGTH:
        raise ValidationError(f"Must be at most {MAX_EMAIL_LENGTH} characters long.")


def email_key(email: str) -> str:
    """Return the one spelling under which an email is stored and compared: NFC, lower case.

    Made in Python, since the two databases fold case differently.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email).lower())


def parse_uuid(text: str) -> str:
    """Return a UUID (RFC 9562) in lower case, or refuse the text."""
    found = _UUID.fullmatch(text.lower())
    if found is None:
        raise ValidationError("Must be a UUID such as 8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc.")
    return found.group()


def is_uuid(text: str) -> bool:
    """Tell whether the text is a UUID as ids are stored: in lower case."""
    return _UUID.fullmatch(text) is not None


def parse_origin(text: str) -> str:
    """Return an allowed parent origin as browsers write it, or `*`; refuse anything else.

    An origin is a scheme, a host and perhaps a port (RFC 6454). Nothing else may pass, since the text
    becomes part of a header. Only what comes in is checked: what is stored stays as it is.
    """
    lower = text.lower()
    if text == ANY_ORIGIN or _OTHER_ORIGIN.fullmatch(lower):
        return lower
    found = _WEB_ORIGIN.fullmatch(lower)
    if found is None or len(lower) > MAX_ORIGIN_LENGTH:
        raise ValidationError(_origin_wanted(lower))
    scheme, host, port = found["scheme"], found["host"], int(found["port"] or 0)
    if not found["port"] or port == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{host}"
    if not 1 <= port <= 65535:
        raise ValidationError("Must have a port from 1 to 65535, or none.")
    return f"{scheme}://{host}:{port}"


def _origin_wanted(text: str) -> str:
    """Return what should stand in the place of a text that is no origin."""
    scheme, _, rest = text.partition("://")
    if scheme in _OTHER_ORIGINS:
        return f"Must be {scheme}://{_OTHER_ORIGINS[scheme][1]}, without a port or path."
    if scheme in _DEFAULT_PORTS and rest.startswith("["):
        return "Must have a name or an IPv4 address for its host: no page's policy can name an IPv6 one."
    return "Must be an exact origin such as https://portal.example, without a path, or *."


def parse_limit(text: str) -> limits.RateLimitItem:
    """Return the one limit that a text such as `10 per minute` means, or refuse the text."""
    try:
        limit, *others = limits.parse_many(text)
    except ValueError:
        raise ValidationError("Must be a limit such as 10 per minute.") from None
    if others or not 1 <= limit.amount <= MAX_HITS or not 1 <= limit.get_expiry() <= MAX_WINDOW:
        raise ValidationError("Must be one limit, of at least one request, in at most a year.")
    return limit
