"""Open an app or a launcher within the limits of this installation."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from flask import current_app, g

from pat_service.credentials import Secret, is_code
from pat_service.http import limits
from pat_service.http.authentication import keyring, utcnow
from pat_service.rules import openings
from pat_service.rules.openings import Attempt, Ready

Answer = TypeVar("Answer")


def open_session(credential: Secret, attempt: Attempt, prepare: Callable[[Ready], Answer]) -> Answer:
    """Open the place with a token or a one-time code, as the functions of `openings` do.

    Raise their errors, or RateLimited.
    """
    limits.hit_open(credential)
    g.database_asked = True
    attempt = replace(attempt, max_sessions=current_app.config["MAX_SESSIONS_PER_TOKEN"])
    open_place = openings.redeem if is_code(credential.reveal()) else openings.open
    return open_place(keyring(), credential, attempt, utcnow(), prepare)
