"""The limits of an app, and how it raises them: sources, permissions, the size of uploads, and preloads.

The operator's own app declares it. A wrong declaration stops the start.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from marshmallow import ValidationError

from pat_service.http.headers import permissions_policy
from pat_service.shapes import GRANTABLE, is_loopback, parse_origin

#: The largest body of an app's form or data: of all apps, and the most that an app can declare.
FORM_LIMIT_BYTES: Final = 1024 * 1024
MAX_UPLOAD_MB: Final = 100
_UPLOAD: Final = re.compile(r"([1-9][0-9]{0,3}) MB", re.ASCII)

#: The ending of a file that a frame can preload → its kind, as `<link rel="preload" as>` names it.
_PRELOADS: Final = {".css": "style", ".js": "script"}

#: The sources that every app has, by directive.
_SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "default-src": ("'none'",),
    "script-src": ("'nonce-{nonce}'",),
    "style-src": ("'nonce-{nonce}'",),
    "img-src": ("'self'", "data:", "blob:"),
    "font-src": ("'self'",),
    "connect-src": ("'self'",),
    "media-src": ("'self'", "blob:"),
    # Frames send forms by script only.
    "form-action": ("'none'",),
    "base-uri": ("'none'",),
    "worker-src": (),
    "frame-src": (),
}
#: The sources without a host that an app can add. docs/dev/decisions.md has the reasons.
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "img-src": ("data:", "blob:"),
    "connect-src": ("data:", "blob:"),
    "font-src": ("data:",),
    "media-src": ("data:", "blob:"),
    "worker-src": ("blob:",),
    "frame-src": (),
    "script-src": ("'wasm-unsafe-eval'",),
}
_WITH_ORIGINS: Final = ("img-src", "connect-src", "font-src", "media-src", "frame-src")
#: With `Cross-Origin-Embedder-Policy`, a browser loads these only from servers that agree to it.
_NOT_ISOLATED: Final = ("img-src", "media-src", "frame-src")


class WrongDeclaration(Exception):
    """One line that names the app, the value, and what it must be."""


@dataclass(frozen=True)
class AppLimits:
    """The limits of one app. The default is what an app has that declares nothing."""

    #: Directive → sources beyond those of every app.
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    permissions: frozenset[str] = frozenset()
    upload_bytes: int = FORM_LIMIT_BYTES
    #: Whether the frame has `Cross-Origin-Embedder-Policy`, as isolated hosts require.
    is_isolated: bool = True
    #: File → kind, of the static files that the first page needs.
    preload: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def policy(self) -> str:
        """The content security policy, with a place for the nonce, and without `frame-ancestors`."""
        merged = {
            name: tuple(dict.fromkeys((*sources, *self.sources.get(name, ()))))
            for name, sources in _SOURCES.items()
        }
        return "; ".join(f"{name} {' '.join(sources)}" for name, sources in merged.items() if sources)

    @property
    def summary(self) -> str:
        """The declared sources and permissions; empty for the default."""
        sources = [f"{name} {' '.join(found)}" for name, found in self.sources.items()]
        return "; ".join([*sources, *sorted(self.permissions)])

    @cached_property
    def permissions_policy(self) -> str:
        return permissions_policy(self.permissions)


#: One object, so that its policy is built once: 3% of a refusal.
DEFAULT_LIMITS: Final = AppLimits()


@cache
def upstream_limits(permissions: frozenset[str]) -> AppLimits:
    """Return the limits of an upstream app's frame, which shows the app in an inner frame of its own origin.

    The app's answers lack the header that an isolated page requires of its frames.
    """
    granted = permissions.intersection(GRANTABLE)
    return AppLimits({"frame-src": ("'self'",)}, granted, is_isolated=False)


def parse_limits(
    csp: Mapping[str, Iterable[str]] | None,
    max_upload: str | None,
    permissions: Iterable[str],
    preload: Iterable[str],
    *,
    development: bool,
) -> AppLimits:
    """Return the limits that an app declares, or raise WrongDeclaration.

    `development`: sources on this machine are allowed.
    """
    if not isinstance(csp or {}, Mapping):
        raise WrongDeclaration("csp must be a dictionary: directive → list of sources")
    sources = {
        name: tuple(
            _parse_source(name, text, development=development) for text in _list(f"csp {name}", given)
        )
        for name, given in (csp or {}).items()
    }
    for name in (wanted := _list("permissions", permissions)):
        if name not in GRANTABLE:
            raise WrongDeclaration(f"permissions has {name!r}: choose from {', '.join(GRANTABLE)}")
    elsewhere = [name for name, found in sources.items() if any(each.startswith("http") for each in found)]
    return AppLimits(
        {name: found for name, found in sources.items() if found},
        frozenset(wanted),
        _parse_upload(max_upload),
        is_isolated=not any(name in _NOT_ISOLATED for name in elsewhere),
        preload={name: _parse_preload(name) for name in _list("preload", preload)},
    )


def _list(name: str, given: Any) -> list[Any]:
    # A text is a sequence of letters, which is never the intention.
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise WrongDeclaration(f"{name} must be a list of texts, not {given!r}")
    return list(given)


def _parse_source(name: str, text: Any, *, development: bool) -> str:
    if name not in _WORDS:
        raise WrongDeclaration(f"csp has {name!r}: only {', '.join(_WORDS)} can be declared")
    if text in _WORDS[name]:
        return str(text)
    possible = [*(["exact https origins"] if name in _WITH_ORIGINS else []), *_WORDS[name]]
    wrong = WrongDeclaration(f"csp has {text!r} in {name}: allowed are {', '.join(possible)}")
    if name not in _WITH_ORIGINS or not isinstance(text, str):
        raise wrong
    try:
        origin = parse_origin(text)
    except ValidationError:
        raise wrong from None
    url = urlsplit(origin)
    if url.scheme == "https" or (development and url.scheme == "http" and is_loopback(url.hostname or "")):
        return origin
    raise wrong


def _parse_preload(name: Any) -> str:
    kind = _PRELOADS.get(PurePosixPath(name).suffix) if isinstance(name, str) else None
    if kind is None:
        raise WrongDeclaration(f"preload has {name!r}: it takes {' and '.join(_PRELOADS)} files")
    return kind


def _parse_upload(text: Any) -> int:
    if text is None:
        return FORM_LIMIT_BYTES
    found = _UPLOAD.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[1]) > MAX_UPLOAD_MB:
        raise WrongDeclaration(
            f"max_upload is {text!r}: it must be a text such as '25 MB', at most {MAX_UPLOAD_MB} MB"
        )
    return int(found[1]) * 1024 * 1024
