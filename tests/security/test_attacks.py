"""Attacks that once worked."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from pat_service.http.authentication import utcnow
from pat_service.rules import clients
from pat_service.storage.database import transaction
from pat_service.storage.models import Session
from tests.support.people import MINT, MINT_BODY, ORDERS, Service, basic, problem_of


class DelayedBody(io.BytesIO):
    """A body that causes an event before its first byte is read."""

    def __init__(self, body: bytes, event: Callable[[], None]) -> None:
        super().__init__(body)
        self.event: Callable[[], None] | None = event

    def _wait(self) -> None:
        event, self.event = self.event, None
        if event:
            event()

    def read(self, *size: Any) -> bytes:
        self._wait()
        return super().read(*size)

    def readinto(self, buffer: Any) -> int:
        self._wait()
        return super().readinto(buffer)


def test_a_mint_is_refused_if_its_client_is_revoked_during_the_body(service: Service) -> None:
    body = json.dumps(MINT_BODY).encode()
    answer = service.client.post(
        MINT,
        input_stream=DelayedBody(body, lambda: clients.revoke("portal", utcnow())),
        content_length=len(body),
        content_type="application/json",
        headers=basic("portal"),
    )
    problem_of(answer, 401, "invalid_client")


@pytest.mark.parametrize("path", ["pages/create", "data/orders.csv"])
def test_a_form_is_refused_if_its_session_ends_during_the_body(service: Service, path: str) -> None:
    frame = service.frame()

    def end() -> None:
        with transaction() as connection:
            connection.execute(update(Session).values(ended_at=utcnow()))

    answer = service.client.post(
        f"/embed-apps/{ORDERS}/{path}",
        input_stream=DelayedBody(b"a=b", end),
        content_length=3,
        content_type="application/x-www-form-urlencoded",
        headers=frame.bearer | {"Accept": "application/json"},
    )
    problem_of(answer, 401, "session_revoked")


def test_a_long_path_is_cut_in_the_log(
    service: Service, request_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    service.client.get("/" + "eyJ" * 2600)
    assert [len(line["path"]) for line in request_lines()] == [500]


def test_an_endless_accept_header_is_ignored(service: Service) -> None:
    page = service.open("x", Accept="application/json," + "a/b;q=0.1," * 200)
    assert page.mimetype == "text/html"
    assert service.open("x", Accept="application/json").mimetype == "application/problem+json"


def test_a_form_of_more_than_a_thousand_fields_is_refused(service: Service) -> None:
    answer = service.client.post(
        f"/embed-apps/{ORDERS}",
        data="a&" * 1001,
        content_type="application/x-www-form-urlencoded",
        headers={"Accept": "application/json"},
    )
    problem_of(answer, 413, "payload_too_large")


def test_the_session_comes_before_the_apps_own_content(service: Service) -> None:
    page = service.frame().response.text
    assert page.index('id="embed-boot"') < page.index("<body") < page.index('id="embed-main"')
    assert page.index('id="embed-status"') < page.index('id="embed-main"')


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1", 400), ("::1", 400), ("192.0.2.7", 403)])
def test_the_demo_portal_mints_for_this_machine_only(
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
