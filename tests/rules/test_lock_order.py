"""Every transaction locks tokens in one order, and before the rows that they reference.

Another order would cause deadlocks, which no test with threads shows each time. So each test holds the first
token and waits until a rule waits for it. The rule must then hold no other row.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
import pytest
from flask import Flask
from psycopg.rows import namedtuple_row
from sqlalchemy import delete, select

from pat_service.rules import token_admin
from pat_service.rules.callers import OPERATOR
from pat_service.rules.token_admin import TokenFilter
from pat_service.storage.models import Grant, User, Workspace
from tests.support.directory import ANA, BEN
from tests.support.people import ORDERS, SUPPORT, Service, basic
from tests.support.servers import wait_for

pytestmark = pytest.mark.postgres

OF_ORDERS: Final = f"app_id = '{ORDERS}'"
OF_WORKSPACE: Final = "app_id IS NULL"
#: A deletion locks these rows after the tokens.
REFERENCED: Final = ("apps", "users", "workspaces", "members", "grants", "sessions")
WAITING: Final = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
def service(postgres_app: Flask) -> Service:
    """The tokens have neither ids nor places in the table that follow the order of the locks."""
    service = Service(postgres_app.test_client())
    users = service.rows(select(User.email).where(User.email.in_([ANA, BEN])).order_by(User.id.desc()))
    for (email,) in users:
        assert service.open(service.token(email=email)).status_code == 200
        assert service.token(client="manager", email=email, appSlug=None, workspaceSlug="acme")
    return service


def require_order(service: Service, url: str, tokens: str, act: Callable[[Service, Any], Any]) -> None:
    """Let the rule act on these tokens, while the first of them is locked."""
    first = f"SELECT * FROM tokens WHERE {tokens} ORDER BY user_id, app_id, workspace_id LIMIT 1 FOR UPDATE"
    with (
        ThreadPoolExecutor(1) as threads,
        psycopg.connect(url, row_factory=namedtuple_row) as holder,
        psycopg.connect(url) as other,
    ):
        held: Any = holder.execute(first).fetchone()
        assert held is not None
        acted = threads.submit(act, Service(service.app.test_client()), held)
        wait_for(lambda: other.execute(WAITING).fetchone() == (1,) or acted.done())
        assert not acted.done(), "the rule must wait for the token"
        other.execute("SELECT FROM tokens WHERE id <> %s FOR UPDATE NOWAIT", [held.id])
        for table in REFERENCED:
            other.execute(f"SELECT FROM {table} FOR UPDATE NOWAIT")
        other.rollback()
        holder.rollback()
        acted.result()


def mint(**fields: Any) -> Callable[[Service, Any], None]:
    def act(service: Service, held: Any) -> None:
        user = {"email": None, "userId": held.user_id}
        assert service.mint(client="manager", **(user | fields)).status_code == 201

    return act


def mint_without_grants(service: Service, held: Any) -> None:
    """The mint creates the missing grant."""
    service.change(delete(Grant))
    mint(provision={})(service, held)


def send_delete(path: str) -> Callable[[Service, Any], None]:
    def act(service: Service, held: Any) -> None:
        address = f"/api/ext/{path.format(token=held)}"
        answer = service.client.delete(address, headers=basic("manager"))
        assert answer.status_code in (200, 204), answer.text

    return act


def revoke_all(service: Service, _held: Any) -> None:
    with service.app.app_context():
        assert token_admin.revoke_tokens(OPERATOR, TokenFilter(), datetime.now(UTC)).tokens == 4


@pytest.mark.parametrize(
    ("tokens", "act"),
    [
        pytest.param(OF_ORDERS, mint(), id="a mint"),
        pytest.param(OF_ORDERS, mint(endSessions=True), id="a mint that ends sessions"),
        pytest.param(OF_ORDERS, mint_without_grants, id="a mint that creates a grant"),
        pytest.param(OF_WORKSPACE, mint(appSlug=None, workspaceSlug="acme"), id="a mint for a workspace"),
        pytest.param(OF_ORDERS, send_delete(f"apps/{ORDERS}"), id="the deletion of an app"),
        pytest.param(OF_ORDERS, send_delete("users/{token.user_id}"), id="the deletion of a user"),
        pytest.param(OF_ORDERS, send_delete("personal-access-tokens/{token.id}"), id="a revocation"),
        pytest.param(
            OF_ORDERS,
            send_delete(f"personal-access-tokens?appId={ORDERS}"),
            id="a revocation by app",
        ),
        pytest.param("true", revoke_all, id="a revocation of all tokens"),
    ],
)
def test_a_rule_that_waits_for_a_token_holds_no_other_row(
    service: Service, postgres_url: str, tokens: str, act: Callable[[Service, Any], Any]
) -> None:
    require_order(service, postgres_url, tokens, act)


def test_the_deletion_of_a_workspace_that_waits_for_a_token_holds_no_other_row(
    service: Service, postgres_url: str
) -> None:
    for app_id in (ORDERS, SUPPORT):
        send_delete(f"apps/{app_id}")(service, None)
    ((acme,),) = service.rows(select(Workspace.id).where(Workspace.slug == "acme"))
    require_order(service, postgres_url, OF_WORKSPACE, send_delete(f"workspaces/{acme}"))


@pytest.mark.parametrize("fields", [{}, {"singleUse": True}], ids=str)
def test_an_opening_that_waits_for_its_token_holds_no_other_row(
    service: Service, postgres_url: str, fields: dict[str, bool]
) -> None:
    """So does the first request of its session, which ends the repeat of a single-use token."""
    emails = dict(service.rows(select(User.id, User.email)))

    def open_again(caller: Service, held: Any) -> None:
        assert caller.open(tokens[emails[held.user_id]]).status_code == 200

    tokens = {email: service.token(email=email, **fields) for email in (BEN, ANA)}
    require_order(service, postgres_url, OF_ORDERS, open_again)


def test_the_first_request_of_a_session_that_waits_for_the_token_holds_no_other_row(
    service: Service, postgres_url: str
) -> None:
    ((ana,),) = service.rows(select(User.id).where(User.email == ANA))
    frame = service.frame(singleUse=True)

    def request(caller: Service, _held: Any) -> None:
        assert caller.get(frame, "session").status_code == 200

    require_order(service, postgres_url, f"{OF_ORDERS} AND user_id = '{ana}'", request)
