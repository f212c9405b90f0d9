"""Every reason to refuse a token or session, at every entrance."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from sqlalchemy import delete, select, update
from werkzeug.test import TestResponse

from pat_service.storage.models import App, Session, Token, User, Workspace
from tests.support.api_calls import BEN, EXCHANGE, INTROSPECT, id_of
from tests.support.people import (
    ACCESS_LOSSES,
    ORDERS,
    PORTAL,
    WORLD,
    Frame,
    Service,
    basic,
    boot,
    changed,
    problem_of,
    provision,
)

LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
JSON: Final = {"Accept": "application/json"}
ANA: Final = "ana@acme.test"
SERVED: Final = "served"
UNKNOWN: Final = ("token_invalid", "session_invalid")
LOST: Final = ("access_revoked", "access_revoked")


def setting(table: Any, **columns: Any) -> Callable[[Service], None]:
    return lambda service: service.change(update(table).values(**columns))


def deleting(table: Any, condition: Any) -> Callable[[Service], None]:
    return lambda service: service.change(delete(table).where(condition))


def provisioning(document: dict[str, Any]) -> Callable[[Service], Any]:
    return lambda service: provision(service.app, document)


def move_orders(service: Service) -> None:
    """Ana is a member of both workspaces, so only the move ends her access."""
    both = changed("users", ANA, workspaces={"acme": "end-user", "globex": "admin"})
    provision(service.app, both | changed("apps", "orders", workspace="globex"))


def replace_and_move(service: Service) -> None:
    service.token(client="manager")
    move_orders(service)


#: The change, and the codes of Ana's token and of her session after it.
FATES: Final[dict[str, tuple[Callable[[Service], Any], tuple[str, str]]]] = {
    "nothing happens": (lambda _: None, (SERVED, SERVED)),
    "the token expires": (setting(Token, expires_at=LONG_AGO), ("token_expired", SERVED)),
    "the token is revoked": (setting(Token, revoked_at=LONG_AGO), ("token_revoked", SERVED)),
    "the token is revoked and expires": (
        setting(Token, revoked_at=LONG_AGO, expires_at=LONG_AGO),
        ("token_revoked", SERVED),
    ),
    "a mint replaces the token": (lambda it: it.token(client="manager"), ("token_superseded", SERVED)),
    "a mint replaces the token and the app moves": (replace_and_move, ("token_superseded", "access_revoked")),
    "the session ends": (setting(Session, ended_at=LONG_AGO), (SERVED, "session_revoked")),
    "the session expires": (setting(Session, expires_at=LONG_AGO), (SERVED, "session_expired")),
    "the session ends and expires": (
        setting(Session, ended_at=LONG_AGO, expires_at=LONG_AGO),
        (SERVED, "session_expired"),
    ),
    **{loss: (provisioning(document), LOST) for loss, document in ACCESS_LOSSES.items()},
    "the app moves": (move_orders, LOST),
    "the app is deleted": (deleting(App, App.id == ORDERS), UNKNOWN),
    "Ana is deleted": (deleting(User, User.email == ANA), UNKNOWN),
}


def code_of(answer: TestResponse) -> str:
    if answer.status_code < 400:
        return SERVED
    return str(problem_of(answer, 401, (answer.json or {})["code"])["code"])


def codes_at_every_entrance(service: Service, token: str, frame: Frame) -> tuple[set[str], set[str]]:
    """Return the codes for the token and for the session. A refused opening leaves no session."""
    before = service.count(Session)
    handed = {"accessToken": token, "parentOrigin": PORTAL}
    openings = [
        service.open(token, Accept="application/json"),
        service.client.post(EXCHANGE, json={"appId": ORDERS, "accessToken": token}),
        service.client.post(f"/embed-apps/{ORDERS}/frame", json=handed, headers=JSON),
    ]
    assert service.count(Session) == before + sum(answer.status_code < 400 for answer in openings)
    requests = [
        service.client.get(f"/embed-apps/{ORDERS}/{path}", headers=frame.bearer | JSON)
        for path in ("session", "pages/index", "data/orders.csv")
    ]
    found = {code_of(answer) for answer in openings}, {code_of(answer) for answer in requests}
    for text, codes in zip((token, frame.jwt), found, strict=True):
        answer = service.client.post(INTROSPECT, headers=basic("manager"), data={"token": text})
        assert (answer.json or {})["active"] is (codes == {SERVED})
    return found


@pytest.mark.parametrize("fate", FATES)
def test_every_entrance_gives_the_same_reason_and_records_it(service: Service, fate: str) -> None:
    """A refused token or session works again only if Ana regains her access."""
    happen, (of_token, of_session) = FATES[fate]
    bens = service.frame(email=BEN, client="manager")
    ids = ("manager", ORDERS, id_of(service, User, ANA), id_of(service, Workspace, "acme"))
    token = service.token(client="manager")
    opened = service.open(token)
    frame = Frame(opened, ORDERS, boot(opened)["session"])
    token_id = service.rows(select(Token.id).where(Token.user_id == ids[2]))[0].id
    happen(service)
    assert codes_at_every_entrance(service, token, frame) == ({of_token}, {of_session})
    if of_session != SERVED:
        path = f"/embed-apps/{ORDERS}/data/orders.csv"
        assert code_of(service.client.post(path, headers=frame.bearer | JSON)) == of_session
    if fate in ACCESS_LOSSES:
        assert service.get(bens, "session").status_code == 200
    for type_, code in (("session:open-refused", of_token), ("session:refused", of_session)):
        recorded = [event for event in service.events(type_) if event.code == code]
        assert len(recorded) == (code not in (SERVED, *UNKNOWN))
        for event in recorded:
            assert (event.client_id, event.app_id, event.user_id, event.workspace_id) == ids
            assert (event.session_id is None) == (type_ == "session:open-refused")
            # A replaced token has given its row to the newer one.
            assert (event.token_id == token_id) == (code != "token_superseded")
    provision(service.app, WORLD)
    later = ({SERVED}, {SERVED}) if fate in ACCESS_LOSSES else ({of_token}, {of_session})
    assert codes_at_every_entrance(service, token, frame) == later
