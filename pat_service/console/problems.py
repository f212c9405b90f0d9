"""The page of problems: refused and blank embeds by cause, with the change that helps."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from flask import Response, current_app, g, request
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from pat_service.console.apps import read_id
from pat_service.console.blueprint import blueprint
from pat_service.console.forms import read_text
from pat_service.console.pages import redirect_with, render
from pat_service.errors import InvalidPayload
from pat_service.http.authentication import utcnow
from pat_service.rules import embed_problems, events, refused_people, usage
from pat_service.rules.directory import apps as apps_rules
from pat_service.rules.directory import grants, users
from pat_service.rules.embed_problems import ProblemFilter
from pat_service.shapes import parse_origin
from pat_service.storage.paging import DEFAULT_LIMIT, MAX_LIMIT, PageRequest

#: Hours that one view of the page counts.
HOURS_AT_ONCE: Final = 4
#: The period without a chosen day.
DEFAULT_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Cause:
    """What a code means to an operator, and the change that helps.

    `place` is where to make the change: the part of the app's page, or an endpoint of the console.
    """

    title: str
    change: str
    label: str = ""
    place: str = ""


_EMBED: Final = ("See its code", "app_embed")
_PEOPLE: Final = ("Open its people", "app#people")
_ORIGINS: Final = ("Open its origins", "app#origins")
_CLIENTS: Final = ("Open clients", "clients")
_LIVE: Final = ("Open live sessions", "live")
_HEALTH: Final = ("Open health", "health")
#: By code, in the order of the page's filter.
CAUSES: Final[Mapping[str, Cause]] = {
    embed_problems.CAUSE: Cause(
        "Origins that are not allowed",
        "Allow the origin of your page. Or mint without a narrower allowedOrigins.",
        *_ORIGINS,
    ),
    "token_expired": Cause(
        "Expired tokens",
        "Mint the token when the frame opens, as embed.js does. A longer patExpiry helps slow pages.",
        *_EMBED,
    ),
    "token_superseded": Cause(
        "Superseded tokens",
        "A person has one token for an app. Mint once for a page: two frames of the app share the token.",
        *_EMBED,
    ),
    "token_used": Cause(
        "Repeated use of single-use tokens",
        "Mint a token for each opening. Check that no script or prefetch opens the address first.",
        *_EMBED,
    ),
    "token_revoked": Cause(
        "Revoked tokens", "Mint a new token, if the person may still open the app.", *_EMBED
    ),
    "token_invalid": Cause(
        "Tokens for another app", "Open each token at its own redirectUrl, without changes.", *_EMBED
    ),
    "app_forbidden": Cause("Missing access", "Grant the app to the person.", *_PEOPLE),
    "access_revoked": Cause(
        "Access that ended", "Grant the app again, or reactivate the person, if they may return.", *_PEOPLE
    ),
    "user_not_found": Cause(
        "Unknown people", "Add the person to the workspace before the mint.", "Open people", "people"
    ),
    "app_not_found": Cause(
        "Unknown apps", "Correct the appId of the mint, or let the client reach the workspace.", *_CLIENTS
    ),
    "scope_missing": Cause("Missing scopes", "Give the client the scope that it needs.", *_CLIENTS),
    "rate_limited": Cause(
        "Too many requests", "Mint once for each page, or raise the client's limit.", *_CLIENTS
    ),
    "too_many_sessions": Cause(
        "Too many sessions of one token",
        "End sessions that nothing uses, mint a new token, or raise MAX_SESSIONS_PER_TOKEN.",
        *_LIVE,
    ),
    "session_expired": Cause(
        "Expired sessions", "Use embed.js, which renews sessions, or raise sessionExpiry.", *_EMBED
    ),
    "session_revoked": Cause("Ended sessions", "An operator, a client or the person ended them.", *_LIVE),
    "session_replaced": Cause("Replaced sessions", "A renewal replaced them. Frames recover by themselves."),
    "session_invalid": Cause("Sessions of another app", "Load each frame from its own address.", *_EMBED),
    "app_unavailable": Cause(
        "Apps that cannot start", "Run the command `check`, which names the error.", *_HEALTH
    ),
}
#: By the type of the event, the request that was refused.
REFUSED_AT: Final = {
    events.MINT_REFUSED: "mint",
    events.OPEN_REFUSED: "opening",
    events.SESSION_REFUSED: "open frame",
}


@blueprint.get("/problems")
def problems() -> Response:
    """Show refused and blank embeds by cause."""
    return _show()


@blueprint.post("/problems/origins")
def allow_origin() -> BaseResponse:
    """Let pages of an origin frame an app, if a token of the app came with the origin."""
    app_id, text = read_id("app"), read_text("origin")
    try:
        origin = parse_origin(text)
    except ValidationError as error:
        raise InvalidPayload({"origin": [str(error.messages[0])]}) from None
    name = embed_problems.allow_origin(g.caller, app_id, origin, utcnow())
    return redirect_with(f"Pages of {origin} may frame {name} now.", "problems")


@blueprint.post("/problems/people")
def grant_refused_person() -> BaseResponse:
    """Grant an app to a person who was refused."""
    app_id, user_id = read_id("app"), read_id("user")
    user = users.read(g.caller, user_id)
    grant, _ = grants.put(g.caller, app_id, user_id, utcnow())
    if grant.effective:
        return redirect_with(f"{user.email} may open the app now.", "problems")
    text = f"{user.email} has a grant now, but is archived or not a member of the workspace."
    return redirect_with(text, "problems")


def _show() -> Response:
    now = utcnow()
    left = usage.count_hours(now, HOURS_AT_ONCE)
    day, cause, app_id = _read_day(now), read_text("cause"), read_id("app")
    today = embed_problems.start_of_day(now)
    since = day or today - (DEFAULT_DAYS - 1) * embed_problems.DAY
    until = (day or today) + embed_problems.DAY
    chosen = ProblemFilter(since, until, app_id or None, cause or None)
    origins = embed_problems.list_origins(g.caller, chosen)
    refusals: dict[str, list[Any]] = {}
    for row in embed_problems.list_refusals(g.caller, chosen):
        refusals.setdefault(row.code, []).append(row)
    return render(
        "problems.html",
        origins=origins,
        # The most frequent cause first, and the one with a button before all others.
        refusals=sorted(refusals.items(), key=_rank),
        people=[
            person
            for person in refused_people.list_refused(g.caller, DEFAULT_LIMIT)
            if app_id in ("", person.app_id) and cause in ("", *refused_people.CODES)
        ],
        causes=CAUSES,
        refused_at=REFUSED_AT,
        chosen={"app": app_id, "cause": cause, "day": f"{day:%Y-%m-%d}" if day else ""},
        apps=_name_apps(app_id),
        days=[today - place * embed_problems.DAY for place in range(embed_problems.KEPT.days)],
        default_days=DEFAULT_DAYS,
        counted_until=usage.last_hour(now) + usage.HOUR,
        endpoints={name.removeprefix("console.") for name in current_app.view_functions},
        left=left,
        here=request.full_path.removesuffix("?"),
        is_cut=max(len(origins), sum(map(len, refusals.values()))) >= MAX_LIMIT,
    )


def _rank(item: tuple[str, list[Any]]) -> tuple[bool, int, str]:
    code, rows = item
    return code != embed_problems.CAUSE, -sum(row.times for row in rows), code


def _read_day(now: datetime) -> datetime | None:
    """Return the chosen day within the time that counts are shown, or None."""
    text = read_text("day")
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidPayload({"day": ["Must be a day such as 2026-11-30."]}) from None
    if not now - embed_problems.KEPT - embed_problems.DAY <= day <= now:
        raise InvalidPayload({"day": [f"Must be one of the last {embed_problems.KEPT.days} days."]})
    return day


def _name_apps(app_id: str) -> dict[str, str]:
    """Return the names of the first apps, by id, and the chosen one's."""
    listing = apps_rules.list_apps(g.caller, PageRequest(limit=MAX_LIMIT))
    names = {row.id: row.name for row in listing.items}
    return (
        names if not app_id or app_id in names else names | {app_id: apps_rules.read(g.caller, app_id).name}
    )
