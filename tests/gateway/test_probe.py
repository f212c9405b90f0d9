"""The doctor's probe at the gateway: what it may do, and what nobody without the key may do."""

import time
from collections.abc import Callable
from typing import Final

import pytest

from pat_service.credentials import Keyring
from pat_service.http import probe
from tests.support.people import KEY, NEW_KEY
from tests.support.upstreams import UPSTREAM, Gateway, refusal_of

LABEL: Final = "sales--abcdefghijkl"
HOST: Final = f"{LABEL}.embed.example"
KEYS: Final = Keyring(KEY)


def proof(*, label: str = LABEL, keys: Keyring = KEYS, ago: float = 0) -> str:
    return probe.sign(keys, label, time.time() - ago)


def cookie(value: str) -> str:
    return f"{probe.COOKIE}={value}"


def test_the_doctor_reaches_the_service_by_a_get(gateway: Gateway) -> None:
    answer = gateway.ask(HOST, cookie(proof()), X_Forwarded_Uri=probe.PATH)
    assert answer.status_code == 200
    assert answer.headers["X-Embed-Upstream"] == probe.UPSTREAM
    assert {name: answer.headers[name] for name in probe.IDENTITY} == probe.IDENTITY
    # No part of it is signed, so no app believes it.
    assert answer.headers["X-Embed-Jwt"].count(".") == 0


def test_a_head_asks_for_the_app_and_names_no_viewer(gateway: Gateway) -> None:
    sent = {"X_Forwarded_Uri": probe.PATH, "X_Forwarded_Method": "HEAD"}
    answer = gateway.ask(HOST, cookie(proof()), **sent)
    assert answer.headers["X-Embed-Upstream"] == UPSTREAM
    assert not set(probe.IDENTITY) & set(answer.headers.keys())
    # Orders is no app that runs elsewhere.
    label = "orders--abcdefghijkl"
    refused = gateway.ask(f"{label}.embed.example", cookie(proof(label=label)), **sent)
    assert refusal_of(refused) == (403, "app_not_found")


@pytest.mark.parametrize("change", [{"X_Forwarded_Uri": "/"}, {"X_Forwarded_Method": "POST"}])
def test_a_probe_is_for_one_path_and_changes_nothing(gateway: Gateway, change: dict[str, str]) -> None:
    sent = {"X_Forwarded_Uri": probe.PATH} | change
    assert refusal_of(gateway.ask(HOST, cookie(proof()), **sent)) == (401, "session_missing")


#: Made when a test runs, since a probe is short-lived.
NO_PROBES: Final[dict[str, Callable[[], str]]] = {
    "another key's": lambda: proof(keys=Keyring(NEW_KEY)),
    "another app's": lambda: proof(label="other--abcdefghijkl"),
    "another viewer's": lambda: proof(label="sales--abcdefghijkm"),
    "expired": lambda: proof(ago=probe.VALID_SECONDS + 2),
    "from the future": lambda: proof(ago=-3600),
    "cut": lambda: proof()[:-1],
    "in capitals": lambda: proof().replace("sales", "SALES"),
    "empty": lambda: "",
    "a full stop": lambda: ".",
    "with an Arabic digit": lambda: f"{LABEL}.٣.{'a' * 22}",
}


@pytest.mark.parametrize("mistake", NO_PROBES)
def test_mallory_cannot_make_a_probe(gateway: Gateway, mistake: str) -> None:
    refused = gateway.ask(HOST, cookie(NO_PROBES[mistake]()), X_Forwarded_Uri=probe.PATH)
    assert refusal_of(refused) == (401, "session_missing")


@pytest.mark.parametrize("mistake", ["another key's", "expired", "empty", None])
@pytest.mark.parametrize("host", [HOST, "embed.example", "orders.embed.example"])
def test_without_a_proof_there_is_no_answer(gateway: Gateway, host: str, mistake: str | None) -> None:
    client = gateway.service.app.test_client(use_cookies=False)
    headers = {"Host": host} | ({} if mistake is None else {probe.HEADER: NO_PROBES[mistake]()})
    assert client.get(probe.PATH, headers=headers).status_code == 404


def test_a_probe_is_checked_as_every_request(gateway: Gateway) -> None:
    at_frame = gateway.ask(HOST, cookie(proof()), X_Forwarded_Uri="/embed-apps/1")
    assert refusal_of(at_frame) == (403, "not_found")
    from_portal = gateway.ask(HOST, cookie(proof()), X_Forwarded_Uri=probe.PATH, Sec_Fetch_Site="cross-site")
    assert refusal_of(from_portal) == (403, "cross_site")


def test_the_relay_opens_no_socket_for_a_probe(gateway: Gateway) -> None:
    answer = gateway.ask(HOST, cookie(proof()), path="socket", X_Forwarded_Uri=probe.PATH)
    assert refusal_of(answer) == (401, "session_missing")


def test_a_probe_is_no_session_of_a_frame(gateway: Gateway) -> None:
    frame = gateway.open()
    answer = gateway.session(frame, Authorization=f"Bearer {proof()}", Cookie=cookie(proof()))
    assert answer.status_code == 401


def test_the_answer_shows_what_arrived_and_has_headers_as_apps_send_them(gateway: Gateway) -> None:
    client = gateway.service.app.test_client(use_cookies=False)
    sent = {"Host": HOST, probe.HEADER: proof(), "X-Forwarded-Email": "ana@acme.test"}
    answer = client.get(probe.PATH, headers=sent)
    assert answer.status_code == 200
    assert answer.json["received"]["X-Forwarded-Email"] == "ana@acme.test"  # type: ignore[index]
    assert answer.headers.getlist("Content-Security-Policy") == [probe.APP_POLICY]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Domain=embed.example" in answer.headers["Set-Cookie"]
