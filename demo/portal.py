"""The demo portal: a made-up customer's web site that embeds two apps from another site.

The browser knows the portal as http://localhost and the frames as http://127.0.0.1: two sites, as in life.
The portal's server side (`demo.back_end`) mints as any customer's back end would, and the client secret
stays there.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from flask import Blueprint, Response, abort, current_app, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from apps.orders import ORDER_STATUSES
from demo import people
from demo.back_end import (
    APPS,
    CASES,
    PEOPLE,
    REGION_CHOICES,
    SESSION_EXPIRY,
    SHORT_SESSION,
    BackEnd,
    Demo,
    Visit,
    loaded_demo,
    normal,
    shorten,
)
from pat_service.errors import Conflict
from pat_service.http.payload import read_object
from pat_service.http.public_url import APP_LABEL

USUAL_PORT: Final = "5000"  # what `demo load` assumes without --origin
TOKEN_TIMEOUT: Final = 5.0  # seconds that the page waits for a token
HANG: Final = 2 * TOKEN_TIMEOUT
HERE: Final = re.compile(r"localhost(:\d{1,5})?")


@dataclass(frozen=True)
class Refusal:
    """A button of 'See each refusal'. `expected` is the status and code that it leads to."""

    case: str
    title: str
    about: str
    expected: str


REFUSALS: Final = (
    Refusal("expired", "Expired token", "Lives one second, is used after it.", "401 token_expired"),
    Refusal("replaced", "Replaced token", "Minted twice, the first one is used.", "401 token_superseded"),
    Refusal("revoked", "Revoked token", "Minted, and revoked before it is used.", "401 token_revoked"),
    Refusal("used", "Used token", "For one opening, is used for two.", "401 token_used"),
    Refusal("access-lost", "Access lost", "Taken from Cleo after the mint.", "401 access_revoked"),
    Refusal("garbage", "Made-up token", "Nobody ever minted it.", "401 token_invalid"),
    Refusal("no-access", "No access", "Dan may not open the app: no token.", "403 app_forbidden"),
    Refusal("unframed", "Outside a frame", "The same address, in a tab.", "403 not_framed"),
    Refusal("too-many", "Too many mints", "A client with the default limit.", "429 rate_limited"),
)


def _fail() -> None:
    """Be a token endpoint that is broken."""
    abort(make_response({"detail": "The token endpoint is broken."}, HTTPStatus.SERVICE_UNAVAILABLE))


def _hang() -> None:
    """Be a token endpoint that answers when nobody waits any more."""
    time.sleep(HANG)
    _fail()


#: What the token endpoint does before it mints, by what the page calls it.
ENDPOINTS: Final[dict[str, Callable[[], None]]] = {"answers": lambda: None, "fails": _fail, "hangs": _hang}
#: How long a session can be held to, by what the page calls it, in minutes.
SESSIONS: Final = {"long": SESSION_EXPIRY, "short": SHORT_SESSION}


def home() -> BaseResponse | str:
    """The portal; or, until the demo is loaded, a page that says how to load it."""
    demo = _demo()
    if demo is None:
        return render_template("portal/start.html", port=_port(), usual_port=USUAL_PORT)
    if not HERE.fullmatch(request.host):
        # Under 127.0.0.1 the portal would be of one site with its frames, and prove nothing.
        return redirect(f"http://localhost:{_port()}/")
    here = f"http://{request.host}"
    return render_template(
        "portal/portal.html",
        customer=people.CUSTOMER,
        people=PEOPLE.values(),
        apps=APPS.values(),
        regions=REGION_CHOICES,
        refusals=REFUSALS,
        here=here,
        loaded_for=demo.origin,
        frame_origin=_frame_origin(),
        script=_script(),
        workspace=people.WORKSPACE,
        sessions=SESSIONS,
        token_timeout=TOKEN_TIMEOUT,
        statuses=ORDER_STATUSES,
    )


def open_app() -> dict[str, Any]:
    """Answer the page's script: mint what the JSON body names, and say what to frame."""
    wish = _wish()
    with _nothing_else():
        visit, case = _visit(wish), CASES[wish["case"]]
    return case(_back_end(), visit).shown()


def give_token() -> dict[str, Any]:
    """Be the token endpoint: hand on what the mint answered, and beside it what the page shows of that."""
    wish = _wish()
    with _nothing_else():
        visit, endpoint, minutes = _visit(wish), ENDPOINTS[wish["endpoint"]], SESSIONS[wish["session"]]
    endpoint()
    outcome = normal(_back_end(), visit, minutes)
    minted = outcome.answer and outcome.answer.minted
    token = shorten(minted["personalAccessToken"]) if minted else None
    return outcome.shown() | {"minted": minted, "shownToken": token}


def end_sessions() -> dict[str, Any]:
    """Revoke a token that was minted here. With it end the sessions that its app and user have."""
    wish = _wish()
    with _nothing_else():
        token_id = str(UUID(wish["tokenId"]))
    answer = _back_end().revoke(token_id)
    return {"curl": answer.curl, "answer": answer.shown()}


def blueprint() -> Blueprint:
    """Return the portal's blueprint. It is for development alone: it hands out access to whoever asks."""
    portal = Blueprint("portal", __name__)
    portal.add_url_rule("/", view_func=home)
    portal.add_url_rule("/portal/open", view_func=open_app, methods=["POST"])
    portal.add_url_rule("/portal/token", view_func=give_token, methods=["POST"])
    portal.add_url_rule("/portal/end", view_func=end_sessions, methods=["POST"])
    portal.after_request(_guard)
    return portal


def _wish() -> dict[str, Any]:
    """Return the JSON object that the portal's own page sent, or refuse."""
    _refuse_other_sites()
    return read_object()


@contextmanager
def _nothing_else() -> Iterator[None]:
    """Refuse a wish for what the page does not offer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError):
        abort(HTTPStatus.BAD_REQUEST)


def _visit(wish: dict[str, Any]) -> Visit:
    visit = Visit(PEOPLE[wish["person"]], APPS[wish["app"]], wish["region"])
    if visit.region not in REGION_CHOICES:
        raise KeyError(visit.region)
    return visit


def _back_end() -> BackEnd:
    demo = _demo()
    if demo is None:
        raise Conflict("The demo is not loaded. Run: flask --app app demo load")
    return BackEnd(f"http://127.0.0.1:{_port()}", _frame_origin(), demo)


def _refuse_other_sites() -> None:
    """Let only the portal's own page mint: no other site's page or machine, nor this one's other names."""
    same_site = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    same_origin = request.headers.get("Origin") == f"http://{request.host}"
    here = HERE.fullmatch(request.host) and ip_address(request.remote_addr or "::").is_loopback
    if not (here and same_site and same_origin):
        abort(HTTPStatus.FORBIDDEN)


def _guard(response: Response) -> Response:
    """Give the portal a policy of its own, as a careful customer's page has one."""
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' {_script()}",
        "style-src": "'self'",
        "img-src": "'self' data:",
        # The script asks a frame that stays blank whether its address answers.
        "connect-src": f"'self' {_frame_sources()}",
        "frame-src": _frame_sources(),
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    directives = "; ".join(f"{name} {sources}" for name, sources in policy.items())
    response.headers["Content-Security-Policy"] = directives
    response.headers["Cache-Control"] = "no-store"
    return response


def _demo() -> Demo | None:
    """Return the loaded demo, or None. It is read each time: loading it needs no restart."""
    return loaded_demo(current_app.instance_path)


def _port() -> str:
    """Return the port that the server listens on. The Host header is the visitor's word, this is not."""
    return str(request.environ["SERVER_PORT"])


def _frame_origin() -> str:
    """Return the origin that frames come from; with `{app}` in it, each app has its own."""
    public = urlsplit(current_app.config.get("PUBLIC_URL") or f"http://127.0.0.1:{_port()}")
    return f"{public.scheme}://{public.netloc}"


def _script() -> str:
    """Return the address of the script that embeds. A host without an app's name has it as well."""
    return f"{_frame_origin().replace(APP_LABEL, '')}/embed.js"


def _frame_sources() -> str:
    """Return the same for a policy. A launcher comes from the host without an app's name."""
    origin = _frame_origin()
    if APP_LABEL not in origin:
        return origin
    return f"{origin.replace(APP_LABEL, '')} {origin.replace(APP_LABEL, '*.')}"
