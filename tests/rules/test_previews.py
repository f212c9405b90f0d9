"""Previews: a session of an operator, as a person and with no more than the person's rights."""

from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import select, update

from pat_service import errors
from pat_service.http.authentication import keyring, utcnow
from pat_service.rules import openings, previews, sessions
from pat_service.rules.access import Place
from pat_service.rules.callers import OPERATOR, Caller
from pat_service.rules.openings import Attempt
from pat_service.rules.previews import Preview
from pat_service.storage.models import Member, Session, User
from tests.support.people import LEDGER, ORDERS, SUPPORT, Service, changed, provision

CONSOLE: Final = "https://console.example"
OTTO: Final = Caller("manager", frozenset(), all_workspaces=False)


def id_of(service: Service, email: str) -> str:
    found: str = service.rows(select(User.id).where(User.email == email))[0][0]
    return found


def begin(
    service: Service,
    email: str = "ben@acme.test",
    app_id: str = ORDERS,
    role: str | None = None,
    attributes: dict[str, Any] | None = None,
    caller: Caller = OTTO,
) -> Any:
    """Open a preview, and return its code and viewer."""
    preview = Preview(app_id, id_of(service, email), role, attributes or {})
    with service.app.test_request_context():
        return previews.open(keyring(), caller, preview, CONSOLE, utcnow(), own_host=False)


def redeem(service: Service, code: Any, later: timedelta = timedelta(), **attempt: Any) -> Any:
    """Claim the session, and return it with its JWT."""
    with service.app.test_request_context():
        ready = openings.redeem(
            keyring(),
            code,
            Attempt(Place(app_id=ORDERS), "address", **attempt),
            utcnow() + later,
            lambda ready: ready,
        )
    assert ready.signed
    return ready.session, ready.signed.reveal()


def check(service: Service, signed: str, later: timedelta = timedelta()) -> Any:
    with service.app.test_request_context():
        return sessions.check(keyring(), signed, Place(app_id=ORDERS), utcnow() + later)


def test_otto_sees_orders_as_ben(each_service: Service) -> None:
    code, viewer = begin(each_service, role="end-user", attributes={"region": "north"})
    assert (viewer.user.email, viewer.role, viewer.preview) == ("ben@acme.test", "end-user", True)
    session, signed = redeem(each_service, code)
    assert session.viewer == check(each_service, signed).viewer
    assert (session.viewer.role, session.viewer.attributes) == ("end-user", {"region": "north"})
    assert session.viewer.preview
    assert not check(each_service, each_service.frame().jwt).viewer.preview


def test_only_the_console_may_frame_a_preview(each_service: Service) -> None:
    session, signed = redeem(each_service, begin(each_service)[0])
    assert session.origins == check(each_service, signed).origins == [CONSOLE]
    provision(each_service.app, changed("apps", "orders", allowed_origins=["*"]))
    assert check(each_service, signed).origins == [CONSOLE]


def test_a_preview_lasts_two_minutes(each_service: Service) -> None:
    _, signed = redeem(each_service, begin(each_service)[0])
    check(each_service, signed, timedelta(seconds=118))
    with pytest.raises(errors.SessionExpired):
        check(each_service, signed, timedelta(seconds=121))


def test_a_code_works_once_and_for_thirty_seconds(each_service: Service) -> None:
    code, _ = begin(each_service)
    redeem(each_service, code)
    with pytest.raises(errors.TokenInvalid):
        redeem(each_service, code)
    with pytest.raises(errors.TokenExpired):
        redeem(each_service, begin(each_service)[0], timedelta(seconds=31))


def test_nothing_renews_a_preview(each_service: Service) -> None:
    session, signed = redeem(each_service, begin(each_service)[0])
    other, _ = redeem(each_service, begin(each_service)[0], former=signed)
    assert other.id != session.id
    rows = each_service.rows(select(Session.replaced_by, Session.ended_at).where(Session.id == session.id))
    assert [tuple(row) for row in rows] == [(None, None)]


def test_a_role_above_the_persons_own_is_refused(each_service: Service) -> None:
    with pytest.raises(errors.InvalidPayload) as refusal:
        begin(each_service, "ben@acme.test", role="admin")
    assert "builder" in refusal.value.errors["role"][0]
    assert each_service.count(Session) == 0


def test_a_role_that_ben_loses_is_lost_in_the_preview(each_service: Service) -> None:
    _, signed = redeem(each_service, begin(each_service, role="builder")[0])
    ben = id_of(each_service, "ben@acme.test")
    each_service.change(update(Member).where(Member.user_id == ben).values(role="end-user"))
    assert check(each_service, signed).viewer.role == "end-user"


def test_a_grant_that_ben_loses_ends_the_preview(each_service: Service) -> None:
    _, signed = redeem(each_service, begin(each_service)[0])
    provision(each_service.app, changed("apps", "orders", users=["ana@acme.test"]))
    with pytest.raises(errors.AccessRevoked):
        check(each_service, signed)


def test_what_ben_may_not_open_has_no_preview(each_service: Service) -> None:
    with pytest.raises(errors.AppForbidden):
        begin(each_service, app_id=SUPPORT)


@pytest.mark.parametrize(
    ("email", "app_id"),
    [("mallory@globex.test", LEDGER), ("mallory@globex.test", ORDERS), ("ben@acme.test", LEDGER)],
)
def test_otto_previews_nothing_of_globex(each_service: Service, email: str, app_id: str) -> None:
    with pytest.raises(errors.AppNotFound):
        begin(each_service, email, app_id)
    assert each_service.count(Session) == 0


def test_one_event_names_operator_and_person(each_service: Service) -> None:
    before = len(each_service.events())
    redeem(each_service, begin(each_service, attributes={"region": "north"}, caller=OPERATOR)[0])
    (event,) = each_service.events()[before:]
    assert (event.type, event.client_id) == ("session:previewed", OPERATOR.id)
    assert (event.user_id, event.app_id) == (id_of(each_service, "ben@acme.test"), ORDERS)
    # Values of attributes may be personal data.
    assert event.details == {"role": "builder", "attributes": ["region"]}
