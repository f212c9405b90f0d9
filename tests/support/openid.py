"""OpenID providers: a real one in a process, and one that a test can make hostile."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import requests
from flask import Flask, jsonify, request
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

from tests.support.servers import free_port

#: A key takes half a second.
_OWN_KEY, _OTHER_KEY = (RSAKey.generate_key(2048, {"kid": "k"}, private=True) for _ in range(2))


@contextmanager
def provider_process() -> Iterator[str]:
    """Run oidc-provider-mock, and yield its issuer."""
    port = free_port()
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    issuer = f"http://localhost:{port}"
    try:
        for _ in range(300):
            try:
                requests.get(issuer, timeout=1)
                break
            except requests.RequestException:
                time.sleep(0.1)
        yield issuer
    finally:
        process.terminate()
        process.wait(10)


def add_person(issuer: str, subject: str, **claims: Any) -> None:
    """Tell the provider in a process about a person."""
    requests.put(f"{issuer}/users/{quote(subject)}", json=claims, timeout=10).raise_for_status()


def authorize(address: str, subject: str) -> str:
    """Sign this person in at the provider, and return the address to which it leads the browser."""
    answer = requests.post(address, data={"sub": subject}, timeout=10, allow_redirects=False)
    return answer.headers["Location"]


class FakeProvider:
    """A correct provider with PKCE, until a test changes `claims`, `metadata`, `algorithm` or `key`."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {}
        self.key: Any = _OWN_KEY
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "k"}
        self.down = False
        self._begun: dict[str, dict[str, str]] = {}

    def use_other_key(self) -> None:
        self.key = _OTHER_KEY

    def sign_with_public_key(self) -> None:
        """Sign by HMAC with the text of the public key, which everyone knows."""
        self.header["alg"] = "HS256"

    def answer(self, address: str, **extra: str) -> str:
        """Return the path and query to which the provider leads the browser after a sign-in."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = hashlib.sha256(asked["state"].encode()).hexdigest()
        self._begun[code] = asked
        back = urlsplit(asked["redirect_uri"])
        query = {"code": code, "state": asked["state"]} | extra
        return f"{back.path}?{'&'.join(f'{name}={quote(value)}' for name, value in query.items())}"

    def build(self) -> Flask:
        app = Flask(__name__)

        @app.before_request
        def fail() -> Any:
            return ("down", 500) if self.down else None

        @app.get("/.well-known/openid-configuration")
        def discovery() -> Any:
            names = {"authorization": "authorize", "token": "token", "userinfo": "userinfo"}
            endpoints = {f"{name}_endpoint": f"{self.issuer}/{path}" for name, path in names.items()}
            own = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"}
            return jsonify(own | endpoints | self.metadata)

        @app.get("/jwks")
        def jwks() -> Any:
            return jsonify(keys=[_OWN_KEY.as_dict(private=False)])

        @app.get("/userinfo")
        def userinfo() -> Any:
            return jsonify(self.userinfo)

        @app.post("/token")
        def token() -> Any:
            asked = self._begun.pop(request.form["code"], None)
            challenge = _encode(hashlib.sha256(request.form["code_verifier"].encode()).digest())
            if (
                asked is None
                or challenge != asked["code_challenge"]
                or asked["code_challenge_method"] != "S256"
            ):
                return jsonify(error="invalid_grant"), 400
            now = int(time.time())
            claims = {
                "iss": self.issuer,
                "sub": "otto-1",
                "aud": asked["client_id"],
                "iat": now,
                "exp": now + 300,
                "nonce": asked["nonce"],
                "email": "otto@acme.test",
                "email_verified": True,
            } | self.claims
            claims = {name: value for name, value in claims.items() if value is not None}
            if self.header["alg"] == "RS256":
                id_token = jwt.encode(self.header, claims, self.key)
            else:
                id_token = _sign_badly(self.header, claims)
            return jsonify(access_token="a", token_type="Bearer", id_token=id_token)

        return app


def _sign_badly(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return a JWT without a signature (alg none), or signed with the public key (alg HS256)."""
    text = ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
    mac = hmac.digest(_OWN_KEY.as_pem(private=False), text.encode(), "sha256")
    return f"{text}.{'' if header['alg'] == 'none' else _encode(mac)}"


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@contextmanager
def fake_provider() -> Iterator[FakeProvider]:
    """Run a `FakeProvider` in a thread."""
    port = free_port()
    provider = FakeProvider(f"http://127.0.0.1:{port}")
    server = make_server("127.0.0.1", port, provider.build(), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
