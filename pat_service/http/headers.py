"""Security headers of every answer. Frames set a policy of their own; everything else is in no frame."""

import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, g

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: In a request's environment: the policy of a frame, and the id of the request, for the answer's headers.
FRAME_POLICY: Final = "pat_service.frame_policy"
REQUEST_ID: Final = "pat_service.request_id"
#: In a request's environment: the answer is a public file, at whatever address.
PUBLIC: Final = "pat_service.public"
REQUEST_ID_HEADER: Final = "X-Request-Id"
#: Where most public files are. They alone may be kept.
STATIC: Final = "/static/"
NOT_STORED: Final = ("Cache-Control", "no-store")
POLICY_HEADER: Final = "Content-Security-Policy"
NOT_FRAMED: Final = (POLICY_HEADER, "default-src 'none'; frame-ancestors 'none'")
PERMISSIONS: Final = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "browsing-topics",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "hid",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "publickey-credentials-get",
        "serial",
        "usb",
    )
)
#: A page with `Cross-Origin-Embedder-Policy` (HTML Standard) frames and loads only what says this of itself,
RESOURCE_POLICY: Final = "Cross-Origin-Resource-Policy"
FOR_ANY_SITE: Final = (RESOURCE_POLICY, "cross-origin")
FOR_OWN_ORIGIN: Final = (RESOURCE_POLICY, "same-origin")
#: and frames only what has that policy too. A frame loads nothing from elsewhere, so it costs it nothing.
EMBEDDER_POLICY: Final = "Cross-Origin-Embedder-Policy"
ISOLATED: Final = (EMBEDDER_POLICY, "require-corp")
#: What every answer has, whoever asks for what.
FIXED: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Permissions-Policy", PERMISSIONS),
)
#: A year, in seconds.
HSTS: Final = "max-age=31536000"


#: What `csp_nonce` makes, and takes from a page that it has made one for.
NONCE: Final = "[A-Za-z0-9_-]{16,64}"


def request_state() -> dict[str, Any]:
    """Return what `g` holds for the request at work, looked up once and not for each of its names."""
    known: dict[str, Any] = vars(g._get_current_object())
    return known


def csp_nonce() -> str:
    """Return the nonce of this answer, for its policy and its templates."""
    known = request_state()
    nonce: str | None = known.get("csp_nonce")
    if nonce is None:
        nonce = known["csp_nonce"] = secrets.token_urlsafe(16)
    return nonce


def use_nonce(nonce: str) -> None:
    """Have this answer's templates made for a page that is there already, and its nonce."""
    request_state()["csp_nonce"] = nonce


def init_app(app: Flask, *, https: bool, has_app_origins: bool) -> None:
    """Give every answer its headers, around the application: each costs a search where Flask sets it.

    `has_app_origins`: each app has an origin of its own.
    """
    fixed = [*FIXED]
    if https:
        fixed.append(("Strict-Transport-Security", HSTS))
    if has_app_origins:
        # Without it two hosts of one domain share a process, and could agree on a common `document.domain`.
        fixed.append(("Origin-Agent-Cluster", "?1"))
    for_files = [*fixed, FOR_ANY_SITE]
    for_frames = [*fixed, NOT_STORED, FOR_ANY_SITE, ISOLATED]
    for_others = [*fixed, NOT_STORED]
    of_files, of_frames, of_others = (
        {name.lower() for name, _ in given} | {REQUEST_ID_HEADER.lower()}
        for given in (for_files, for_frames, for_others)
    )
    # Nor may an app's own Response bring cookies back in, or keep the frame from being one.
    of_frames |= {POLICY_HEADER.lower(), "set-cookie", "x-frame-options"}
    inner = app.wsgi_app

    def wsgi_app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        static = environ["PATH_INFO"].startswith(STATIC)

        def start(status: str, headers: list[tuple[str, str]], *failure: Any) -> Callable[[bytes], object]:
            policy = environ.get(FRAME_POLICY)
            public = static or PUBLIC in environ
            replaced = of_files if public else of_frames if policy else of_others
            given = {name.lower() for name, _ in headers}
            if not given.isdisjoint(replaced):
                headers = [pair for pair in headers if pair[0].lower() not in replaced]
            if policy:
                headers += for_frames
                headers.append((POLICY_HEADER, policy))
            else:
                headers += for_files if public else for_others
                if POLICY_HEADER.lower() not in given:
                    headers.append(NOT_FRAMED)
                if not public and RESOURCE_POLICY.lower() not in given:
                    headers.append(FOR_OWN_ORIGIN)
            if REQUEST_ID in environ:
                headers.append((REQUEST_ID_HEADER, environ[REQUEST_ID]))
            return start_response(status, headers, *failure)

        return inner(environ, start)

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]
