"""Check a frame's host, and name the hosts of other frames, if each app has its own origin.

A host that no frame can have is refused at once. The rules compare the slug in the host with the app:
at another app's host, a token or session is invalid.
"""

from flask import g, request

from pat_service.errors import NotServedHere
from pat_service.http.public_url import app_url, has_app_origins, public_url, slug_of_host
from pat_service.rules.access import ViewedApp
from pat_service.shapes import is_dns_label


def require_app_host() -> None:
    """Raise NotServedHere if the request's host cannot belong to an app."""
    if has_app_origins():
        g.slug_of_host = slug_of_host()
        if g.slug_of_host is None:
            raise NotServedHere


def expected_slug() -> str | None:
    """Return the slug in the request's host, or None if all apps share an origin."""
    slug: str | None = g.get("slug_of_host")
    return slug


def apps_with_host(apps: list[ViewedApp]) -> list[ViewedApp]:
    """Return the apps whose slug can be part of a host."""
    return [app for app in apps if is_dns_label(app.slug)] if has_app_origins() else apps


def apps_source() -> str:
    """Return the source of apps' frames for a launcher's policy.

    With app origins it is a wildcard, since a list of hosts could be too long for a header.
    """
    return app_url("*") if has_app_origins() else "'self'"


def app_prefix(app: ViewedApp) -> str:
    """Return the prefix that a launcher puts before a path of the app."""
    return app_url(app.slug) if has_app_origins() else ""


def launcher_origins() -> tuple[str, ...]:
    """Return the origins that this installation's launchers can have."""
    if has_app_origins():
        return (public_url(),)
    # The launcher shares this frame's origin. A proxy may have changed the scheme.
    return (f"https://{request.host}", f"http://{request.host}")


def launcher_source() -> str:
    """Return the source of a policy that matches the launchers, as a frame sees them."""
    return public_url() if has_app_origins() else "'self'"
