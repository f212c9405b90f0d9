"""Security headers of every answer. Frames set their own policy; no other answer may be framed."""

import secrets
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from flask import Flask, g

from pat_service.shapes import GRANTABLE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Python evaluates the annotations of a nested function at each call of the outer one.
_Headers: TypeAlias = list[tuple[str, str]]
_Write: TypeAlias = Callable[[bytes], object]

#: Keys of a request's environment: the `FrameHeaders` and the request's id, for the answer's headers.
FRAME_POLICY: Final = "pat_service.frame_policy"
REQUEST_ID: Final = "pat_service.request_id"
#: Key of a request's environment: the answer is a public file outside `STATIC`.
PUBLIC: Final = "pat_service.public"
#: Key of a request's environment: the values of our own `Set-Cookie` headers.
COOKIES: Final = "pat_service.cookies"
#: Key of a request's environment: the request is for the console's host.
CONSOLE: Final = "pat_service.console"
REQUEST_ID_HEADER: Final = "X-Request-Id"
#: The addresses of most public files. Only public files may be cached.
STATIC: Final = "/static/"
#: Below it, an address changes with the content.
VERSIONED: Final = "/embed-static/"
NOT_STORED: Final = ("Cache-Control", "no-store")
#: A proxy that rewrites HTML breaks the scripts of a frame, so it must not (RFC 9111, 5.2.2.6).
NOT_CHANGED: Final = ("Cache-Control", "no-store, no-transform")
POLICY_HEADER: Final = "Content-Security-Policy"
NOT_FRAMED: Final = (
    POLICY_HEADER,
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
#: Features that no page of this service uses.
_NEVER: Final = (
    *("accelerometer", "browsing-topics", "display-capture", "gyroscope", "hid", "magnetometer", "midi"),
    *("payment", "publickey-credentials-get", "serial", "usb"),
)


def permissions_policy(granted: Collection[str]) -> str:
    """Return the `Permissions-Policy` that leaves only these of the `GRANTABLE` features."""
    denied = sorted([*_NEVER, *(feature for feature in GRANTABLE if feature not in granted)])
    return ", ".join(f"{feature}=()" for feature in denied)


PERMISSIONS_HEADER: Final = "Permissions-Policy"
#: For pages outside frames, which have buttons that copy.
PERMISSIONS: Final = permissions_policy(("clipboard-write", "fullscreen"))
#: A page with `Cross-Origin-Embedder-Policy` (HTML Standard) loads only answers that have this header.
RESOURCE_POLICY: Final = "Cross-Origin-Resource-Policy"
FOR_ANY_SITE: Final = (RESOURCE_POLICY, "cross-origin")
FOR_OWN_ORIGIN: Final = (RESOURCE_POLICY, "same-origin")
#: A page with this policy frames only pages that have it too. Most frames load nothing from other origins.
EMBEDDER_POLICY: Final = "Cross-Origin-Embedder-Policy"
ISOLATED: Final = (EMBEDDER_POLICY, "require-corp")
#: With this header, no other site can reach the window of a page in its own tab. Browsers ignore the header
#: in frames.
ALONE: Final = ("Cross-Origin-Opener-Policy", "same-origin")
#: The headers of every answer; public files have no `Permissions-Policy`.
FIXED: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    (PERMISSIONS_HEADER, PERMISSIONS),
)
#: Headers of an app's own Response that are removed. They could set cookies or forbid framing, replace the
#: policy or report to other sites, delete the origin's data, or leave the page.
REFUSED_OF_APPS: Final = frozenset(
    {
        *("set-cookie", "x-frame-options", "clear-site-data", "refresh", "service-worker-allowed"),
        *("content-security-policy-report-only", "permissions-policy-report-only", "feature-policy"),
        *("cross-origin-embedder-policy-report-only", "document-policy", "nel"),
        *("report-to", "reporting-endpoints"),
    }
)
#: A year, in seconds.
HSTS: Final = "max-age=31536000"
_BELOW: Final = "; includeSubDomains"
#: The key of `app.extensions` for the headers of every answer of this installation.
FIXED_HERE: Final = "pat_service.fixed_headers"


#: With this parameter in its address, the page that waits has a digest and an email, for the doctor.
PROBE_PARAMETER: Final = "probe"
PROBE_EMAIL: Final = "doctor@pat-service.example"
#: The digest of a page before a proxy can change it (RFC 9530).
DIGEST_HEADER: Final = "Repr-Digest"
#: The form of a nonce, for `use_nonce`.
NONCE: Final = "[A-Za-z0-9_-]{16,64}"


def page_digest(body: bytes) -> str:
    """Return the value of `DIGEST_HEADER` for a body."""
    return f"sha-256=:{b64encode(sha256(body).digest()).decode()}:"


class FrameHeaders(NamedTuple):
    """The values that distinguish the answers of one frame. `is_isolated`: isolated hosts can show it."""

    policy: str
    permissions: str
    is_isolated: bool


def request_state() -> dict[str, Any]:
    """Return the dict behind `g`: cheaper than resolving the proxy for each name."""
    state: dict[str, Any] = vars(g._get_current_object())
    return state


def csp_nonce() -> str:
    """Return this answer's nonce, for its policy and its templates."""
    state = request_state()
    nonce: str | None = state.get("csp_nonce")
    if nonce is None:
        nonce = state["csp_nonce"] = secrets.token_urlsafe(16)
    return nonce


def use_nonce(nonce: str) -> None:
    """Render this answer's templates with the nonce of the page that they are loaded into."""
    request_state()["csp_nonce"] = nonce


def init_app(app: Flask, *, https: bool, has_app_origins: bool) -> None:
    """Add the headers outside of Flask, since its header objects search for each one.

    `has_app_origins`: each app has an origin of its own.
    """
    fixed = app.extensions[FIXED_HERE] = [*FIXED]
    if https:
        # Only apps are below the common host; see docs/operate/app-origins.md.
        hsts = f"{HSTS}{_BELOW}" if has_app_origins else HSTS
        fixed.append(("Strict-Transport-Security", hsts))
    if has_app_origins:
        # Otherwise two hosts of one domain share a process and can set a common `document.domain`.
        fixed.append(("Origin-Agent-Cluster", "?1"))
    # Files are no pages, and a frame's permissions depend on its app.
    without_permissions = [pair for pair in fixed if pair[0] != PERMISSIONS_HEADER]
    for_files = [*without_permissions, FOR_ANY_SITE]
    for_frames = [*without_permissions, NOT_CHANGED, FOR_ANY_SITE]
    for_others = [*fixed, NOT_STORED, ALONE]
    of_files, of_frames, of_others = (
        {name.lower() for name, _ in given} | {REQUEST_ID_HEADER.lower()}
        for given in (for_files, for_frames, for_others)
    )
    of_frames |= {
        POLICY_HEADER.lower(),
        PERMISSIONS_HEADER.lower(),
        EMBEDDER_POLICY.lower(),
        *REFUSED_OF_APPS,
    }
    inner = app.wsgi_app

    def wsgi_app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        static = environ["PATH_INFO"].startswith((STATIC, VERSIONED))

        def start(status: str, headers: _Headers, *failure: Any) -> _Write:
            frame: FrameHeaders | None = environ.get(FRAME_POLICY)
            public = static or PUBLIC in environ
            replaced = of_files if public else of_frames if frame else of_others
            given = {name.lower() for name, _ in headers}
            if not given.isdisjoint(replaced):
                headers = [pair for pair in headers if pair[0].lower() not in replaced]
            if frame:
                headers += for_frames
                headers += ((POLICY_HEADER, frame.policy), (PERMISSIONS_HEADER, frame.permissions))
                if frame.is_isolated:
                    headers.append(ISOLATED)
            else:
                headers += for_files if public else for_others
                if static and status >= "4":
                    headers.append(NOT_STORED)  # a later instance may have the file
                if POLICY_HEADER.lower() not in given:
                    headers.append(NOT_FRAMED)
                if not public and RESOURCE_POLICY.lower() not in given:
                    headers.append(FOR_OWN_ORIGIN)
            if REQUEST_ID in environ:
                headers.append((REQUEST_ID_HEADER, environ[REQUEST_ID]))
            if CONSOLE in environ:
                # Hosts of others may be below the console's.
                headers = [(name, value.removesuffix(_BELOW)) for name, value in headers]
            if COOKIES in environ:
                headers += (("Set-Cookie", cookie) for cookie in environ[COOKIES])
            return start_response(status, headers, *failure)

        return inner(environ, start)

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]
