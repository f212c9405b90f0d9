"""The demo portal: a made-up customer's web site that embeds two apps from another site.

The browser knows the portal as http://localhost and the frames as http://127.0.0.1: two sites, as in life.
The portal's server side mints over HTTP as any customer's back end would, and the client secret stays there.
"""

import base64
import json
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, responses
from pathlib import Path
from typing import IO, Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from flask import Blueprint, Response, abort, current_app, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from demo import people
from pat_service import directory
from pat_service.database import transaction
from pat_service.errors import Conflict

USUAL_PORT: Final = "5000"  # what `demo load` assumes without --origin
MINT_PATH: Final = "/api/ext/users/personal-access-token"
MINT_TIMEOUT: Final = 5.0  # seconds
MAX_ANSWER: Final = 65_536  # bytes of a mint's answer that are read
PAT_EXPIRY: Final = 300  # seconds: a token is used at once, so it need not live long
SESSION_EXPIRY: Final = 60  # minutes
SHORTEST_PAT: Final = 1  # second
PAST_SHORTEST_PAT: Final = 1.2  # seconds
MOST_LIMITED_MINTS: Final = 40  # the default limit is 10 a minute; an operator may have raised it

GARBAGE: Final = "pat_" + "0" * 72
TOKEN_IN_TEXT: Final = re.compile(r"(pat_[0-9a-f]{4})[0-9a-f]{68}")
HERE: Final = re.compile(r"localhost(:\d{1,5})?")
SHOWN_HEADERS: Final = ("Content-Type", "Cache-Control", "Retry-After", "WWW-Authenticate", "X-Request-Id")


@dataclass(frozen=True)
class Person:
    """Somebody whom the portal's visitor can be. `about` is what the portal says of them."""

    key: str
    email: str
    name: str
    about: str

    @property
    def initials(self) -> str:
        return "".join(part[0] for part in self.name.split()[:2])


@dataclass(frozen=True)
class App:
    """An app that the portal embeds."""

    slug: str
    id: str
    name: str
    about: str


ANA: Final = Person("ana", people.ANA, "Ana Ruiz", "since 2019")
BEN: Final = Person("ben", people.BEN, "Ben Okafor", "since 2022")
CLEO: Final = Person("cleo", people.CLEO, "Cleo Martin", "joined today")
DAN: Final = Person("dan", people.DAN, "Dan Whitlock", "no access to the apps")
PEOPLE: Final = {person.key: person for person in (ANA, BEN, CLEO)}

ORDERS: Final = App("orders", people.ORDERS_ID, "Orders", "What you bought, and where it is.")
SUPPORT: Final = App("support", people.SUPPORT_ID, "Support desk", "Ask us, and read what we answered.")
APPS: Final = {app.slug: app for app in (ORDERS, SUPPORT)}


@dataclass(frozen=True)
class Demo:
    """What `flask --app app demo load` left in instance/demo.json: client secrets and the portal's origin."""

    secrets: dict[str, str] = field(repr=False)
    origin: str


@dataclass(frozen=True)
class Answer:
    """One request to the mint, as a curl, and what came back. `status` is None where nothing did."""

    curl: str
    status: int | None
    headers: dict[str, str]
    body: Any

    @property
    def redirect_url(self) -> str | None:
        return self.body.get("redirectUrl") if self.status == HTTPStatus.CREATED else None

    def shown(self) -> dict[str, Any]:
        """Return the answer as the page may show it: tokens are cut short."""
        body = json.dumps(self.body, indent=2, ensure_ascii=False)
        return {
            "status": self.status,
            "line": f"{self.status} {responses.get(self.status, '')}".strip() if self.status else "No answer",
            "headers": self.headers,
            "body": shorten(body),
            "problem": self.body if self.redirect_url is None else None,
        }


@dataclass(frozen=True)
class Outcome:
    """What the page is to show: who opens what, the mint behind it if there was one, the frame's address."""

    person: Person
    app: App
    answer: Answer | None = None
    url: str | None = None
    framed: bool = True
    note: str = ""

    def shown(self) -> dict[str, Any]:
        return {
            "person": {"name": self.person.name},
            "app": {"slug": self.app.slug, "name": self.app.name},
            "curl": self.answer.curl if self.answer else None,
            "answer": self.answer.shown() if self.answer else None,
            "redirectUrl": self.url,
            "shownUrl": shorten(self.url) if self.url else None,
            "framed": self.framed,
            "note": self.note,
        }


class _NoRedirects(HTTPRedirectHandler):
    """A mint that redirects is not one of ours: the credentials must not follow it."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _opener() -> OpenerDirector:
    # An HTTP proxy of the environment has no business between the portal and its own machine.
    return build_opener(ProxyHandler({}), _NoRedirects)


@dataclass(frozen=True)
class BackEnd:
    """The portal's server side: it has the client secrets, and mints at `mint_url`."""

    mint_url: str
    demo: Demo

    def mint(
        self, person: Person, app: App, *, client: str = people.PORTAL_CLIENT, pat_expiry: int = PAT_EXPIRY
    ) -> Answer:
        """Ask for a token over HTTP. A refusal is an answer too, and so is a server that does not answer."""
        wish = {
            "email": person.email,
            "appSlug": app.slug,
            "sessionExpiry": SESSION_EXPIRY,
            "patExpiry": pat_expiry,
        }
        body = json.dumps(wish, indent=4)
        basic = base64.b64encode(f"{client}:{self.demo.secrets[client]}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
        curl = (
            f"curl {self.mint_url} \\\n"
            f'  -u "{client}:$CLIENT_SECRET" \\\n'
            f"  -H 'Content-Type: application/json' \\\n"
            f"  -d {shlex.quote(body)}"
        )
        call = Request(self.mint_url, data=body.encode(), headers=headers, method="POST")
        try:
            with _opener().open(call, timeout=MINT_TIMEOUT) as reply:
                return Answer(curl, reply.status, _headers(reply.headers), _json(reply.read(MAX_ANSWER)))
        except HTTPError as refusal:
            with refusal:
                return Answer(curl, refusal.code, _headers(refusal.headers), _json(refusal.read(MAX_ANSWER)))
        except (OSError, HTTPException) as failure:
            return Answer(curl, None, {}, _no_answer(self.mint_url, failure))


def _headers(headers: Message) -> dict[str, str]:
    return {name: headers[name] for name in SHOWN_HEADERS if name in headers}


def _json(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"detail": "The answer was not a JSON object."}


def _no_answer(url: str, failure: Exception) -> dict[str, str]:
    reason = getattr(failure, "reason", None) or failure
    return {
        "title": "No answer",
        "detail": f"The portal's server side got no answer from {url}: {reason}.",
    }


# What the page can ask for. Each case returns what is to be shown.


def normal(desk: BackEnd, person: Person, app: App) -> Outcome:
    """Mint and open, as a portal does at each visit."""
    if (person, app) == (CLEO, SUPPORT):
        give_grant(app.slug, person.email)  # `access_lost` may have taken it
    answer = desk.mint(person, app)
    return Outcome(person, app, answer, answer.redirect_url)


def expired(desk: BackEnd, person: Person, app: App) -> Outcome:
    """Use a token after its last second."""
    answer = desk.mint(person, app, pat_expiry=SHORTEST_PAT)
    if answer.redirect_url is None:
        return Outcome(person, app, answer)
    time.sleep(PAST_SHORTEST_PAT)
    note = f"The token lived for {SHORTEST_PAT} second, and the portal waited {PAST_SHORTEST_PAT} seconds."
    return Outcome(person, app, answer, answer.redirect_url, note=note)


def replaced(desk: BackEnd, person: Person, app: App) -> Outcome:
    """Use the first of two tokens of one pair."""
    first = desk.mint(person, app)
    second = desk.mint(person, app)
    if second.redirect_url is None:
        return Outcome(person, app, second)
    note = "The portal minted twice, and framed the first address: the second mint had replaced its token."
    return Outcome(person, app, first, first.redirect_url, note=note)


def access_lost(desk: BackEnd, _person: Person, _app: App) -> Outcome:
    """Take Cleo's access away between the mint and the frame."""
    give_grant(SUPPORT.slug, CLEO.email)
    answer = desk.mint(CLEO, SUPPORT)
    if answer.redirect_url is None:
        return Outcome(CLEO, SUPPORT, answer)
    take_grant(SUPPORT.slug, CLEO.email)
    note = (
        "Cleo could open the app when the token was minted. Then her grant was taken away. "
        "She gets it back when you open the app as her."
    )
    return Outcome(CLEO, SUPPORT, answer, answer.redirect_url, note=note)


def no_access(desk: BackEnd, _person: Person, app: App) -> Outcome:
    """Ask for a token for somebody who may not open the app."""
    answer = desk.mint(DAN, app)
    if answer.status != HTTPStatus.FORBIDDEN:
        return Outcome(DAN, app, answer, answer.redirect_url)
    note = "Dan is a member of the workspace, but nobody granted him an app: there is no token to frame."
    return Outcome(DAN, app, answer, answer.redirect_url, note=note)


def unframed(desk: BackEnd, person: Person, app: App) -> Outcome:
    """Give the frame's address to a person, to open in a tab."""
    answer = desk.mint(person, app)
    return Outcome(person, app, answer, answer.redirect_url, framed=False)


def garbage(_desk: BackEnd, person: Person, app: App) -> Outcome:
    """Open a frame with a token that nobody minted."""
    url = f"{_frame_origin()}/embed-apps/{app.id}?personal-access-token={GARBAGE}"
    note = (
        "Nothing was minted. The token is 72 zeros: its checksum is wrong, "
        "so it was refused without looking for it in the database."
    )
    return Outcome(person, app, url=url, note=note)


def too_many(desk: BackEnd, person: Person, app: App) -> Outcome:
    """Mint with the limited client until the limit is met."""
    minted = 0
    answer = desk.mint(person, app, client=people.LIMITED_CLIENT)
    while answer.status == HTTPStatus.CREATED and minted < MOST_LIMITED_MINTS:
        minted += 1
        answer = desk.mint(person, app, client=people.LIMITED_CLIENT)
    if answer.status == HTTPStatus.CREATED:
        note = f"{minted} mints in a row were not too many: the limit of this server is higher."
        return Outcome(person, app, answer, answer.redirect_url, note=note)
    if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
        return Outcome(person, app, answer)
    tokens = f"{minted or 'no'} token{'' if minted == 1 else 's'} this time"
    note = f"The client “{people.LIMITED_CLIENT}” has the default limit. It got {tokens}."
    return Outcome(person, app, answer, note=note)


CASES: Final[dict[str, Callable[[BackEnd, Person, App], Outcome]]] = {
    "normal": normal,
    "expired": expired,
    "replaced": replaced,
    "access-lost": access_lost,
    "no-access": no_access,
    "unframed": unframed,
    "garbage": garbage,
    "too-many": too_many,
}


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
    Refusal("access-lost", "Access lost", "Taken from Cleo after the mint.", "401 access_revoked"),
    Refusal("garbage", "Made-up token", "Nobody ever minted it.", "401 token_invalid"),
    Refusal("no-access", "No access", "Dan may not open the app: no token.", "403 app_forbidden"),
    Refusal("unframed", "Outside a frame", "The same address, in a tab.", "403 not_framed"),
    Refusal("too-many", "Too many mints", "A client with the default limit.", "429 rate_limited"),
)


def give_grant(app_slug: str, email: str) -> None:
    """Let the user open the app (again). This reaches into the service, as no customer's portal could."""
    with transaction() as connection:
        directory.grant(connection, APPS[app_slug].id, directory.user_by_email(connection, email).id)


def take_grant(app_slug: str, email: str) -> None:
    """Take the user's grant for the app away, as an administrator would."""
    with transaction() as connection:
        directory.take_grant(connection, APPS[app_slug].id, directory.user_by_email(connection, email).id)


# The pages.


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
        refusals=REFUSALS,
        here=here,
        loaded_for=demo.origin,
        frame_origin=_frame_origin(),
        mint_path=MINT_PATH,
    )


def open_app() -> dict[str, Any]:
    """Answer the page's script: mint for the person and app of the JSON body, and say what to frame."""
    _refuse_other_sites()
    wish = request.get_json()
    try:
        person, app, case = PEOPLE[wish["person"]], APPS[wish["app"]], CASES[wish["case"]]
    except (KeyError, TypeError):
        abort(HTTPStatus.BAD_REQUEST)
    demo = _demo()
    if demo is None:
        raise Conflict("The demo is not loaded. Run: flask --app app demo load")
    return case(BackEnd(f"http://127.0.0.1:{_port()}{MINT_PATH}", demo), person, app).shown()


def blueprint() -> Blueprint:
    """Return the portal's blueprint. It is for development alone: it hands out access to whoever asks."""
    portal = Blueprint("portal", __name__)
    portal.add_url_rule("/", view_func=home)
    portal.add_url_rule("/portal/open", view_func=open_app, methods=["POST"])
    portal.after_request(_guard)
    return portal


def _refuse_other_sites() -> None:
    """Let only the portal's own page mint: no other site's page, nor one under this machine's other names."""
    same_site = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    same_origin = request.headers.get("Origin") == f"http://{request.host}"
    if not (HERE.fullmatch(request.host) and same_site and same_origin):
        abort(HTTPStatus.FORBIDDEN)


def _guard(response: Response) -> Response:
    """Give the portal a policy of its own, as a careful customer's page has one."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "frame-src": _frame_origin(),
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
    try:
        loaded = json.loads(Path(current_app.instance_path, "demo.json").read_text(encoding="utf-8"))
        clients = (people.PORTAL_CLIENT, people.LIMITED_CLIENT)
        return Demo({client: loaded["clients"][client]["secret"] for client in clients}, loaded["origin"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _port() -> str:
    """Return the port that the server listens on. The Host header is the visitor's word, this is not."""
    return str(request.environ["SERVER_PORT"])


def _frame_origin() -> str:
    """Return the origin that frames come from."""
    public = urlsplit(current_app.config.get("PUBLIC_URL") or f"http://127.0.0.1:{_port()}")
    return f"{public.scheme}://{public.netloc}"


def shorten(text: str) -> str:
    """Return `text` with every token in it cut to its first four digits."""
    return TOKEN_IN_TEXT.sub(r"\1…", text)
