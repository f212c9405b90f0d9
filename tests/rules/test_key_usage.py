"""A SECRET_KEY is replaced and nothing is lost, and `flask --app app check` says when the old one can go."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select, update

from pat_service.credentials import Key
from pat_service.rules import key_usage
from pat_service.rules.key_usage import KeyUse
from pat_service.storage.models import Client, ClientSecret, Event, Session, Token
from tests.support.people import KEY, ORDERS, SUPPORT, WORLD, Service, problem_of, provision

NEW: Final = "n" * 64
OLD_ID: Final = Key(KEY.encode()).id
NEW_ID: Final = Key(NEW.encode()).id
START: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
CLIENTS: Final = len(WORLD["clients"])


@dataclass
class House:
    """One installation whose operator changes its keys and starts it again."""

    make: Callable[..., Flask]

    def starts(self, *keys: str) -> Service:
        many = {"OPEN_RATE_LIMIT": "10000 per minute", "FAILURE_RATE_LIMIT": "10000 per minute"}
        app = self.make(SECRET_KEY=keys[0], SECRET_KEY_FALLBACKS=",".join(keys[1:]), **many)
        return Service(app.test_client())


@pytest.fixture
def house(make_app: Callable[..., Flask]) -> House:
    house = House(make_app)
    provision(house.starts(KEY).app, WORLD)
    return house


def uses(service: Service) -> list[KeyUse]:
    with service.app.app_context():
        return key_usage.key_uses(service.app.extensions["pat_service.keyring"], datetime.now(UTC))


def check(service: Service, code: int = 0) -> list[str]:
    done = service.app.test_cli_runner().invoke(args=["check"])
    assert done.exit_code == code, done.output
    assert (done.stderr == "") == (code == 0)
    return [line for line in done.stdout.splitlines() if "key" in line.lower()]


def told(service: Service, type_: str) -> list[Any]:
    return service.rows(select(Event.__table__).where(Event.type == type_).order_by(Event.id))


def test_a_key_is_replaced_and_nothing_is_lost(house: House) -> None:
    with time_machine.travel(START, tick=False) as clock:
        old = house.starts(KEY)
        anas = old.token(patExpiry=1_000_000)
        bens = old.token(email="ben@acme.test", patExpiry=1_000_000)
        frame = old.frame(email="ben@acme.test", appSlug=None, appId=ORDERS, patExpiry=1_000_000)
        bens = old.token(email="ben@acme.test", patExpiry=1_000_000)

        new = house.starts(NEW, KEY)
        assert uses(new) == [KeyUse(NEW_ID, 0, 0, 0, 0), KeyUse(OLD_ID, 1, 2, CLIENTS, 1)]
        assert check(new)[1].endswith(f"in use: 2 token(s), {CLIENTS} client secret(s), 1 session(s)")

        # All goes on, and is made anew when it is used: the token, the secrets.
        assert new.get(frame, "session").status_code == 200
        assert new.open(anas).status_code == 200
        for client in ("portal", "rival", "everywhere", "auditor", "manager"):
            assert new.mint(client=client, appSlug="nothing").status_code in (403, 404)
        assert uses(new) == [KeyUse(NEW_ID, 0, 1, CLIENTS, 1), KeyUse(OLD_ID, 1, 1, 0, 1)]
        assert len(told(new, "client:rekeyed")) == CLIENTS
        (rekeyed,) = told(new, "token:rekeyed")
        assert rekeyed.details == {"before": {"key": OLD_ID}, "after": {"key": NEW_ID}}

        # What was not used is replaced, or used; a session ends by itself.
        assert new.open(bens).status_code == 200
        clock.shift(timedelta(minutes=61))
        new_frame = new.frame(appSlug=None, appId=ORDERS)
        assert uses(new) == [KeyUse(NEW_ID, 0, 2, CLIENTS, 1), KeyUse(OLD_ID, 1, 0, 0, 0)]
        idle = "not in use: you can remove it, unless it is the next key"
        assert check(new)[1] == f"Fallback key 1 {OLD_ID}: {idle}"

        alone = house.starts(NEW)
        assert uses(alone) == [KeyUse(NEW_ID, 0, 2, CLIENTS, 1)]
        assert alone.open(bens).status_code == 200
        assert alone.get(new_frame, "session").status_code == 200
        assert alone.mint().status_code == 201


def test_what_was_used_is_not_made_anew_twice(house: House) -> None:
    old = house.starts(KEY)
    token = old.token()
    new = house.starts(NEW, KEY)
    for _ in range(3):
        assert new.open(token).status_code == 200
        new.mint(appSlug="nothing")
    assert len(told(new, "token:rekeyed")) == len(told(new, "client:rekeyed")) == 1


def test_a_key_that_went_too_early_takes_what_hung_on_it_until_it_is_back(house: House) -> None:
    token = house.starts(KEY).token()
    early = house.starts(NEW)
    problem_of(early.mint(), 401, "invalid_client")
    assert early.refusal(token) == "token_invalid"
    assert uses(early)[-1] == KeyUse(OLD_ID, None, 1, CLIENTS, 0)
    assert check(early, code=1)[-1] == (
        f"Unknown key {OLD_ID}: 1 token(s), {CLIENTS} client secret(s), 0 session(s) are dead; "
        "add the key to SECRET_KEY_FALLBACKS to revive them"
    )
    back = house.starts(NEW, KEY)
    assert back.open(token).status_code == 200
    assert back.mint().status_code == 201


def test_a_key_under_which_no_client_has_a_secret_is_found_and_stops_no_start(
    house: House, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'pat-service.db'}"
    mistyped = Service(house.make(SECRET_KEY=NEW, DATABASE_URL=database).test_client())
    runner = mistyped.app.test_cli_runner()
    for args in (["check"], ["check", "--deploy"]):
        done = runner.invoke(args=args)
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("pat-service: No client secret uses a configured key, so SECRET_KEY is not")
    # What gunicorn asks before it starts.
    assert mistyped.app.extensions["pat_service.findings"]() == []
    told = json.loads(runner.invoke(args=["doctor", "--offline", "--json"]).output)["findings"]
    assert [found["level"] for found in told if found["about"] == "SECRET_KEY"] == ["problem"]

    # Once one client has a secret that is good, the key is meant.
    assert runner.invoke(args=["client", "rotate", "portal"]).exit_code == 0
    assert check(mistyped)[-1].startswith(f"Unknown key {OLD_ID}: ")
    told = json.loads(runner.invoke(args=["doctor", "--offline", "--json"]).output)["findings"]
    assert [found["level"] for found in told if found["about"] == "SECRET_KEY"] == ["warning"]


def test_only_what_is_live_counts(house: House) -> None:
    service = house.starts(KEY)
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


def test_keys_are_told_in_their_order_each_once(house: House) -> None:
    service = house.starts(NEW, "z" * 64, KEY, "z" * 64, NEW)
    assert [(use.key_id, use.place) for use in uses(service)] == [
        (NEW_ID, 0),
        (Key(b"z" * 64).id, 1),
        (OLD_ID, 2),
    ]
    lines = check(service)
    assert [line.partition(":")[0] for line in lines] == [
        f"Current key {NEW_ID}",
        f"Fallback key 1 {Key(b'z' * 64).id}",
        f"Fallback key 2 {OLD_ID}",
    ]


def test_the_next_key_that_waits_as_a_fallback_need_not_go(house: House) -> None:
    assert check(house.starts(KEY, NEW))[1].endswith(": you can remove it, unless it is the next key")


def test_the_check_shows_no_key(house: House) -> None:
    shown = "\n".join(check(house.starts(NEW, KEY)))
    assert NEW not in shown
    assert KEY not in shown


def test_instances_that_restart_one_after_another_serve_each_others_tokens(house: House) -> None:
    """Both know both keys; which is the current one differs while the two change places."""
    before, after = house.starts(KEY, NEW), house.starts(NEW, KEY)
    token = before.token()
    for instance in (before, after, before, after):
        frame = instance.frame(SUPPORT)
        assert instance.open(token).status_code == 200
        for other in (before, after):
            assert other.get(frame, "session").status_code == 200
    assert [event.details["after"]["key"] for event in told(after, "token:rekeyed")] == [
        NEW_ID,
        OLD_ID,
        NEW_ID,
    ]
