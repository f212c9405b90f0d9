"""Rate limits in one process: moving windows, their subjects, the counted requests, and Retry-After."""

import json
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest
import redis
import time_machine
from flask import Flask
from werkzeug.test import TestResponse

from pat_service.credentials import generate
from pat_service.http import limits
from pat_service.storage.models import User
from tests.support.api_calls import id_of
from tests.support.people import (
    MINT,
    MINT_BODY,
    ORDERS,
    SECRETS,
    SUPPORT,
    WORLD,
    Service,
    basic,
    changed,
    make_secret,
    problem_of,
    provision,
)
from tests.support.servers import redis_server
from tests.support.shared_fixtures import MakeService

EXCHANGE = "/api/ext/users/session"
#: A refused body, which counts as a mint.
COUNTED = "{}"


@pytest.fixture
def make_service(make_app: Callable[..., Flask]) -> MakeService:
    """Build a service with these limits; the others are the contract's."""

    def make(**environ: str) -> Service:
        app = make_app(**environ)
        provision(app, WORLD)
        provision(app, changed("clients", "portal", mint_limit=None))
        return Service(app.test_client())

    return make


@pytest.fixture(scope="module")
def tight(make_shared: MakeService) -> Service:
    """A service that allows two openings of a token and three requests of a session in a minute."""
    return make_shared(OPEN_RATE_LIMIT="2 per minute", SESSION_RATE_LIMIT="3 per minute")


def statuses(ask: Callable[[], TestResponse], times: int) -> list[int]:
    return [ask().status_code for _ in range(times)]


def wait_of(answer: TestResponse) -> int:
    """The Retry-After of a refusal, in seconds."""
    problem_of(answer, 429, "rate_limited")
    wait = int(answer.headers["Retry-After"])
    assert wait >= 1
    assert str(wait) in (answer.json or {})["detail"]
    return wait


# Addresses.


@pytest.mark.parametrize(
    "of_one_sender",
    [
        [f"203.0.113.8:{50000 + number}" for number in range(4)],
        [f"2001:db8:7:7::{number}" for number in range(1, 5)],
        ["203.0.113.9", "203.0.113.9:1", "::ffff:203.0.113.9", "[::ffff:203.0.113.9]:443"],
        ["[2001:db8:7:8::1]:50001", "[2001:db8:7:8::2]", "2001:DB8:7:8::3", "2001:db8:7:8:ffff::4"],
    ],
)
def test_failures_are_counted_by_sender_without_ports_and_by_64_bits_of_ipv6(
    make_service: MakeService, of_one_sender: list[str]
) -> None:
    """Azure's gateway, for example, adds the port; one customer has 2^64 addresses."""
    service = make_service(FAILURE_RATE_LIMIT="3 per minute", TRUSTED_PROXIES="1")

    def fail(address: str) -> int:
        headers = basic("portal", "wrong") | {"X-Forwarded-For": address}
        return service.client.post(MINT, json={}, headers=headers).status_code

    assert [fail(address) for address in of_one_sender] == [401, 401, 401, 429]
    assert [fail(other) for other in ("198.51.100.1:50000", "2001:db8:7:9::1", "[]:1", "unknown")] == [
        401
    ] * 4


# Mints.


@pytest.mark.parametrize("seed", range(3))
def test_at_most_10_mints_pass_in_any_60_seconds_and_every_retry_after_is_right(
    limited: Service, clock: time_machine.Traveller, seed: int
) -> None:
    """At random moments, at most 10 mints pass in 60 s, and a mint after Retry-After passes."""
    chance = random.Random(seed)
    passed: list[float] = []
    now = 0.0
    for _ in range(50):
        step = chance.choice([0.0, 0.25, 1.0, 2.5, 7.0, 11.75])
        clock.shift(step)
        now += step
        answer = limited.mint(COUNTED)
        if answer.status_code == 429 and chance.random() < 0.5:
            wait = wait_of(answer)
            assert wait <= 61
            clock.shift(wait)
            now += wait
            answer = limited.mint(COUNTED)
            assert answer.status_code == 400, wait
        if answer.status_code == 400:
            passed.append(now)
    assert len(passed) > 20
    assert all(later - earlier >= 60 for earlier, later in zip(passed, passed[10:], strict=False))


def test_a_retry_after_is_at_most_a_second_too_long(limited: Service, clock: time_machine.Traveller) -> None:
    statuses(partial(limited.mint, COUNTED), 10)
    clock.shift(40.5)
    wait = wait_of(limited.mint(COUNTED))
    clock.shift(wait - 1.5)
    assert wait_of(limited.mint(COUNTED)) <= 2
    clock.shift(1.5)
    assert limited.mint(COUNTED).status_code == 400


def test_refused_mints_do_not_extend_the_wait(limited: Service, clock: time_machine.Traveller) -> None:
    statuses(limited.mint, 10)
    for _ in range(59):
        clock.shift(1)
        problem_of(limited.mint(), 429, "rate_limited")
    clock.shift(2)
    assert statuses(limited.mint, 11) == [201] * 10 + [429]


def test_a_mint_with_a_refused_body_user_or_app_counts_for_the_limit(
    limited: Service, clock: time_machine.Traveller
) -> None:
    for _ in range(2):
        problem_of(limited.mint("{"), 400, "invalid_payload")
        problem_of(limited.mint(" " * 20_000), 413, "payload_too_large")
        problem_of(limited.mint(email="nobody@acme.test"), 404, "user_not_found")
        problem_of(limited.mint(appSlug="nothing"), 404, "app_not_found")
        problem_of(limited.mint(email="ben@acme.test", appSlug="support"), 403, "app_forbidden")
    problem_of(limited.mint(), 429, "rate_limited")


def test_a_request_with_wrong_credentials_or_method_does_not_count(
    limited: Service, clock: time_machine.Traveller
) -> None:
    for _ in range(15):
        limited.client.post(MINT, headers=basic("portal", "w" * 40))
        limited.client.post(MINT)
        limited.client.get(MINT, headers=basic("portal"))
        limited.client.options(MINT, headers=basic("portal"))
    assert statuses(limited.mint, 11) == [201] * 10 + [429]


def test_each_client_has_one_counter_for_all_addresses_users_and_apps(
    limited: Service, clock: time_machine.Traveller
) -> None:
    for number in range(10):
        limited.client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        assert limited.mint(email=("ana@acme.test", "ben@acme.test")[number % 2]).status_code == 201
    assert wait_of(limited.mint(appSlug=None, appId=SUPPORT)) in (60, 61)
    assert limited.mint(client="everywhere").status_code == 201


@pytest.mark.parametrize(
    ("limit", "amount", "seconds"),
    [("1 per second", 1, 1), ("3 per 2 minutes", 3, 120), ("12/minute", 12, 60), ("2 per day", 2, 86_400)],
)
def test_a_client_can_have_its_own_limit(
    limited: Service, clock: time_machine.Traveller, limit: str, amount: int, seconds: int
) -> None:
    own = {"id": limit.replace(" ", "-").replace("/", "-"), "secret": make_secret("own"), "mint_limit": limit}
    provision(limited.app, {"clients": [own]})

    def mint() -> TestResponse:
        return limited.client.post(MINT, json=MINT_BODY, headers=basic(own["id"], make_secret("own")))

    assert statuses(mint, amount + 1) == [201] * amount + [429]
    wait = wait_of(mint())
    assert seconds <= wait <= seconds + 1
    clock.shift(wait)
    assert mint().status_code == 201


def test_a_changed_limit_takes_effect_at_once(
    make_service: MakeService, clock: time_machine.Traveller
) -> None:
    service = make_service(MINT_RATE_LIMIT="2 per minute")
    assert statuses(service.mint, 3) == [201, 201, 429]
    provision(service.app, changed("clients", "portal", mint_limit="600 per minute"))
    assert statuses(service.mint, 50) == [201] * 50
    provision(service.app, changed("clients", "portal", mint_limit=None))
    problem_of(service.mint(), 429, "rate_limited")


def mint_40_times(service: Service) -> list[int]:
    """Mint twice in each of 20 threads that start together, and return the sorted statuses."""
    start = Barrier(20)

    def mint_two(_: int) -> list[int]:
        client = Service(service.app.test_client())
        start.wait()
        return statuses(client.mint, 2)

    with ThreadPoolExecutor(20) as threads:
        return sorted(status for pair in threads.map(mint_two, range(20)) for status in pair)


def test_exactly_10_of_40_concurrent_mints_pass(make_service: MakeService) -> None:
    service = make_service()
    assert mint_40_times(service) == [201] * 10 + [429] * 30


# Mints for one user.

BEN = "ben@acme.test"


@pytest.fixture
def busy(make_service: MakeService) -> Service:
    """A service whose client may mint 6 times a minute, and 3 times for one user."""
    return make_service(MINT_RATE_LIMIT="6 per minute", USER_MINT_RATE_LIMIT="3 per minute")


def test_the_default_is_10_mints_per_minute_for_a_user(
    make_service: MakeService, clock: time_machine.Traveller
) -> None:
    service = make_service(USER_MINT_RATE_LIMIT="", MINT_RATE_LIMIT="600 per minute")
    assert statuses(service.mint, 11) == [201] * 10 + [429]
    clock.shift(wait_of(service.mint()))
    assert service.mint().status_code == 201


def test_one_user_cannot_use_up_a_clients_quota(busy: Service, clock: time_machine.Traveller) -> None:
    """Refused mints for Ana do not count against the limit that Ben needs."""
    assert statuses(busy.mint, 50) == [201] * 3 + [429] * 47
    answer = busy.mint()
    assert wait_of(answer) in (60, 61)
    assert "mints for this user" in (answer.json or {})["detail"]
    assert statuses(partial(busy.mint, email=BEN), 4) == [201] * 3 + [429]
    # Six mints are the client's limit, which now answers first.
    answer = busy.mint(email="nobody@acme.test")
    assert "requests" in (answer.json or {})["detail"]
    problem_of(answer, 429, "rate_limited")


def test_every_spelling_of_an_email_is_one_user(busy: Service, clock: time_machine.Traveller) -> None:
    given = ("Ana@acme.test", "ANA@ACME.TEST", "ana@Acme.test", "ana@acme.test")
    assert [busy.mint(email=email).status_code for email in given] == [201] * 3 + [429]


def test_a_user_is_counted_by_id_and_at_every_app(busy: Service, clock: time_machine.Traveller) -> None:
    ana = id_of(busy, User, "ana@acme.test")
    places = ({"appId": ORDERS}, {"appId": SUPPORT}, {"appSlug": "orders"}, {"appId": ORDERS})
    named: dict[str, Any] = {"email": None, "appSlug": None, "userId": ana}
    given = [named | place for place in places]
    assert [busy.mint(**fields).status_code for fields in given] == [201] * 3 + [429]


def test_each_client_counts_a_user_separately(busy: Service, clock: time_machine.Traveller) -> None:
    assert statuses(busy.mint, 4) == [201] * 3 + [429]
    assert statuses(partial(busy.mint, client="everywhere"), 4) == [201] * 3 + [429]


def test_a_mint_for_an_unknown_user_counts_for_that_user(
    busy: Service, clock: time_machine.Traveller
) -> None:
    """The answer is the same for known and unknown users."""
    assert statuses(partial(busy.mint, email="nobody@acme.test"), 4) == [404] * 3 + [429]


def test_made_up_users_are_limited_by_the_client_and_forgotten(
    busy: Service, clock: time_machine.Traveller
) -> None:
    users = (f"nobody{number}@acme.test" for number in range(1000))
    found = [busy.mint(email=email).status_code for email in users]
    assert found == [404] * 6 + [429] * 994
    storage = busy.app.extensions["pat_service.limiter"].storage
    assert len(storage._hits) == 7  # six users and the client
    clock.shift(200)
    busy.mint()
    assert len(storage._hits) == 2
    clock.shift(200)


def test_a_refusal_by_the_users_limit_is_recorded_and_counts_no_user(
    busy: Service, clock: time_machine.Traveller
) -> None:
    statuses(busy.mint, 4)
    (refused,) = busy.events("token:mint-refused")
    assert (refused.client_id, refused.code, refused.user_id) == ("portal", "rate_limited", None)


def test_the_store_of_the_limits_holds_no_email(busy: Service, clock: time_machine.Traveller) -> None:
    busy.mint()
    keys = list(busy.app.extensions["pat_service.limiter"].storage._hits)
    assert any("user_mint" in key for key in keys)
    assert not any("ana" in key or "@" in key for key in keys)


def test_exactly_3_of_40_concurrent_mints_for_a_user_pass_and_leave_the_quota(
    make_service: MakeService,
) -> None:
    service = make_service(MINT_RATE_LIMIT="100 per minute", USER_MINT_RATE_LIMIT="3 per minute")
    assert mint_40_times(service) == [201] * 3 + [429] * 37
    storage = service.app.extensions["pat_service.limiter"].storage
    assert [len(hits) for key, hits in storage._hits.items() if "/mint/" in key] == [3]


@pytest.mark.slow
@pytest.mark.redis
def test_a_refusal_by_the_users_limit_leaves_the_quota_in_redis(make_service: MakeService) -> None:
    with redis_server() as url:
        service = make_service(
            REDIS_URL=url, MINT_RATE_LIMIT="6 per minute", USER_MINT_RATE_LIMIT="3 per minute"
        )
        assert statuses(service.mint, 30) == [201] * 3 + [429] * 27
        assert statuses(partial(service.mint, email=BEN), 3) == [201] * 3
        with redis.Redis.from_url(url) as store:
            sizes = {key.decode(): store.llen(key) for key in store.scan_iter()}
    assert sorted(sizes.values()) == [3, 3, 6]
    assert not any("@" in key or "ana" in key for key in sizes)


# Open.


def openings(service: Service, token: str) -> dict[str, Callable[[], TestResponse]]:
    json_wanted = {"Accept": "application/json"}
    return {
        "by address": lambda: service.open(token, Accept="application/json"),
        "by form": lambda: service.client.post(
            f"/embed-apps/{ORDERS}", data={"personal-access-token": token}, headers=json_wanted
        ),
        "by a program": lambda: service.client.post(EXCHANGE, json={"appId": ORDERS, "accessToken": token}),
        "at another app": lambda: service.open(token, SUPPORT, Accept="application/json"),
    }


def test_the_61st_opening_of_one_token_in_a_minute_is_refused(
    limited: Service, clock: time_machine.Traveller
) -> None:
    token = limited.token()
    ways = openings(limited, token)
    for _ in range(15):
        for ask in ways.values():
            assert ask().status_code in (200, 201, 401)
    for ask in ways.values():
        wait = wait_of(ask())
    clock.shift(wait)
    assert limited.open(token).status_code == 200


def test_each_token_has_its_own_counter_of_openings(tight: Service, clock: time_machine.Traveller) -> None:
    anas, bens = tight.token(), tight.token(email="ben@acme.test")
    assert statuses(lambda: tight.open(anas), 3) == [200, 200, 429]
    assert statuses(lambda: tight.open(bens), 3) == [200, 200, 429]
    newer = tight.token()
    assert statuses(lambda: tight.open(newer), 3) == [200, 200, 429]


def test_a_replaced_or_unknown_token_has_a_limit_and_a_malformed_one_does_not_count(
    tight: Service, clock: time_machine.Traveller
) -> None:
    old, _ = tight.token(), tight.token()
    for token in (old, generate("pat").reveal()):
        assert statuses(partial(tight.open, token), 3) == [401, 401, 429]
    assert [tight.refusal("pat_0") for _ in range(5)] == ["token_invalid"] * 5


# Sessions.


def test_a_session_has_the_operators_limit(
    tight: Service, limited: Service, clock: time_machine.Traveller
) -> None:
    unlimited = limited.frame()
    assert set(statuses(lambda: limited.get(unlimited, "session"), 20)) == {200}
    frame, other = tight.frame(), tight.frame(email="ben@acme.test")
    for path in ("session", "pages/index", "data/orders.csv"):
        assert tight.get(frame, path).status_code == 200
    delete = tight.client.delete(f"/embed-apps/{ORDERS}/session", headers=frame.bearer)
    wait = wait_of(delete)
    for path in ("session", "data/orders.csv"):
        problem_of(tight.get(frame, path), 429, "rate_limited")
    assert tight.get(other, "session").status_code == 200
    clock.shift(wait)
    assert tight.get(frame, "session").status_code == 200


# The store's content.


def texts_in(storage: Any) -> list[str]:
    """Return every text in a store, key or value, at any depth."""
    texts: list[str] = []
    waiting = list(vars(storage).values())
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            texts.append(found)
        elif isinstance(found, (list, tuple, set, deque)):
            waiting.extend(found)
        elif isinstance(found, dict):
            waiting.extend((*found.keys(), *found.values()))
    return texts


def test_the_store_contains_no_token_and_no_secret(limited: Service, clock: time_machine.Traveller) -> None:
    token = limited.token()
    limited.open(token)
    limited.mint(json.dumps({}))
    texts = texts_in(limited.app.extensions["pat_service.limiter"].storage)
    assert any("portal" in text for text in texts)
    assert not [text for text in texts if token[4:68] in text or SECRETS["portal"] in text]


def test_invented_tokens_do_not_fill_the_memory(
    make_service: MakeService, clock: time_machine.Traveller
) -> None:
    """A stranger can send a new well-formed token with each request, since checksums are not secret."""
    service = make_service()
    storage = service.app.extensions["pat_service.limiter"].storage
    with service.app.test_request_context():
        for _ in range(5):
            clock.shift(600)
            for _ in range(1000):
                limits.hit_open(generate("pat"))
    stored = {text for text in texts_in(storage) if "/open/" in text}
    assert 0 < len(stored) < 1500
