"""Find the users whose stored email no request can name.

Older versions accepted more emails, and stored two spellings of one domain as two users.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from marshmallow import ValidationError
from sqlalchemy import Connection, Integer, bindparam, select

from pat_service.rules.directory import users
from pat_service.shapes import check_email, normalize_email
from pat_service.storage.database import AnyRow, reading
from pat_service.storage.models import User

#: Rows of all users that are in memory at a time.
READ_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class UnreachableUser:
    """A user that no request can name by email. `other` is the user who has the normalized email, if any."""

    id: str
    email: str
    other_id: str | None
    other_email: str


def list_unreachable() -> list[UnreachableUser]:
    """Return the users whose stored email is not a normalized valid one, sorted by email."""
    with reading() as connection:
        found = [
            (row.id, row.email, normalize_email(row.email))
            for row in _iterate(connection)
            if _is_unreachable(row.email)
        ]
        others = {email: users.find_id(connection, email) for _, _, email in found}
    return sorted(
        (
            UnreachableUser(id_, email, others[other] if other != email else None, other)
            for id_, email, other in found
        ),
        key=lambda user: user.email,
    )


def _iterate(connection: Connection) -> Iterator[AnyRow]:
    last = ""
    while rows := connection.execute(_emails, {"after": last, "number": READ_ROWS}).all():
        yield from rows
        last = rows[-1].id


def _is_unreachable(email: str) -> bool:
    try:
        check_email(email)
    except ValidationError:
        return True
    return normalize_email(email) != email


_emails = (
    select(User.id, User.email)
    .where(User.id > bindparam("after"))
    .order_by(User.id)
    .limit(bindparam("number", type_=Integer))
)
