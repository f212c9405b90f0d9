"""Filters that pages share: names in the address, ids for the rules.

A name becomes an id by a rule, so an operator learns nothing about other workspaces. An address with filters
can be shared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from flask import g, url_for

from pat_service.console.forms import read_text
from pat_service.errors import AppNotFound, Refused, UserNotFound, WorkspaceNotFound
from pat_service.rules.directory import apps, users, workspaces
from pat_service.shapes import is_uuid
from pat_service.storage.paging import Listing, PageRequest

#: Rows of a page of a list, and choices of a menu.
PAGE_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Choices:
    """What a menu offers. Without `complete` there are more, and the operator types the name."""

    names: list[str]
    complete: bool


@dataclass(frozen=True, slots=True)
class Filters:
    """`given` has the filters of the address, `ids` those for rules, `errors` those that match nothing."""

    given: dict[str, str]
    ids: dict[str, str]
    errors: dict[str, str]

    def address(self, endpoint: str, **more: Any) -> str:
        """Return the address of a page with these filters."""
        return url_for(f"console.{endpoint}", **(self.given | more))


def read(*names: str) -> Filters:
    """Read these filters of the request: workspace, app, user, client, token or session."""
    filters = Filters({}, {}, {})
    for name in names:
        if text := read_text(name):
            filters.given[name] = text
            id_ = _RESOLVERS[name](text)
            if id_ is None:
                filters.errors[name] = f"No such {_NOUNS.get(name, name)} in your workspaces."
            else:
                filters.ids[f"{name}_id"] = id_
    return filters


def read_page(*, descending: bool = False) -> PageRequest:
    """Return the page of the address."""
    return PageRequest(read_text("cursor") or None, PAGE_ROWS, descending)


def workspace_choices() -> Choices:
    return _choices(workspaces.list_workspaces(g.caller, PageRequest(None, PAGE_ROWS)))


def app_choices() -> Choices:
    return _choices(apps.list_apps(g.caller, PageRequest(None, PAGE_ROWS)))


def _choices(listing: Listing) -> Choices:
    return Choices(sorted(row.slug for row in listing.items), listing.next_cursor is None)


def find_workspace(slug: str) -> str:
    """Return the id of the workspace, or raise WorkspaceNotFound."""
    return _require(_find_workspace(slug), WorkspaceNotFound)


def find_app(slug: str) -> str:
    """Return the id of the app, or raise AppNotFound."""
    return _require(_find_app(slug), AppNotFound)


def find_person(email: str) -> str:
    """Return the id of the user with this email, or raise UserNotFound."""
    return _require(_find_user(email), UserNotFound)


def _require(id_: str | None, missing: type[Refused]) -> str:
    if id_ is None:
        raise missing
    return id_


def _find_workspace(text: str) -> str | None:
    return _first(workspaces.list_workspaces(g.caller, PageRequest(None, 1), slug=text))


def _find_app(text: str) -> str | None:
    return _first(apps.list_apps(g.caller, PageRequest(None, 1), slug=text))


def _find_user(text: str) -> str | None:
    # A person who has left is found by the id alone.
    return text if is_uuid(text) else _first(users.list_users(g.caller, PageRequest(None, 1), email=text))


def _find_id(text: str) -> str | None:
    return text if is_uuid(text) else None


def _first(listing: Listing) -> str | None:
    return listing.items[0].id if listing.items else None


_NOUNS: Final = {"user": "person"}
_RESOLVERS: Final[dict[str, Callable[[str], str | None]]] = {
    "workspace": _find_workspace,
    "app": _find_app,
    "user": _find_user,
    "client": lambda text: text,
    "token": _find_id,
    "session": _find_id,
}
