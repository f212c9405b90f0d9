"""The portal's server side: it has the client secrets, and mints over HTTP as any customer's back end would.

Each case that the page can ask for is here as well: to open an app, and every way to be refused.
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
from http.client import HTTPException, responses
from pathlib import Path
from typing import Any, Final
from urllib.request import HTTPHandler, OpenerDirector, Request

from demo import people
from pat_service import directory
from pat_service.database import transaction

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


def loaded_demo(instance: str) -> Demo | None:
    """Return the demo of this instance folder, or None until one is loaded."""
    try:
        loaded = json.loads(Path(instance, "demo.json").read_text(encoding="utf-8"))
        clients = (people.PORTAL_CLIENT, people.LIMITED_CLIENT)
        return Demo({client: loaded["clients"][client]["secret"] for client in clients}, loaded["origin"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


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


@dataclass(frozen=True)
class BackEnd:
    """It has the client secrets, and mints at `mint_url` what opens a frame of `frame_origin`."""

    mint_url: str
    frame_origin: str
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
            status, answered, content = send(call)
        except (OSError, HTTPException) as failure:
            return Answer(curl, None, {}, _no_answer(self.mint_url, failure))
        return Answer(curl, status, _headers(answered), _json(content))


def send(call: Request) -> tuple[int, Message, bytes]:
    """Return the status, headers and body of the answer, or raise OSError or HTTPException."""
    # This handler alone: the credentials follow no redirect, and go through no proxy of the environment.
    opener = OpenerDirector()
    opener.add_handler(HTTPHandler())
    with opener.open(call, timeout=MINT_TIMEOUT) as reply:
        return reply.status, reply.headers, reply.read(MAX_ANSWER)


def _headers(headers: Message) -> dict[str, str]:
    return {name: headers[name] for name in SHOWN_HEADERS if name in headers}


def _json(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"detail": "The answer was not a JSON object."}


def _no_answer(url: str, failure: Exception) -> dict[str, str]:
    reason = getattr(failure, "reason", None) or failure
    return {
        "title": "No answer",
        "detail": f"The portal's server side got no answer from {url}: {reason}.",
    }


def shorten(text: str) -> str:
    """Return `text` with every token in it cut to its first four digits."""
    return TOKEN_IN_TEXT.sub(r"\1…", text)


# What the page can ask for. Each case returns what is to be shown.


def normal(back_end: BackEnd, person: Person, app: App) -> Outcome:
    """Mint and open, as a portal does at each visit."""
    if (person, app) == (CLEO, SUPPORT):
        give_grant(app.slug, person.email)  # `access_lost` may have taken it
    answer = back_end.mint(person, app)
    return Outcome(person, app, answer, answer.redirect_url)


def expired(back_end: BackEnd, person: Person, app: App) -> Outcome:
    """Use a token after its last second."""
    answer = back_end.mint(person, app, pat_expiry=SHORTEST_PAT)
    if answer.redirect_url is None:
        return Outcome(person, app, answer)
    time.sleep(PAST_SHORTEST_PAT)
    note = f"The token lived for {SHORTEST_PAT} second, and the portal waited {PAST_SHORTEST_PAT} seconds."
    return Outcome(person, app, answer, answer.redirect_url, note=note)


def replaced(back_end: BackEnd, person: Person, app: App) -> Outcome:
    """Use the first of two tokens of one pair."""
    first = back_end.mint(person, app)
    second = back_end.mint(person, app)
    if second.redirect_url is None:
        return Outcome(person, app, second)
    note = "The portal minted twice, and framed the first address: the second mint had replaced its token."
    return Outcome(person, app, first, first.redirect_url, note=note)


def access_lost(back_end: BackEnd, _person: Person, _app: App) -> Outcome:
    """Take Cleo's access away between the mint and the frame."""
    give_grant(SUPPORT.slug, CLEO.email)
    answer = back_end.mint(CLEO, SUPPORT)
    if answer.redirect_url is None:
        return Outcome(CLEO, SUPPORT, answer)
    take_grant(SUPPORT.slug, CLEO.email)
    note = (
        "Cleo could open the app when the token was minted. Then her grant was taken away. "
        "She gets it back when you open the app as her."
    )
    return Outcome(CLEO, SUPPORT, answer, answer.redirect_url, note=note)


def no_access(back_end: BackEnd, _person: Person, app: App) -> Outcome:
    """Ask for a token for somebody who may not open the app."""
    answer = back_end.mint(DAN, app)
    if answer.status != HTTPStatus.FORBIDDEN:
        return Outcome(DAN, app, answer, answer.redirect_url)
    note = "Dan is a member of the workspace, but nobody granted him an app: there is no token to frame."
    return Outcome(DAN, app, answer, answer.redirect_url, note=note)


def unframed(back_end: BackEnd, person: Person, app: App) -> Outcome:
    """Give the frame's address to a person, to open in a tab."""
    answer = back_end.mint(person, app)
    return Outcome(person, app, answer, answer.redirect_url, framed=False)


def garbage(back_end: BackEnd, person: Person, app: App) -> Outcome:
    """Open a frame with a token that nobody minted."""
    url = f"{back_end.frame_origin}/embed-apps/{app.id}?personal-access-token={GARBAGE}"
    note = (
        "Nothing was minted. The token is 72 zeros: its checksum is wrong, "
        "so it was refused without looking for it in the database."
    )
    return Outcome(person, app, url=url, note=note)


def too_many(back_end: BackEnd, person: Person, app: App) -> Outcome:
    """Mint with the limited client until the limit is met."""
    minted = 0
    answer = back_end.mint(person, app, client=people.LIMITED_CLIENT)
    while answer.status == HTTPStatus.CREATED and minted < MOST_LIMITED_MINTS:
        minted += 1
        answer = back_end.mint(person, app, client=people.LIMITED_CLIENT)
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


def give_grant(app_slug: str, email: str) -> None:
    """Let the user open the app (again). This reaches into the service, as no customer's portal could."""
    with transaction() as connection:
        directory.grant(connection, APPS[app_slug].id, directory.user_by_email(connection, email).id)


def take_grant(app_slug: str, email: str) -> None:
    """Take the user's grant for the app away, as an administrator would."""
    with transaction() as connection:
        directory.take_grant(connection, APPS[app_slug].id, directory.user_by_email(connection, email).id)
