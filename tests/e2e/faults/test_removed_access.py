"""A user who lost access opens nothing, whenever the access was removed: many random rounds."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random
from typing import Any, Final

import pytest

from tests.e2e.faults.installation import Installation
from tests.support.http_calls import Answer, HttpConnection
from tests.support.people import basic
from tests.support.servers import WebServer

pytestmark = pytest.mark.slow

#: Rounds in all, and the random seed. `make soak` plays ten thousand.
ROUNDS: Final = int(os.environ.get("FAULT_ROUNDS", "24"))
SEED: Final = int(os.environ.get("FAULT_SEED", "1"))
#: Lanes run concurrently, each with an app and a user of its own.
LANES: Final = 4
CALLERS: Final = 4  # threads of each lane: two remove access, two mint


class Manager:
    """A back end that grants and removes access."""

    def __init__(self, caller: HttpConnection) -> None:
        self.caller = caller

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        return self.caller.send(method, f"/api/ext/{path}", body, basic("manager"))

    def ok(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self.call(method, path, body)
        assert answer.status in (200, 201, 204), (method, path, answer.text)
        return answer.json if answer.text else None


class Lane:
    """One app and one user in many rounds: some threads mint and open while others remove access."""

    def __init__(self, number: int, threads: ThreadPoolExecutor, callers: list[HttpConnection]) -> None:
        self.name, self.random, self.threads = f"lane{number}", Random(SEED * LANES + number), threads
        # Two threads, because several back ends may remove access at the same time.
        self.managers = [Manager(caller) for caller in callers[:2]]
        self.manager, self.minters = self.managers[0], callers[2:]
        workspaces = self.manager.ok("GET", "workspaces")["items"]
        self.acme, self.globex = (
            next(item["id"] for item in workspaces if item["slug"] == slug) for slug in ("acme", "globex")
        )
        place = {"slug": self.name, "workspaceId": self.acme, "template": "orders"}
        self.app = self.manager.ok("POST", "apps", place)["id"]
        self.welcome()

    def welcome(self) -> None:
        # The user belongs to Globex too, so that the manager still reaches a user who leaves Acme.
        members = [{"workspaceId": id_, "role": "end-user"} for id_ in (self.acme, self.globex)]
        body = {"email": f"{self.name}@acme.test", "memberships": members}
        self.user = self.manager.ok("POST", "users", body)["id"]
        self.grant()

    def grant(self) -> None:
        self.manager.ok("PUT", f"apps/{self.app}/grants/{self.user}")

    # How access is removed and restored

    def takings(self) -> dict[str, tuple[str, str, dict[str, Any] | None]]:
        pair = f"userId={self.user}&appId={self.app}"
        return {
            "archive": ("PATCH", f"users/{self.user}", {"status": "archived"}),
            "remove the grant": ("DELETE", f"apps/{self.app}/grants/{self.user}", None),
            "remove the member": ("DELETE", f"workspaces/{self.acme}/members/{self.user}", None),
            "move the app": ("PATCH", f"apps/{self.app}", {"workspaceId": self.globex}),
            "delete the user": ("DELETE", f"users/{self.user}", None),
            "revoke tokens": ("DELETE", f"personal-access-tokens?{pair}", None),
            "end sessions": ("DELETE", f"sessions?{pair}", None),
        }

    def give_back(self, taken: set[str]) -> None:
        if "move the app" in taken:
            self.manager.ok("PATCH", f"apps/{self.app}", {"workspaceId": self.acme})
        if "delete the user" in taken:
            self.welcome()
            return
        if "archive" in taken:
            self.manager.ok("PATCH", f"users/{self.user}", {"status": "active"})
        if "remove the member" in taken:
            role = {"role": "end-user"}
            self.manager.ok("PUT", f"workspaces/{self.acme}/members/{self.user}", role)
        self.grant()

    # One round

    def play(self) -> None:
        takings = self.takings()
        chosen = self.random.sample(sorted(takings), self.random.choice((1, 1, 2)))
        # Some removals come before the first mint, some after it.
        delays = [self.random.random() * 0.02 for _ in chosen]

        def take(number: int) -> tuple[float, float, Answer]:
            time.sleep(delays[number])
            begun = time.monotonic()
            answer = self.managers[number].call(*takings[chosen[number]])
            return begun, time.monotonic(), answer

        minted = [self.threads.submit(self.mint_and_open, caller) for caller in self.minters]
        taken = [self.threads.submit(take, number) for number in range(len(chosen))]
        opened = [pair for future in minted for pair in future.result()]
        answers = {name: future.result() for name, future in zip(chosen, taken, strict=True)}
        for name, (_, _, answer) in answers.items():
            allowed = {200, 204, 404, 409} if len(chosen) > 1 else {200, 204}
            assert answer.status in allowed, (name, chosen, answer.text)
        done = {name: begun for name, (begun, _, answer) in answers.items() if answer.status in (200, 204)}
        self.check(done, opened)

    def mint_and_open(self, caller: HttpConnection) -> list[tuple[float, str, float, str | None]]:
        """Mint and open twice; return tokens and sessions, each with the time of its answer."""
        found = []
        for _ in range(2):
            answer = caller.mint(email=f"{self.name}@acme.test", appSlug=self.name)
            assert answer.status in (201, 403, 404), answer.text
            if answer.status != 201:
                continue
            minted, token = time.monotonic(), answer.json["personalAccessToken"]
            answer = caller.exchange(token, self.app)
            assert answer.status in (201, 401), answer.text
            session = answer.json["signedPat"] if answer.status == 201 else None
            found.append((minted, token, time.monotonic(), session))
        return found

    def check(self, done: dict[str, float], opened: list[tuple[float, str, float, str | None]]) -> None:
        """Check, after all threads end: access removed before or during a mint must open nothing."""
        reader = self.minters[0]
        access = done.keys() - {"revoke tokens", "end sessions"}
        codes = {token: reader.exchange(token, self.app).code for _, token, _, _ in opened}
        assert list(codes.values()).count("served") <= 1, codes
        if access:
            assert "served" not in codes.values(), (done, codes)
            status = reader.mint(email=f"{self.name}@acme.test", appSlug=self.name).status
            assert status in (403, 404), (done, status)
        for minted, token, answered, session in opened:
            served = session is not None and reader.facts(session, self.app).status == 200
            assert not (served and access), done
            if minted < done.get("revoke tokens", 0):
                assert codes[token] != "served"
            if answered < max(done.get("revoke tokens", 0), done.get("end sessions", 0)):
                assert not served, done
        if access:
            self.give_back(set(access))
            for token in codes if access & {"move the app", "delete the user"} else ():
                assert reader.exchange(token, self.app).code != "served"  # permanently


def test_removed_access_opens_nothing_during_concurrent_mints_and_openings(
    server: WebServer, installation: Installation
) -> None:
    def play(number: int) -> None:
        with ExitStack() as stack:
            callers = [stack.enter_context(HttpConnection(server.port)) for _ in range(CALLERS)]
            lane = Lane(number, stack.enter_context(ThreadPoolExecutor(CALLERS)), callers)
            for _ in range(ROUNDS // LANES):
                lane.play()

    with ThreadPoolExecutor(LANES) as threads:
        list(threads.map(play, range(LANES)))
    pairs = "SELECT app_id, user_id FROM tokens GROUP BY app_id, user_id HAVING count(*) > 1"
    assert installation.rows(pairs) == []
