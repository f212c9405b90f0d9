"""What an upstream app learns about its viewer: headers, and a short-lived JWT that it can verify."""

import json
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from pat_service.credentials import Key, Keyring, canonical_json
from pat_service.rules.sessions import OpenSession

JWT_TYPE: Final = "at+jwt"
JWT_ALGORITHM: Final = "EdDSA"
JWT_SECONDS: Final = 60
#: One JWT of a session serves this long: a signature takes 47 µs, an eighth of a subrequest.
JWT_PERIOD_SECONDS: Final = 30
#: Some hundred bytes each, or some kilobytes with many attributes.
MAX_CACHED_JWTS: Final = 2048
#: ASCII without `%`. A header carries other characters as URL-encoded UTF-8.
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class _Claims(NamedTuple):
    """The claims of a session's JWT, without times. `attributes` is canonical JSON."""

    iss: str
    aud: str
    sub: str
    email: str
    name: str
    role: str
    workspace: str
    sid: str
    attributes: str
    preview: bool


def identity_headers(session: OpenSession, keyring: Keyring, issuer: str, now: float) -> dict[str, str]:
    """Return the headers that a proxy passes on to the app. `now` is in seconds since 1970."""
    user = session.viewer.user
    return {
        "X-Forwarded-User": user.id,
        "X-Forwarded-Email": _encode(user.email),
        "X-Forwarded-Preferred-Username": _encode(user.name),
        "X-Forwarded-Groups": session.viewer.role,
        "X-Embed-Jwt": sign_identity(session, keyring, issuer, now),
    }


def sign_identity(session: OpenSession, keyring: Keyring, issuer: str, now: float) -> str:
    """Return the JWT of the session's viewer. It expires in 30 to 60 seconds."""
    viewer = session.viewer
    claims = _Claims(
        iss=issuer,
        aud=viewer.app.slug,
        sub=viewer.user.id,
        email=viewer.user.email,
        name=viewer.user.name,
        role=viewer.role,
        workspace=viewer.workspace.slug,
        sid=session.id,
        attributes=canonical_json(viewer.attributes),
        preview=viewer.preview,
    )
    issued_at = int(now) // JWT_PERIOD_SECONDS * JWT_PERIOD_SECONDS
    return _sign(keyring.current, claims, issued_at)


def list_public_keys(keyring: Keyring) -> dict[str, Any]:
    """Return the public keys of all configured keys, as a JWK set (RFC 7517, RFC 8037)."""
    return {
        "keys": [
            {"kid": key.id, "use": "sig", "alg": JWT_ALGORITHM}
            | OKPAlgorithm.to_jwk(_private_key(key).public_key(), as_dict=True)
            for key in keyring.keys
        ]
    }


class _Utf8(json.JSONEncoder):
    """Writes all characters as they are: as escapes, the longest JWT would be too long for most servers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"ensure_ascii": False})


@lru_cache(MAX_CACHED_JWTS)
def _sign(key: Key, claims: _Claims, issued_at: int) -> str:
    times = {"iat": issued_at, "nbf": issued_at, "exp": issued_at + JWT_SECONDS}
    payload = claims._asdict() | {"attributes": json.loads(claims.attributes)} | times
    payload["groups"] = [payload.pop("role")]
    if not payload["preview"]:
        del payload["preview"]
    headers = {"typ": JWT_TYPE, "kid": key.id}
    return jwt.encode(payload, _private_key(key), JWT_ALGORITHM, headers, json_encoder=_Utf8)


@lru_cache
def _private_key(key: Key) -> Ed25519PrivateKey:
    """Return the key that every instance derives from this SECRET_KEY."""
    return Ed25519PrivateKey.from_private_bytes(key.derive("identity-jwt"))


def _encode(text: str) -> str:
    return quote(text, safe=_PLAIN)
