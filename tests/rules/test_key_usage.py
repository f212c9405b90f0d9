"""Key rotation: nothing is lost, and `flask --app app check` reports when the old key can be removed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
import time_machine
from flask import Flask
from sqlalchemy import update

from pat_service.credentials import Key
from pat_service.rules import key_usage
from pat_service.rules.key_usage import KeyUse
from pat_service.storage.models import Client, ClientSecret, Session, Token
from tests.support.people import (
    KEY,
    NEW_KEY,
    ORDERS,
    SUPPORT,
    WORLD,
    Service,
    make_secret,
    problem_of,
    provision,
)

OTHER: Final = make_secret("other key")
OLD_ID: Final = Key(KEY.encode()).id
NEW_ID: Final = Key(NEW_KEY.encode()).id
START: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
CLIENTS: Final = len(WORLD["clients"])


@dataclass
class Installation:
    """An installation that its operator starts with other keys."""

    make: Callable[..., Flask]

    def start(self, *keys: str) -> Service:
        many = {"OPEN_RATE_LIMIT": "10000 per minute", "FAILURE_RATE_LIMIT": "10000 per minute"}
        app = self.make(SECRET_KEY=keys[0], SECRET_KEY_FALLBACKS=",".join(keys[1:]), **many)
        return Service(app.test_client())


@pytest.fixture
def installation(make_app: Callable[..., Flask]) -> Installation:
    installation = Installation(make_app)
    provision(installation.start(KEY).app, WORLD)
    return installation


def uses(service: Service) -> list[KeyUse]:
    with service.app.app_context():
        return key_usage.key_uses(service.app.extensions["pat_service.keyring"], datetime.now(UTC))


def check(service: Service, code: int = 0) -> list[str]:
    done = service.app.test_cli_runner().invoke(args=["check"])
    assert done.exit_code == code, done.output
    assert (done.stderr == "") == (code == 0)
    return [line for line in done.stdout.splitlines() if "key" in line.lower()]


def test_few_uses_are_counted_as_all_are_and_many_are_not(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = installation.start(KEY)
    for email in ("ana@acme.test", "ben@acme.test"):
        service.frame(email=email)
    keyring, now = service.app.extensions["pat_service.keyring"], datetime.now(UTC)
    with service.app.app_context():
        assert key_usage.few_key_uses(keyring, now, CLIENTS) == key_usage.key_uses(keyring, now)
        assert key_usage.few_key_uses(keyring, now, 1) is None


def test_a_key_is_rotated_and_nothing_is_lost(installation: Installation) -> None:
    with time_machine.travel(START, tick=False) as clock:
        old = installation.start(KEY)
        anas = old.token(patExpiry=1_000_000)
        bens = old.token(email="ben@acme.test", patExpiry=1_000_000)
        frame = old.frame(email="ben@acme.test", appSlug=None, appId=ORDERS, patExpiry=1_000_000)
        bens = old.token(email="ben@acme.test", patExpiry=1_000_000)

        new = installation.start(NEW_KEY, KEY)
        assert uses(new) == [KeyUse(NEW_ID, 0, 0, 0, 0), KeyUse(OLD_ID, 1, 2, CLIENTS, 1)]
        assert check(new)[1].endswith(f"in use: 2 token(s), {CLIENTS} client secret(s), 1 session(s)")

        # Everything still works, and tokens and secrets are re-keyed when they are used.
        assert new.get(frame, "session").status_code == 200
        assert new.open(anas).status_code == 200
        for client in ("portal", "rival", "everywhere", "auditor", "manager"):
            assert new.mint(client=client, appSlug="nothing").status_code in (403, 404)
        assert uses(new) == [KeyUse(NEW_ID, 0, 1, CLIENTS, 1), KeyUse(OLD_ID, 1, 1, 0, 1)]
        assert len(new.events("client:rekeyed")) == CLIENTS
        (rekeyed,) = new.events("token:rekeyed")
        assert rekeyed.details == {"before": {"key": OLD_ID}, "after": {"key": NEW_ID}}

        # The other token is used later; sessions expire.
        assert new.open(bens).status_code == 200
        clock.shift(timedelta(minutes=61))
        new_frame = new.frame(appSlug=None, appId=ORDERS)
        assert uses(new) == [KeyUse(NEW_ID, 0, 2, CLIENTS, 1), KeyUse(OLD_ID, 1, 0, 0, 0)]
        idle = "not in use: you can remove it, unless you added it for a rotation"
        assert check(new)[1] == f"Fallback key 1 {OLD_ID}: {idle}"

        alone = installation.start(NEW_KEY)
        assert uses(alone) == [KeyUse(NEW_ID, 0, 2, CLIENTS, 1)]
        assert alone.open(bens).status_code == 200
        assert alone.get(new_frame, "session").status_code == 200
        assert alone.mint().status_code == 201


def test_tokens_and_secrets_are_rekeyed_once(installation: Installation) -> None:
    old = installation.start(KEY)
    token = old.token()
    new = installation.start(NEW_KEY, KEY)
    for _ in range(3):
        assert new.open(token).status_code == 200
        new.mint(appSlug="nothing")
    assert len(new.events("token:rekeyed")) == len(new.events("client:rekeyed")) == 1


def test_a_key_removed_too_early_disables_its_tokens_and_secrets_until_it_returns(
    installation: Installation,
) -> None:
    token = installation.start(KEY).token()
    early = installation.start(NEW_KEY)
    problem_of(early.mint(), 401, "invalid_client")
    assert early.refusal(token) == "token_invalid"
    assert uses(early)[-1] == KeyUse(OLD_ID, None, 1, CLIENTS, 0)
    assert check(early, code=1)[-1] == (
        f"Unknown key {OLD_ID}: 1 token(s), {CLIENTS} client secret(s), 0 session(s) are dead; "
        "add the key to SECRET_KEY_FALLBACKS to revive them, unless it leaked"
    )
    back = installation.start(NEW_KEY, KEY)
    assert back.open(token).status_code == 200
    assert back.mint().status_code == 201


def test_a_key_without_client_secrets_is_reported_and_does_not_stop_the_start(
    installation: Installation, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'pat-service.db'}"
    mistyped = Service(installation.make(SECRET_KEY=NEW_KEY, DATABASE_URL=database).test_client())
    runner = mistyped.app.test_cli_runner()
    for args in (["check"], ["check", "--deploy"]):
        done = runner.invoke(args=args)
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("pat-service: No client secret uses a configured key, so SECRET_KEY is not")
    # gunicorn runs this check before it starts.
    assert mistyped.app.extensions["pat_service.findings"]() == []
    findings = json.loads(runner.invoke(args=["doctor", "--offline", "--json"]).output)["findings"]
    assert [found["level"] for found in findings if found["about"] == "SECRET_KEY"] == ["problem"]

    # One valid secret shows that the key is intended.
    assert runner.invoke(args=["client", "rotate", "portal"]).exit_code == 0
    assert check(mistyped)[-1].startswith(f"Unknown key {OLD_ID}: ")
    findings = json.loads(runner.invoke(args=["doctor", "--offline", "--json"]).output)["findings"]
    assert [found["level"] for found in findings if found["about"] == "SECRET_KEY"] == ["warning"]


def test_only_live_rows_count(installation: Installation) -> None:
    service = installation.start(KEY)
    service.frame()
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert uses(service) == [KeyUse(OLD_ID, 0, 1, CLIENTS, 1)]
    service.change(update(Session).values(ended_at=past))
    service.change(update(Token).values(revoked_at=past))
    service.change(update(Client).where(Client.id == "portal").values(revoked_at=past))
    service.change(update(ClientSecret).where(ClientSecret.client_id == "rival").values(expires_at=past))
    assert uses(service) == [KeyUse(OLD_ID, 0, 0, CLIENTS - 2, 0)]
    service.change(update(Session).values(ended_at=None, expires_at=past))
    service.change(update(Token).values(revoked_at=None, expires_at=past))
    assert uses(service) == [KeyUse(OLD_ID, 0, 0, CLIENTS - 2, 0)]


def test_each_key_is_listed_once_in_order(installation: Installation) -> None:
    service = installation.start(NEW_KEY, OTHER, KEY, OTHER, NEW_KEY)
    assert [(use.key_id, use.place) for use in uses(service)] == [
        (NEW_ID, 0),
        (Key(OTHER.encode()).id, 1),
        (OLD_ID, 2),
    ]
    lines = check(service)
    assert not [key for key in (NEW_KEY, KEY) if key in "".join(lines)], "keys themselves are never shown"
    assert [line.partition(":")[0] for line in lines] == [
        f"Current key {NEW_ID}",
        f"Fallback key 1 {Key(OTHER.encode()).id}",
        f"Fallback key 2 {OLD_ID}",
    ]


def test_instances_serve_each_others_tokens_during_a_rolling_restart(installation: Installation) -> None:
    """Both instances have both keys. During the restart, their current keys differ."""
    before, after = installation.start(KEY, NEW_KEY), installation.start(NEW_KEY, KEY)
    token = before.token()
    for instance in (before, after, before, after):
        frame = instance.frame(SUPPORT)
        assert instance.open(token).status_code == 200
        for other in (before, after):
            assert other.get(frame, "session").status_code == 200
    assert [event.details["after"]["key"] for event in after.events("token:rekeyed")] == [
        NEW_ID,
        OLD_ID,
        NEW_ID,
    ]
