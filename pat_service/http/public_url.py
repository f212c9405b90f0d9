"""Addresses in answers, and the apps' hosts in requests. Addresses never depend on a header of the request.

With `{app}` in `PUBLIC_URL` each app has its own origin: its slug is the first label of its host. Launchers
are at the common host, without that label. An upstream app has an origin for each of its viewers, with the
label `{slug}--{tag}`. Its domain is that of `PUBLIC_URL`, or the workspace's own one.
"""

import re
from typing import Final
from urllib.parse import urlencode

from flask import current_app, request

from pat_service.addresses import APP_LABEL, Site
from pat_service.credentials import TAG_CHARS, Keyring, Secret
from pat_service.errors import NotServedHere
from pat_service.rules.access import Host, Viewer, ViewerHost
from pat_service.shapes import is_loopback

TOKEN_PARAMETER = "personal-access-token"
#: The first label of a viewer's host. The slug has at most 49 characters, so that the label has at most 63.
_VIEWER_LABEL: Final = re.compile(rf"([a-z0-9](?:[a-z0-9-]{{0,47}}[a-z0-9])?)--([a-z2-7]{{{TAG_CHARS}}})")
_DOMAIN: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::[0-9]{1,5})?")


def site() -> Site:
    """Return the addresses of this installation."""
    return Site(current_app.config["PUBLIC_URL"], current_app.config["CONSOLE_URL"])


def has_app_origins() -> bool:
    """Return whether each app has its own origin."""
    return APP_LABEL in (current_app.config["PUBLIC_URL"] or "")


def public_url() -> str:
    """Return the scheme and host of this service: `PUBLIC_URL`, or a development server's own socket."""
    configured: str | None = current_app.config["PUBLIC_URL"]
    if configured:
        return configured.replace(APP_LABEL, "", 1)
    # The server's own address, not the request's Host.
    host, port = request.environ["SERVER_NAME"], request.environ["SERVER_PORT"]
    if not is_loopback(host):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def app_url(slug: str, *, tag: str | None = None, own_url: str | None = None) -> str:
    """Return the app's scheme and host. An upstream app has one for each viewer, with the viewer's `tag`.

    `own_url` is the address of the upstream apps of its workspace, if the workspace has one.
    """
    if not has_app_origins():
        return public_url()
    label, pattern = (slug, None) if tag is None else (f"{slug}--{tag}", own_url)
    url: str = (pattern or current_app.config["PUBLIC_URL"]).replace(APP_LABEL, f"{label}.", 1)
    return url


def viewer_url(viewer: Viewer) -> str:
    """Return the scheme and host of the app for this viewer."""
    app = viewer.app
    if app.upstream is None:
        return app_url(app.slug)
    keyring: Keyring = current_app.extensions["pat_service.keyring"]
    tag = keyring.current.viewer_tag(app.id, viewer.user.id, viewer.attributes)
    return app_url(app.slug, tag=tag, own_url=viewer.workspace.apps_url)


def requested_host() -> Host | None:
    """Return the request's host as the host of a frame, or None if no app can have it."""
    if not has_app_origins():
        return Host()
    label, _, domain = _host().partition(".")
    is_common = domain == _common_host()
    parts = _VIEWER_LABEL.fullmatch(label) if _DOMAIN.fullmatch(domain) else None
    if not label or not (is_common or parts):
        return None
    viewer = parts and ViewerHost(parts[1], parts[2], None if is_common else domain)
    return Host(label if is_common else "", viewer)


def own_origins() -> tuple[str, ...]:
    """Return the origin that a browser gives to pages of the requested viewer's host.

    A workspace's own address is https, except on this machine.
    """
    host = _host()
    domain = host.partition(".")[2]
    if domain == _common_host():
        return (f"{public_url().partition('://')[0]}://{host}",)
    local = is_loopback(domain.partition(":")[0])
    return (f"https://{host}", f"http://{host}") if local else (f"https://{host}",)


def is_for_viewers() -> bool:
    """Return whether the request's host is, or looks like, one of an upstream app."""
    if "--" not in request.environ.get("HTTP_HOST", "") or not has_app_origins() or is_common_host():
        return False
    label, _, domain = _host().partition(".")
    return "--" in label and (domain == _common_host() or _VIEWER_LABEL.fullmatch(label) is not None)


def is_common_host() -> bool:
    """Return whether the request's Host is the common host."""
    return _host() == _common_host()


def require_common_host() -> None:
    """Raise NotServedHere if the request's host is not the common one."""
    if has_app_origins() and not is_common_host():
        raise NotServedHere


def _host() -> str:
    # Only compared, never part of an answer.
    host: str = request.environ.get("HTTP_HOST", "").lower()
    # Browsers omit a scheme's default port; some proxies add it.
    return host.removesuffix(":443" if public_url().startswith("https:") else ":80")


def _common_host() -> str:
    return public_url().partition("://")[2]


def frame_url(app_id: str, origin: str, token: Secret) -> str:
    """Return an app's address for the host page's iframe. `origin` is the app's scheme and host."""
    return f"{origin}/embed-apps/{app_id}?{urlencode({TOKEN_PARAMETER: token.reveal()})}"


def frame_address(app_id: str, slug: str) -> str:
    """Return an app's address without a token."""
    return f"{app_url(slug)}/embed-apps/{app_id}"


def launcher_url(workspace_id: str, token: Secret) -> str:
    """Return a workspace's address, with all its apps, for the host page's iframe."""
    return f"{public_url()}/embed-workspaces/{workspace_id}?{urlencode({TOKEN_PARAMETER: token.reveal()})}"
