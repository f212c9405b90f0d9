"""Addresses in answers. They never depend on a header of the request.

With `{app}` in `PUBLIC_URL` each app has its own origin: its slug is the first label of its host. Launchers
are at the common host, without that label.
"""

from urllib.parse import urlencode

from flask import current_app, request

from pat_service.addresses import APP_LABEL, Site
from pat_service.credentials import Secret
from pat_service.errors import NotServedHere
from pat_service.shapes import is_loopback

TOKEN_PARAMETER = "personal-access-token"


def site() -> Site:
    """Return the addresses of this installation."""
    return Site(current_app.config["PUBLIC_URL"])


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


def app_url(slug: str) -> str:
    """Return the app's scheme and host."""
    return (
        current_app.config["PUBLIC_URL"].replace(APP_LABEL, f"{slug}.", 1)
        if has_app_origins()
        else public_url()
    )


def slug_of_host() -> str | None:
    """Return the slug in the request's Host, or None if it is not the host of an app."""
    label, _, rest = _host().partition(".")
    return label if label and rest == _common_host() else None


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


def frame_url(app_id: str, slug: str, token: Secret) -> str:
    """Return an app's address for the host page's iframe."""
    return f"{frame_address(app_id, slug)}?{urlencode({TOKEN_PARAMETER: token.reveal()})}"


def frame_address(app_id: str, slug: str) -> str:
    """Return an app's address without a token."""
    return f"{app_url(slug)}/embed-apps/{app_id}"


def launcher_url(workspace_id: str, token: Secret) -> str:
    """Return a workspace's address, with all its apps, for the host page's iframe."""
    return f"{public_url()}/embed-workspaces/{workspace_id}?{urlencode({TOKEN_PARAMETER: token.reveal()})}"
