"""Addresses that leave the service. They never depend on a header of the request."""

from ipaddress import ip_address
from urllib.parse import urlencode

from flask import current_app, request

from pat_service.credentials import Secret

TOKEN_PARAMETER = "personal-access-token"


def public_url() -> str:
    """Return the scheme and host of this service: `PUBLIC_URL`, or a development server's own socket."""
    configured: str | None = current_app.config["PUBLIC_URL"]
    if configured:
        return configured
    # What the server is bound to, not the Host that the request claims.
    host, port = request.environ["SERVER_NAME"], request.environ["SERVER_PORT"]
    if not _is_loopback(host):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def frame_url(app_id: str, token: Secret) -> str:
    """Return the address that a page puts into its iframe, for an app."""
    return f"{public_url()}/embed-apps/{app_id}?{urlencode({TOKEN_PARAMETER: token.reveal()})}"


def launcher_url(workspace_id: str, token: Secret) -> str:
    """Return the address that a page puts into its iframe, for all apps of a workspace."""
    return f"{public_url()}/embed-workspaces/{workspace_id}?{urlencode({TOKEN_PARAMETER: token.reveal()})}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
