"""Where each app has an origin of its own: the host that a frame is served on, and the ways between hosts.

A host that no frame of this kind can have is refused at once. Whether the slug that it names is the
app's is for the rules to say: a token or session of one app is none at the host of another, and no
answer there tells more than that.
"""

from flask import g

from pat_service.errors import NotServedHere
from pat_service.http.public_url import app_url, has_app_origins, is_common_host, public_url, slug_of_host
from pat_service.rules.access import Place, ViewedApp
from pat_service.shapes import is_dns_label


def require_host_of_app() -> None:
    """Raise NotServedHere where the request's host can be no app's."""
    if has_app_origins():
        g.slug_of_host = slug_of_host()
        if g.slug_of_host is None:
            raise NotServedHere


def expected_slug() -> str | None:
    """Return the slug that the request's host names, or None where all apps are of one origin."""
    slug: str | None = g.get("slug_of_host")
    return slug


def require_common_host() -> None:
    """Raise NotServedHere where the request's host is not the one that is of no app."""
    if has_app_origins() and not is_common_host():
        raise NotServedHere


def reachable(apps: list[ViewedApp]) -> list[ViewedApp]:
    """Return those of the apps that have a host."""
    return [app for app in apps if is_dns_label(app.slug)] if has_app_origins() else apps


def before_app(app: ViewedApp) -> str:
    """Return what stands before a path to the app from a frame that is none of its own."""
    return app_url(app.slug) if has_app_origins() else ""


def before_launcher() -> str:
    """Return what stands before a path to the launcher from the frame of an app."""
    return public_url() if has_app_origins() else ""


def form_action(place: Place) -> str:
    """Return where a frame of a workspace may send its session, for its policy.

    A launcher's header has all apps at once: one by one they could be more than a header holds. Its
    page then names those of its visitor alone.
    """
    if not has_app_origins():
        return "'self'"
    return public_url() if place.app_id is not None else app_url("*")
