"""Checks of the pages around a frame, from the innermost to the top, against the allowed origins."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Final
from urllib.parse import SplitResult, urlsplit

from marshmallow import ValidationError
from sqlalchemy import bindparam, select

from pat_service.findings import Finding, ok, problem, warning
from pat_service.shapes import ANY_ORIGIN, is_loopback, parse_origin
from pat_service.storage.database import reading
from pat_service.storage.models import App

PART: Final = "origins"
WEB: Final = ("http", "https")
#: Pages with an opaque origin. Browsers send it as `null`, and no policy can name it.
_OPAQUE: Final = ("null", "file:", "data:", "blob:null")
#: Such a page has the origin of the page that created it.
_INHERITED: Final = "about:"
#: The rest of a blob address starts with the origin of the page that created it.
_BLOB: Final = "blob:"


@dataclass(frozen=True, slots=True)
class Parent:
    """A page around the frame. `origin` is None if no policy can name it, or if the page `inherits` it."""

    written: str
    origin: str | None
    inherits: bool = False

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.origin or "")

    @property
    def is_local(self) -> bool:
        """Whether the page is on the viewer's own machine: a local server, a shell or an extension."""
        return self.parts.scheme not in WEB or is_loopback(self.parts.hostname or "")


@dataclass(frozen=True, slots=True)
class Target:
    """The content of the frame. `kind`: `app`, or `workspace` for its launcher. `workspace`: its slug.

    An app that runs elsewhere has an `upstream`, a first page (`start`), and perhaps the address of its
    workspace (`own_url`).
    """

    kind: str
    id: str
    slug: str
    origins: Sequence[str]
    workspace: str
    template: str | None = None
    upstream: str | None = None
    start: str = "/"
    own_url: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.slug}"

    @property
    def path(self) -> str:
        """The target's path in the API."""
        return f"/api/ext/{self.kind}s/{self.id}"


def parse_parent(text: str) -> Parent:
    """Return the parent with this origin or address; raise ValidationError if it is neither."""
    written = text.strip()
    lower = written.lower()
    if lower.startswith(_OPAQUE):
        return Parent(written, None)
    if lower.startswith(_INHERITED):
        return Parent(written, None, inherits=True)
    scheme, mark, rest = lower.removeprefix(_BLOB).partition("://")
    if not mark or "*" in lower:
        raise ValidationError("Must be the origin of one page, such as https://portal.example.")
    host = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    return Parent(written, parse_origin(f"{scheme}://{host}"))


def check_nesting(parents: Sequence[Parent]) -> list[Finding]:
    """Check for pages on http inside a page on https, which browsers block."""
    found = []
    for place, parent in enumerate(parents):
        around = next((other.origin for other in parents[place + 1 :] if other.parts.scheme == "https"), None)
        if parent.parts.scheme != "http" or around is None:
            continue
        text = f"{parent.origin} is on http inside {around}. This is mixed content"
        if is_loopback(parent.parts.hostname or ""):
            text = f"{text}, which Safari blocks even on loopback."
            found.append(warning(PART, text, "Use https, or another browser."))
        else:
            found.append(problem(PART, f"{text}, which browsers block.", "Serve the inner page by https."))
    return found


def check_origins(target: Target, parents: Sequence[Parent]) -> list[Finding]:
    """Check that every parent may frame the target, as browsers do."""
    found = []
    complete = _add_parents(target.origins, parents)
    if not target.origins:
        found.append(
            problem(PART, f"No page may frame {target}: it has no allowed origins.", _fix(target, complete))
        )
    elif ANY_ORIGIN in target.origins:
        found.append(
            warning(
                PART,
                f"Every web page may frame {target} and receives its errors, because * is allowed.",
                _fix(
                    target,
                    _add_parents([origin for origin in target.origins if origin != ANY_ORIGIN], parents),
                ),
            )
        )
    else:
        found.append(ok(PART, f"{', '.join(target.origins)} may frame {target}."))
    for parent in parents:
        found += _check_parent(target, parent, complete)
    if target.kind == "workspace":
        found += _check_apps_of_launcher(target, parents)
    # The only allowed origin may be the parent.
    return list(dict.fromkeys(found))


def _check_apps_of_launcher(target: Target, parents: Sequence[Parent]) -> list[Finding]:
    """Check that every parent may also frame the launcher's apps."""
    named = [parent.origin for parent in parents if parent.origin is not None]
    with reading() as connection:
        apps = connection.execute(_apps_of, {"workspace": target.id}).all()
    blank = [app.slug for app in apps if not all(allows(app.allowed_origins, origin) for origin in named)]
    if not blank:
        return []
    return [
        warning(
            PART,
            f"Some apps of the launcher stay blank in its frame: {', '.join(blank)}. Their own allowed "
            "origins lack a parent.",
            f"For each app: {_command('app', 'SLUG', named)}",
        )
    ]


_apps_of = (
    select(App.slug, App.allowed_origins).where(App.workspace_id == bindparam("workspace")).order_by(App.slug)
)
_EXAMPLE: Final = "https://portal.example"


def _check_parent(target: Target, parent: Parent, complete: list[str]) -> list[Finding]:
    if parent.inherits:
        return [
            ok(
                PART,
                f"{parent.written} has the origin of the page that created it, unless it is in a sandbox "
                "without allow-same-origin.",
            )
        ]
    if parent.origin is None:
        return [
            problem(
                PART,
                f"{parent.written} has no origin that can be allowed, not even by *. Browsers send null for "
                "a file, for data:, and for a sandboxed page without allow-same-origin.",
                "Serve the page from a web server. If it is in a sandbox, add allow-same-origin.",
            )
        ]
    found = []
    if parent.written != parent.origin:
        found.append(ok(PART, f"The origin of {parent.written} is {parent.origin}; only that counts."))
    if allows(target.origins, parent.origin):
        return [*found, ok(PART, f"{parent.origin} may frame {target}.")]
    why = explain_mismatch(parent.origin, target.origins)
    text = f"{parent.origin} may not frame {target}, which stays blank: {why}"
    return [*found, problem(PART, text, _fix(target, complete))]


def allows(origins: Iterable[str], origin: str) -> bool:
    """Return whether the origins allow this one. `*` allows every web page, but no shell or extension."""
    return origin in origins or (ANY_ORIGIN in origins and urlsplit(origin).scheme in WEB)


def explain_mismatch(origin: str, allowed: Sequence[str]) -> str:
    """Return why the origin is not allowed: the closest allowed origin, and how it differs."""
    if ANY_ORIGIN in allowed:
        return "* allows every web page, but shells and extensions must be named one by one."
    for difference in _DIFFERENCES:
        for other in allowed:
            if text := difference(urlsplit(origin), _parts(other)):
                return f"{other} is allowed, but {text}."
    return f"only {', '.join(allowed)} is allowed." if allowed else "nothing is allowed."


def _parts(stored: str) -> SplitResult:
    """Return the parts of a stored text, which is not always an origin."""
    try:
        return urlsplit(stored)
    except ValueError:
        return urlsplit("")


def _scheme(page: SplitResult, other: SplitResult) -> str | None:
    same = page.hostname == other.hostname and page.scheme != other.scheme
    return f"{page.scheme} and {other.scheme} are different origins" if same else None


def _spelling(page: SplitResult, other: SplitResult) -> str | None:
    try:
        same = parse_parent(other.geturl()).origin == page.geturl()
    except ValidationError:
        return None
    return "browsers write it in lower case, without a slash or path at the end" if same else None


def _port(page: SplitResult, other: SplitResult) -> str | None:
    same = (page.scheme, page.hostname) == (other.scheme, other.hostname)
    return "a different port is a different origin" if same else None


def _www(page: SplitResult, other: SplitResult) -> str | None:
    names = [(parts.hostname or "").removeprefix("www.") for parts in (page, other)]
    return "with and without www. are different origins" if names[0] == names[1] else None


def _subdomain(page: SplitResult, other: SplitResult) -> str | None:
    inside = page.hostname and other.hostname and page.hostname.endswith(f".{other.hostname}")
    return "an origin does not include its subdomains" if inside else None


_DIFFERENCES: Final = (_spelling, _scheme, _port, _www, _subdomain)


def _add_parents(origins: Sequence[str], parents: Sequence[Parent]) -> list[str]:
    """Return the allowed origins with every parent added."""
    missing = [p.origin for p in parents if p.origin is not None and not allows(origins, p.origin)]
    return list(dict.fromkeys([*origins, *missing])) or [_EXAMPLE]


def _fix(target: Target, origins: list[str]) -> str:
    """Return the commands and the request that set these allowed origins."""
    body = json.dumps({"allowedOrigins": origins}, ensure_ascii=False)
    added = [origin for origin in origins if origin not in target.origins]
    removed = [origin for origin in target.origins if origin not in origins]
    commands = [
        _command(target.kind, target.slug, named, verb)
        for verb, named in (("allow", added), ("disallow", removed))
        if named
    ]
    return (
        f"{' && '.join(commands)}; or, as a client with the scope provision, PATCH {target.path} {body}; "
        "or allowed_origins in the file that provision reads."
    )


def _command(kind: str, slug: str, origins: Iterable[str], verb: str = "allow") -> str:
    return f"flask --app app {kind} {verb} {slug} {' '.join(map(quote, origins))}"
