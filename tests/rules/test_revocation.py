"""Revocations concurrent with everything else, on both databases."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update
from werkzeug.test import TestResponse

from pat_service.rules import token_admin
from pat_service.rules.callers import OPERATOR
from pat_service.rules.token_admin import TokenFilter
from pat_service.rules.tokens import REPEAT_WITHIN
from pat_service.storage.database import transaction
from pat_service.storage.models import Event, Session, Token, User, Workspace
from pat_service.storage.paging import PageRequest
from tests.rules.test_concurrency import code_of, exchange, live_sessions, race
from tests.rules.test_concurrency import service as raced
from tests.support.api_calls import (
    BEN,
    SESSIONS,
    TOKENS,
    UNKNOWN,
    add_clients,
    call,
    id_of,
    mint,
    open_session,
    session_code,
)
from tests.support.people import ORDERS, SUPPORT, Service, changed, provision

pytestmark = pytest.mark.slow

__all__ = ["raced"]


@pytest.fixture
def service(raced: Service) -> Service:
    return add_clients(raced)


def served(service: Service, answers: list[Any]) -> list[str]:
    """Return the code of each opened session."""
    opened = [answer.json["signedPat"] for answer in answers if answer.status_code == 201]
    return [session_code(service, jwt) for jwt in opened]


def ending(path: str, client: str = "keeper") -> Callable[[Service], TestResponse]:
    return lambda caller: call(caller, "DELETE", path, client)


def open_thrice(token: str) -> Callable[[Service], list[TestResponse]]:
    return lambda caller: [exchange(caller, token) for _ in range(3)]


# Revocations against openings.

REVOCATIONS: dict[str, Callable[[str], str]] = {
    "one": lambda id_: f"{TOKENS}/{id_}",
    "those of the app": lambda _: f"{TOKENS}?appId={ORDERS}",
}


@pytest.mark.parametrize("kind", REVOCATIONS)
@pytest.mark.parametrize("place", [{}, {"workspaceSlug": "acme"}], ids=["app", "workspace"])
def test_no_session_outlives_the_revocation_of_its_token(
    service: Service, kind: str, place: dict[str, str]
) -> None:
    for _ in range(4):
        token, id_ = mint(service, "shop", **place)
        path = REVOCATIONS[kind](id_)
        if place and kind != "one":
            path = f"{TOKENS}?workspaceId={id_of(service, Workspace, 'acme')}"
        opens = [open_thrice(token)] * 6
        revoked, *opened = race(service, ending(path, "shop"), *opens)
        assert revoked.status_code in (200, 204)
        answers = list(itertools.chain(*opened))
        assert {code_of(answer) for answer in answers} <= {"opened", "token_revoked"}
        assert set(served(service, answers)) <= {"session_revoked"}
        assert live_sessions(service) == []
        assert service.rows(select(Token.id).where(Token.revoked_at.is_(None))) == []


def test_concurrent_revocations_revoke_a_token_once(service: Service) -> None:
    token, id_ = mint(service, "shop")
    open_session(service, token)
    calls = [ending(f"{TOKENS}/{id_}")] * 4 + [ending(f"{TOKENS}?appId={ORDERS}")] * 4
    assert {answer.status_code for answer in race(service, *calls)} == {200, 204}
    types = select(Event.type).where(Event.token_id == id_, Event.client_id == "keeper")
    assert sorted(row.type for row in service.rows(types)) == ["session:ended", "token:revoked"]


def test_a_revocation_during_a_mint_ends_one_token_or_finds_none(service: Service) -> None:
    for _ in range(4):
        token, id_ = mint(service, "shop")
        jwt, _ = open_session(service, token)
        path = f"{TOKENS}/{id_}"
        revoked, again = race(service, ending(path, "shop"), lambda caller: mint(caller, "shop")[0])
        assert revoked.status_code in (204, 404)
        assert session_code(service, jwt) == ("session_revoked" if revoked.status_code == 204 else "served")
        assert code_of(exchange(service, again)) == "opened"  # the mint came last, or made another token
        call(service, "DELETE", f"{TOKENS}?appId={ORDERS}", "keeper")


@pytest.mark.slow
def test_revocations_by_app_user_and_workspace_never_deadlock(service: Service) -> None:
    acme, ana, ben = (
        id_of(service, Workspace, "acme"),
        *(id_of(service, User, email) for email in ("ana@acme.test", BEN)),
    )
    provision(service.app, changed("apps", "support", users=["ana@acme.test", BEN]))
    pairs = [(email, slug) for email in ("ana@acme.test", BEN) for slug in ("orders", "support")]

    def end(path: str, query: str) -> Callable[[Service], list[int]]:
        return lambda caller: [
            call(caller, "DELETE", f"{path}?{query}", "keeper").status_code for _ in range(6)
        ]

    def use(email: str, slug: str, end_sessions: bool) -> Callable[[Service], list[int]]:
        app_id = {"orders": ORDERS, "support": SUPPORT}[slug]

        def run(caller: Service) -> list[int]:
            codes = []
            for _ in range(6):
                token, _ = mint(caller, "shop", email=email, appSlug=slug, endSessions=end_sessions)
                codes += [
                    caller.client.post(
                        "/api/ext/users/session", json={"appId": app_id, "accessToken": token}
                    ).status_code
                    for _ in range(3)
                ]
            return codes

        return run

    queries = [f"appId={ORDERS}", f"appId={SUPPORT}", f"userId={ana}", f"userId={ben}", f"workspaceId={acme}"]
    ends = [end(path, query) for path in (TOKENS, SESSIONS) for query in queries]
    uses = [use(*pair, end_sessions) for pair in pairs for end_sessions in (True, False)]
    statuses = set(itertools.chain(*race(service, *ends, *uses)))
    assert statuses <= {200, 201, 401}
    call(service, "DELETE", f"{TOKENS}?workspaceId={acme}", "keeper")
    assert live_sessions(service) == []


# Bulk revocations take few statements.


def test_thousands_of_tokens_and_sessions_end_in_one_transaction(service: Service) -> None:
    many = 3000
    token, _ = mint(service, "shop")
    open_session(service, token)
    (row,) = service.rows(select(Session.__table__))
    copies = [row._asdict() | {"id": f"{number:08x}{UNKNOWN[8:]}"} for number in range(many)]
    with service.app.app_context(), transaction() as connection:
        connection.execute(insert(Session), copies)
    with service.statements() as statements:
        answer = call(service, "DELETE", f"{TOKENS}?appId={ORDERS}", "keeper")
    assert answer.json == {"revoked": 1, "endedSessions": many + 1}
    assert len(statements) < 13
    ended = Event.type == "session:ended"
    assert service.rows(select(func.count()).select_from(Event).where(ended))[0][0] == many + 1


def test_the_list_and_the_opening_agree_on_live_tokens(service: Service) -> None:
    """The list checks in SQL; `tokens.check_token` checks in Python."""
    now = datetime.now(UTC)
    mint(service, "shop", singleUse=True)
    for used_at, repeat_by, expected in (
        (None, None, ["live"]),
        (now, "address", ["live"]),
        (now - REPEAT_WITHIN / 2, "form", ["live"]),
        (now - REPEAT_WITHIN, "address", ["used"]),
        (now, None, ["used"]),
    ):
        service.change(update(Token).values(first_used_at=used_at, repeat_by=repeat_by))
        with service.app.app_context():
            page = token_admin.list_tokens(OPERATOR, TokenFilter(), PageRequest(), now)
        assert [row.status for row in page.items] == expected, used_at
