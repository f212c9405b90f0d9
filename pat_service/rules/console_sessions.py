"""Sign operators in to the console: links that work once, and sessions that end at once."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from itsdangerous import BadSignature, SignatureExpired, TimestampSigner
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from pat_service.credentials import CONSOLE_PREFIX, Keyring, Secret, generate, is_well_formed
from pat_service.errors import Refused, SessionNotFound
from pat_service.rules import events, operators
from pat_service.rules.callers import OPERATOR, Caller
from pat_service.storage.database import AnyRow, UtcDateTime, add, reading, transaction
from pat_service.storage.models import ConsoleSession, Operator, UsedLink, new_id

#: A link can be used for this time.
LINK_LIFETIME: Final = timedelta(minutes=10)
#: A session ends after this time without a request, and after this time in all.
IDLE: Final = timedelta(minutes=60)
LIFETIME: Final = timedelta(hours=12)
#: The last request of a session is recorded at most once in this interval.
RECORD_USE_EVERY: Final = timedelta(minutes=1)
BY_LINK: Final = "link"
BY_OIDC: Final = "oidc"


class SignInRequired(Refused):
    """The console needs an operator. The browser's session is missing, or has ended."""

    status, code, title = 401, "sign_in_required", "Sign in"
    detail = "Sign in to the console. A session ends after an hour without use, and after 12 hours."


class SignInRefused(Refused):
    status, code, title = 401, "sign_in_refused", "Sign-in refused"
    detail = "This sign-in is not valid. Start again."


class LinkInvalid(SignInRefused):
    code = "link_invalid"
    detail = "This is not a sign-in link of this console. Ask an owner for a new one."


class LinkExpired(SignInRefused):
    code = "link_expired"
    detail = "This sign-in link has expired. Ask an owner for a new one."


class LinkUsed(SignInRefused):
    code = "link_used"
    detail = "This sign-in link has already been used. Ask an owner for a new one."


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session of the console with its operator."""

    session_id: str
    operator_id: str
    email: str
    role: str
    caller: Caller


@dataclass(frozen=True, slots=True)
class SessionView:
    """A live session, as its operator sees it."""

    id: str
    method: str
    browser: str
    created_at: datetime
    last_seen_at: datetime
    ends_at: datetime


def create_link(keyring: Keyring, email: str, now: datetime, caller: Caller = OPERATOR) -> Secret:
    """Return the secret part of a link that signs this operator in once, within `LINK_LIFETIME`.

    Raise OperatorNotFound if there is none.
    """
    operator = operators.find_live(email)
    with transaction() as connection:
        details = {"operator": operator.id}
        events.record(connection, events.OPERATOR_LINK_CREATED, now, client_id=caller.id, details=details)
    content = json.dumps({"link": new_id(), "email": operator.email}).encode()
    # Each begins with eyJ, so logs hide it as they hide a JWT.
    text = base64.urlsafe_b64encode(content).rstrip(b"=")
    return Secret(_signer(keyring).sign(text).decode())


def sign_in_by_link(keyring: Keyring, link: Secret, browser: str, now: datetime) -> Secret:
    """Use a link, and return the cookie's value of a new session.

    Raise LinkInvalid, LinkExpired or LinkUsed. The errors are about the operator if the link is genuine.
    """
    signer = _signer(keyring)
    try:
        text, signed_at = signer.unsign(
            link.reveal(), max_age=int(LINK_LIFETIME.total_seconds()), return_timestamp=True
        )
    except SignatureExpired as expired:
        raise LinkExpired().about(client_id=operators.id_of(_parse(expired.payload)["email"])) from None
    except (BadSignature, ValueError):
        raise LinkInvalid from None
    content = _parse(text)
    about = {"client_id": operators.id_of(content["email"])}
    with transaction() as connection:
        # Links that nothing else would delete.
        connection.execute(delete(UsedLink).where(UsedLink.expires_at <= now))
        used = {"id": content["link"], "expires_at": signed_at + LINK_LIFETIME + RECORD_USE_EVERY}
        if not add(connection, UsedLink, used):
            raise LinkUsed().about(**about)
        row = connection.execute(_locked, {"email": content["email"]}).first()
        # A link is signed in whole seconds. One from before a removal stays void if the operator returns.
        if row is None or signed_at < row.created_at.replace(microsecond=0):
            raise LinkInvalid().about(**about)
        return open_session(connection, row.id, BY_LINK, browser, now, keyring)


def _signer(keyring: Keyring) -> TimestampSigner:
    # itsdangerous signs with the last key, and accepts all.
    keys = [key.derive("console-link") for key in reversed(keyring.keys)]
    return TimestampSigner(keys, salt=b"pat-service/console-link")


def _parse(text: Any) -> dict[str, str]:
    content: dict[str, str] = json.loads(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
    return content


def sign_in_by_identity(
    keyring: Keyring,
    issuer: str,
    subject: str,
    email: str | None,
    browser: str,
    now: datetime,
    *,
    may_create: bool,
) -> Secret:
    """Return the cookie's value of a new session for a person whom the OpenID provider has signed in.

    The first sign-in binds the identity to the operator with this verified email. Later only the identity
    counts. `may_create`: an unknown person becomes a viewer without a workspace. Raise SignInRefused.
    """
    with transaction() as connection:
        known = select(Operator.__table__).where(Operator.issuer == issuer, Operator.subject == subject)
        row = connection.execute(known.with_for_update()).first()
        if row is None:
            row = _bind(connection, issuer, subject, email, now, may_create=may_create)
        if row.archived_at is not None:
            raise SignInRefused("This operator was removed. Ask an owner.").about(client_id=row.id)
        return open_session(connection, row.id, BY_OIDC, browser, now, keyring)


def _bind(
    connection: Connection, issuer: str, subject: str, email: str | None, now: datetime, *, may_create: bool
) -> AnyRow:
    if email is None:
        raise SignInRefused("The OpenID provider has not verified your email. Ask an owner for a link.")
    found = select(Operator.__table__).where(Operator.email == email).with_for_update()
    row = connection.execute(found).first()
    if row is None and may_create:
        operators.add_viewer(connection, email, now)
        row = connection.execute(found).first()
    if row is None or row.archived_at is not None:
        about = None if row is None else row.id
        raise SignInRefused("You are no operator of this console. Ask an owner to add you.").about(
            client_id=about
        )
    if (row.issuer, row.subject) == (issuer, subject):
        # The same person's concurrent sign-in bound the identity.
        return row
    if row.subject is not None:
        # Another account of the provider has the email now. It may belong to another person.
        raise SignInRefused(
            "Another account is bound to this operator. Ask an owner to remove and add the operator."
        ).about(client_id=row.id)
    bound = update(Operator).where(Operator.id == row.id).values(issuer=issuer, subject=subject)
    connection.execute(bound)
    return row


def open_session(
    connection: Connection, operator_id: str, method: str, browser: str, now: datetime, keyring: Keyring
) -> Secret:
    """Open a session in this transaction, and return the cookie's value."""
    secret, session_id = generate(CONSOLE_PREFIX), new_id()
    row = {
        "id": session_id,
        "operator_id": operator_id,
        "digest": keyring.current.digest(secret),
        "method": method,
        "browser": browser,
        "created_at": now,
        "last_seen_at": now,
    }
    connection.execute(insert(ConsoleSession), row)
    # Sessions that nothing else would delete.
    old = ConsoleSession.created_at <= now - 2 * LIFETIME
    connection.execute(delete(ConsoleSession).where(ConsoleSession.operator_id == operator_id, old))
    details = {"method": method, "session": session_id}
    events.record(connection, events.OPERATOR_SIGNED_IN, now, client_id=operator_id, details=details)
    return secret


def authenticate(keyring: Keyring, cookie: str, now: datetime) -> SignedIn:
    """Return the session of this cookie, and record its use. Raise SignInRequired."""
    if not is_well_formed(cookie, CONSOLE_PREFIX):
        raise SignInRequired
    secret = Secret(cookie)
    digests = [key.digest(secret) for key in keyring.keys]
    with reading() as connection:
        row = connection.execute(_by_digest, {"digests": digests} | _live(now)).first()
    if row is None:
        raise SignInRequired
    if row.last_seen_at <= now - RECORD_USE_EVERY:
        with transaction() as connection:
            connection.execute(
                update(ConsoleSession)
                .where(ConsoleSession.id == row.session_id, ConsoleSession.ended_at.is_(None))
                .values(last_seen_at=now)
            )
    return SignedIn(row.session_id, row.id, row.email, row.role, operators.as_caller(row))


def list_sessions(operator_id: str, now: datetime) -> list[SessionView]:
    """Return the operator's live sessions, the last used first."""
    statement = (
        select(ConsoleSession.__table__)
        .where(ConsoleSession.operator_id == operator_id, *_IS_LIVE)
        .order_by(ConsoleSession.last_seen_at.desc(), ConsoleSession.id)
    )
    with reading() as connection:
        return [
            SessionView(
                row.id, row.method, row.browser, row.created_at, row.last_seen_at, row.created_at + LIFETIME
            )
            for row in connection.execute(statement, _live(now))
        ]


def end(operator_id: str, session_ids: Sequence[str], now: datetime) -> int:
    """End live sessions of this operator at once, and return their number.

    Raise SessionNotFound if none of them is live.
    """
    with transaction() as connection:
        condition = (
            ConsoleSession.operator_id == operator_id,
            ConsoleSession.id.in_(session_ids),
            ConsoleSession.ended_at.is_(None),
        )
        statement = update(ConsoleSession).where(*condition).values(ended_at=now)
        ended = sorted(connection.execute(statement.returning(ConsoleSession.id)).scalars())
        if not ended:
            raise SessionNotFound
        details = {"sessions": ended}
        events.record(connection, events.OPERATOR_SIGNED_OUT, now, client_id=operator_id, details=details)
    return len(ended)


def _live(now: datetime) -> dict[str, datetime]:
    return {"idle_since": now - IDLE, "begun_since": now - LIFETIME}


_IS_LIVE: Final = (
    ConsoleSession.ended_at.is_(None),
    ConsoleSession.last_seen_at > bindparam("idle_since", type_=UtcDateTime),
    ConsoleSession.created_at > bindparam("begun_since", type_=UtcDateTime),
)
_by_digest = (
    select(ConsoleSession.id.label("session_id"), ConsoleSession.last_seen_at, *Operator.__table__.c)
    .join(Operator, Operator.id == ConsoleSession.operator_id)
    .where(
        ConsoleSession.digest.in_(bindparam("digests", expanding=True)),
        Operator.archived_at.is_(None),
        *_IS_LIVE,
    )
)
_locked = (
    select(Operator.id, Operator.created_at)
    .where(Operator.email == bindparam("email"), Operator.archived_at.is_(None))
    .with_for_update()
)
