"""What an app learns about its viewer: headers, and a JWT that it verifies by the published keys."""

import time
from datetime import timedelta
from typing import Any, Final
from urllib.parse import unquote

import jwt
import pytest
import time_machine
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from pat_service.credentials import Keyring
from pat_service.gateway import identity
from pat_service.storage.models import User
from tests.support.people import KEY, NEW_KEY, provision
from tests.support.shared_fixtures import MakeService
from tests.support.upstreams import SETTINGS, Gateway, add_sales

ISSUER: Final = "https://embed.example"
KEYS: Final = "/.well-known/jwks.json"
ATTRIBUTES: Final = {"region": "north", "limits": [1, 2.5, True], "name": "Ruíz 你"}


def keys(gateway: Gateway) -> TestResponse:
    client = gateway.service.app.test_client(use_cookies=False)
    return client.get(KEYS, headers={"Host": "embed.example"})


def verify(gateway: Gateway, text: str, audience: str = "sales") -> dict[str, Any]:
    """Return the claims as an app reads them: with the published key that the JWT names."""
    header = jwt.get_unverified_header(text)
    assert (header["alg"], header["typ"]) == ("EdDSA", "at+jwt")
    published = jwt.PyJWKSet.from_dict(keys(gateway).json or {})
    claims: dict[str, Any] = jwt.decode(
        text, published[header["kid"]], algorithms=["EdDSA"], audience=audience, issuer=ISSUER
    )
    return claims


def test_an_app_verifies_its_viewer(on_both: Gateway) -> None:
    frame = on_both.open("ben@acme.test", attributes=ATTRIBUTES)
    headers = on_both.ask(frame.host, frame.cookie).headers
    claims = verify(on_both, headers["X-Embed-Jwt"])
    user = on_both.service.rows(select(User.id).where(User.email == "ben@acme.test"))[0][0]
    session = Keyring(KEY).read_cookie(next(iter(frame.cookies.values())))
    times = {name: claims.pop(name) for name in ("iat", "nbf", "exp")}
    assert claims == {
        "iss": ISSUER,
        "aud": "sales",
        "sub": user,
        "email": "ben@acme.test",
        "name": "Ben",
        "groups": ["builder"],
        "workspace": "acme",
        "sid": session,
        "attributes": ATTRIBUTES,
    }
    assert times["nbf"] == times["iat"] == times["exp"] - 60
    sent = {name: headers[f"X-Forwarded-{name}"] for name in ("User", "Email", "Groups")}
    assert sent == {"User": user, "Email": "ben@acme.test", "Groups": "builder"}
    assert headers["X-Forwarded-Preferred-Username"] == "Ben"


def test_a_jwt_is_for_one_app(gateway: Gateway) -> None:
    frame = gateway.open()
    text = gateway.ask(frame.host, frame.cookie).headers["X-Embed-Jwt"]
    with pytest.raises(jwt.InvalidAudienceError):
        verify(gateway, text, "orders")


def test_no_other_part_of_the_service_takes_the_jwt(gateway: Gateway) -> None:
    frame = gateway.open()
    text = gateway.ask(frame.host, frame.cookie).headers["X-Embed-Jwt"]
    answer = gateway.session(frame, Authorization=f"Bearer {text}")
    assert answer.status_code == 401


def test_one_jwt_serves_for_half_a_minute(gateway: Gateway, clock: time_machine.Traveller) -> None:
    frame, other = gateway.open(), gateway.open()

    def read() -> str:
        found: str = gateway.ask(frame.host, frame.cookie).headers["X-Embed-Jwt"]
        return found

    first = read()
    clock.shift(timedelta(seconds=29))
    assert read() == first
    # An app may get it now, and verify it within the next half minute.
    assert jwt.decode(first, options={"verify_signature": False})["exp"] >= time.time() + 30
    assert gateway.ask(other.host, other.cookie).headers["X-Embed-Jwt"] != first
    clock.shift(timedelta(seconds=1))
    assert read() != first


def test_a_change_of_the_viewer_is_in_the_next_jwt(gateway: Gateway) -> None:
    frame = gateway.open()
    gateway.ask(frame.host, frame.cookie)
    for change, claim, value in (
        ({"name": "Ana Ruíz"}, "name", "Ana Ruíz"),
        ({"workspaces": {"acme": "builder"}}, "groups", ["builder"]),
    ):
        ana = {"email": "ana@acme.test", "name": "Ana", "workspaces": {"acme": "end-user"}}
        provision(gateway.service.app, {"users": [ana | change]})
        headers = gateway.ask(frame.host, frame.cookie).headers
        assert verify(gateway, headers["X-Embed-Jwt"])[claim] == value
        provision(gateway.service.app, {"users": [ana]})


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("Ana Ruiz", "Ana Ruiz"),
        ("Ana Ruíz", "Ana Ru%C3%ADz"),
        ("你好", "%E4%BD%A0%E5%A5%BD"),
        ("100%", "100%25"),
        ("a, b; \"c\" \\ 'd'", "a, b; \"c\" \\ 'd'"),
        ("%C3%AD", "%25C3%25AD"),
    ],
)
def test_a_name_of_any_script_fits_a_header(gateway: Gateway, name: str, header: str) -> None:
    frame = gateway.open()
    gateway.service.change(update(User).where(User.email == "ana@acme.test").values(name=name))
    sent = gateway.ask(frame.host, frame.cookie).headers["X-Forwarded-Preferred-Username"]
    assert sent == header
    assert unquote(sent) == name
    gateway.service.change(update(User).where(User.email == "ana@acme.test").values(name="Ana"))


def test_the_longest_jwt_fits_the_headers_of_most_servers(gateway: Gateway) -> None:
    """gunicorn, for example, takes 8190 bytes."""
    longest = {"🦉": "🦉" * 1000, "x": "x" * 70}
    email = f"{'a' * 64}@{'b' * 63}.{'c' * 63}.test"
    name = "🦉" * 200
    people = {"email": email, "name": name, "workspaces": {"acme": "end-user"}}
    provision(gateway.service.app, {"users": [people]})
    add_sales(gateway.service, users=["ana@acme.test", "ben@acme.test", email])
    frame = gateway.open(email, attributes=longest)
    text = gateway.ask(frame.host, frame.cookie).headers["X-Embed-Jwt"]
    assert len(text) < 8190 - len("X-Embed-Jwt: ")
    claims = verify(gateway, text)
    assert (claims["name"], claims["attributes"]) == (name, longest)


def test_a_rotation_publishes_both_keys_and_signs_with_the_new_one(
    make_shared: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(make_shared(**SETTINGS))
    add_sales(gateway.service)
    frame = gateway.open()
    before = gateway.ask(frame.host, frame.cookie).headers["X-Embed-Jwt"]
    rotated = Keyring(NEW_KEY, (KEY,))
    monkeypatch.setitem(gateway.service.app.extensions, "pat_service.keyring", rotated)
    after = gateway.ask(frame.host, frame.cookie).headers["X-Embed-Jwt"]
    assert verify(gateway, before)["sub"] == verify(gateway, after)["sub"]
    kids = [jwt.get_unverified_header(text)["kid"] for text in (after, before)]
    assert kids == [key["kid"] for key in (keys(gateway).json or {})["keys"]]


def test_the_published_keys_are_public_ones(gateway: Gateway) -> None:
    answer = keys(gateway)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.headers.getlist("Cache-Control") == ["public, max-age=300"]
    assert answer.json
    for key in answer.json["keys"]:
        assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")
    # Every instance derives the same key.
    assert answer.json == identity.list_public_keys(Keyring(KEY))


@pytest.mark.parametrize("host", ["orders.embed.example", "sales--abcdefghijkl.embed.example", "x.example"])
def test_the_keys_are_on_the_common_host(gateway: Gateway, host: str) -> None:
    client = gateway.service.app.test_client(use_cookies=False)
    assert client.get(KEYS, headers={"Host": host}).status_code == 404


def test_without_hosts_of_apps_there_are_no_keys(make_shared: MakeService) -> None:
    assert make_shared().client.get(KEYS).status_code == 404
