"""Random sequences of changes and openings, compared with a model in plain Python."""

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

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

from pat_service.embed import ancestors
from pat_service.storage.database import db
from pat_service.storage.models import User, Workspace
from tests.support.people import (
    LEDGER,
    ORDERS,
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
REPEAT = timedelta(seconds=10)
#: Few, so that changes affect each other. Nia is added later.
PEOPLE = ("ana@acme.test", "mallory@globex.test", "nia@new.test")
PLACES = ("acme", "globex")
APPS = {"orders": ORDERS, "ledger": LEDGER}


# ---- The model ----


@dataclass
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
    first_used: datetime | None = None

    @property
    def pair(self) -> tuple[str, str | None, str | None]:
        return (self.email, self.app, None if self.app else self.workspace)


@dataclass
class Session:
    jwt: str
    token: Token
    expires: datetime
    ended: bool = False


@dataclass
class World:
    """The model: users, memberships, grants and moves. Every verdict follows from it."""

    archived: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=lambda: set(PEOPLE[:2]))
    members: set[tuple[str, str]] = field(
        default_factory=lambda: {("acme", PEOPLE[0]), ("globex", PEOPLE[1])}
    )
    grants: set[tuple[str, str]] = field(
        default_factory=lambda: {("orders", PEOPLE[0]), ("ledger", PEOPLE[1])}
    )
    home: dict[str, str] = field(default_factory=lambda: {"orders": "acme", "ledger": "globex"})
    moves: dict[str, int] = field(default_factory=lambda: dict.fromkeys(APPS, 0))

    def may_visit(self, email: str, workspace: str) -> bool:
        return email in self.known - self.archived and (workspace, email) in self.members

    def may_open(self, email: str, app: str) -> bool:
        return self.may_visit(email, self.home[app]) and (app, email) in self.grants

    def refusal(self, token: Token, app: str, prefix: str) -> str | None:
        """Return the code that refuses this token's sessions at the app, apart from expiry."""
        if token.app is not None:
            if token.app != app:
                return f"{prefix}_invalid"
            return (
                None
                if token.moves == self.moves[app] and self.may_open(token.email, app)
                else "access_revoked"
            )
        if self.home[app] != token.workspace:
            return "access_revoked" if self.moves[app] else f"{prefix}_invalid"
        return None if self.may_open(token.email, app) else "access_revoked"

    def opening(self, token: Token, app: str, now: datetime) -> str | None:
        newest_but_one = token.replaced_by is not None and token.replaced_by.replaced_by is None
        why = self.refusal(token, app, "token")
        if why == "token_invalid" or (token.replaced_by and not newest_but_one):
            return "token_invalid"
        if newest_but_one:
            return "token_superseded"
        if token.revoked:
            return "token_revoked"
        if token.expires <= now:
            return "token_expired"
        if token.single_use and token.first_used is not None and token.first_used + REPEAT <= now:
            return "token_used"
        return why

    def request(self, session: Session, app: str, now: datetime) -> str | None:
        if session.token.app not in (None, app):
            return "session_invalid"
        # The service checks the JWT's expiry before the row. The clock of this test never stops within the
        # JWT's leeway.
        if session.expires <= now:
            return "session_expired"
        why = self.refusal(session.token, app, "session")
        return "session_revoked" if session.ended and why != "session_invalid" else why


# ---- The machine ----


class Lives(RuleBasedStateMachine):
    service: ClassVar[Service]
    as_it_was: ClassVar[Path]

    tokens = Bundle("tokens")
    sessions = Bundle("sessions")
    people = st.sampled_from(PEOPLE)
    apps = st.sampled_from(sorted(APPS))
    #: The app to open. None: the token's app, or the first app of its workspace.
    where = st.none() | apps
    places = st.sampled_from(PLACES)

    @initialize()
    def begin(self) -> None:
        restore_database(self.service.app, self.as_it_was)
        ancestors._known.clear()
        self.world = World()
        self.live: dict[tuple[str, str | None, str | None], Token] = {}
        self.opened: list[Session] = []
        self.clock = time_machine.travel(START, tick=False)
        self.traveller = self.clock.start()
        self.ids = {row.slug: row.id for row in self.service.rows(select(Workspace.slug, Workspace.id))}

    def teardown(self) -> None:
        if hasattr(self, "clock"):
            self.clock.stop()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def call(
        self, method: str, path: str, body: Any = None, expect: tuple[int, ...] = (200, 201, 204)
    ) -> TestResponse:
        answer = self.service.client.open(
            f"/api/ext/{path}", method=method, json=body, headers=basic("everywhere")
        )
        assert answer.status_code in expect, (method, path, answer.text)
        return answer

    def user(self, email: str) -> str | None:
        rows = self.service.rows(select(User.id).where(User.email == email))
        return rows[0].id if rows else None

    # Changes of access.

    @rule(email=people, archived=st.booleans())
    def archive(self, email: str, archived: bool) -> None:
        if email not in self.world.known:
            return
        self.call("PATCH", f"users/{self.user(email)}", {"status": "archived" if archived else "active"})
        (self.world.archived.add if archived else self.world.archived.discard)(email)

    @rule(email=people, place=places, there=st.booleans(), role=st.sampled_from(["admin", "end-user"]))
    def belong(self, email: str, place: str, there: bool, role: str) -> None:
        if email not in self.world.known:
            return
        path = f"workspaces/{self.ids[place]}/members/{self.user(email)}"
        if there:
            self.call("PUT", path, {"role": role})
            self.world.members.add((place, email))
        else:
            self.call("DELETE", path, expect=(204, 404))
            self.world.members.discard((place, email))

    @rule(email=people, app=apps, there=st.booleans())
    def grant(self, email: str, app: str, there: bool) -> None:
        if email not in self.world.known:
            return
        path = f"apps/{APPS[app]}/grants/{self.user(email)}"
        if there:
            answer = self.call("PUT", path).get_json()
            self.world.grants.add((app, email))
            assert answer["effective"] == self.world.may_open(email, app)
        else:
            self.call("DELETE", path, expect=(204, 404))
            self.world.grants.discard((app, email))

    @rule(app=apps, place=places)
    def move(self, app: str, place: str) -> None:
        self.call("PATCH", f"apps/{APPS[app]}", {"workspaceId": self.ids[place]})
        if self.world.home[app] != place:
            self.world.home[app] = place
            self.world.moves[app] += 1
            self.world.grants -= {grant for grant in self.world.grants if grant[0] == app}

    @rule(seconds=st.sampled_from([1, 9, 10, 60, 3600]))
    def pass_time(self, seconds: int) -> None:
        self.traveller.shift(seconds)

    # Tokens and sessions.

    @rule(
        target=tokens,
        email=people,
        app=st.none() | apps,
        place=places,
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
        place: str,
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
        fields |= {"appSlug": app} if app else {"workspaceSlug": place}
        place = world.home[app] if app else place
        after = replace(world, known=world.known | {email}, members=world.members | {(place, email)})
        if app:
            after.grants = world.grants | {(app, email)}
        if bring:
            fields["provision"] = {"name": "Nia", "role": "end-user"}
        seen = after if bring else world
        may = seen.may_open(email, app) if app else seen.may_visit(email, place)
        if not may:
            answer = self.call("POST", "users/personal-access-token", fields, expect=(403, 404))
            assert answer.get_json()["code"] == ("app_forbidden" if email in seen.known else "user_not_found")
            return multiple()
        minted = self.call("POST", "users/personal-access-token", fields).get_json()
        self.world = seen
        token = Token(
            text=minted["personalAccessToken"],
            id=minted["tokenId"],
            email=email,
            app=app,
            workspace=place,
            moves=world.moves[app] if app else 0,
            expires=self.now + timedelta(seconds=pat),
            session_for=timedelta(minutes=minutes),
            single_use=single_use,
        )
        older = self.live.get(token.pair)
        if older is not None:
            older.replaced_by = token
        self.live[token.pair] = token
        if end_sessions:
            self.end_all(token)
        return token

    def end_all(self, token: Token) -> None:
        for session in self.opened:
            if session.token.pair == token.pair:
                session.ended = True

    def at(self, token: Token, app: str | None) -> str:
        here = [name for name, home in self.world.home.items() if home == token.workspace]
        return app or token.app or (here or ["orders"])[0]

    @rule(target=sessions, token=tokens, app=where)
    def open(self, token: Token, app: str | None) -> Any:
        app = self.at(token, app)
        answer = self.service.open(token.text, APPS[app], Accept="application/json")
        expected = self.world.opening(token, app, self.now)
        code = answer.get_json()["code"] if answer.status_code != 200 else None
        assert code == expected
        if expected is not None:
            return multiple()
        if token.single_use:
            for session in self.opened:
                if session.token is token:
                    session.ended = True
        token.first_used = token.first_used or self.now
        session = Session(boot(answer)["session"], token, self.now + token.session_for)
        self.opened.append(session)
        return session

    @rule(target=sessions, token=tokens, seconds=st.sampled_from([9, 10]))
    def open_twice(self, token: Token, seconds: int) -> Any:
        self.open(token, None)
        self.introspect(token)
        self.traveller.shift(seconds)
        self.introspect(token)
        return self.open(token, None)

    @rule(target=sessions, email=people, app=st.none() | apps, place=places, seconds=st.sampled_from([9, 10]))
    def use_once(self, email: str, app: str | None, place: str, seconds: int) -> Any:
        """Use a single-use token to its end, which random steps seldom reach."""
        for name, home in self.world.home.items():
            if app is None and home == place:
                self.grant(email, name, there=True)
        token = self.mint(email, app, place, 100_000, 60, single_use=True, bring=True, end_sessions=False)
        return self.open_twice(token, seconds) if isinstance(token, Token) else multiple()

    @rule(app=apps)
    def move_there_and_back(self, app: str) -> None:
        first = self.world.home[app]
        self.move(app, "globex" if first == "acme" else "acme")
        self.move(app, first)
        for email in PEOPLE:
            self.grant(email, app, there=True)

    @rule(token=tokens)
    def revoke(self, token: Token) -> None:
        """The id of a replaced token is unknown."""
        gone = token.replaced_by is not None
        gone = gone or (token.app is not None and token.moves != self.world.moves[token.app])
        self.call("DELETE", f"personal-access-tokens/{token.id}", expect=(404,) if gone else (204,))
        if not gone:
            token.revoked = True
            self.end_all(token)

    @rule(session=sessions, app=where)
    def ask(self, session: Session, app: str | None) -> None:
        app = self.at(session.token, app)
        for answer in (
            self.service.client.get(
                f"/embed-apps/{APPS[app]}/session", headers={"Authorization": f"Bearer {session.jwt}"}
            ),
            self.service.client.post(
                f"/embed-apps/{APPS[app]}",
                data={"session": session.jwt},
                headers={"Accept": "application/json"},
            ),
        ):
            code = answer.get_json()["code"] if answer.status_code != 200 else None
            assert code == self.world.request(session, app, self.now)

    @rule(session=sessions, app=where)
    def leave(self, session: Session, app: str | None) -> None:
        app = self.at(session.token, app)
        expected = self.world.request(session, app, self.now)
        answer = self.service.client.delete(
            f"/embed-apps/{APPS[app]}/session", headers={"Authorization": f"Bearer {session.jwt}"}
        )
        code = answer.get_json()["code"] if answer.status_code != 204 else None
        assert code == expected
        if expected is None:
            session.ended = True

    @rule(token=tokens)
    def introspect(self, token: Token) -> None:
        answer = self.call("POST", "introspect", {"token": token.text}).get_json()
        home = token.app or next((app for app in APPS if self.world.may_open(token.email, app)), None)
        if token.app is None:
            dead = token.replaced_by or token.revoked or token.expires <= self.now
            used = token.single_use and token.first_used and token.first_used + REPEAT <= self.now
            expected = not (dead or used) and self.world.may_visit(token.email, token.workspace)
        else:
            expected = self.world.opening(token, str(home), self.now) is None
        assert answer["active"] == bool(expected)


@pytest.fixture
def machine(app_and_snapshot: tuple[Flask, Path]) -> type[Lives]:
    app, as_it_was = app_and_snapshot
    Lives.service = Service(app.test_client())
    restore_database(app, as_it_was)
    scopes = ["mint", "mint:workspace", "provision", "audit"]
    limit = "1000000 per minute"
    provision(app, changed("clients", "everywhere", scopes=scopes, highest_role="admin", mint_limit=limit))
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
