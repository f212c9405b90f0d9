"""The text of tokens and secrets, their digests, and the session JWT: pure functions of keys and time.

A secret of this service is `<prefix>_` + 64 hex digits (32 random bytes) + 8 hex digits: the CRC-32
of everything before them. So a scanner can tell a real one offline, and garbage is refused without
a look at the database.
"""

import hashlib
import hmac
import re
import secrets
import time
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Final

import jwt

from pat_service.errors import SessionExpired, SessionInvalid, TokenInvalid

TOKEN_PREFIX: Final = "pat"
CLIENT_SECRET_PREFIX: Final = "pcs"
#: A secret anywhere in a text: what logs must hide. Also with its underscore as an URL may write it,
#: and client credentials as a header has them.
SECRET_TEXT: Final = re.compile(
    r"(?:pat|pcs)(?:_|%5f)[0-9a-f]+|eyJ[\w-]{1,200}\.[\w-]{1,2000}\.[\w-]+|basic\s+[\w+/-]{16,}=*",
    re.IGNORECASE,
)

ISSUER: Final = "pat-service"
JWT_TYPE: Final = "embed+jwt"
JWT_ALGORITHM: Final = "HS256"
#: Clocks of two hosts may differ by this much, in seconds.
JWT_LEEWAY: Final = 5
#: So many session JWTs whose signature has held are remembered: of one frame there are many requests.
VERIFIED_KEPT: Final = 4096
CLAIMS: Final = ("iss", "aud", "sub", "jti", "wid", "iat", "nbf", "exp")

_ID = re.compile(r"[0-9a-f-]{36}", re.ASCII)
_BODY = re.compile(r"[a-z]+_[0-9a-f]{72}", re.ASCII)
_JWT_FORM = re.compile(r"[\w-]{1,512}\.[\w-]{1,2048}\.[\w-]{43}", re.ASCII)


class Secret:
    """A text that cannot be printed by accident: only `reveal()` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__


def _checksum(text: str) -> str:
    return format(zlib.crc32(text.encode("ascii")), "08x")


def generate(prefix: str) -> Secret:
    """Return a new secret: 32 random bytes behind `prefix`, with their checksum."""
    text = f"{prefix}_{secrets.token_hex(32)}"
    return Secret(text + _checksum(text))


def well_formed(text: str, prefix: str) -> bool:
    """Tell whether `text` could have come from `generate(prefix)`, without any key or database."""
    if not text.startswith(f"{prefix}_") or _BODY.fullmatch(text) is None:
        return False
    return _checksum(text[:-8]) == text[-8:]


def parse_token(text: str) -> Secret:
    """Return the token that `text` is, or raise TokenInvalid for what no mint can have given out."""
    if not well_formed(text, TOKEN_PREFIX):
        raise TokenInvalid
    return Secret(text)


def redact(text: str) -> str:
    """Return `text` with every token, secret and JWT in it hidden."""
    return SECRET_TEXT.sub(lambda found: found.group()[:4] + "[hidden]", text)


@dataclass(frozen=True)
class Key:
    """One `SECRET_KEY`. Each purpose has a key of its own, derived by HMAC-SHA-256 (RFC 2104)."""

    material: bytes = field(repr=False)

    def derived(self, purpose: str) -> bytes:
        return hmac.digest(self.material, f"pat-service/{purpose}".encode(), hashlib.sha256)

    @cached_property
    def id(self) -> str:
        """A name for the key that tells nothing about it: kept beside digests and in the JWT's `kid`."""
        return self.derived("key-id").hex()[:12]

    @cached_property
    def for_digests(self) -> bytes:
        return self.derived("digest")

    @cached_property
    def for_sessions(self) -> bytes:
        return self.derived("session")

    def digest(self, secret: Secret) -> bytes:
        """Return the HMAC-SHA-256 digest that is stored in place of a random secret."""
        return hmac.digest(self.for_digests, secret.reveal().encode(), hashlib.sha256)


@dataclass(frozen=True)
class SessionClaims:
    """What a session JWT says, once its signature and form hold.

    `app_id` is None in a session that is good for every app of its workspace.
    """

    session_id: str
    user_id: str
    app_id: str | None
    workspace_id: str
    issued_at: datetime
    expires_at: datetime


class Keyring:
    """The current key, which signs and digests, and older ones, which only verify."""

    def __init__(self, current: str, fallbacks: tuple[str, ...] = ()) -> None:
        self.keys = tuple(Key(material.encode()) for material in (current, *fallbacks))
        self.current = self.keys[0]
        self._by_id = {key.id: key for key in reversed(self.keys)}
        self._verified = lru_cache(VERIFIED_KEPT)(self._verify)

    def get(self, key_id: str) -> Key | None:
        return self._by_id.get(key_id)

    def sign_session(self, claims: SessionClaims) -> str:
        """Return the session as a compact JWT (RFC 7519), signed with the current key."""
        issued = int(claims.issued_at.timestamp())
        payload = {
            "iss": ISSUER,
            "aud": audience(claims.app_id, claims.workspace_id),
            "sub": claims.user_id,
            "jti": claims.session_id,
            "wid": claims.workspace_id,
            "iat": issued,
            "nbf": issued,
            "exp": int(claims.expires_at.timestamp()),
        }
        headers = {"typ": JWT_TYPE, "kid": self.current.id}
        return jwt.encode(payload, self.current.for_sessions, algorithm=JWT_ALGORITHM, headers=headers)

    def read_session(self, text: str, app_id: str | None) -> SessionClaims:
        """Return the claims of a session JWT made for this app (None: for no app alone), or for a workspace.

        Raise SessionExpired for a genuine one past its time, SessionInvalid for everything else.
        """
        try:
            claims = self.read_any_session(text)
        except SessionExpired as expired:
            if expired.subject.get("app_id", app_id) != app_id:
                raise SessionInvalid from None
            raise
        if claims.app_id not in (app_id, None):
            raise SessionInvalid
        return claims

    def read_any_session(self, text: str) -> SessionClaims:
        """Return the claims of a session JWT, whatever it was made for; raise as `read_session` does.

        The profile is closed (RFC 8725): one algorithm, one type, a known key, exactly our claims.
        """
        claims, not_before = self._verified(text)
        now = time.time()
        if not_before > now + JWT_LEEWAY:
            raise SessionInvalid
        if claims.expires_at.timestamp() <= now - JWT_LEEWAY:
            raise SessionExpired().about(
                session_id=claims.session_id,
                app_id=claims.app_id,
                user_id=claims.user_id,
                workspace_id=claims.workspace_id,
            )
        return claims

    def _verify(self, text: str) -> tuple[SessionClaims, int]:
        """Return the claims of a JWT that we signed, and since when it holds; or raise SessionInvalid.

        Always the same for the same text, so that it is remembered. What changes with time is not asked here.
        """
        if not _JWT_FORM.fullmatch(text):
            raise SessionInvalid
        try:
            header = jwt.get_unverified_header(text)
            key = self._by_id.get(header.get("kid", ""))
            if key is None or set(header) != {"alg", "typ", "kid"} or header["typ"] != JWT_TYPE:
                raise SessionInvalid
            payload = jwt.decode(
                text,
                key.for_sessions,
                algorithms=[JWT_ALGORITHM],
                issuer=ISSUER,
                options={
                    "require": list(CLAIMS),
                    "enforce_minimum_key_length": True,
                    "verify_aud": False,  # `_claims` reads it: it may be one of two kinds
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise SessionInvalid from None
        return _claims(payload), max(payload["nbf"], payload["iat"])


def audience(app_id: str | None, workspace_id: str) -> str:
    """Return the `aud` of a session: one app, or a workspace with all of its apps."""
    return f"embed-workspace:{workspace_id}" if app_id is None else f"embed:{app_id}"


def _claims(payload: dict[str, Any]) -> SessionClaims:
    # PyJWT takes times as floats or padded texts; we sign whole numbers only.
    texts = all(type(payload[name]) is str for name in ("sub", "jti", "wid", "aud"))
    texts = texts and all(_ID.fullmatch(payload[name]) for name in ("sub", "jti", "wid"))
    times = all(type(payload[name]) is int for name in ("iat", "nbf", "exp"))
    if set(payload) != set(CLAIMS) or not texts or not times:
        raise SessionInvalid
    app_id = payload["aud"].removeprefix("embed:")
    if not _ID.fullmatch(app_id):
        app_id = None
    if payload["aud"] != audience(app_id, payload["wid"]):
        raise SessionInvalid
    try:
        issued_at = datetime.fromtimestamp(payload["iat"], UTC)
        expires_at = datetime.fromtimestamp(payload["exp"], UTC)
    except (ValueError, OverflowError, OSError):
        raise SessionInvalid from None
    return SessionClaims(payload["jti"], payload["sub"], app_id, payload["wid"], issued_at, expires_at)
