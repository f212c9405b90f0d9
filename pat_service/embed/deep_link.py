"""The page and query at which a frame opens: `page=<name>&params=<one URL-encoded query>`.

A page of an upstream app is a path of that app: `page=/reports/42`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

from flask import request

from pat_service.errors import InvalidPayload
from pat_service.rules.access import Place

PAGE_PARAMETER: Final = "page"
PARAMS_PARAMETER: Final = "params"
#: For page and params together.
MAX_LINK_BYTES: Final = 2048
INDEX: Final = "index"
NAME_WANTED: Final = "Must be the name of a page: a-z, 0-9 and dashes."
PAGE_NAME: Final = "[a-z0-9-]+"

_PAGE: Final = re.compile(PAGE_NAME)
#: A path that a browser keeps as it is, apart from percent-encoding.
_PATH: Final = re.compile(r"""/(?:[^\x00-\x20"#%<>?\\^`{}\x7f]|%[0-9A-Fa-f]{2})*""")
#: Our own paths at an upstream app's host, without the first slash.
_OURS: Final = re.compile(r"(?:embed-(?:apps|static|texts|workspaces)|internal)(?:/|$)", re.IGNORECASE)
#: The attributes that werkzeug derives from the query once a request.
_OF_QUERY: Final = ("args", "full_path", "url", "values")


@dataclass(frozen=True, slots=True)
class DeepLink:
    """A page of an app, or a path of an upstream app, and its query."""

    page: str = INDEX
    params: str = ""

    @property
    def query(self) -> dict[str, str]:
        """Return the parameters of a frame's address, without defaults."""
        page = {PAGE_PARAMETER: self.page} if self.page != INDEX else {}
        return page | ({PARAMS_PARAMETER: self.params} if self.params else {})

    def check_kind(self, *, is_upstream: bool) -> None:
        """Raise InvalidPayload if this app cannot have the page."""
        if is_upstream and self.page != INDEX and not self.page.startswith("/"):
            _refuse(PAGE_PARAMETER, "This app runs elsewhere: a page is a path of it, such as /reports.")
        if not is_upstream and self.page.startswith("/"):
            _refuse(PAGE_PARAMETER, NAME_WANTED)


def read_address_link(place: Place) -> DeepLink:
    """Return the deep link in the frame's address. Raise InvalidPayload."""
    args = request.args
    return check_link(place, args.getlist(PAGE_PARAMETER), args.getlist(PARAMS_PARAMETER))


def check_link(place: Place, pages: Sequence[str], params: Sequence[str]) -> DeepLink:
    """Return the deep link. Raise InvalidPayload if it is malformed, or if a launcher should open it."""
    page, query = ("".join(pages) or INDEX), "".join(params)
    if place.app_id is None and (pages or params):
        _refuse(PAGE_PARAMETER, "A launcher has no pages. Mint for the app.")
    if len(pages) > 1 or len(params) > 1:
        _refuse(PAGE_PARAMETER, "Give page and params once.")
    if len(page.encode()) + len(query.encode()) > MAX_LINK_BYTES:
        _refuse(PARAMS_PARAMETER, f"Page and params may have at most {MAX_LINK_BYTES} bytes.")
    if page.startswith("/"):
        _check_path(page)
    elif not _PAGE.fullmatch(page):
        _refuse(PAGE_PARAMETER, NAME_WANTED)
    if "#" in query or any("\0" in text for pair in parse_qsl(query, True) for text in pair):
        _refuse(PARAMS_PARAMETER, "Must be one URL-encoded query without NUL, such as id=BR-21782.")
    return DeepLink(page, query)


def _check_path(page: str) -> None:
    """Refuse a path that a browser or a proxy could take for another one, or for one of ours."""
    path = unquote(page, errors="replace")
    if not _PATH.fullmatch(page) or path.startswith("//") or "\0" in path or "\\" in path:
        _refuse(PAGE_PARAMETER, "Must be a path that begins with one slash, such as /reports/42.")
    if not {".", ".."}.isdisjoint(path.split("/")):
        _refuse(PAGE_PARAMETER, "Must not contain the parts . and ..")
    if _OURS.match(path, 1):
        _refuse(PAGE_PARAMETER, "Must be a path of the app, not of the service.")


def _refuse(parameter: str, text: str) -> None:
    raise InvalidPayload({parameter: [text]})


@contextmanager
def only_params(link: DeepLink) -> Iterator[None]:
    """Let `flask.request` have the link's params as its query, and nothing else of the frame's address."""
    known = request._get_current_object()  # type: ignore[attr-defined]
    before, text = known.query_string, known.environ.get("QUERY_STRING", "")
    try:
        # An environment has a query's bytes as Latin-1 (PEP 3333).
        _set_query(known, link.params.encode(), link.params.encode().decode("latin-1"))
        yield
    finally:
        _set_query(known, before, text)


def _set_query(known: object, query: bytes, text: str) -> None:
    for name in _OF_QUERY:
        vars(known).pop(name, None)
    known.query_string = query  # type: ignore[attr-defined]
    known.environ["QUERY_STRING"] = text  # type: ignore[attr-defined]
