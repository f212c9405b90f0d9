"""What an attacker found who knew the code: each of these once did harm."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update

from pat_service.errors import TokenExpired, Unavailable
from pat_service.http.authentication import utcnow
from pat_service.rules import clients, events
from pat_service.storage import circuit_breaker
from pat_service.storage.database import transaction
from pat_service.storage.models import Event, Session
from tests.support.people import MINT, ORDERS, Service, basic, problem_of


class HeldBack(io.BytesIO):
    """A body whose sender waits until something has happened."""

    def __init__(self, body: bytes, meanwhile: Callable[[], None]) -> None:
        super().__init__(body)
        self.meanwhile: Callable[[], None] | None = meanwhile

    def _wait(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()

    def read(self, *size: Any) -> bytes:
        self._wait()
        return super().read(*size)

    def readinto(self, buffer: Any) -> int:
        self._wait()
        return super().readinto(buffer)


def test_a_mint_whose_body_is_held_back_until_its_client_is_revoked_is_refused(service: Service) -> None:
    wish = {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000}
    body = json.dumps(wish).encode()
    answer = service.client.post(
        MINT,
        input_stream=HeldBack(body, lambda: clients.revoke("portal", utcnow())),
        content_length=len(body),
        content_type="application/json",
        headers=basic("portal"),
    )
    problem_of(answer, 401, "invalid_client")


@pytest.mark.parametrize("path", ["pages/create", "data/orders.csv"])
def test_a_form_that_is_held_back_until_its_session_is_ended_is_refused(service: Service, path: str) -> None:
    frame = service.frame()

    def end() -> None:
        with transaction() as connection:
            connection.execute(update(Session).values(ended_at=utcnow()))

    answer = service.client.post(
        f"/embed-apps/{ORDERS}/{path}",
        input_stream=HeldBack(b"a=b", end),
        content_length=3,
        content_type="application/x-www-form-urlencoded",
        headers=frame.bearer | {"Accept": "application/json"},
    )
    problem_of(answer, 401, "session_revoked")


def test_a_long_path_makes_no_long_line(
    service: Service, request_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    service.client.get("/" + "eyJ" * 2600)
    assert [len(line["path"]) for line in request_lines()] == [500]


def test_an_endless_accept_is_taken_for_none(service: Service) -> None:
    page = service.open("x", Accept="application/json," + "a/b;q=0.1," * 200)
    assert page.mimetype == "text/html"
    assert service.open("x", Accept="application/json").mimetype == "application/problem+json"


def test_a_form_of_a_thousand_empty_fields_and_more_is_refused(service: Service) -> None:
    answer = service.client.post(
        f"/embed-apps/{ORDERS}",
        data="a&" * 1001,
        content_type="application/x-www-form-urlencoded",
        headers={"Accept": "application/json"},
    )
    problem_of(answer, 413, "payload_too_large")


def test_the_session_stands_before_anything_that_an_app_shows(service: Service) -> None:
    page = service.frame().response.text
    assert page.index('id="embed-boot"') < page.index("<body") < page.index('id="embed-main"')
    assert page.index('id="embed-status"') < page.index('id="embed-main"')


def test_a_refusal_that_could_not_be_recorded_is_tried_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise Unavailable

    monkeypatch.setattr(circuit_breaker, "OPEN_SECONDS", 0)
    refusal = TokenExpired().about(token_id="t")
    with service.app.app_context():
        monkeypatch.setattr(events, "transaction", away)
        events.record_refusal(events.OPEN_REFUSED, refusal, utcnow())
        monkeypatch.setattr(events, "transaction", transaction)
        events.record_refusal(events.OPEN_REFUSED, refusal, utcnow())
    assert service.rows(select(Event.code).where(Event.token_id == "t")) == [("token_expired",)]


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1", 400), ("::1", 400), ("192.0.2.7", 403)])
def test_the_demo_portal_mints_for_this_machine_alone(
    make_app: Callable[..., Flask], address: str, status: int
) -> None:
    answer = (
        make_app(PUBLIC_URL="")
        .test_client()
        .post(
            "/portal/open",
            json={},
            headers={"Host": "localhost:5000", "Origin": "http://localhost:5000"},
            environ_overrides={"REMOTE_ADDR": address},
        )
    )
    assert answer.status_code == status
