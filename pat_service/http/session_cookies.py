"""The cookies of sessions at upstream apps. Template apps and launchers have none.

The requests of an upstream app's own pages carry no Bearer token, so their session is in a cookie. Each
session has its own cookie, since two frames of one viewer share a host. Frames write the cookies, and the
gateway reads them.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, TypeGuard

from flask import request
from sqlalchemy.exc import SQLAlchemyError

from pat_service.http.authentication import keyring, utcnow
from pat_service.http.headers import COOKIES
from pat_service.rules import sessions
from pat_service.rules.sessions import AnySession, OpenSession

#: A browser takes a cookie of this name from this host alone, and only with `Secure` and `Path=/`.
PREFIX: Final = "__Host-pat-"
_NAME: Final = re.compile(rf"{PREFIX}[0-9a-f]{{8}}")
#: The end of a session's id, which names its cookie.
SUFFIX_CHARS: Final = 8
#: A request with more cookies of ours counts with its newest ones.
MAX_READ: Final = 8
#: `Partitioned` keeps the cookie in a frame of another site, apart for each site of a host page.
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=None; Partitioned"


def read_session_ids() -> list[str]:
    """Return the sessions of the request's genuine cookies, the newest first, at most MAX_READ."""
    # Ids are UUIDs of version 7, so their order is that of time.
    return sorted({id_ for _, id_ in _read() if id_ is not None}, reverse=True)[:MAX_READ]


def renew(session: AnySession) -> bool | None:
    """Set the session's cookie, and expire our cookies of dead sessions and those beyond MAX_READ.

    Return whether this cookie came along, or that of another live session: each of them opens this host.
    Return None if the session has no cookie, since it is not at an upstream app.
    """
    if not _has_cookie(session):
        return None
    sent = dict(_read())
    came_along = sent.pop(name_of(session.id), None) == session.id
    write(session)
    # The session is open. If the database fails now, the dead cookies can wait.
    with suppress(SQLAlchemyError):
        live = sessions.list_live({id_ for id_ in sent.values() if id_ is not None}, utcnow())
        # A proxy passes no more on, and each page load of a portal opens a session.
        kept = sorted(live, reverse=True)[: MAX_READ - 1]
        for name in (name for name, id_ in sent.items() if id_ not in kept):
            _expire(name)
        came_along = came_along or bool(live)
    return came_along


def write(session: OpenSession) -> None:
    """Set the session's cookie."""
    _add(name_of(session.id), keyring().sign_cookie(session.id), session.expires_in)


def expire(session: AnySession) -> None:
    """Expire the session's cookie, if it has one."""
    if _has_cookie(session):
        _expire(name_of(session.id))


def name_of(session_id: str) -> str:
    return PREFIX + session_id[-SUFFIX_CHARS:]


def _has_cookie(session: AnySession) -> TypeGuard[OpenSession]:
    return isinstance(session, OpenSession) and session.viewer.app.upstream is not None


def _read() -> Iterator[tuple[str, str | None]]:
    """Yield the name and session of each cookie of ours. The session is None if no key of ours made it."""
    # Werkzeug's parser would unquote values, and ours have nothing to unquote.
    for pair in request.environ.get("HTTP_COOKIE", "").split(";"):
        name, _, value = pair.strip(" \t").partition("=")
        if _NAME.fullmatch(name):
            id_ = keyring().read_cookie(value)
            yield name, id_ if id_ is not None and name_of(id_) == name else None


def _expire(name: str) -> None:
    _add(name, "", 0)


def _add(name: str, value: str, seconds: int) -> None:
    cookie = f"{name}={value}; Max-Age={seconds}; {_ATTRIBUTES}"
    request.environ.setdefault(COOKIES, []).append(cookie)
