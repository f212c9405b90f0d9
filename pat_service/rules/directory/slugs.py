"""Which slug an app may take.

With `{app}` in PUBLIC_URL a slug is part of a host name. Scripts may have stored data under this host, and
the data belong to the slug's workspace. So a slug that an app gives up stays reserved for the workspace for a
while.
"""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from pat_service.rules.directory.changes import Change
from pat_service.storage.database import transaction
from pat_service.storage.models import ReleasedSlug

#: A workspace keeps a slug for this time after its app has given it up.
RESERVED_FOR: Final = timedelta(days=30)
#: Hosts that viewers trust, or that other parts of an installation use. Only the operator may take them.
RESERVED_NAMES: Final = ("admin", "api", "console", "internal", "login", "static", "www")
#: This separates the parts of a host name of an app that runs elsewhere.
SEPARATOR: Final = "--"


def explain_refusal(slug: str, *, app_hosts: bool, by_operator: bool) -> str | None:
    """Return why no app may take this slug from now on, or None. `app_hosts`: each app has its own host."""
    if app_hosts and SEPARATOR in slug:
        return f"Must not contain {SEPARATOR}, since it is part of the app's host."
    if not by_operator and slug in RESERVED_NAMES:
        return "Is a reserved name; choose another."
    return None


def release(change: Change, slug: str, workspace_id: str) -> None:
    """Reserve a slug for the workspace whose app has just given it up."""
    change.connection.execute(delete(ReleasedSlug).where(ReleasedSlug.slug == slug))
    released = {"slug": slug, "workspace_id": workspace_id, "released_at": change.now}
    change.connection.execute(insert(ReleasedSlug), released)


def take(change: Change, slug: str, workspace_id: str) -> bool:
    """Return whether an app of the workspace may have this slug, which it has just taken.

    A concurrent release has committed by now, since the slug is unique.
    """
    holder = _find_holder(change.connection, slug, change.now)
    if holder in (None, workspace_id):
        change.connection.execute(delete(ReleasedSlug).where(ReleasedSlug.slug == slug))
        return True
    return False


def _find_holder(connection: Connection, slug: str, now: datetime) -> str | None:
    holder: str | None = connection.execute(
        select(ReleasedSlug.workspace_id).where(
            ReleasedSlug.slug == slug, ReleasedSlug.released_at > now - RESERVED_FOR
        )
    ).scalar()
    return holder


def purge(now: datetime) -> None:
    """Delete the reservations that have ended."""
    with transaction() as connection:
        connection.execute(delete(ReleasedSlug).where(ReleasedSlug.released_at <= now - RESERVED_FOR))
