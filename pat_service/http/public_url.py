"""Addresses that leave the service. They never depend on a header of the request.

With `{app}` in `PUBLIC_URL` each app has an origin of its own: its slug is the first label of its host.
What is of no app, the launchers of workspaces, is at the host without that label.
"""

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlencode

from flask import current_app, request

from pat_service.credentials import Secret

TOKEN_PARAMETER = "personal-access-token"
APP_LABEL: Final = "{app}."


def has_app_origins() -> bool:
    """Tell whether each app has an origin of its own."""
    return APP_LABEL in (current_app.config["PUBLIC_URL"] or "")


def public_url() -> str:
    """Return the scheme and host of this service: `PUBLIC_URL`, or a development server's own socket."""
    configured: str | None = current_app.config["PUBLIC_URL"]
    if configured:
        return configured.replace(APP_LABEL, "", 1)
    # What the server is bound to, not the Host that the request claims.
    host, port = request.environ["SERVER_NAME"], request.environ["SERVER_PORT"]
    if not _is_loopback(host):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def app_url(slug: str) -> str:
    """Return the scheme and host of this app."""
    return (
        current_app.config["PUBLIC_URL"].replace(APP_LABEL, f"{slug}.", 1)
        if has_app_origins()
        else public_url()
    )


def slug_of_host() -> str | None:
    """Return the slug that the request's Host names, or None where it is the host of no app."""
    label, _, rest = _host().partition(".")
    return label if label and rest == _common_host() else None


def is_common_host() -> bool:
    """Tell whether the request's Host is the one that is of no app."""
    return _host() == _common_host()


def _host() -> str:
    # Only ever compared: no answer repeats it.
    host: str = request.environ.get("HTTP_HOST", "").lower()
    # Browsers leave a scheme's usual port out, and some proxies write it.
    return host.removesuffix(":443" if public_url().startswith("https:") else ":80")


def _common_host() -> str:
    return public_url().partition("://")[2]


def frame_url(app_id: str, slug: str, token: Secret) -> str:
    """Return the address that a page puts into its iframe, for an app."""
    return f"{app_url(slug)}/embed-apps/{app_id}?{urlencode({TOKEN_PARAMETER: token.reveal()})}"


def launcher_url(workspace_id: str, token: Secret) -> str:
    """Return the address that a page puts into its iframe, for all apps of a workspace."""
    return f"{public_url()}/embed-workspaces/{workspace_id}?{urlencode({TOKEN_PARAMETER: token.reveal()})}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
