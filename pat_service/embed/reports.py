"""Reports of frames that stay blank: a browser's violation reports, the Referer, and embed.js.

Nothing of a report is kept but the origin of a page. The console lists these origins. Without a console
nothing is reported.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Response, current_app, request
from marshmallow import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from pat_service.credentials import parse_token
from pat_service.embed import ancestors, answers
from pat_service.embed.handover import Handover
from pat_service.embed.hosts import app_host, launcher_origins
from pat_service.errors import InvalidPayload, NotFound, Refused
from pat_service.http import console_host, limits
from pat_service.http.authentication import keyring, utcnow
from pat_service.http.payload import BODY, parse_object, read_body
from pat_service.http.public_url import public_url
from pat_service.rules import embed_problems, tokens
from pat_service.shapes import ANY_ORIGIN, MAX_ANCESTORS, is_uuid, parse_origin

#: The path below an app's address to which embed.js reports a blank frame.
BLANK: Final = "/blank"
MAX_REPORT_BYTES: Final = 8 * 1024
REPORT_TYPE: Final = "application/csp-report"
DIRECTIVE: Final = "frame-ancestors"
#: Reports that are counted for one app, the verified and the unverified ones apart.
RATE: Final = "30 per minute"
#: The members of a report that are read.
_TEXTS: Final = ("effective-directive", "violated-directive", "document-uri", "blocked-uri", "referrer")


def is_on() -> bool:
    """Return whether this installation has a console, which shows the reports."""
    return console_host.is_on(current_app)


def receive_report(app_id: str) -> Response:
    """Take a violation report (CSP Level 3). Raise InvalidPayload for anything else."""
    if not is_on():
        raise NotFound
    if request.mimetype != REPORT_TYPE:
        raise InvalidPayload({BODY: [f"Must be a violation report with Content-Type: {REPORT_TYPE}."]})
    report = _read_members(parse_object(read_body(MAX_REPORT_BYTES)).get("csp-report"))
    named = report["effective-directive"] or report["violated-directive"]
    if not named:
        raise InvalidPayload({"csp-report": ["Must name the violated directive."]})
    # The apps' pages may violate other directives too, which is no problem of framing.
    if named.split()[:1] == [DIRECTIVE]:
        _count(filter(None, [_find_parent(report)]), verified=False)
    return Response(status=204)


def _read_members(report: Any) -> dict[str, str]:
    """Return the members that are read, or raise InvalidPayload if the report has no such texts."""
    if isinstance(report, dict):
        members = {name: report.get(name, "") for name in _TEXTS}
        if all(isinstance(text, str) for text in members.values()):
            return members
    raise InvalidPayload({"csp-report": ["Must be an object with the texts of a violation report."]})


def _find_parent(report: dict[str, str]) -> str | None:
    """Return the origin that may not frame the page.

    Chromium names the frame's own origin as `blocked-uri`, and the parent as the request's Referer.
    """
    own = origin_of(report["document-uri"])
    named = (report["blocked-uri"], report["referrer"], request.headers.get("Referer", ""))
    for text in named:
        origin = origin_of(text)
        if origin is not None and origin != own:
            return origin
    return None


def receive_blank(app_id: str) -> Response:
    """Take the report of embed.js about a blank frame, with the token that the frame did not get.

    The page's origin is the one that its browser names. Raise InvalidPayload or the errors of `check_token`.
    """
    if not is_on():
        raise NotFound
    body = parse_object(read_body(MAX_REPORT_BYTES))
    token, around = body.get("token"), body.get("around", [])
    if not isinstance(token, str):
        raise InvalidPayload({"token": ["Must be the token."]})
    is_list = isinstance(around, list) and len(around) <= MAX_ANCESTORS
    if not is_list or not all(isinstance(one, str) for one in around):
        raise InvalidPayload({"around": ["Must be a list of origins."]})
    secret = parse_token(token)
    limits.hit_open(secret)
    place = replace(answers.requested_place(), host=app_host())
    tokens.check_token(keyring(), secret, place, utcnow(), None)
    _count(_parse_all([request.headers.get("Origin", ""), *around]), verified=True)
    return Response(status=204)


def count_navigation() -> None:
    """Count the page that has just opened this frame with a token, if it may not frame the app."""
    # A form has an `Origin` even if its page sends no `Referer`.
    page = request.headers.get("Referer") or request.headers.get("Origin")
    if page and is_on():
        _count(_parse_all([page]), verified=True)


def count_handover(handover: Handover) -> None:
    """Count the pages around a frame whose token was refused to them."""
    if is_on():
        _count(_parse_all([handover.parent, *(handover.ancestors or ())]), verified=True)


def origin_of(text: str) -> str | None:
    """Return the origin of an address as an allowed origin is written, or None. It has no path and query."""
    address = text.partition("?")[0].partition("#")[0]
    try:
        parts = urlsplit(address)
        return parse_origin(f"{parts.scheme}://{parts.netloc}")
    except (ValueError, ValidationError):
        return None


def _parse_all(texts: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(filter(None, map(origin_of, texts)))


def _count(origins: Iterable[str], *, verified: bool) -> None:
    """Count the origins that may not frame the app. A failure to count never changes the answer."""
    place = answers.requested_place()
    if place.app_id is None or not is_uuid(place.app_id):
        return
    allowed = ancestors.recent(place)
    if allowed == ancestors.UNKNOWN or ANY_ORIGIN in allowed.origins:
        return
    own = {*allowed.origins, *launcher_origins(), public_url()}
    for origin in origins:
        if origin in own:
            continue
        with suppress(Refused, SQLAlchemyError):
            limits.hit("embed_report", RATE, f"{place.app_id}/{verified}")
            embed_problems.count_origin(place.app_id, origin, utcnow(), verified=verified)
