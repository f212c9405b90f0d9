"""Check a frame's host, and name the hosts of other frames, if each app has its own origin.

A host that no frame can have is refused at once. The rules compare the host with the app, and with the viewer
of an upstream app: at another host, a token or session is invalid.
"""

from flask import g, request

from pat_service.addresses import APP_LABEL
from pat_service.errors import NotServedHere
from pat_service.http.public_url import app_url, has_app_origins, public_url, requested_host, viewer_url
from pat_service.rules.access import Host, ViewedApp, Viewer, fits_host


def require_app_host() -> None:
    """Raise NotServedHere if the request's host cannot belong to an app."""
    g.app_host = requested_host()
    if g.app_host is None:
        raise NotServedHere


def app_host() -> Host | None:
    """Return the host of the app's frame, or None at a launcher."""
    host: Host | None = g.get("app_host")
    return host


def apps_with_host(apps: list[ViewedApp]) -> list[ViewedApp]:
    """Return the apps whose slug can be part of a host. Only with app origins have upstream apps a host."""
    own_host = has_app_origins()
    return [app for app in apps if fits_host(app.slug, app.upstream, own_host=own_host)]


def apps_sources(own_url: str | None) -> tuple[str, ...]:
    """Return the sources of apps' frames for a launcher's policy. `own_url`: see `public_url.app_url`.

    With app origins they are wildcards, since a list of hosts could be too long for a header.
    """
    if not has_app_origins():
        return ("'self'",)
    own = () if own_url is None else (own_url.replace(APP_LABEL, "*.", 1),)
    return (app_url("*"), *own)


def app_prefix(viewer: Viewer) -> str:
    """Return the prefix that a launcher puts before a path of the viewer's app."""
    return viewer_url(viewer) if has_app_origins() else ""


def launcher_origins() -> tuple[str, ...]:
    """Return the origins that this installation's launchers can have."""
    if has_app_origins():
        return (public_url(),)
    # The launcher shares this frame's origin. A proxy may have changed the scheme.
    return (f"https://{request.host}", f"http://{request.host}")


def launcher_source() -> str:
    """Return the source of a policy that matches the launchers, as a frame sees them."""
    return public_url() if has_app_origins() else "'self'"
