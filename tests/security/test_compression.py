"""BREACH: an answer with a session or a token is never compressed. Other pages may be."""

import gzip
from typing import Any, Final

import pytest
from werkzeug.test import TestResponse

from tests.support.people import ORDERS, PORTAL, Service

ACCEPTS: Final = {"Accept-Encoding": "gzip, deflate, br, zstd"}
FRAME: Final = f"/embed-apps/{ORDERS}/frame"


def hand_over(service: Service) -> TestResponse:
    body: dict[str, Any] = {"accessToken": service.token(), "parentOrigin": PORTAL, "nonce": "n" * 22}
    return service.client.post(FRAME, json=body)


def exchange(service: Service) -> TestResponse:
    body = {"appId": ORDERS, "accessToken": service.token()}
    return service.client.post("/api/ext/users/session", json=body)


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (lambda service: service.mint(), 201),
        (exchange, 201),
        (lambda service: service.open(service.token()), 200),
        (hand_over, 200),
        (lambda service: service.get(service.frame(), "pages/index"), 200),
        (lambda service: service.get(service.frame(), "session"), 200),
    ],
    ids=["a mint", "a program", "an address", "a handover", "a page", "facts"],
)
def test_what_belongs_to_one_viewer_is_never_compressed(
    shared: Service, monkeypatch: pytest.MonkeyPatch, ask: Any, status: int
) -> None:
    monkeypatch.setitem(shared.client.environ_base, "HTTP_ACCEPT_ENCODING", ACCEPTS["Accept-Encoding"])
    answer = ask(shared)
    assert answer.status_code == status, answer.text
    assert "Content-Encoding" not in answer.headers


def test_the_waiting_page_is_compressed_since_everybody_gets_the_same(shared: Service) -> None:
    address = f"{FRAME}?parent={PORTAL}"
    plain, packed = shared.client.get(address), shared.client.get(address, headers=ACCEPTS)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(gzip.decompress(packed.data)) == len(plain.data)
    assert "Content-Encoding" not in plain.headers
    assert {answer.headers["Vary"] for answer in (plain, packed)} == {"Accept-Encoding"}
