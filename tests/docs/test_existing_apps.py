"""The verifiers of docs/apps/existing-apps.md, word for word, with the identity that the service signs."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jwt
import pytest
from flask import Flask
from werkzeug.serving import make_server

from pat_service.credentials import Keyring
from pat_service.embed.advice import ADVICE
from pat_service.gateway.identity import JWT_ALGORITHM, JWT_TYPE, _private_key, list_public_keys
from pat_service.gateway.refusals import BY_CODE
from tests.support.documents import codes_in, snippets
from tests.support.people import KEY, NEW_KEY
from tests.support.servers import PROJECT, free_port, program, web_server
from tests.support.shared_fixtures import MakeService
from tests.support.upstreams import SETTINGS, Gateway, add_sales

pytestmark = pytest.mark.slow

PAGE: Final = "docs/apps/existing-apps.md"
ISSUER: Final = "https://embed.example"
ANA: Final = {"email": "ana@acme.test", "region": "north"}
#: Sends this JWT, or none, and returns the status and JSON of the app's answer.
Ask = Callable[[str | None], tuple[int, Any]]


@pytest.fixture(scope="module")
def answered(make_shared: MakeService) -> dict[str, str]:
    """The headers with which the service lets a request of Ana pass."""
    service = make_shared(**SETTINGS)
    add_sales(service)
    gateway = Gateway(service)
    frame = gateway.open(attributes={"region": "north"})
    return dict(gateway.ask(frame.host, frame.cookie).headers)


@pytest.fixture(scope="module")
def identity(answered: dict[str, str]) -> str:
    return answered["X-Embed-Jwt"]


@pytest.fixture(scope="module")
def keys(make_shared: MakeService) -> Iterator[str]:
    """The address at which the service publishes its keys, with a port of this machine."""
    app = make_shared(**SETTINGS).app

    def at_the_common_host(environ: dict[str, Any], start: Any) -> Any:
        return app.wsgi_app(environ | {"HTTP_HOST": "embed.example"}, start)

    server = make_server("127.0.0.1", 0, at_the_common_host, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def flask_app(keys: str, folder: Path) -> Iterator[Ask]:
    [text] = [each.text for each in snippets(PAGE, "Flask")]
    line = 'f"{ISSUER}/.well-known'
    assert line in text
    module: dict[str, Any] = {"__name__": "sales"}
    exec(text.replace(line, f'"{keys}/.well-known'), module)
    app: Flask = module["app"]

    def ask(token: str | None) -> tuple[int, Any]:
        answer = app.test_client().get("/", headers={"X-Embed-Jwt": token} if token else {})
        return answer.status_code, answer.json if answer.is_json else None

    yield ask


@contextmanager
def express_app(keys: str, folder: Path) -> Iterator[Ask]:
    [text] = [each.text for each in snippets(PAGE, "Express")]
    line = 'new URL("/.well-known/jwks.json", ISSUER)'
    assert line in text
    (folder / "server.mjs").write_text(text.replace(line, f'new URL("{keys}/.well-known/jwks.json")'))
    version = json.loads((PROJECT / "examples/express/package.json").read_text())["dependencies"]["express"]
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        node, npm = program("node"), program("npm")
    except FileNotFoundError as missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))
    install = [npm, "install", "--no-audit", "--no-fund", f"express@{version}", "jose@6.2.18"]
    subprocess.run(install, cwd=folder, env=os.environ | path, check=True, capture_output=True, timeout=110)
    port = free_port()
    with web_server([node, "server.mjs"], path | {"PORT": str(port)}, port=port, cwd=folder) as server:

        def ask(token: str | None) -> tuple[int, Any]:
            request = Request(f"{server.url}/", headers={"X-Embed-Jwt": token} if token else {})
            try:
                with urlopen(request, timeout=10) as answer:
                    return answer.status, json.load(answer)
            except HTTPError as refusal:
                return refusal.code, None

        yield ask


@pytest.fixture(scope="module", params=[flask_app, express_app], ids=["flask", "express"])
def ask(request: pytest.FixtureRequest, keys: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    with request.param(keys, tmp_path_factory.mktemp("app")) as ask:
        yield ask


def test_the_app_greets_ana_by_her_signed_identity(ask: Ask, identity: str) -> None:
    assert ask(identity) == (200, ANA)


def sign(claims: dict[str, Any], secret: str = KEY, **header: str) -> str:
    """Sign as the service does, or with another key of the same name."""
    named = {"typ": JWT_TYPE, "kid": Keyring(KEY).current.id} | header
    return jwt.encode(claims, _private_key(Keyring(secret).current), JWT_ALGORITHM, named)


def test_the_app_refuses_every_other_jwt(ask: Ask, identity: str) -> None:
    claims = jwt.decode(identity, options={"verify_signature": False})
    assert ask(sign(claims)) == (200, ANA)
    now = int(time.time())
    [public] = list_public_keys(Keyring(KEY))["keys"]
    header, payload, signature = identity.split(".")
    attempts = {
        "none": None,
        "no JWT": "ana@acme.test",
        "another app's": sign(claims | {"aud": "orders"}),
        "another installation's": sign(claims | {"iss": "https://embed.other.example"}),
        "expired": sign(claims | {"iat": now - 120, "nbf": now - 120, "exp": now - 60}),
        "another key's": sign(claims, NEW_KEY),
        "an unknown key's": sign(claims, NEW_KEY, kid="unknown"),
        "changed": f"{header}.{payload}.{signature[:-2]}{'AA' if signature[-2:] != 'AA' else 'BB'}",
        "unsigned": jwt.encode(claims, "", "none", {"kid": public["kid"]}),
        "signed with the public key as a secret": jwt.encode(
            claims, public["x"], "HS256", {"kid": public["kid"]}
        ),
    }
    answers = {name: ask(token) for name, token in attempts.items()}
    assert answers == dict.fromkeys(attempts, (403, None))


def test_the_page_names_every_header_and_claim(answered: dict[str, str], identity: str) -> None:
    claims = jwt.decode(identity, options={"verify_signature": False})
    assert set(codes_in(PAGE, "Verify the signed identity")) == set(claims)
    headers = {name for name in answered if name.startswith(("X-Forwarded-", "X-Embed-"))}
    named = set(codes_in(PAGE, "Read the viewer from a header"))
    # The proxy keeps these two for itself.
    assert headers == named | {"X-Embed-Upstream", "X-Embed-Policy"}


def test_the_operators_page_names_codes_that_exist() -> None:
    named = set(codes_in("docs/operate/gateway.md", "Codes"))
    assert {"cookies_blocked", "session_missing", "cross_site", "upstream_not_listed"} < named
    assert named - set(BY_CODE) - set(ADVICE) == set()
