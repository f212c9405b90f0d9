"""Check and parse text input: emails, ids, origins, limits.

The functions raise marshmallow's ValidationError. So the schemas of the API, the provisioning file and the
environment can use them directly.
"""

import json
import re
import unicodedata
from ipaddress import ip_address
from math import isfinite
from typing import Any, Final

import limits
from marshmallow import ValidationError

MAX_EMAIL_LENGTH: Final = 254
MAX_NAME_LENGTH: Final = 200
ANY_ORIGIN: Final = "*"
#: In characters. A label of a host has at most 63 (RFC 1035), and `--` and a viewer's tag need 14.
MAX_UPSTREAM_SLUG: Final = 49
#: In characters. A host has at most 253 (RFC 1035).
MAX_ORIGIN_LENGTH: Final = len("https://") + 253 + len(":65535")
#: The most pages around a frame.
MAX_ANCESTORS: Final = 50

#: The bounds of a rate limit. A higher number limits nothing, and a longer window is a typing error.
MAX_LIMIT_REQUESTS: Final = 10**9
MAX_LIMIT_WINDOW_SECONDS: Final = 366 * 86400

#: The attributes of a mint: keys, and bytes of JSON.
MAX_ATTRIBUTES: Final = 50
MAX_ATTRIBUTE_BYTES: Final = 4096
_NOT_FLAT: Final = "Must be a flat object of texts, numbers, booleans and lists of these."
_EMAIL_TOO_LONG: Final = f"Must be at most {MAX_EMAIL_LENGTH} characters long."
#: White space, control, format and other characters without a shape, by the first letter of their category.
_INVISIBLE_CATEGORIES: Final = ("C", "Z")
#: Characters of other categories that show nothing: fillers, joiners and variation selectors.
_INVISIBLE: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
_ACE_PREFIX: Final = "xn--"
#: A local part without quotes, comments and lists. HTML's rule for `<input type=email>` is the same in ASCII.
_NO_SPECIALS = re.compile(r"""[^()<>\[\]:;,@\\"]+""")
#: The usual email, which needs no further check.
_PLAIN_EMAIL = re.compile(
    r"[\w.!#$%&'*+/=?^`{|}~-]+@(?:(?!xn--)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.(?!$)|$))+",
    re.ASCII | re.IGNORECASE,
)

#: Browser features that an app can declare. A host page must allow them too.
GRANTABLE: Final = ("camera", "microphone", "geolocation", "clipboard-write", "fullscreen")

#: The template of every app that runs elsewhere. No app of our own can have this name.
UPSTREAM_TEMPLATE: Final = "upstream"

#: A text with less variety is not a random secret.
MIN_DIFFERENT_CHARACTERS: Final = 8

#: Control characters, and lone surrogates, which no database stores.
_FORBIDDEN_CATEGORIES: Final = ("Cc", "Cs")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
#: RFC 1123, without `xn--`: browsers decode that as Punycode and reject most of it.
_DNS_LABEL = re.compile(r"(?!xn--)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_UUID_PATTERN: Final = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(_UUID_PATTERN, re.ASCII)

#: A host that a content security policy can name in every browser: no underscore, IPv6 address or final dot.
_HOST: Final = r"[a-z0-9-]+(?:\.[a-z0-9-]+)*"
_PORT: Final = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
#: Origins of mobile and desktop shells and browser extensions: the host's pattern, and its name in an error.
#: None of them has a port.
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
#: An origin in lower case, or `*`, as a JSON Schema pattern for the OpenAPI document.
ORIGIN_PATTERN: Final = rf"^(?:\*|https?://{_HOST}(?::(?:{_PORT}))?|{_OTHERS})$"
_WEB_ORIGIN = re.compile(rf"(?P<scheme>https?)://(?P<host>{_HOST})(?::(?P<port>[0-9]{{1,5}}))?", re.ASCII)
_OTHER_ORIGIN = re.compile(_OTHERS, re.ASCII)


def visible(text: str) -> str:
    """Return the text for a terminal: characters that could move its cursor or reorder a line are escaped."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def check_text(text: str) -> None:
    """Refuse control characters and lone surrogates."""
    if any(unicodedata.category(character) in _FORBIDDEN_CATEGORIES for character in text):
        raise ValidationError("Must not contain control characters.")


def check_name(text: str) -> None:
    """Refuse a display name that is empty, too long or has control characters."""
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        raise ValidationError(f"Must be a text of 1 to {MAX_NAME_LENGTH} characters.")
    check_text(text)


def check_variety(secret: str) -> None:
    """Refuse a secret of low variety: with few different characters, or a repeated shorter text."""
    different = len(set(secret))
    repeats = any(secret[n:] == secret[:-n] for n in range(1, len(secret) // 2 + 1))
    if different < MIN_DIFFERENT_CHARACTERS or repeats:
        raise ValidationError(
            f"Must have at least {MIN_DIFFERENT_CHARACTERS} different characters, "
            "and must not repeat a shorter text."
        )


def check_attributes(value: Any) -> None:
    """Refuse anything but a flat object of texts, numbers, booleans and lists of these, within limits."""
    if not isinstance(value, dict):
        raise ValidationError(_NOT_FLAT)
    if len(value) > MAX_ATTRIBUTES:
        raise ValidationError(f"Must have at most {MAX_ATTRIBUTES} keys.")
    for key, item in value.items():
        check_text(key)
        for scalar in item if isinstance(item, list) else [item]:
            _check_attribute(scalar)
    if len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_ATTRIBUTE_BYTES:
        raise ValidationError(f"Must be at most {MAX_ATTRIBUTE_BYTES} bytes of JSON.")


def _check_attribute(scalar: Any) -> None:
    if isinstance(scalar, str):
        check_text(scalar)
    elif not isinstance(scalar, (bool, int, float)) or not isfinite(scalar):
        raise ValidationError(_NOT_FLAT)


def is_slug(text: str) -> bool:
    """Return whether a workspace, an app or a template can have this name."""
    return _SLUG.fullmatch(text) is not None


def check_slug(text: str) -> None:
    """Refuse anything but a slug of a workspace, an app or a template."""
    if not is_slug(text):
        raise ValidationError("Must be a slug: up to 64 of a-z, 0-9, - and _.")


def is_client_id(text: str) -> bool:
    """Return whether a client can have this id."""
    return _CLIENT_ID.fullmatch(text) is not None


def is_dns_label(slug: str) -> bool:
    """Return whether DNS, certificates and browsers accept the slug as a label of a host name."""
    return _DNS_LABEL.fullmatch(slug) is not None


def is_upstream_label(slug: str) -> bool:
    """Return whether the slug can begin the label of a viewer's host: it leaves room for `--` and a tag."""
    # `xn--` begins a name of other alphabets: browsers refuse most hosts that begin so.
    return is_dns_label(slug) and len(slug) <= MAX_UPSTREAM_SLUG and "--" not in slug and slug != "xn"


def check_email(text: str) -> None:
    """Refuse anything but one plain address: a local part, one @ and a domain (IDNA 2008)."""
    # The length comes first: normalizing a long text takes long.
    if len(text) > MAX_EMAIL_LENGTH:
        raise ValidationError(_EMAIL_TOO_LONG)
    if _PLAIN_EMAIL.fullmatch(text):
        return
    if any(_is_invisible(character) for character in text):
        raise ValidationError("Must not contain white space, control or invisible characters.")
    if any(not character.isascii() and _has_ascii_form(character) for character in text):
        raise ValidationError("Must not contain characters that Unicode changes into ASCII, such as U+212A.")
    local, _, domain = text.partition("@")
    if not local or not _NO_SPECIALS.fullmatch(local) or _normalize_domain(_fold(domain)) is None:
        raise ValidationError("Must be one plain email address, such as ana@acme.test.")
    if len(normalize_email(text)) > MAX_EMAIL_LENGTH:
        raise ValidationError(_EMAIL_TOO_LONG)


def normalize_email(email: str) -> str:
    """Return the spelling that is stored and compared: NFC, lower case, the domain in Unicode (IDNA 2008).

    The two databases fold case differently, so Python does it. If the text is not an email, its domain is not
    changed.
    """
    folded = _fold(email)
    if folded.isascii() and _ACE_PREFIX not in folded:
        return folded
    local, at, domain = folded.rpartition("@")
    return f"{local}{at}{_normalize_domain(domain) or domain}"


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character)[0] in _INVISIBLE_CATEGORIES or character in _INVISIBLE


def _has_ascii_form(character: str) -> bool:
    return any(map(str.isascii, unicodedata.normalize("NFC", character)))


def _normalize_domain(folded: str) -> str | None:
    """Return a folded domain in Unicode, or None if IDNA 2008, without mappings, does not allow it."""
    try:
        labels = [normalize_label(label) for label in folded.split(".")]
    except UnicodeError:
        return None
    return ".".join(labels)


def normalize_label(label: str) -> str:
    """Return the label in Unicode. Raise UnicodeError for anything but a label."""
    if _DNS_LABEL.fullmatch(label):
        return label
    # Imported late: few requests need its tables.
    import idna

    decoded = idna.ulabel(idna.alabel(label))
    # Only a non-ASCII label has a second form, and only one.
    if decoded.isascii() or label not in (decoded, idna.alabel(decoded).decode()):
        raise UnicodeError
    return decoded


def parse_uuid(text: str) -> str:
    """Return the UUID (RFC 9562) in lower case, or refuse the text."""
    match = _UUID.fullmatch(text.lower())
    if match is None:
        raise ValidationError("Must be a UUID such as 8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc.")
    return match.group()


def is_uuid(text: str) -> bool:
    """Return whether the text is a UUID in lower case, as ids are stored."""
    return _UUID.fullmatch(text) is not None


def parse_origin(text: str) -> str:
    """Return an allowed parent origin as browsers write it, or `*`; refuse anything else.

    An origin is a scheme, a host and an optional port (RFC 6454). The text becomes part of a header, so
    nothing else may pass. Stored origins are not checked again.
    """
    lower = text.lower()
    if text == ANY_ORIGIN or _OTHER_ORIGIN.fullmatch(lower):
        return lower
    match = _WEB_ORIGIN.fullmatch(lower)
    if match is None or len(lower) > MAX_ORIGIN_LENGTH:
        raise ValidationError(_describe_valid_origin(lower))
    scheme, host, port = match["scheme"], match["host"], int(match["port"] or 0)
    if not match["port"] or port == _DEFAULT_PORTS[scheme]:
        return f"{scheme}://{host}"
    if not 1 <= port <= 65535:
        raise ValidationError("Must have a port from 1 to 65535, or none.")
    return f"{scheme}://{host}:{port}"


def _describe_valid_origin(text: str) -> str:
    """Return the error text for an invalid origin: the form that its scheme requires."""
    scheme, _, rest = text.partition("://")
    if scheme in _OTHER_ORIGINS:
        return f"Must be {scheme}://{_OTHER_ORIGINS[scheme][1]}, without a port or path."
    if scheme in _DEFAULT_PORTS and rest.startswith("["):
        return "Must have a host name or an IPv4 address: a page's policy cannot name an IPv6 address."
    return "Must be an exact origin such as https://portal.example, without a path, or *."


def is_loopback(host: str) -> bool:
    """Return whether browsers treat this host as their own machine. IPv6 addresses may have brackets."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def parse_limit(text: str) -> limits.RateLimitItem:
    """Return the limit for a text like `10 per minute`, or refuse the text."""
    try:
        limit, *others = limits.parse_many(text)
    except ValueError:
        raise ValidationError("Must be a limit such as 10 per minute.") from None
    if (
        others
        or not 1 <= limit.amount <= MAX_LIMIT_REQUESTS
        or not 1 <= limit.get_expiry() <= MAX_LIMIT_WINDOW_SECONDS
    ):
        raise ValidationError("Must be one limit of at least one request in at most a year.")
    return limit
