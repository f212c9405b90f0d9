"""Random sequences of changes and openings, compared with a model in plain Python."""

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import jwt
import pytest
import time_machine
from flask import Flask
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select
from werkzeug.test import TestResponse

from pat_service.credentials import JWT_LEEWAY_SECONDS
from pat_service.embed import ancestors
from pat_service.rules import events
from pat_service.rules.openings import CODE_SECONDS, REPLACED_WITHIN
from pat_service.rules.tokens import REPEAT_WITHIN
from pat_service.storage.database import db
from pat_service.storage.models import User, Workspace
from tests.support.people import (
    LEDGER,
    ORDERS,
    PORTAL,
    Service,
    basic,
    boot,
    changed,
    database_folder,
    provision,
    restore_database,
)

START = datetime(2026, 11, 2, 12, tzinfo=UTC)
EXAMPLES, STEPS = int(os.environ.get("FUZZ_CASES", "20")), 50
LEEWAY = timedelta(seconds=JWT_LEEWAY_SECONDS)
#: Few, so that changes affect each other. Nia is added later.
PEOPLE = ("ana@acme.test", "mallory@globex.test", "nia@new.test")
#: The client that is limited to each workspace. The client `everywhere` is not limited.
CLIENTS = {"acme": "manager", "globex": "rival"}
APPS = {"orders": ORDERS, "ledger": LEDGER}
#: An app, or a workspace's launcher.
Place = str


# ---- The model ----


@dataclass(eq=False)
class Token:
    text: str
    id: str
    email: str
    app: str | None  # None: the whole workspace
    workspace: str
    moves: int
    expires: datetime
    session_for: timedelta
    single_use: bool
    replaced_by: "Token | None" = None
    revoked: bool = False
    deleted: bool = False
    first_used: datetime | None = None
    repeatable: bool = False

    @property
    def pair(self) -> tuple[str, str | None, str | None]:
        return (self.email, self.app, None if self.app else self.workspace)

    @property
    def place(self) -> Place:
        return self.app or self.workspace


@dataclass(eq=False)
class Session:
    """A session at one app, or at a launcher. `expires` becomes earlier when another one replaces it."""

    jwt: str
    token: Token
    place: Place
    moves: int
    expires: datetime
    jwt_expires: datetime
    unconfirmed: bool = False
    launcher: "Session | None" = None
    replaced_by: "Session | None" = None
    ended: bool = False

    def is_live(self, now: datetime) -> bool:
        return not self.ended and self.expires > now


@dataclass
class World:
    """The model: users, memberships, grants and moves. Every verdict follows from it."""

    archived: set[str] = field(default_factory=set)
    archived_in: set[tuple[str, str]] = field(default_factory=set)
    home: dict[str, str] = field(default_factory=lambda: {PEOPLE[0]: "acme", PEOPLE[1]: "globex"})
    #: The workspaces that have or had something of the user.
    known_in: dict[str, set[str]] = field(
        default_factory=lambda: {PEOPLE[0]: {"acme"}, PEOPLE[1]: {"globex"}}
    )
    members: set[tuple[str, str]] = field(
        default_factory=lambda: {("acme", PEOPLE[0]), ("globex", PEOPLE[1])}
    )
    grants: set[tuple[str, str]] = field(
        default_factory=lambda: {("orders", PEOPLE[0]), ("ledger", PEOPLE[1])}
    )
    workspace: dict[str, str] = field(default_factory=lambda: {"orders": "acme", "ledger": "globex"})
    moves: dict[str, int] = field(default_factory=lambda: dict.fromkeys(APPS, 0))

    def may_visit(self, email: str, workspace: str) -> bool:
        active = email in self.home.keys() - self.archived and (workspace, email) not in self.archived_in
        return active and (workspace, email) in self.members

    def may_open(self, email: str, app: str) -> bool:
        return self.may_visit(email, self.workspace[app]) and (app, email) in self.grants

    def has_access(self, email: str, place: Place, moves: int) -> bool:
        if place not in APPS:
            return self.may_visit(email, place)
        return moves == self.moves[place] and self.may_open(email, place)

    def opening(self, token: Token, place: Place, now: datetime, *, navigates: bool) -> str | None:
        """Return the code that refuses an opening with the token, or None."""
        newest_but_one = token.replaced_by is not None and token.replaced_by.replaced_by is None
        is_wide = token.app is None and place in APPS
        # The holder of a workspace's token learns that an app has left.
        meant = (
            self.workspace[place] == token.workspace or self.moves[place] if is_wide else place == token.place
        )
        if token.deleted or not meant or (token.replaced_by and not newest_but_one):
            return "token_invalid"
        if newest_but_one:
            return "token_superseded"
        if token.revoked:
            return "token_revoked"
        if token.expires <= now:
            return "token_expired"
        if token.single_use and token.first_used is not None:
            repeats = navigates and token.repeatable and token.first_used + REPEAT_WITHIN > now
            if not repeats:
                return "token_used"
        if is_wide and self.workspace[place] != token.workspace:
            return "access_revoked"
        moves = self.moves[place] if is_wide else token.moves
        if not self.has_access(token.email, place, moves):
            return "access_revoked"
        return "token_invalid" if is_wide and not navigates else None

    def request(self, session: Session, place: Place, now: datetime) -> str | None:
        """Return the code that refuses a request with the session, or None."""
        if place != session.place:
            return "session_invalid"
        if session.jwt_expires + LEEWAY <= now:
            return "session_expired"
        if session.token.deleted:
            return "session_invalid"
        if session.replaced_by is not None and not session.is_live(now):
            return "session_replaced"
        if session.expires <= now:
            return "session_expired"
        if session.ended:
            return "session_revoked"
        has_access = self.has_access(session.token.email, place, session.moves)
        return None if has_access else "access_revoked"

    def forget(self, email: str) -> None:
        """Delete the user."""
        self.home.pop(email)
        self.known_in.pop(email)
        self.archived.discard(email)
        for pairs in (self.archived_in, self.members, self.grants):
            pairs -= {pair for pair in pairs if pair[1] == email}


def code_of(answer: TestResponse) -> str | None:
    return None if answer.status_code < 400 else str(answer.get_json()["code"])


# ---- The machine ----


class Lives(RuleBasedStateMachine):
    service: ClassVar[Service]
    as_it_was: ClassVar[Path]

    tokens = Bundle("tokens")
    sessions = Bundle("sessions")
    people = st.sampled_from(PEOPLE)
    apps = st.sampled_from(sorted(APPS))
    workspaces = st.sampled_from(sorted(CLIENTS))
    #: A place to open. None: the token's own.
    where = st.none() | apps
    #: The workspace of the client that asks. None: a client of all workspaces.
    limits = st.none() | workspaces

    @initialize()
    def begin(self) -> None:
        restore_database(self.service.app, self.as_it_was)
        ancestors._known.clear()
        events._refusals.clear()
        self.world = World()
        self.live: dict[tuple[str, str | None, str | None], Token] = {}
        self.minted: list[Token] = []
        self.opened: list[Session] = []
        self.names = count()
        self.clock = time_machine.travel(START, tick=False)
        self.traveller = self.clock.start()
        self.ids = {row.slug: row.id for row in self.service.rows(select(Workspace.slug, Workspace.id))}

    def teardown(self) -> None:
        if hasattr(self, "clock"):
            self.clock.stop()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def ask_api(self, method: str, path: str, body: Any = None, limit: str | None = None) -> TestResponse:
        """Call the API as the client that is limited to this workspace."""
        client = "everywhere" if limit is None else CLIENTS[limit]
        return self.service.client.open(f"/api/ext/{path}", method=method, json=body, headers=basic(client))

    def call(
        self, method: str, path: str, body: Any = None, expect: tuple[int, ...] = (200, 201, 204)
    ) -> TestResponse:
        answer = self.ask_api(method, path, body)
        assert answer.status_code in expect, (method, path, answer.text)
        return answer

    def user(self, email: str) -> str | None:
        rows = self.service.rows(select(User.id).where(User.email == email))
        return rows[0].id if rows else None

    def path(self, place: Place) -> str:
        return f"/embed-apps/{APPS[place]}" if place in APPS else f"/embed-workspaces/{self.ids[place]}"

    # Changes of access.

    @rule(email=people, archived=st.booleans(), limit=limits)
    def archive(self, email: str, archived: bool, limit: str | None) -> None:
        world, status = self.world, "archived" if archived else "active"
        if email not in world.home:
            return
        answer = self.ask_api("PATCH", f"users/{self.user(email)}", {"status": status}, limit)
        if limit is None:
            assert answer.status_code == 200
            (world.archived.add if archived else world.archived.discard)(email)
        elif (limit, email) not in world.members:
            assert code_of(answer) == "user_not_found"
        elif not archived and email in world.archived:
            assert code_of(answer) == "conflict"
        else:
            (world.archived_in.add if archived else world.archived_in.discard)((limit, email))
            assert answer.status_code == 200, answer.text
            assert answer.get_json()["status"] == ("archived" if email in world.archived else status)

    @rule(email=people, limit=limits)
    def rename(self, email: str, limit: str | None) -> None:
        if email not in self.world.home:
            return
        name = {"name": f"Name {next(self.names)}"}
        answer = self.ask_api("PATCH", f"users/{self.user(email)}", name, limit)
        assert code_of(answer) == self.refuse_owner(email, limit)

    def refuse_owner(self, email: str, limit: str | None) -> str | None:
        """Return the code for a client that must reach the user's home."""
        if limit is not None and (limit, email) not in self.world.members:
            return "user_not_found"
        return None if limit in (None, self.world.home[email]) else "conflict"

    @rule(email=people, workspace=workspaces)
    def move_home(self, email: str, workspace: str) -> None:
        world = self.world
        if email not in world.home:
            return
        answer = self.call("PATCH", f"users/{self.user(email)}", {"homeWorkspaceId": self.ids[workspace]})
        assert answer.get_json()["homeWorkspaceId"] == self.ids[workspace]
        if world.home[email] != workspace:
            world.known_in[email] |= {world.home[email], workspace}
            world.home[email] = workspace

    @rule(email=people, limit=limits)
    def delete(self, email: str, limit: str | None) -> None:
        world = self.world
        if email not in world.home:
            return
        code = self.refuse_owner(email, limit)
        if code is None and limit is not None and world.known_in[email] != {limit}:
            code = "conflict"
        assert code_of(self.ask_api("DELETE", f"users/{self.user(email)}", limit=limit)) == code
        if code is None:
            world.forget(email)
            for pair in [pair for pair in self.live if pair[0] == email]:
                self.live.pop(pair)
            for token in self.minted:
                token.deleted = token.deleted or token.email == email

    @rule(
        email=people, workspace=workspaces, there=st.booleans(), role=st.sampled_from(["admin", "end-user"])
    )
    def belong(self, email: str, workspace: str, there: bool, role: str) -> None:
        world = self.world
        if email not in world.home:
            return
        path = f"workspaces/{self.ids[workspace]}/members/{self.user(email)}"
        if there:
            self.call("PUT", path, {"role": role})
            world.members.add((workspace, email))
            world.known_in[email].add(workspace)
        else:
            self.call("DELETE", path, expect=(204, 404))
            world.members.discard((workspace, email))

    @rule(email=people, app=apps, there=st.booleans())
    def grant(self, email: str, app: str, there: bool) -> None:
        world = self.world
        if email not in world.home:
            return
        path = f"apps/{APPS[app]}/grants/{self.user(email)}"
        if there:
            answer = self.call("PUT", path).get_json()
            world.grants.add((app, email))
            world.known_in[email].add(world.workspace[app])
            assert answer["effective"] == world.may_open(email, app)
        else:
            self.call("DELETE", path, expect=(204, 404))
            world.grants.discard((app, email))

    @rule(app=apps, workspace=workspaces)
    def move(self, app: str, workspace: str) -> None:
        world = self.world
        self.call("PATCH", f"apps/{APPS[app]}", {"workspaceId": self.ids[workspace]})
        if world.workspace[app] != workspace:
            world.workspace[app] = workspace
            world.moves[app] += 1
            world.grants -= {grant for grant in world.grants if grant[0] == app}

    @rule(app=apps)
    def move_there_and_back(self, app: str) -> None:
        first = self.world.workspace[app]
        self.move(app, "globex" if first == "acme" else "acme")
        self.move(app, first)
        for email in PEOPLE:
            self.grant(email, app, there=True)

    @rule(seconds=st.sampled_from([1, 4, 5, 9, 10, 59, 60, 3600]))
    def pass_time(self, seconds: int) -> None:
        self.traveller.shift(seconds)

    # Tokens.

    @rule(
        target=tokens,
        email=people,
        app=st.none() | apps,
        workspace=workspaces,
        pat=st.sampled_from([60, 100_000]),
        minutes=st.sampled_from([1, 60]),
        single_use=st.booleans(),
        bring=st.booleans(),
        end_sessions=st.booleans(),
    )
    def mint(
        self,
        email: str,
        app: str | None,
        workspace: str,
        pat: int,
        minutes: int,
        single_use: bool,
        bring: bool,
        end_sessions: bool,
    ) -> Any:
        world = self.world
        fields: dict[str, Any] = {
            "email": email.upper(),
            "patExpiry": pat,
            "sessionExpiry": minutes,
            "singleUse": single_use,
            "endSessions": end_sessions,
        }
        fields |= {"appSlug": app} if app else {"workspaceSlug": workspace}
        workspace = world.workspace[app] if app else workspace
        seen = world
        if bring:
            fields["provision"] = {"name": "Nia", "role": "end-user"}
            seen = replace(
                world,
                home={email: workspace} | world.home,
                members=world.members | {(workspace, email)},
                grants=world.grants | ({(app, email)} if app else set()),
            )
        if email in seen.home:
            # A refusal is an event of the workspace too.
            world.known_in.setdefault(email, set()).add(workspace)
        may = seen.may_open(email, app) if app else seen.may_visit(email, workspace)
        if not may:
            answer = self.call("POST", "users/personal-access-token", fields, expect=(403, 404))
            assert code_of(answer) == ("app_forbidden" if email in seen.home else "user_not_found")
            return multiple()
        minted = self.call("POST", "users/personal-access-token", fields).get_json()
        self.world = seen
        token = Token(
            text=minted["personalAccessToken"],
            id=minted["tokenId"],
            email=email,
            app=app,
            workspace=workspace,
            moves=world.moves[app] if app else 0,
            expires=self.now + timedelta(seconds=pat),
            session_for=timedelta(minutes=minutes),
            single_use=single_use,
        )
        older = self.live.get(token.pair)
        if older is not None:
            older.replaced_by = token
        self.live[token.pair] = token
        self.minted.append(token)
        if end_sessions:
            self.end_pair(token)
        return token

    def end_pair(self, token: Token, *, reached: bool = False) -> None:
        """End all sessions of the user and app. `reached`: not those that a move has ended."""
        for session in self.opened:
            stayed = session.place not in APPS or session.moves == self.world.moves[session.place]
            if session.token.pair == token.pair and (stayed or not reached):
                session.ended = True

    @rule(token=tokens)
    def revoke(self, token: Token) -> None:
        """The id of a replaced token is unknown."""
        gone = token.deleted or token.replaced_by is not None
        gone = gone or (token.app is not None and token.moves != self.world.moves[token.app])
        self.call("DELETE", f"personal-access-tokens/{token.id}", expect=(404,) if gone else (204,))
        if not gone:
            token.revoked = True
            self.end_pair(token, reached=True)

    @rule(token=tokens)
    def introspect(self, token: Token) -> None:
        answer = self.call("POST", "introspect", {"token": token.text}).get_json()
        why = self.world.opening(token, token.place, self.now, navigates=False)
        assert answer["active"] is (why is None)

    # Openings.

    def open_at(self, token: Token, place: Place) -> Session | None:
        """Open the place by its address. A workspace's token at an app moves on with a one-time code."""
        answer = self.service.client.get(
            self.path(place),
            query_string={"personal-access-token": token.text},
            headers={"Accept": "application/json"},
        )
        expected = self.world.opening(token, place, self.now, navigates=True)
        assert code_of(answer) == expected
        if expected is not None:
            return None
        for session in self.opened:
            if token.single_use and session.token is token:
                session.ended = True
        token.repeatable = token.first_used is None
        assert (answer.status_code == 303) is (token.place != place)
        if answer.status_code == 303:
            code = answer.headers["Location"].partition("?")[2]
            answer = self.service.client.get(f"{self.path(place)}?{code}")
        return self.keep(boot(answer)["session"], token, place, unconfirmed=token.single_use)

    def keep(self, text: str, token: Token, place: Place, **changes: Any) -> Session:
        """Remember a session that the token has opened."""
        token.first_used = token.first_used or self.now
        moves = token.moves if place == token.place else self.world.moves[place]
        ends = self.now + token.session_for
        session = replace(Session(text, token, place, moves, ends, ends), **changes)
        self.opened.append(session)
        return session

    @rule(target=sessions, token=tokens, app=where)
    def open(self, token: Token, app: str | None) -> Any:
        return self.open_at(token, app or token.place) or multiple()

    @rule(target=sessions, token=tokens, seconds=st.sampled_from([9, 10]))
    def open_twice(self, token: Token, seconds: int) -> Any:
        self.open_at(token, token.place)
        self.introspect(token)
        self.traveller.shift(seconds)
        return self.open_at(token, token.place) or multiple()

    @rule(
        target=sessions,
        email=people,
        app=st.none() | apps,
        workspace=workspaces,
        seconds=st.sampled_from([9, 10]),
        asks=st.booleans(),
    )
    def use_once(self, email: str, app: str | None, workspace: str, seconds: int, asks: bool) -> Any:
        """Use a single-use token to its end, which random steps seldom reach."""
        token = self.mint(email, app, workspace, 100_000, 60, single_use=True, bring=True, end_sessions=False)
        if not isinstance(token, Token):
            return multiple()
        first = self.open_at(token, token.place)
        if first is not None and asks:
            self.ask(first, None)
        self.traveller.shift(seconds)
        return self.open_at(token, token.place) or multiple()

    # Renewals and launchers.

    def hand_over(self, credential: str, place: Place, former: Session | None = None) -> TestResponse:
        body = {"accessToken": credential, "parentOrigin": PORTAL, "ancestorOrigins": [PORTAL]}
        body |= {} if former is None else {"session": former.jwt}
        headers = {"Accept": "application/json"}
        return self.service.client.post(f"{self.path(place)}/frame", json=body, headers=headers)

    @rule(target=sessions, token=tokens, former=sessions, app=where)
    def renew(self, token: Token, former: Session, app: str | None) -> Any:
        """Open by a hand-over that names a former session, of the same viewer or not."""
        place = app or token.place
        expected = self.world.opening(token, place, self.now, navigates=False)
        answer = self.hand_over(token.text, place, former)
        assert code_of(answer) == expected
        if expected is not None:
            return multiple()
        is_valid = self.world.request(former, place, self.now) is None
        session = self.keep(answer.get_json()["session"], token, place)
        if is_valid and former.token.email == token.email:
            self.replace(former, session)
        return session

    @rule(target=sessions, former=sessions, repeats=st.booleans())
    def renew_own(self, former: Session, repeats: bool) -> Any:
        """Renew a session with a new token, as its frame does; twice if the first answer is lost."""
        renewed: Any = multiple()
        for _ in range(1 + repeats):
            old = former.token
            app = former.place if former.place in APPS else None
            token = self.mint(old.email, app, old.workspace, 60, 60, False, bring=False, end_sessions=False)
            if isinstance(token, Token):
                renewed = self.renew(token, former, None)
        return renewed

    def replace(self, former: Session, successor: Session) -> None:
        for other in self.opened:
            other.ended = other.ended or other.replaced_by is former
        lost = former.replaced_by
        if lost is not None:
            if lost.ended or not lost.unconfirmed:
                return
            lost.ended = True
        former.replaced_by, successor.unconfirmed = successor, True
        former.expires = min(former.expires, self.now + REPLACED_WITHIN)
        for session in self.opened:
            if session.launcher in (former, lost or former) and session.is_live(self.now):
                session.launcher = successor
                session.expires = min(session.expires, successor.expires)

    @rule(
        target=sessions,
        session=sessions,
        app=apps,
        seconds=st.sampled_from([0, CODE_SECONDS - 1, CODE_SECONDS]),
    )
    def enter(self, session: Session, app: str, seconds: int) -> Any:
        """Open an app from a launcher with a one-time code."""
        workspace, world = session.token.workspace, self.world
        expected = world.request(session, workspace, self.now)
        headers = {"Authorization": f"Bearer {session.jwt}", "Accept": "application/json"}
        answer = self.service.client.post(f"{self.path(workspace)}/apps/{APPS[app]}", headers=headers)
        if expected is None:
            self.confirm(session)
            if world.workspace[app] != workspace:
                expected = "app_not_found"
            elif not world.may_open(session.token.email, app):
                expected = "app_forbidden"
        assert code_of(answer) == expected
        if expected is not None:
            return multiple()
        launcher = session.replaced_by or session
        ends = session.expires
        code = answer.get_json()["code"]
        entered = self.keep("", session.token, app, launcher=launcher, expires=ends, jwt_expires=ends)
        self.traveller.shift(seconds)
        expected = world.request(entered, app, self.now)
        if seconds == CODE_SECONDS and not entered.ended:
            expected = "token_expired"
        answer = self.hand_over(code, app)
        assert code_of(answer) == expected
        if expected is not None:
            return multiple()
        assert code_of(self.hand_over(code, app)) == "token_invalid"
        entered.jwt = answer.get_json()["session"]
        return entered

    # Requests and ends of sessions.

    def confirm(self, session: Session) -> None:
        """Note the first request of a session."""
        if session.unconfirmed:
            session.unconfirmed = session.token.repeatable = False
            for former in self.opened:
                if former.replaced_by is session:
                    former.ended = True

    def request(self, method: str, session: Session, app: str | None) -> str | None:
        """Send a request with the session, and return the code of its refusal."""
        place = app or session.place
        expected = self.world.request(session, place, self.now)
        headers = {"Authorization": f"Bearer {session.jwt}", "Accept": "application/json"}
        answer = self.service.client.open(f"{self.path(place)}/session", method=method, headers=headers)
        assert code_of(answer) == expected
        if expected is None:
            self.confirm(session)
        return expected

    @rule(session=sessions, app=where)
    def ask(self, session: Session, app: str | None) -> None:
        self.request("GET", session, app)

    @rule(session=sessions, app=where)
    def leave(self, session: Session, app: str | None) -> None:
        if self.request("DELETE", session, app) is None:
            self.end(session)

    @rule(session=sessions)
    def end_by_client(self, session: Session) -> None:
        moved = session.place in APPS and session.moves != self.world.moves[session.place]
        gone = moved or session.token.deleted
        id_ = jwt.decode(session.jwt, options={"verify_signature": False})["jti"]
        self.call("DELETE", f"sessions/{id_}", expect=(404,) if gone else (204,))
        if not gone:
            self.end(session, reached=True)

    def end(self, session: Session, *, reached: bool = False) -> None:
        """End the session and those that depend on it. `reached`: not those that a move has ended."""
        session.ended = session.ended or session.is_live(self.now)
        for other in self.opened:
            stayed = other.place not in APPS or other.moves == self.world.moves[other.place]
            depends = session in (other.launcher, other.replaced_by)
            if depends and other.is_live(self.now) and (stayed or not reached):
                other.ended = True


@pytest.fixture
def machine(app_and_snapshot: tuple[Flask, Path]) -> type[Lives]:
    app, as_it_was = app_and_snapshot
    Lives.service = Service(app.test_client())
    restore_database(app, as_it_was)
    scopes = ["mint", "mint:workspace", "provision", "audit"]
    limit = "1000000 per minute"
    for client in ("everywhere", *CLIENTS.values()):
        provision(app, changed("clients", client, scopes=scopes, highest_role="admin", mint_limit=limit))
    provision(app, changed("workspaces", "globex", allowed_origins=[PORTAL]))
    return Lives


@pytest.mark.slow
def test_the_service_agrees_with_the_model(machine: type[Lives], tmp_path: Path) -> None:
    app = machine.service.app
    with app.app_context():
        db.engine.dispose()
    machine.as_it_was = tmp_path / "as-it-was.db"
    machine.as_it_was.write_bytes((database_folder(app) / "pat-service.db").read_bytes())
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="FUZZ_CASES" not in os.environ,
            # Shrinking takes minutes, and the steps are printed anyway.
            phases=(Phase.explicit, Phase.generate),
        ),
    )
