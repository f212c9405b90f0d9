"""Which pages may frame: each parent, from the innermost to the top, against the allowed origins."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Final
from urllib.parse import SplitResult, urlsplit

from marshmallow import ValidationError
from sqlalchemy import bindparam, select

from pat_service.diagnosis.findings import Finding, is_loopback, ok, problem, warning
from pat_service.shapes import ANY_ORIGIN, parse_origin
from pat_service.storage.database import reading
from pat_service.storage.models import App

ABOUT: Final = "origins"
WEB: Final = ("http", "https")
#: Pages whose origin is opaque. They tell it as `null`, and no policy can name it.
_OPAQUE: Final = ("null", "file:", "data:", "blob:null")
#: A page without an address of its own: it has the origin of the page that made it, and so adds none.
_INHERITED: Final = "about:"
#: The rest of such an address begins with the origin of the page that made it.
_BLOB: Final = "blob:"


@dataclass(frozen=True, slots=True)
class Parent:
    """A page around the frame, as it was named. `origin` is None where no policy can name it.

    One that `inherits` has the origin of the page that made it.
    """

    written: str
    origin: str | None
    inherits: bool = False

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.origin or "")

    @property
    def is_local(self) -> bool:
        """Tell whether the page is on the viewer's own machine: a local server, a shell, an extension."""
        return self.parts.scheme not in WEB or is_loopback(self.parts.hostname)


@dataclass(frozen=True, slots=True)
class Target:
    """What is in the frame: an `app`, or the launcher of a `workspace`, with the slug of its workspace."""

    kind: str
    id: str
    slug: str
    origins: Sequence[str]
    workspace: str
    template: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.slug}"

    @property
    def path(self) -> str:
        """What names it in the API."""
        return f"/api/ext/{self.kind}s/{self.id}"


def parse_parent(text: str) -> Parent:
    """Return the parent that an origin or an address names; raise ValidationError where it names none."""
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


def nesting(parents: Sequence[Parent]) -> list[Finding]:
    """Return which parents, from the innermost to the top, never show since one around them is on https."""
    found = []
    for place, parent in enumerate(parents):
        around = next((other.origin for other in parents[place + 1 :] if other.parts.scheme == "https"), None)
        if parent.parts.scheme != "http" or around is None:
            continue
        text = f"{parent.origin} is on http inside of {around}: mixed content"
        if is_loopback(parent.parts.hostname):
            text = f"{text}, which Safari blocks even on loopback."
            found.append(warning(ABOUT, text, "Use https, or another browser."))
        else:
            found.append(problem(ABOUT, f"{text}, which browsers block.", "Serve the inner page by https."))
    return found


def check(target: Target, parents: Sequence[Parent]) -> list[Finding]:
    """Return which parents may frame the target; browsers ask it of each of them."""
    found = []
    wanted = _with(target.origins, parents)
    if not target.origins:
        found.append(
            problem(ABOUT, f"No page may frame {target}: it has no allowed origins.", _to(target, wanted))
        )
    elif ANY_ORIGIN in target.origins:
        found.append(
            warning(
                ABOUT,
                f"Every web page may frame {target}, and hears of its refusals: * is allowed.",
                _to(target, _with([origin for origin in target.origins if origin != ANY_ORIGIN], parents)),
            )
        )
    else:
        found.append(ok(ABOUT, f"May frame {target}: {', '.join(target.origins)}."))
    for parent in parents:
        found += _judge(target, parent, wanted)
    if target.kind == "workspace":
        found += _behind_launcher(target, parents)
    return found


def _behind_launcher(target: Target, parents: Sequence[Parent]) -> list[Finding]:
    """Return which apps go blank in a frame that shows the launcher: each has origins of its own."""
    named = [parent.origin for parent in parents if parent.origin is not None]
    with reading() as connection:
        apps = connection.execute(_apps_of, {"workspace": target.id}).all()
    left = [app.slug for app in apps if not all(allows(app.allowed_origins, origin) for origin in named)]
    if not left:
        return []
    return [
        warning(
            ABOUT,
            f"From the launcher these apps open in the same frame and go blank: {', '.join(left)}. An "
            "app has allowed origins of its own, which lack a parent.",
            f"For each: {_command('app', 'SLUG', named)}",
        )
    ]


_apps_of = (
    select(App.slug, App.allowed_origins).where(App.workspace_id == bindparam("workspace")).order_by(App.slug)
)
_EXAMPLE: Final = "https://portal.example"


def _judge(target: Target, parent: Parent, wanted: list[str]) -> list[Finding]:
    if parent.inherits:
        return [
            ok(
                ABOUT,
                f"{parent.written} has the origin of the page that made it, which is what counts. In a "
                "sandbox without allow-same-origin it would have none.",
            )
        ]
    if parent.origin is None:
        return [
            problem(
                ABOUT,
                f"{parent.written} has no origin that can be allowed, not even by *: browsers send null for "
                "a file, for data:, and for a sandboxed page without allow-same-origin.",
                "Serve the page from a web server; where it is in a sandbox itself, add allow-same-origin.",
            )
        ]
    found = []
    if parent.written != parent.origin:
        found.append(
            ok(ABOUT, f"To a browser {parent.written} is {parent.origin}: so it is compared, without a path.")
        )
    if allows(target.origins, parent.origin):
        return [*found, ok(ABOUT, f"{parent.origin} may frame {target}.")]
    why = mismatch(parent.origin, target.origins)
    text = f"{parent.origin} may not frame {target}, which therefore stays blank: {why}"
    return [*found, problem(ABOUT, text, _to(target, wanted))]


def allows(origins: Iterable[str], origin: str) -> bool:
    """Tell whether a page of this origin is among them. `*` is every web page, and nothing but those."""
    return origin in origins or (ANY_ORIGIN in origins and urlsplit(origin).scheme in WEB)


def mismatch(origin: str, allowed: Sequence[str]) -> str:
    """Return why the origin is none of the allowed ones: what comes nearest, and how it differs."""
    if ANY_ORIGIN in allowed:
        return "* is every web page, and no shell or extension: these are named one by one."
    for difference in _DIFFERENCES:
        for other in allowed:
            if text := difference(urlsplit(origin), _parts(other)):
                return f"{other} is allowed, but {text}."
    return f"allowed is {', '.join(allowed)}." if allowed else "nothing is allowed."


def _parts(stored: str) -> SplitResult:
    """Return the parts of what is stored, which need be no origin."""
    try:
        return urlsplit(stored)
    except ValueError:
        return urlsplit("")


def _scheme(page: SplitResult, other: SplitResult) -> str | None:
    same = page.hostname == other.hostname and page.scheme != other.scheme
    return f"{page.scheme} and {other.scheme} are two origins" if same else None


def _spelling(page: SplitResult, other: SplitResult) -> str | None:
    try:
        same = parse_parent(other.geturl()).origin == page.geturl()
    except ValidationError:
        return None
    return "not as browsers write it: lower case, and no slash or path at the end" if same else None


def _port(page: SplitResult, other: SplitResult) -> str | None:
    same = (page.scheme, page.hostname) == (other.scheme, other.hostname)
    return "another port is another origin" if same else None


def _www(page: SplitResult, other: SplitResult) -> str | None:
    names = [(parts.hostname or "").removeprefix("www.") for parts in (page, other)]
    return "with and without www. are two origins" if names[0] == names[1] else None


def _subdomain(page: SplitResult, other: SplitResult) -> str | None:
    inside = page.hostname and other.hostname and page.hostname.endswith(f".{other.hostname}")
    return "an origin does not stand for those below it" if inside else None


_DIFFERENCES: Final = (_spelling, _scheme, _port, _www, _subdomain)


def _with(origins: Sequence[str], parents: Sequence[Parent]) -> list[str]:
    """Return the allowed origins as they should be: with every parent."""
    missing = [p.origin for p in parents if p.origin is not None and not allows(origins, p.origin)]
    return list(dict.fromkeys([*origins, *missing])) or [_EXAMPLE]


def _to(target: Target, origins: list[str]) -> str:
    """Return how the allowed origins become these."""
    body = json.dumps({"allowedOrigins": origins}, ensure_ascii=False)
    added = [origin for origin in origins if origin not in target.origins]
    gone = [origin for origin in target.origins if origin not in origins]
    commands = [
        _command(target.kind, target.slug, named, verb)
        for verb, named in (("allow", added), ("disallow", gone))
        if named
    ]
    return (
        f"{' && '.join(commands)}; or, as a client of the scope provision, PATCH {target.path} {body}; "
        "or allowed_origins in the file that provision reads."
    )


def _command(kind: str, slug: str, origins: Iterable[str], verb: str = "allow") -> str:
    return f"flask --app app {kind} {verb} {slug} {' '.join(map(quote, origins))}"
