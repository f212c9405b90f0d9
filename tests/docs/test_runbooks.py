"""The runbooks of docs/operate/maintenance.md: after a leak, the steps end what the leaked text could do."""

import re
from collections.abc import Callable
from typing import Final

import pytest
from flask import Flask

from pat_service.credentials import Keyring
from tests.support.documents import text_of
from tests.support.people import KEY, MINT, MINT_BODY, NEW_KEY, SECRETS, WORLD, Service, basic, provision

PAGE: Final = text_of("docs/operate/maintenance.md")

Start = Callable[..., Service]


@pytest.fixture
def start(make_app: Callable[..., Flask]) -> Start:
    """Start the service with these keys, on one database."""

    def start(key: str, *fallbacks: str) -> Service:
        return Service(make_app(SECRET_KEY=key, SECRET_KEY_FALLBACKS=",".join(fallbacks)).test_client())

    provision(start(KEY).app, WORLD)
    return start


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def run(service: Service, *command: str) -> str:
    """Run a command, which must succeed, and return its standard output."""
    done = service.app.test_cli_runner().invoke(args=command)
    assert done.exit_code == 0, done.output
    return done.stdout


def list_clients(service: Service) -> list[str]:
    """Return the ids of all clients, as `cut -f 1` does."""
    return [id_ for line in run(service, "client", "list").splitlines() if (id_ := line.split("\t")[0])]


def mint_status(service: Service, secret: str) -> int:
    return service.client.post(MINT, json=MINT_BODY, headers=basic("portal", secret)).status_code


def commands_of(title: str) -> list[str]:
    """Return the commands that the section names, in its order."""
    return re.findall(r"flask --app app ((?:client|token|check|events)[^`;)|]*)", section(title))


def test_the_steps_after_a_leaked_client_secret_end_what_its_holder_has(start: Start) -> None:
    service = start(KEY)
    stolen = service.token(email="ben@acme.test")
    frame = service.frame()
    others = service.token(client="everywhere", email="mallory@globex.test", appSlug="ledger")
    assert [command.split()[:2] for command in commands_of("A leaked client secret")] == [
        ["client", "rotate"],
        ["client", "revoke"],
        ["token", "revoke"],
        ["token", "list"],
        ["events", "--client"],
    ]
    new = run(service, "client", "rotate", "portal").strip()
    assert run(service, "token", "revoke", "--client", "portal") == (
        "Revoked 2 token(s), ended 1 session(s).\n"
    )
    assert run(service, "token", "list", "--client", "portal") == ""
    assert run(service, "events", "--client", "portal").count('"token:minted"') == 2
    assert service.refusal(stolen) == "token_revoked"
    assert service.get(frame, "session").json["code"] == "session_revoked"  # type: ignore[index]
    assert service.open(others, WORLD["apps"][2]["id"]).status_code == 200
    assert [mint_status(service, secret) for secret in (SECRETS["portal"], new)] == [401, 201]


def test_a_leaked_key_among_the_fallbacks_still_verifies_forged_sessions(start: Start) -> None:
    """This is why the runbook warns against the leaked key as a fallback."""
    frame = start(KEY).frame()
    frame.jwt = forge(frame.jwt)
    assert start(NEW_KEY, KEY).get(frame, "session").status_code == 200
    assert start(NEW_KEY).get(frame, "session").status_code == 401


def forge(jwt: str) -> str:
    """Sign the claims of a session with only the leaked key."""
    leaked = Keyring(KEY)
    return leaked.sign_session(leaked.read_any_session(jwt))


def test_the_steps_after_a_leaked_secret_key_end_all_that_it_signed(start: Start) -> None:
    old = start(KEY)
    token, frame = old.token(email="ben@acme.test"), old.frame()
    frame.jwt = forge(frame.jwt)
    service = start(NEW_KEY)
    title = "A leaked SECRET_KEY"
    assert [command.split()[0] for command in commands_of(title)] == ["client", "token", "client", "check"]
    assert "client list | cut -f 1" in section(title)
    clients = list_clients(service)
    assert set(clients) == set(SECRETS)
    for id_ in clients:
        run(service, "token", "revoke", "--client", id_)
    secrets = {id_: run(service, "client", "rotate", id_).strip() for id_ in clients}
    assert "Unknown key" not in run(service, "check")
    assert service.refusal(token) == "token_invalid"
    assert [mint_status(service, secret) for secret in (SECRETS["portal"], secrets["portal"])] == [401, 201]
    # If the leaked key is restored by mistake, none of its tokens, sessions and secrets works again.
    restored = start(NEW_KEY, KEY)
    assert restored.get(frame, "session").json["code"] == "session_revoked"  # type: ignore[index]
    assert restored.refusal(token) == "token_revoked"
    assert mint_status(restored, SECRETS["portal"]) == 401
