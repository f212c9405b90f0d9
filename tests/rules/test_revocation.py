"""Revocations concurrent with everything else, on both databases, and the operator's commands."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import Result
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
    assert len(statements) < 12
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


# The operator's commands.


def invoke(service: Service, *args: str) -> Result:
    return service.app.test_cli_runner().invoke(args=args)


def lines(service: Service, *args: str) -> list[list[str]]:
    done = invoke(service, *args)
    assert done.exit_code == 0, done.output
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_an_operator_lists_tokens_and_sessions_of_all_workspaces(service: Service) -> None:
    token, id_ = mint(service, "shop")
    _, session_id = open_session(service, token)
    _, wide = mint(service, "shop", workspaceSlug="acme")
    ledger = mint(service, "rival", appSlug="ledger", email="mallory@globex.test")[1]
    rows = {row[0]: row for row in lines(service, "token", "list")}
    assert set(rows) == {id_, wide, ledger}
    assert rows[id_][1:4] == ["acme/orders", "ana@acme.test", "shop"]
    assert rows[id_][5:] == [f"ends in {token[-4:]}", "live", "1 live session(s)"]
    assert rows[wide][1] == "acme/*"
    assert [row[0] for row in lines(service, "token", "list", "--app", "ledger")] == [ledger]
    assert [row[0] for row in lines(service, "token", "list", "--workspace", "globex")] == [ledger]
    narrow = ("--user", "ANA@acme.test", "--app", "orders", "--workspace", "acme")
    assert [row[0] for row in lines(service, "token", "list", *narrow)] == [id_]
    ((shown, *rest),) = lines(service, "session", "list", "--user", "ana@acme.test")
    assert shown == session_id
    assert rest[:3] == ["acme/orders", "ana@acme.test", "shop"]
    assert rest[-1] == f"of token {id_}"
    assert lines(service, "session", "list", "--app", "ledger") == []
    assert token not in invoke(service, "token", "list").output


def test_a_command_lists_every_page(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pat_service.cli.token_admin.MAX_LIMIT", 2)
    token, _ = mint(service, "shop")
    opened = sorted(open_session(service, token)[1] for _ in range(5))
    assert [row[0] for row in lines(service, "session", "list")] == opened


def test_an_operator_revokes_one_token_or_many(service: Service) -> None:
    token, id_ = mint(service, "shop")
    jwt, _ = open_session(service, token)
    bens = mint(service, "shop", email=BEN)[1]
    done = invoke(service, "token", "revoke", id_.upper())
    assert (done.exit_code, done.output) == (0, "Revoked 1 token(s), ended 1 session(s).\n")
    assert session_code(service, jwt) == "session_revoked"
    assert invoke(service, "token", "revoke", id_).output == "Revoked 0 token(s), ended 0 session(s).\n"
    assert [row[0] for row in lines(service, "token", "list")] == [bens]
    assert {row[0]: row[6] for row in lines(service, "token", "list", "--all")} == {
        id_: "revoked",
        bens: "live",
    }
    done = invoke(service, "token", "revoke", "--app", "orders", "--user", BEN)
    assert done.output == "Revoked 1 token(s), ended 0 session(s).\n"
    actors = service.rows(select(Event.client_id).where(Event.type == "token:revoked"))
    assert {row.client_id for row in actors} == {"(operator)"}


def test_an_operator_ends_one_session_or_many(service: Service) -> None:
    token, _ = mint(service, "shop")
    opened = [open_session(service, token) for _ in range(3)]
    assert invoke(service, "session", "end", opened[0][1]).output == "Ended 1 session(s).\n"
    assert invoke(service, "session", "end", opened[0][1]).output == "Ended 0 session(s).\n"
    assert invoke(service, "session", "end", "--workspace", "globex").output == "Ended 0 session(s).\n"
    assert invoke(service, "session", "end", "--app", "orders").output == "Ended 2 session(s).\n"
    assert live_sessions(service) == []
    assert code_of(exchange(service, token)) == "opened"


def test_an_operator_ends_all_that_one_client_minted(service: Service) -> None:
    shops, bens = (
        open_session(service, mint(service, "shop", email=email)[0])[0] for email in ("ana@acme.test", BEN)
    )
    portals, _ = open_session(service, mint(service, "portal", appSlug="support")[0], SUPPORT)
    assert {row[3] for row in lines(service, "token", "list", "--client", "shop")} == {"shop"}
    assert len(lines(service, "session", "list", "--client", "portal")) == 1
    assert invoke(service, "session", "end", "--client", "shop").output == "Ended 2 session(s).\n"
    done = invoke(service, "token", "revoke", "--client", "shop")
    assert done.output == "Revoked 2 token(s), ended 0 session(s).\n"
    assert [session_code(service, jwt) for jwt in (shops, bens)] == ["session_revoked"] * 2
    assert session_code(service, portals, SUPPORT) == "served"
    assert lines(service, "token", "list", "--client", "shop") == []


def test_a_client_is_revoked_with_all_that_it_minted(service: Service) -> None:
    token, _ = mint(service, "shop")
    jwt, _ = open_session(service, token)
    kept, _ = mint(service, "portal", email=BEN)
    done = invoke(service, "client", "revoke", "shop", "--tokens")
    assert done.output == "Client shop is revoked.\nRevoked 1 token(s), ended 1 session(s).\n"
    assert code_of(exchange(service, token)) == "token_revoked"
    assert session_code(service, jwt) == "session_revoked"
    assert code_of(exchange(service, kept)) == "opened"


@pytest.mark.parametrize("command", [("token", "revoke"), ("session", "end")])
def test_wrong_arguments_are_refused_in_one_line_and_end_nothing(
    service: Service, command: tuple[str, str]
) -> None:
    jwt, _ = open_session(service, mint(service, "shop")[0])
    for args in ([], [UNKNOWN, "--app", "orders"], [UNKNOWN, UNKNOWN], ["--everything"]):
        done = invoke(service, *command, *args)
        assert (done.exit_code, done.stdout) == (2, ""), args
        assert "Error: " in done.stderr
    for args in (
        [UNKNOWN],
        ["orders"],
        [""],
        ["\udcff"],
        ["--app", "nowhere"],
        ["--app", ""],
        ["--app", "\udcff"],
        ["--user", "nobody@acme.test"],
        ["--user", "ana"],
        ["--user", "\udcff@acme.test"],
        ["--workspace", "nowhere"],
        ["--workspace", "Acme"],
        ["--app", "orders", "--user", "nobody@acme.test"],
        ["--client", "nobody"],
        ["--client", ""],
        ["--client", "\udcff"],
    ):
        done = invoke(service, *command, *args)
        assert (done.exit_code, done.stdout) == (1, ""), args
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1
    assert session_code(service, jwt) == "served"
