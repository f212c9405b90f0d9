"""Sign-in with an OpenID provider: authorization code with PKCE, state and nonce (OpenID Connect Core 1.0).

There is one provider. The state names it, and its answers must name it too, so no other provider can take its
place (RFC 9207, RFC 9700).
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from flask import current_app, url_for
from itsdangerous import BadData, URLSafeTimedSerializer
from marshmallow import ValidationError

from pat_service.credentials import Keyring
from pat_service.errors import Refused
from pat_service.http import console_host
from pat_service.rules.console_sessions import SignInRefused
from pat_service.shapes import check_email, is_loopback, normalize_email

#: A sign-in at the provider must end within this time.
LIFETIME_SECONDS: Final = 600
#: For each request to the provider.
TIMEOUT_SECONDS: Final = 5
MAX_CLOCK_DIFFERENCE_SECONDS: Final = 60
#: Signatures with a key pair. The provider's public keys must not be usable as a secret.
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
DISCOVERY: Final = "/.well-known/openid-configuration"

Result = TypeVar("Result")


class ProviderUnavailable(Refused):
    status, code, title = 503, "provider_unavailable", "Provider not available"
    detail = "The OpenID provider does not answer as it must. Try again, or ask an owner for a sign-in link."


@dataclass(frozen=True, slots=True)
class Provider:
    """The settings of the provider. `viewers` are emails, and domains such as `@acme.example`."""

    issuer: str
    client_id: str
    client_secret: str | None
    viewers: tuple[str, ...]

    def may_create(self, email: str) -> bool:
        """Return whether an unknown person with this email becomes a viewer."""
        return email in self.viewers or f"@{email.rpartition('@')[2]}" in self.viewers


@dataclass(frozen=True, slots=True)
class Identity:
    """A person at the provider. `email` is None unless the provider has verified it."""

    issuer: str
    subject: str
    email: str | None


def provider() -> Provider | None:
    """Return the provider, or None if the console has none."""
    found: Provider | None = current_app.extensions.get("pat_service.openid")
    return found


def start(provider: Provider, keyring: Keyring, next_: str) -> tuple[str, str]:
    """Return the provider's address for the browser, and the cookie's value that the answer needs."""
    metadata = _discover(provider)
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    address, _ = _session(provider, metadata).create_authorization_url(
        metadata["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
    )
    content = {"issuer": provider.issuer, "state": state, "nonce": nonce, "verifier": verifier, "next": next_}
    return address, _serializer(keyring).dumps(content)


def finish(provider: Provider, keyring: Keyring, cookie: str, answer: dict[str, str]) -> tuple[Identity, str]:
    """Return who signed in, and the page to show next. `answer` are the parameters of the address.

    Raise SignInRefused or ProviderUnavailable.
    """
    try:
        begun = _serializer(keyring).loads(cookie, max_age=LIFETIME_SECONDS)
    except BadData:
        raise SignInRefused("This sign-in took too long, or another window began it. Start again.") from None
    same_state = hmac.compare_digest(begun["state"].encode(), answer.get("state", "").encode())
    if not same_state or begun["issuer"] != provider.issuer:
        raise SignInRefused
    metadata = _discover(provider)
    names_issuer = metadata.get("authorization_response_iss_parameter_supported") is True
    if answer.get("iss", None if names_issuer else provider.issuer) != provider.issuer:
        raise SignInRefused
    if "code" not in answer:
        raise SignInRefused("The OpenID provider did not sign you in. Start again.")
    token = _fetch_token(provider, metadata, answer["code"], begun["verifier"])
    claims = _read_id_token(provider, metadata, token, begun["nonce"])
    return Identity(provider.issuer, claims["sub"], _read_email(provider, metadata, token, claims)), begun[
        "next"
    ]


def _serializer(keyring: Keyring) -> URLSafeTimedSerializer:
    # itsdangerous signs with the last key, and accepts all.
    keys = [key.derive("console-openid") for key in reversed(keyring.keys)]
    return URLSafeTimedSerializer(keys, salt=b"pat-service/console-openid")


def _session(provider: Provider, metadata: dict[str, Any]) -> Any:
    # Imported late: a console without a provider does not need it.
    from authlib.integrations.requests_client import OAuth2Session

    methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    by_secret = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
    return OAuth2Session(
        provider.client_id,
        provider.client_secret,
        token_endpoint_auth_method=by_secret if provider.client_secret else "none",
        scope="openid email",
        redirect_uri=console_host.origin() + url_for("console.finish_openid"),
        code_challenge_method="S256",
    )


def _ask(call: Callable[[], Result]) -> Result:
    """Return the result of requests to the provider. Raise ProviderUnavailable if they fail."""
    import requests
    from authlib.common.errors import AuthlibBaseError

    try:
        return call()
    except AuthlibBaseError as error:
        raise SignInRefused("The OpenID provider refused this sign-in. Start again.") from error
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise ProviderUnavailable from error


def _get(session: Any, url: str, **options: Any) -> dict[str, Any]:
    answer = session.get(url, timeout=TIMEOUT_SECONDS, allow_redirects=False, **options)
    answer.raise_for_status()
    found = answer.json()
    if not isinstance(found, dict):
        raise ValueError(url)
    return found


def _discover(provider: Provider) -> dict[str, Any]:
    """Return the provider's metadata (OpenID Connect Discovery 1.0). It must name this issuer."""
    import requests

    metadata = _ask(lambda: _get(requests, provider.issuer.rstrip("/") + DISCOVERY))
    endpoints = [metadata.get(f"{name}_endpoint") for name in ("authorization", "token")]
    if metadata.get("issuer") != provider.issuer or not all(
        map(_is_safe, [*endpoints, metadata.get("jwks_uri")])
    ):
        raise ProviderUnavailable
    return metadata


def _is_safe(url: object) -> bool:
    """Return whether a request to this address is secret: https, or on this machine."""
    if not isinstance(url, str):
        return False
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))


def _fetch_token(provider: Provider, metadata: dict[str, Any], code: str, verifier: str) -> dict[str, Any]:
    session = _session(provider, metadata)
    token: dict[str, Any] = _ask(
        lambda: session.fetch_token(
            metadata["token_endpoint"],
            code=code,
            code_verifier=verifier,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )
    )
    return token


def _read_id_token(
    provider: Provider, metadata: dict[str, Any], token: dict[str, Any], nonce: str
) -> dict[str, Any]:
    """Return the claims of the ID token, or raise SignInRefused if it is not for this sign-in."""
    import requests
    from authlib.oidc.core import CodeIDToken
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    keys = _ask(lambda: KeySet.import_key_set(_get(requests, metadata["jwks_uri"])))  # type: ignore[arg-type]
    try:
        decoded = jwt.decode(str(token["id_token"]), keys, algorithms=list(ALGORITHMS))
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            {"iss": {"essential": True, "value": provider.issuer}, "sub": {"essential": True}},
            {"nonce": nonce, "client_id": provider.client_id, "access_token": token.get("access_token")},
        )
        claims.validate(leeway=MAX_CLOCK_DIFFERENCE_SECONDS)
    except (JoseError, ValueError, KeyError, TypeError, RecursionError):
        raise SignInRefused from None
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if provider.client_id not in audience or not isinstance(claims["sub"], str) or not claims["sub"]:
        raise SignInRefused
    return dict(claims)


def _read_email(
    provider: Provider, metadata: dict[str, Any], token: dict[str, Any], claims: dict[str, Any]
) -> str | None:
    """Return the email as it is stored, if the provider has verified it."""
    found: dict[str, Any] = claims
    if "email" not in claims and _is_safe(metadata.get("userinfo_endpoint")):
        session = _session(provider, metadata)
        session.token = token
        found = _ask(lambda: _get(session, metadata["userinfo_endpoint"]))
        if found.get("sub") != claims["sub"]:
            raise SignInRefused
    email = found.get("email")
    # Some providers send a text.
    if not isinstance(email, str) or found.get("email_verified") not in (True, "true"):
        return None
    try:
        check_email(email)
    except ValidationError:
        return None
    return normalize_email(email)
