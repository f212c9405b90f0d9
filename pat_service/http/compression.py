"""Compress answers that hold no secret.

An answer with a session or a token is never compressed: text from outside in the same answer would reveal
the secret by the size (BREACH).
"""

import gzip
from typing import Final

from flask import Response, request

_MAX_ACCEPT_LENGTH: Final = 1000
#: Level 5 takes half the time of level 9, for one percent more bytes.
_LEVEL: Final = 5


def accepts_gzip() -> bool:
    """Return whether the browser reads gzip."""
    header = request.headers.get("Accept-Encoding", "")
    # A header of hundreds of kilobytes would take seconds to parse.
    return len(header) <= _MAX_ACCEPT_LENGTH and request.accept_encodings.quality("gzip") > 0


def compressed(response: Response) -> Response:
    """Compress an answer that holds no secret, if the browser reads gzip."""
    response.headers["Vary"] = "Accept-Encoding"
    if accepts_gzip():
        response.set_data(gzip.compress(response.get_data(), _LEVEL, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
    return response
