"""Links and sessions of the console, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from flask import Flask
from sqlalchemy import delete, select, update

from pat_service.credentials import Keyring, Secret, redact
from pat_service.errors import Refused, SessionNotFound
from pat_service.rules import console_sessions, events, operators
from pat_service.rules.console_sessions import SignInRefused, SignInRequired
from pat_service.storage.database import reading, transaction
from pat_service.storage.models import ConsoleSession, Event, Operator, UsedLink
from tests.support.console import OLGA, OTTO, VERA
from tests.support.people import KEY, NEW_KEY

RING = Keyring(KEY)
ISSUER = "https://accounts.example"


@pytest.fixture(params=["app", pytest.param("postgres_app", marks=pytest.mark.postgres)])
def on(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The app on each database, within its context. Olga owns the console, Otto operates Acme."""
    app: Flask = request.getfixturevalue(request.param)
    with app.app_context():
        with transaction() as connection:
            for table in (Operator, UsedLink, Event):
                connection.execute(delete(table))
        operators.put(OLGA, "owner", (), datetime.now(UTC))
        operators.put(OTTO, "operator", ("acme",), datetime.now(UTC))
        yield app


def sign_in(email: str = OLGA, ring: Keyring = RING) -> Secret:
    link = console_sessions.create_link(ring, email, datetime.now(UTC))
    return console_sessions.sign_in_by_link(ring, link, "Firefox", datetime.now(UTC))


def by_identity(subject: str, email: str, *, issuer: str = ISSUER, may_create: bool = False) -> str:
    """Sign in with the provider, and return the operator's email."""
    now = datetime.now(UTC)
    cookie = console_sessions.sign_in_by_identity(
        RING, issuer, subject, email, "Firefox", now, may_create=may_create
    )
    return console_sessions.authenticate(RING, cookie.reveal(), now).email


def test_a_link_becomes_one_session(on: Flask) -> None:
    found = console_sessions.authenticate(RING, sign_in(OTTO).reveal(), datetime.now(UTC))
    assert (found.email, found.role, found.caller.all_workspaces) == (OTTO, "operator", False)


def test_a_link_is_recorded_with_its_author(on: Flask) -> None:
    olga = operators.as_caller(operators.find_live(OLGA))
    console_sessions.create_link(RING, OTTO, datetime.now(UTC), olga)
    with reading() as connection:
        created = select(Event.client_id, Event.details).where(Event.type == events.OPERATOR_LINK_CREATED)
        assert connection.execute(created).all() == [(olga.id, {"operator": operators.id_of(OTTO)})]


def test_of_many_uses_of_a_link_at_once_one_succeeds(on: Flask) -> None:
    link, barrier = console_sessions.create_link(RING, OLGA, datetime.now(UTC)), Barrier(4)
    codes = list[str]()

    def use() -> None:
        with on.app_context():
            barrier.wait()
            try:
                console_sessions.sign_in_by_link(RING, link, "Firefox", datetime.now(UTC))
                codes.append("signed in")
            except Refused as refusal:
                codes.append(refusal.code)

    threads = [Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == ["link_used"] * 3 + ["signed in"]


def test_links_and_sessions_survive_a_rotation_of_the_key(on: Flask) -> None:
    link, cookie = console_sessions.create_link(RING, OLGA, datetime.now(UTC)), sign_in()
    now, rotated = datetime.now(UTC), Keyring(NEW_KEY, (KEY,))
    assert console_sessions.authenticate(rotated, cookie.reveal(), now).email == OLGA
    assert console_sessions.sign_in_by_link(rotated, link, "Firefox", now)
    with pytest.raises(SignInRequired):
        console_sessions.authenticate(Keyring(NEW_KEY), cookie.reveal(), now)


def test_logs_hide_links_and_cookies(on: Flask) -> None:
    for secret in (console_sessions.create_link(RING, OLGA, datetime.now(UTC)), sign_in()):
        text = secret.reveal()
        assert text not in redact(f"GET /?x={text} and {text}")
        assert len(redact(text)) < 20


def test_used_links_go_once_they_have_expired(on: Flask) -> None:
    sign_in()
    with transaction() as connection:
        long_ago = datetime.now(UTC) - timedelta(days=1)
        connection.execute(update(UsedLink).values(expires_at=long_ago))
    sign_in()
    with reading() as connection:
        assert len(connection.execute(select(UsedLink.id)).all()) == 1


def test_old_sessions_of_the_operator_go_at_a_sign_in(on: Flask) -> None:
    sign_in()
    with transaction() as connection:
        long_ago = datetime.now(UTC) - timedelta(days=2)
        connection.execute(update(ConsoleSession).values(created_at=long_ago))
    sign_in()
    with reading() as connection:
        assert len(connection.execute(select(ConsoleSession.id)).all()) == 1


def test_removing_otto_ends_his_sessions_at_once(on: Flask) -> None:
    cookie = sign_in(OTTO)
    operators.remove(OTTO, datetime.now(UTC))
    operators.put(OTTO, "operator", ("acme",), datetime.now(UTC))
    with pytest.raises(SignInRequired):
        console_sessions.authenticate(RING, cookie.reveal(), datetime.now(UTC))


def test_a_new_role_counts_at_the_next_request(on: Flask) -> None:
    cookie = sign_in(OTTO)
    operators.put(OTTO, "viewer", ("globex",), datetime.now(UTC))
    assert console_sessions.authenticate(RING, cookie.reveal(), datetime.now(UTC)).role == "viewer"


def test_no_operator_ends_anothers_session(on: Flask) -> None:
    sign_in()
    with reading() as connection:
        (id_,) = connection.execute(select(ConsoleSession.id)).scalars()
    with pytest.raises(SessionNotFound):
        console_sessions.end(operators.id_of(OTTO), [id_], datetime.now(UTC))
    assert console_sessions.end(operators.id_of(OLGA), [id_], datetime.now(UTC)) == 1
    with pytest.raises(SessionNotFound):
        console_sessions.end(operators.id_of(OLGA), [id_], datetime.now(UTC))


def test_the_trail_names_no_session_that_did_not_end(on: Flask) -> None:
    sign_in()
    sign_in(OTTO)
    with reading() as connection:
        (olgas, ottos) = connection.execute(
            select(ConsoleSession.id).join(Operator).order_by(Operator.email)
        ).scalars()
    console_sessions.end(operators.id_of(OTTO), [olgas, ottos, "made up"], datetime.now(UTC))
    with reading() as connection:
        signed_out = select(Event.details).where(Event.type == events.OPERATOR_SIGNED_OUT)
        assert connection.execute(signed_out).scalars().all() == [{"sessions": [ottos]}]


def test_the_first_sign_in_binds_the_identity(on: Flask) -> None:
    assert by_identity("otto-1", OTTO) == OTTO
    # Later the identity counts, whatever its email is.
    assert by_identity("otto-1", OLGA) == OTTO


def test_another_account_with_ottos_email_is_not_otto(on: Flask) -> None:
    by_identity("otto-1", OTTO)
    for options in ({"subject": "mallory"}, {"subject": "otto-1", "issuer": "https://evil.example"}):
        with pytest.raises(SignInRefused):
            by_identity(**{"email": OTTO} | options)  # type: ignore[arg-type]


def test_a_stranger_becomes_a_viewer_without_workspaces_only_if_allowed(on: Flask) -> None:
    with pytest.raises(SignInRefused):
        by_identity("vera-1", VERA)
    assert by_identity("vera-1", VERA, may_create=True) == VERA
    view = operators.find_live(VERA)
    assert (view.role, view.workspaces) == ("viewer", ())


def test_a_removed_operator_does_not_return_by_the_provider(on: Flask) -> None:
    by_identity("otto-1", OTTO)
    operators.remove(OTTO, datetime.now(UTC))
    for may_create in (False, True):
        with pytest.raises(SignInRefused):
            by_identity("otto-1", OTTO, may_create=may_create)


def test_a_link_from_before_a_removal_stays_void_if_otto_returns(on: Flask) -> None:
    stolen = console_sessions.create_link(RING, OTTO, datetime.now(UTC))
    later = datetime.now(UTC) + timedelta(seconds=2)
    operators.remove(OTTO, later)
    operators.put(OTTO, "operator", ("acme",), later)
    with pytest.raises(SignInRefused):
        console_sessions.sign_in_by_link(RING, stolen, "Firefox", later)


@pytest.mark.postgres
def test_a_stranger_who_signs_in_twice_at_once_becomes_one_viewer(postgres_app: Flask) -> None:
    start, emails = Barrier(4), list[str]()

    def sign_in_at_once() -> None:
        with postgres_app.app_context():
            start.wait()
            emails.append(by_identity("nora-1", "nora@acme.test", may_create=True))

    threads = [Thread(target=sign_in_at_once) for _ in range(start.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert emails == ["nora@acme.test"] * start.parties
