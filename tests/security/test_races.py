"""Requests that race against a revocation, a deletion or a renewal, on both databases."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from werkzeug.test import TestResponse

from pat_service.storage.models import Session, Token, User
from tests.rules.test_concurrency import exchange, live_sessions, race
from tests.rules.test_concurrency import service as service
from tests.rules.test_openings import (
    code_for,
    enter,
    hand_over,
    home,
    launch,
    session_of,
    workspace_token,
)
from tests.support.api_calls import call
from tests.support.people import MINT, MINT_BODY, Service, basic, make_secret, problem_of, provision

pytestmark = pytest.mark.slow

Run = Callable[[Service], Any]

#: Calls that end a launcher, by the path below /api/ext.
ENDS = {
    "its token is revoked": "personal-access-tokens/{token}",
    "its client's tokens are revoked": "personal-access-tokens?clientId=manager",
    "its client's sessions are ended": "sessions?clientId=manager",
}


def late(method: str, path: str) -> Run:
    """Return a call of Acme's manager that comes when the other threads are busy."""

    def run(caller: Service) -> TestResponse:
        time.sleep(0.01)
        return call(caller, method, f"/api/ext/{path}")

    return run


def enters(launcher: str) -> Run:
    return lambda caller: [enter(caller, launcher) for _ in range(4)]


@pytest.mark.parametrize("way", ENDS)
def test_no_app_that_a_launcher_opens_survives_a_concurrent_end(service: Service, way: str) -> None:
    for _ in range(4):
        launcher = launch(service)
        (token,) = service.rows(select(Token.id))
        ended, *_ = race(service, late("DELETE", ENDS[way].format(token=token.id)), *[enters(launcher)] * 6)
        assert ended.status_code < 300
        assert live_sessions(service) == []


def test_a_viewer_cannot_prevent_a_deletion_by_opening_apps(service: Service) -> None:
    for number in range(3):
        email = f"guest{number}@acme.test"
        assert service.mint(client="manager", email=email, provision={}).status_code == 201
        (user,) = service.rows(select(User.id).where(User.email == email))
        launcher = launch(service, email=email)
        deleted, *opened = race(service, late("DELETE", f"users/{user.id}"), *[enters(launcher)] * 6)
        assert deleted.status_code == 204
        assert {answer.status_code for answers in opened for answer in answers} <= {201, 401}


def test_renewals_of_a_launcher_and_its_apps_never_stop_a_revocation(service: Service) -> None:
    """Each of them locks several sessions: a different order would cause a deadlock."""
    seen: Counter[int] = Counter()
    for _ in range(6):
        first = launch(service)
        apps = [session_of(hand_over(service, code_for(service, first))) for _ in range(6)]
        codes = [code_for(service, first) for _ in range(4)]
        launcher = session_of(hand_over(service, workspace_token(service), home(service), session=first))
        apps += [session_of(hand_over(service, code_for(service, launcher))) for _ in range(6)]
        token = workspace_token(service)

        def renew(caller: Service, token: str = token, launcher: str = launcher) -> TestResponse:
            return hand_over(caller, token, home(caller), session=launcher)

        redeem = [
            lambda caller, code=code, app=app: hand_over(caller, code, session=app)
            for code, app in zip(codes, reversed(apps), strict=False)
        ]
        ended, *others = race(
            service,
            lambda caller: call(caller, "DELETE", "/api/ext/sessions?clientId=manager"),
            renew,
            *redeem,
        )
        assert ended.status_code == 200
        seen.update(answer.status_code for answer in others)
    assert set(seen) <= {200, 401}


def test_no_token_survives_the_revocation_of_its_client(service: Service) -> None:
    """A leaked client mints as fast as it can."""
    for number in range(4):
        name = f"leaked-{number}"
        leaked = {"id": name, "secret": make_secret(name), "workspaces": ["acme"], "scopes": ["mint"]}
        provision(service.app, {"clients": [leaked | {"mint_limit": "1000000 per minute"}]})

        def mint(caller: Service, name: str = name) -> None:
            for _ in range(20):
                headers = basic(name, make_secret(name))
                answer = caller.client.post(MINT, json=MINT_BODY | {"patExpiry": 31536000}, headers=headers)
                if answer.status_code != 201:
                    problem_of(answer, 401, "invalid_client")
                    return
                exchange(caller, (answer.json or {})["personalAccessToken"])

        def revoke(caller: Service, name: str = name) -> None:
            time.sleep(0.02)
            result = caller.app.test_cli_runner().invoke(args=["client", "revoke", name, "--tokens"])
            assert result.exit_code == 0, result.output

        race(service, revoke, *[mint] * 6)
        live = select(Token.id).where(Token.client_id == name, Token.revoked_at.is_(None))
        assert service.rows(live) == []
        assert (
            service.rows(select(Session.id).where(Session.client_id == name, Session.ended_at.is_(None)))
            == []
        )
