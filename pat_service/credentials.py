"""Tokens and secrets as text, their digests, and the session JWT: pure functions of keys and time.

A token or secret is `<prefix>_`, 64 hex digits (32 random bytes), and a checksum. The checksum is the CRC-32
of everything before it, in 8 hex digits. A scanner can recognize a real one offline, and garbage is refused
without a query.
"""

import binascii
import hashlib
import hmac
import json
import re
import secrets
import time
import zlib
from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Final

import jwt

from pat_service.errors import SessionExpired, SessionInvalid, TokenInvalid

TOKEN_PREFIX: Final = "pat"
CLIENT_SECRET_PREFIX: Final = "pcs"
#: A one-time code, which claims a session that is already open.
CODE_PREFIX: Final = "otc"
#: The session of an operator in the console, as its cookie has it.
CONSOLE_PREFIX: Final = "pco"
#: Matches secrets anywhere in a text, to redact logs. They can have a literal or URL-encoded underscore, or
#: be JWTs, cookies of sessions or Basic credentials.
SECRET_TEXT: Final = re.compile(
    r"(?:pat|pcs|otc|pco)(?:_|%5f)[0-9a-f]+|eyJ[\w-]{1,200}\.[\w-]{1,12000}\.[\w-]+"
    r"|__host-pat-[0-9a-f]{8}=[\w-]+|basic\s+[\w+/-]{16,}=*",
    re.IGNORECASE,
)

ISSUER: Final = "pat-service"
JWT_TYPE: Final = "embed+jwt"
JWT_ALGORITHM: Final = "HS256"
#: The clocks of two hosts may differ by this much.
JWT_LEEWAY_SECONDS: Final = 5
#: JWTs whose verification is cached, since one frame sends the same JWT many times.
MAX_CACHED_JWTS: Final = 4096
CLAIMS: Final = ("iss", "aud", "sub", "jti", "wid", "iat", "nbf", "exp")

#: The length of a viewer's tag in a host: 60 bits, which name a viewer but keep no secret.
TAG_CHARS: Final = 12
#: A session's cookie has its id, which is a UUID, and this many bytes of a MAC.
COOKIE_MAC_BYTES: Final = 16
_ID_BYTES: Final = 16

_ID = re.compile(r"[0-9a-f-]{36}", re.ASCII)
_COOKIE = re.compile(r"[\w-]{43}", re.ASCII)
_BODY = re.compile(r"[a-z]+_[0-9a-f]{72}", re.ASCII)
_JWT_FORM = re.compile(r"[\w-]{1,512}\.[\w-]{1,2048}\.[\w-]{43}", re.ASCII)


class Secret:
    """A text that cannot be printed by accident: only `reveal()` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(hidden)"

    __str__ = __repr__


def _compute_checksum(text: str) -> str:
    return format(zlib.crc32(text.encode("ascii")), "08x")


def generate(prefix: str) -> Secret:
    """Return a new secret: the prefix, 32 random bytes and a checksum."""
    text = f"{prefix}_{secrets.token_hex(32)}"
    return Secret(text + _compute_checksum(text))


def is_well_formed(text: str, prefix: str) -> bool:
    """Return whether `generate(prefix)` could have returned `text`."""
    if not text.startswith(f"{prefix}_") or _BODY.fullmatch(text) is None:
        return False
    return _compute_checksum(text[:-8]) == text[-8:]


def parse_token(text: str) -> Secret:
    """Return the token, or raise TokenInvalid if no mint can have issued this text."""
    if not is_well_formed(text, TOKEN_PREFIX):
        raise TokenInvalid
    return Secret(text)


def parse_code(text: str) -> Secret:
    """Return the one-time code, or raise TokenInvalid if this service cannot have issued this text."""
    if not is_well_formed(text, CODE_PREFIX):
        raise TokenInvalid
    return Secret(text)


def is_code(text: str) -> bool:
    """Return whether the text has the prefix of a one-time code."""
    return text.startswith(f"{CODE_PREFIX}_")


def canonical_json(value: Any) -> str:
    """Return one text for all equal values: without blanks, in ASCII, sorted by keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def redact(text: str) -> str:
    """Return `text` with every token, secret and JWT hidden."""
    return SECRET_TEXT.sub(lambda match: match.group()[:4] + "[hidden]", text)


@dataclass(frozen=True)
class Key:
    """One `SECRET_KEY`. HMAC-SHA-256 (RFC 2104) derives a separate key for each purpose."""

    material: bytes = field(repr=False)

    def derive(self, purpose: str) -> bytes:
        return hmac.digest(self.material, f"pat-service/{purpose}".encode(), hashlib.sha256)

    @cached_property
    def id(self) -> str:
        """The key's public name. It is stored with each digest, and is the `kid` of a JWT."""
        return self.derive("key-id").hex()[:12]

    @cached_property
    def _mac(self) -> hmac.HMAC:
        """A prepared HMAC for digests. A copy takes 3 µs; OpenSSL takes 9 to set up each new one."""
        return hmac.new(self.derive("digest"), digestmod=hashlib.sha256)

    @cached_property
    def for_sessions(self) -> bytes:
        return self.derive("session")

    @cached_property
    def _for_viewer_hosts(self) -> bytes:
        return self.derive("viewer-host")

    @cached_property
    def _for_cookies(self) -> bytes:
        return self.derive("session-cookie")

    def viewer_tag(self, app_id: str, user_id: str, attributes: Mapping[str, Any] | None) -> str:
        """Return the tag of a viewer's host: one for each app, user and attributes."""
        text = canonical_json([app_id, user_id, attributes or {}])
        digest = hmac.digest(self._for_viewer_hosts, text.encode(), hashlib.sha256)
        return b32encode(digest)[:TAG_CHARS].decode().lower()

    def cookie_mac(self, session: bytes) -> bytes:
        """Return the MAC of a session's cookie. `session` is the session's id."""
        return hmac.digest(self._for_cookies, session, hashlib.sha256)[:COOKIE_MAC_BYTES]

    def digest(self, secret: Secret) -> bytes:
        """Return the HMAC-SHA-256 digest that the database stores instead of the secret."""
        mac = self._mac.copy()
        mac.update(secret.reveal().encode())
        return mac.digest()


@dataclass(frozen=True)
class SessionClaims:
    """The claims of a verified session JWT. Without `app_id` it is for the launcher of its workspace."""

    session_id: str
    user_id: str
    app_id: str | None
    workspace_id: str
    issued_at: datetime
    expires_at: datetime


class Keyring:
    """The current key, which signs and digests, and older keys, which only verify."""

    def __init__(self, current: str, fallbacks: tuple[str, ...] = ()) -> None:
        self.keys = tuple(Key(material.encode()) for material in (current, *fallbacks))
        self.current = self.keys[0]
        self._by_id = {key.id: key for key in reversed(self.keys)}
        self._verified = lru_cache(MAX_CACHED_JWTS)(self._verify)

    def get(self, key_id: str) -> Key | None:
        return self._by_id.get(key_id)

    def is_viewer_tag(
        self, tag: str, app_id: str, user_id: str, attributes: Mapping[str, Any] | None
    ) -> bool:
        """Return whether one of our keys gives this viewer the tag, so that a rotation moves no frame."""
        return any(key.viewer_tag(app_id, user_id, attributes) == tag for key in self.keys)

    def sign_cookie(self, session_id: str) -> str:
        """Return the value of a session's cookie. It is short, since browsers limit all cookies of a site."""
        session = bytes.fromhex(session_id.replace("-", ""))
        return urlsafe_b64encode(session + self.current.cookie_mac(session)).rstrip(b"=").decode()

    def read_cookie(self, value: str) -> str | None:
        """Return the id of the session whose cookie has this value, or None if no key of ours made it."""
        if _COOKIE.fullmatch(value) is None:
            return None
        try:
            content = urlsafe_b64decode(f"{value}=")
        except binascii.Error:
            return None
        session, mac = content[:_ID_BYTES], content[_ID_BYTES:]
        if not any(hmac.compare_digest(key.cookie_mac(session), mac) for key in self.keys):
            return None
        text = session.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def sign_session(self, claims: SessionClaims) -> str:
        """Return a compact JWT (RFC 7519), signed with the current key."""
        issued = int(claims.issued_at.timestamp())
        payload = {
            "iss": ISSUER,
            "aud": build_audience(claims.app_id, claims.workspace_id),
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
        """Return the claims of a session JWT for this app, or without an app for a launcher.

        Raise SessionExpired if a genuine session has expired, else SessionInvalid.
        """
        try:
            claims = self.read_any_session(text)
        except SessionExpired as expired:
            if expired.subject.get("app_id") != app_id:
                raise SessionInvalid from None
            raise
        if claims.app_id != app_id:
            raise SessionInvalid
        return claims

    def read_any_session(self, text: str) -> SessionClaims:
        """Return the claims of a session JWT for any app or workspace. Raise the errors of `read_session`.

        Accept one algorithm, one type, a known key, and exactly our claims (RFC 8725). The caller compares
        `issued_at` with the session's row: after a clock stepped back, a genuine one is in the future.
        """
        claims = self._verified(text)
        if claims.expires_at.timestamp() <= time.time() - JWT_LEEWAY_SECONDS:
            raise SessionExpired().about(
                session_id=claims.session_id,
                app_id=claims.app_id,
                user_id=claims.user_id,
                workspace_id=claims.workspace_id,
            )
        return claims

    def _verify(self, text: str) -> SessionClaims:
        """Return the claims of a JWT that we signed.

        Raise SessionInvalid for any other text. This must not read a clock, since the result is cached.
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
                    "verify_aud": False,  # `_parse_claims` checks it: an app or a workspace
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise SessionInvalid from None
        return _parse_claims(payload)


def build_audience(app_id: str | None, workspace_id: str) -> str:
    """Return the `aud` of a session: one app, or the launcher of a workspace."""
    return f"embed-workspace:{workspace_id}" if app_id is None else f"embed:{app_id}"


def _parse_claims(payload: dict[str, Any]) -> SessionClaims:
    # PyJWT also accepts times as floats or padded texts, but we sign only whole numbers.
    texts = all(type(payload[name]) is str for name in ("sub", "jti", "wid", "aud"))
    texts = texts and all(_ID.fullmatch(payload[name]) for name in ("sub", "jti", "wid"))
    times = all(type(payload[name]) is int for name in ("iat", "nbf", "exp"))
    if set(payload) != set(CLAIMS) or not texts or not times or payload["nbf"] != payload["iat"]:
        raise SessionInvalid
    app_id = payload["aud"].removeprefix("embed:")
    if not _ID.fullmatch(app_id):
        app_id = None
    if payload["aud"] != build_audience(app_id, payload["wid"]):
        raise SessionInvalid
    try:
        issued_at = datetime.fromtimestamp(payload["iat"], UTC)
        expires_at = datetime.fromtimestamp(payload["exp"], UTC)
    except (ValueError, OverflowError, OSError):
        raise SessionInvalid from None
    return SessionClaims(payload["jti"], payload["sub"], app_id, payload["wid"], issued_at, expires_at)
