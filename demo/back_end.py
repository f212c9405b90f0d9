"""The portal's server side. It holds the client secrets and mints over HTTP as any customer's back end would.

It also has every case that the page can request: opening an app, and each refusal.
"""

import base64
import json
import re
import shlex
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, responses
from pathlib import Path
from typing import Any, Final
from urllib.request import HTTPHandler, OpenerDirector, Request

from apps.orders import REGIONS
from demo import people
from pat_service.errors import GrantNotFound
from pat_service.rules import directory
from pat_service.rules.callers import OPERATOR
from pat_service.rules.tokens import REPEAT_WITHIN
from pat_service.storage.database import reading

MINT_PATH: Final = "/api/ext/users/personal-access-token"
TOKENS_PATH: Final = "/api/ext/personal-access-tokens"
CALL_TIMEOUT: Final = 5.0  # seconds
MAX_ANSWER: Final = 65_536  # bytes to read of an answer
PAT_EXPIRY: Final = 300  # seconds: the page uses a token at once, so it can be short-lived
SESSION_EXPIRY: Final = 60  # minutes
SHORT_SESSION: Final = 1  # minute: short enough to watch a renewal
SHORTEST_PAT: Final = 1  # second
PAST_SHORTEST_PAT: Final = 1.2  # seconds
PAST_REPEAT: Final = int(REPEAT_WITHIN.total_seconds()) + 1  # seconds: then a used token is refused
MOST_LIMITED_MINTS: Final = 40  # the default limit is 10 a minute; an operator may have raised it

GARBAGE: Final = "pat_" + "0" * 72
TOKEN_IN_TEXT: Final = re.compile(r"(pat_[0-9a-f]{4})[0-9a-f]{68}")
SHOWN_HEADERS: Final = ("Content-Type", "Cache-Control", "Retry-After", "WWW-Authenticate", "X-Request-Id")


@dataclass(frozen=True)
class Person:
    """A person the portal's visitor can act as. `about` is the portal's description."""

    key: str
    email: str
    name: str
    about: str

    @property
    def initials(self) -> str:
        return "".join(part[0] for part in self.name.split()[:2])


@dataclass(frozen=True)
class App:
    """An app that the portal embeds. Without an id, it is the launcher of the workspace.

    `elsewhere`: it runs elsewhere, and has a host for each viewer.
    """

    slug: str
    id: str | None
    name: str
    about: str
    has_regions: bool = False
    elsewhere: bool = False

    @property
    def target(self) -> dict[str, str]:
        """Return the fields that name the app in a mint."""
        return {"appSlug": self.slug} if self.id else {"workspaceSlug": people.WORKSPACE}


ANA: Final = Person("ana", people.ANA, "Ana Ruiz", "since 2019")
BEN: Final = Person("ben", people.BEN, "Ben Okafor", "since 2022")
CLEO: Final = Person("cleo", people.CLEO, "Cleo Martin", "joined today")
DAN: Final = Person("dan", people.DAN, "Dan Whitlock", "no access to the apps")
PEOPLE: Final = {person.key: person for person in (ANA, BEN, CLEO)}

ORDERS: Final = App("orders", people.ORDERS_ID, "Orders", "Your orders, and where they are.", True)
SUPPORT: Final = App("support", people.SUPPORT_ID, "Support desk", "Your questions, and our answers.")
ALL_APPS: Final = App("all", None, "All apps", "One token for all apps that you may open.", True)
#: The app that runs elsewhere. The portal shows one of them, if any.
DELIVERIES: Final = App(
    people.DELIVERIES,
    people.ELSEWHERE_ID,
    people.ELSEWHERE[people.DELIVERIES],
    "An app that existed before. It runs elsewhere, and was not changed for this page.",
    elsewhere=True,
)
YOUR_APP: Final = App(
    people.YOUR_APP,
    people.ELSEWHERE_ID,
    people.ELSEWHERE[people.YOUR_APP],
    "Your own app, as it runs now.",
    elsewhere=True,
)
APPS: Final = {app.slug: app for app in (ORDERS, SUPPORT, DELIVERIES, YOUR_APP, ALL_APPS)}
#: Regions to which the visitor can limit Orders. The empty region means no limit.
REGION_CHOICES: Final = {"": "All"} | REGIONS


@dataclass(frozen=True)
class Visit:
    """A person, and the app to open. A region limits Orders."""

    person: Person
    app: App
    region: str = ""

    @property
    def attributes(self) -> dict[str, dict[str, str]]:
        """Return the mint's fields about the visitor."""
        return {"attributes": {"region": self.region}} if self.region and self.app.has_regions else {}

    @property
    def at_one_app(self) -> "Visit":
        """Return the same visitor at an app whose host is known without a mint."""
        known = self.app.id and not self.app.elsewhere
        return self if known else Visit(self.person, ORDERS, self.region)


@dataclass(frozen=True)
class Demo:
    """The content of instance/demo.json, written by `flask --app app demo load`: client secrets, the portal's
    origin, and the slug of the app that runs elsewhere.
    """

    secrets: dict[str, str] = field(repr=False)
    origin: str
    elsewhere: str | None = None


def loaded_demo(instance: str) -> Demo | None:
    """Return the demo of this instance folder, or None before one is loaded."""
    try:
        loaded = json.loads(Path(instance, "demo.json").read_text(encoding="utf-8"))
        clients = (people.PORTAL_CLIENT, people.LIMITED_CLIENT)
        secrets = {client: loaded["clients"][client]["secret"] for client in clients}
        return Demo(secrets, loaded["origin"], loaded.get("elsewhere"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Answer:
    """One request to the service, as a curl command, and its answer. Without an answer, `status` is None."""

    curl: str
    status: int | None
    headers: dict[str, str]
    body: Any

    @property
    def redirect_url(self) -> str | None:
        return self.body.get("redirectUrl") if self.status == HTTPStatus.CREATED else None

    @property
    def minted(self) -> dict[str, Any] | None:
        """The mint's answer as the token endpoint passes it to the page's script."""
        return self.body if self.redirect_url is not None else None

    @property
    def token_id(self) -> str:
        return str(self.body.get("tokenId"))

    def shown(self) -> dict[str, Any]:
        """Return the answer as the page may show it, with tokens cut short."""
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
    """The result that the page shows: the visit, the mint if there was one, and the frame's address.

    `also` is another request, before or after the mint. If `again_after` is set, the page offers to frame the
    address again after that many seconds.
    """

    visit: Visit
    answer: Answer | None = None
    url: str | None = None
    framed: bool = True
    note: str = ""
    also: Answer | None = None
    again_after: int | None = None

    def shown(self) -> dict[str, Any]:
        return {
            "person": {"name": self.visit.person.name},
            "app": {"slug": self.visit.app.slug, "name": self.visit.app.name},
            "curl": "\n\n".join(answer.curl for answer in (self.answer, self.also) if answer) or None,
            "answer": self.answer.shown() if self.answer else None,
            "redirectUrl": self.url,
            "shownUrl": shorten(self.url) if self.url else None,
            "framed": self.framed,
            "region": REGIONS.get(self.visit.region, "") if self.visit.attributes else "",
            "note": self.note,
            "againAfter": self.again_after,
        }


@dataclass(frozen=True)
class BackEnd:
    """The server side: it holds the client secrets and mints for frames of `frame_origin`.

    With `{app}` in that origin, each app has an origin of its own, named by its slug.
    """

    service: str
    frame_origin: str
    demo: Demo

    def mint(self, visit: Visit, *, client: str = people.PORTAL_CLIENT, **changes: Any) -> Answer:
        """Mint a token. `changes` are fields of the request. A refusal is returned, not raised."""
        body = {
            "email": visit.person.email,
            **visit.app.target,
            **visit.attributes,
            "sessionExpiry": SESSION_EXPIRY,
            "patExpiry": PAT_EXPIRY,
        }
        return self._call("POST", MINT_PATH, client, body | changes)

    def revoke(self, token_id: str) -> Answer:
        """Revoke a token that this portal minted."""
        return self._call("DELETE", f"{TOKENS_PATH}/{token_id}", people.PORTAL_CLIENT)

    def _call(self, method: str, path: str, client: str, options: dict[str, Any] | None = None) -> Answer:
        """Call the service over HTTP. If no answer comes, the result has no status."""
        url = self.service + path
        basic = base64.b64encode(f"{client}:{self.demo.secrets[client]}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}"}
        lines = [f"curl {url}" if options else f"curl -X {method} {url}", f'-u "{client}:$CLIENT_SECRET"']
        data = None
        if options:
            text = json.dumps(options, indent=4)
            data = text.encode()
            headers["Content-Type"] = "application/json"
            lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(text)}"]
        curl = " \\\n  ".join(lines)
        try:
            status, answered, content = send(Request(url, data=data, headers=headers, method=method))
        except (OSError, HTTPException) as failure:
            return Answer(curl, None, {}, _no_answer(url, failure))
        body = {} if status == HTTPStatus.NO_CONTENT else _json(content)
        return Answer(curl, status, _headers(answered), body)


def send(call: Request) -> tuple[int, Message, bytes]:
    """Return the status, headers and body of the answer, or raise OSError or HTTPException."""
    # Without other handlers, no redirect is followed and no proxy is used: neither can get the credentials.
    opener = OpenerDirector()
    opener.add_handler(HTTPHandler())
    with opener.open(call, timeout=CALL_TIMEOUT) as reply:
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


# The cases that the page can request. Each returns an `Outcome`.


def normal(back_end: BackEnd, visit: Visit, minutes: int = SESSION_EXPIRY) -> Outcome:
    """Mint and open, as a portal does at each visit."""
    if visit.person is CLEO and visit.app is not ORDERS:
        give_grant(SUPPORT, CLEO)  # `access_lost` may have removed it
    answer = back_end.mint(visit, sessionExpiry=minutes)
    return Outcome(visit, answer, answer.redirect_url)


def expired(back_end: BackEnd, visit: Visit) -> Outcome:
    """Use a token after its last second."""
    answer = back_end.mint(visit, patExpiry=SHORTEST_PAT)
    if answer.redirect_url is None:
        return Outcome(visit, answer)
    time.sleep(PAST_SHORTEST_PAT)
    note = f"The token lived for {SHORTEST_PAT} second, and the portal waited {PAST_SHORTEST_PAT} seconds."
    return Outcome(visit, answer, answer.redirect_url, note=note)


def replaced(back_end: BackEnd, visit: Visit) -> Outcome:
    """Use the first of two tokens for the same person and app."""
    first = back_end.mint(visit)
    second = back_end.mint(visit)
    if second.redirect_url is None:
        return Outcome(visit, second)
    note = "The portal minted twice, and framed the first address. The second mint had replaced its token."
    return Outcome(visit, first, first.redirect_url, note=note)


def revoked(back_end: BackEnd, visit: Visit) -> Outcome:
    """Use a revoked token."""
    answer = back_end.mint(visit)
    if answer.redirect_url is None:
        return Outcome(visit, answer)
    revocation = back_end.revoke(answer.token_id)
    if revocation.status != HTTPStatus.NO_CONTENT:
        return Outcome(visit, revocation)
    note = "The portal revoked the token (the second request below, answered 204), then framed the address."
    return Outcome(visit, answer, answer.redirect_url, note=note, also=revocation)


def used(back_end: BackEnd, visit: Visit) -> Outcome:
    """Use a single-use token twice: the page frames the address, and later frames it again."""
    answer = back_end.mint(visit, singleUse=True)
    if answer.redirect_url is None:
        return Outcome(visit, answer)
    note = (
        "This token opens only this frame. A browser may load a frame twice in a row. So the address can "
        "open again until the frame has sent its first request, for at most "
        f"{REPEAT_WITHIN.seconds} seconds. Later it is refused."
    )
    return Outcome(visit, answer, answer.redirect_url, note=note, again_after=PAST_REPEAT)


def access_lost(back_end: BackEnd, _visit: Visit) -> Outcome:
    """Remove Cleo's access between the mint and the frame."""
    visit = Visit(CLEO, SUPPORT)
    give_grant(SUPPORT, CLEO)
    answer = back_end.mint(visit)
    if answer.redirect_url is None:
        return Outcome(visit, answer)
    remove_grant(SUPPORT, CLEO)
    note = (
        "Cleo could open the app when the token was minted. Then her grant was removed. "
        "She gets it back when you open the app as her."
    )
    return Outcome(visit, answer, answer.redirect_url, note=note)


def no_access(back_end: BackEnd, visit: Visit) -> Outcome:
    """Mint for a person who may not open the app."""
    visit = Visit(DAN, visit.at_one_app.app)
    answer = back_end.mint(visit)
    if answer.status != HTTPStatus.FORBIDDEN:
        return Outcome(visit, answer, answer.redirect_url)
    note = "Dan is a member of the workspace, but has no grant for an app. So the service mints no token."
    return Outcome(visit, answer, answer.redirect_url, note=note)


def unframed(back_end: BackEnd, visit: Visit) -> Outcome:
    """Give the frame's address to a person who opens it in a tab."""
    answer = back_end.mint(visit)
    return Outcome(visit, answer, answer.redirect_url, framed=False)


def garbage(back_end: BackEnd, visit: Visit) -> Outcome:
    """Open a frame with an invented token."""
    visit = visit.at_one_app
    origin = back_end.frame_origin.replace("{app}", visit.app.slug)
    url = f"{origin}/embed-apps/{visit.app.id}?personal-access-token={GARBAGE}"
    note = (
        "Nothing was minted. The token is 72 zeros. Its checksum is wrong, "
        "so the service refused it without a query."
    )
    return Outcome(visit, url=url, note=note)


def too_many(back_end: BackEnd, visit: Visit) -> Outcome:
    """Mint with the limited client until its limit is reached."""
    minted = 0
    answer = back_end.mint(visit, client=people.LIMITED_CLIENT)
    while answer.status == HTTPStatus.CREATED and minted < MOST_LIMITED_MINTS:
        minted += 1
        answer = back_end.mint(visit, client=people.LIMITED_CLIENT)
    if answer.status == HTTPStatus.CREATED:
        note = f"{minted} mints in a row were not too many: the limit of this server is higher."
        return Outcome(visit, answer, answer.redirect_url, note=note)
    if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
        return Outcome(visit, answer)
    tokens = f"{minted or 'no'} token{'' if minted == 1 else 's'} this time"
    note = f"The client “{people.LIMITED_CLIENT}” has the default limit. It got {tokens}."
    return Outcome(visit, answer, note=note)


CASES: Final[dict[str, Callable[[BackEnd, Visit], Outcome]]] = {
    "normal": normal,
    "expired": expired,
    "replaced": replaced,
    "revoked": revoked,
    "used": used,
    "access-lost": access_lost,
    "no-access": no_access,
    "unframed": unframed,
    "garbage": garbage,
    "too-many": too_many,
}


def give_grant(app: App, person: Person) -> None:
    """Grant the person access to the app. This calls the service's own code, which no customer can do."""
    directory.grants.put(OPERATOR, str(app.id), _id_of(person), datetime.now(UTC))


def remove_grant(app: App, person: Person) -> None:
    """Remove the person's grant for the app, as an administrator would."""
    # A concurrent visitor may already have removed it.
    with suppress(GrantNotFound):
        directory.grants.remove(OPERATOR, str(app.id), _id_of(person), datetime.now(UTC))


def _id_of(person: Person) -> str:
    with reading() as connection:
        return directory.users.require_id(connection, person.email)
