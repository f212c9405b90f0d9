"""The doctor's probe: a request that shows what a proxy passes on to an app that runs elsewhere.

Only a holder of a SECRET_KEY can make it. The gateway lets it through to the service itself, which answers
with all that arrived (`gateway/probe.py`). It needs no person's session. An app can get one HEAD, which names
no viewer.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from typing import Final

from pat_service.credentials import Key, Keyring

PATH: Final = "/embed-probe"
#: A proxy takes this for a session's cookie. The service does not, since a session's has hex digits.
COOKIE: Final = "__Host-pat-diagnose"
#: The same proof for `PATH`, since a proxy passes none of our cookies on to an app.
HEADER: Final = "Doctor-Probe"
#: The documented lists of upstreams have this name for the service. No other host can have it (RFC 6761).
UPSTREAM: Final = "http://doctor.invalid"
VALID_SECONDS: Final = 60
#: The identity that the gateway names in place of a viewer's. No part of it is signed.
IDENTITY: Final = {
    "X-Forwarded-User": "doctor",
    "X-Forwarded-Email": "doctor@pat-service.example",
    "X-Forwarded-Preferred-Username": "Doctor",
    "X-Forwarded-Groups": "doctor-group",
    "X-Embed-Jwt": "doctor-jwt",
}
FRAME_ANCESTORS: Final = "frame-ancestors 'self' https://doctor.invalid"
#: The headers of the service's answer, as apps send them. Only `Domain` and the host are added to them.
APP_COOKIE: Final = "doctor"
APP_POLICY: Final = "default-src 'self'; frame-ancestors 'none'"
APP_REDIRECT: Final = "/doctor"

_FORM: Final = re.compile(r"([a-z0-9-]{1,63})\.([0-9]{1,10})\.[\w-]{22}", re.ASCII)
_MAC_BYTES: Final = 16


def sign(keyring: Keyring, label: str, now: float) -> str:
    """Return the proof for a viewer's host with this first label. It is valid for a minute."""
    return _sign(keyring.current, label, int(now))


def label_of(keyring: Keyring, value: str, now: float) -> str | None:
    """Return the label that the proof is for, or None if it is not genuine or not valid now."""
    form = _FORM.fullmatch(value)
    if form is None or abs(now - int(form[2])) > VALID_SECONDS:
        return None
    genuine = any(hmac.compare_digest(_sign(key, form[1], int(form[2])), value) for key in keyring.keys)
    return form[1] if genuine else None


def _sign(key: Key, label: str, second: int) -> str:
    text = f"{label}.{second}"
    mac = hmac.digest(key.derive("doctor-probe"), text.encode(), hashlib.sha256)[:_MAC_BYTES]
    return f"{text}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"
