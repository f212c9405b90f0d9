"""The operator's commands."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import time_machine
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient
from flask.testing import FlaskCliRunner as Runner
from sqlalchemy import select, update

from pat_service import __version__
from pat_service.credentials import Key
from pat_service.embed import EmbeddedApp
from pat_service.shapes import normalize_email
from pat_service.storage.models import App, Client, ClientSecret, Event, User
from tests.support.api_calls import BEN, UNKNOWN, call, mint, open_session, session_code
from tests.support.people import (
    KEY,
    MINT,
    NEW_KEY,
    PORTAL,
    PUBLIC_URL,
    SECRETS,
    SUPPORT,
    WORLD,
    Service,
    basic,
    database_folder,
    make_secret,
    provision,
)
from tests.support.servers import free_port
from tests.support.shared_fixtures import MakeService

PROJECT = Path(__file__).resolve().parents[2]
CLIENT_SECRET = re.compile(r"pcs_[0-9a-f]{72}")
NOT_UTF8 = os.fsdecode(b"p\xffrtal")
Write = Callable[..., str]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def mint_status(client: FlaskClient, id_: str, secret: str) -> int:
    body = {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000}
    return client.post(MINT, json=body, headers=basic(id_, secret)).status_code


@pytest.fixture(scope="module")
def shared_runner(make_shared: MakeService) -> Runner:
    """A runner that tests of refusals share, since a refusal changes nothing."""
    return make_shared().app.test_cli_runner()


def succeed(runner: Runner, *args: str) -> Result:
    done = runner.invoke(args=args)
    assert done.exit_code == 0, done.output
    return done


def fail(runner: Runner, *args: str, code: int = 1) -> str:
    """Run a command that must be refused, and return its error output."""
    done = runner.invoke(args=args)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def secret_of(done: Result) -> str:
    """Return the secret, which is all of standard output and not on standard error."""
    secret = done.stdout.removesuffix("\n")
    assert CLIENT_SECRET.fullmatch(secret)
    assert secret not in done.stderr
    return secret


def test_version_needs_no_database(broken: Runner) -> None:
    assert succeed(broken, "version").stdout == f"pat-service {__version__}\n"


# client create


def test_create_prints_only_a_valid_secret(runner: Runner, client: FlaskClient) -> None:
    done = succeed(runner, "client", "create", "shop", "--all-workspaces")
    assert mint_status(client, "shop", secret_of(done)) == 201
    assert "shop" in done.stderr
    assert "once" in done.stderr


def test_create_takes_workspaces_scopes_and_a_limit(runner: Runner, service: Service) -> None:
    succeed(
        runner,
        *("client", "create", "shop", "--workspace", "acme", "--workspace", "globex"),
        *("--scope", "mint", "--scope", "audit", "--mint-limit", "600 per minute"),
    )
    (shop,) = service.rows(select(Client.__table__).where(Client.id == "shop"))
    assert (shop.scopes, shop.all_workspaces, shop.mint_limit) == (["audit", "mint"], False, "600 per minute")
    listed = succeed(runner, "client", "list").stdout
    assert "shop\tacme, globex\taudit, mint\t600 per minute\tend-user\t1 live" in listed


@pytest.mark.parametrize("given", [[], ["--workspace", "acme", "--all-workspaces"]])
def test_create_needs_workspaces_or_all_of_them(runner: Runner, service: Service, given: list[str]) -> None:
    """A client of all tenants must not be an accident."""
    said = fail(runner, "client", "create", "shop", *given, code=2)
    assert "Name either --workspace, once or more, or --all-workspaces." in said
    assert service.rows(select(Client.id).where(Client.id == "shop")) == []


def test_a_new_client_has_only_the_scope_mint_by_default(
    runner: Runner, client: FlaskClient, service: Service
) -> None:
    succeed(runner, "client", "create", "shop", "--all-workspaces")
    assert service.rows(select(Client.scopes).where(Client.id == "shop")) == [(["mint"],)]
    auditor = secret_of(succeed(runner, "client", "create", "books", "--all-workspaces", "--scope", "audit"))
    assert mint_status(client, "books", auditor) == 403


def test_creating_a_client_again_is_refused_and_changes_nothing(runner: Runner, client: FlaskClient) -> None:
    said = fail(runner, "client", "create", "portal", "--all-workspaces", "--scope", "audit")
    assert "portal" in said
    assert "rotate" in said
    assert mint_status(client, "portal", SECRETS["portal"]) == 201


# client list


def test_list_shows_every_client_and_no_secret(runner: Runner, service: Service, app: Flask) -> None:
    made = secret_of(succeed(runner, "client", "create", "shop", "--all-workspaces"))
    shown = succeed(runner, "client", "list").stdout
    assert [line.partition("\t")[0] for line in shown.splitlines()] == [
        *("auditor", "everywhere", "manager", "portal", "rival", "shop")
    ]
    assert "portal\tacme\tmint\t1000 per minute\tend-user\t1 live secret(s)" in shown
    assert "shop\tall workspaces\tmint\tdefault limit\tend-user\t1 live secret(s)" in shown
    assert "\tbuilder\t" in shown
    digests = [row.digest.hex() for row in service.rows(select(ClientSecret.digest))]
    assert not any(secret in shown for secret in [made, *SECRETS.values(), *digests])


def test_list_shows_creation_expiry_and_last_use_of_each_secret(runner: Runner, client: FlaskClient) -> None:
    key = Key(KEY.encode()).id
    with time_machine.travel(NOON, tick=False) as clock:
        first = secret_of(succeed(runner, "client", "create", "shop", "--all-workspaces"))
        clock.shift(timedelta(hours=1))
        assert mint_status(client, "shop", first) == 201
        second = secret_of(succeed(runner, "client", "rotate", "shop", "--overlap", "24h"))
        first_ends = (
            "of 2026-11-22T12:00:00Z, ends 2026-11-23T13:00:00Z, last used 2026-11-22T13:00:00Z, key " + key
        )
        assert describe(runner, "shop") == [
            "2 live secret(s)",
            f"{first_ends}, of 2026-11-22T13:00:00Z, does not end, not used yet, key {key}",
        ]
        clock.shift(timedelta(hours=24))
        assert mint_status(client, "shop", second) == 201
        assert describe(runner, "shop") == [
            "1 live secret(s)",
            f"of 2026-11-22T13:00:00Z, does not end, last used 2026-11-23T13:00:00Z, key {key}",
        ]
        succeed(runner, "client", "revoke", "shop")
        assert describe(runner, "shop") == ["revoked 2026-11-23", ""]


def describe(runner: Runner, client_id: str) -> list[str]:
    """Return the state and the secrets of a client, as the list shows them."""
    [row] = [row for row in rows_of(runner, "client", "list") if row[0] == client_id]
    return row[5:]


def test_list_shows_that_a_secret_of_an_unknown_key_is_dead(make_app: Callable[..., Flask]) -> None:
    provision(make_app(), WORLD)
    newer = make_app(SECRET_KEY=NEW_KEY).test_cli_runner()
    shown = succeed(newer, "client", "list").stdout
    assert "1 live secret(s)" not in shown
    assert shown.count("0 live secret(s)") == len(WORLD["clients"])
    assert f"dead: its key {Key(KEY.encode()).id} is not configured" in shown


def test_list_without_clients_is_empty(make_app: Callable[..., Flask]) -> None:
    assert succeed(make_app().test_cli_runner(), "client", "list").output == ""


# client limit


def test_limit_sets_and_removes_a_limit_and_changes_nothing_else(
    runner: Runner, client: FlaskClient, service: Service
) -> None:
    before = succeed(runner, "client", "list").stdout
    said = succeed(runner, "client", "limit", "portal", "1 per minute").stdout
    assert said == "Client portal may mint 1 per minute.\n"
    succeed(runner, "client", "limit", "portal", "1 per minute")
    assert succeed(runner, "client", "list").stdout == before.replace(
        "portal\tacme\tmint\t1000 per minute", "portal\tacme\tmint\t1 per minute"
    )
    assert [mint_status(client, "portal", SECRETS["portal"]) for _ in range(2)] == [201, 429]
    said = succeed(runner, "client", "limit", "portal", "none").stdout
    assert said == "Client portal may mint as often as MINT_RATE_LIMIT says.\n"
    trail = service.rows(select(Event.details).where(Event.type == "client:changed").order_by(Event.id))
    limits = ["1000 per minute", "1 per minute", None]
    assert [row.details for row in trail] == [
        {"before": {"mint_limit": one}, "after": {"mint_limit": other}} for one, other in pairwise(limits)
    ]


# client rotate


def test_rotate_ends_the_old_secret_at_once(runner: Runner, client: FlaskClient) -> None:
    new = secret_of(succeed(runner, "client", "rotate", "portal"))
    assert mint_status(client, "portal", SECRETS["portal"]) == 401
    assert mint_status(client, "portal", new) == 201


@pytest.mark.parametrize(("overlap", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604800)])
def test_an_overlap_needs_a_unit(runner: Runner, service: Service, overlap: str, seconds: int) -> None:
    with time_machine.travel(NOON, tick=False):
        succeed(runner, "client", "rotate", "portal", "--overlap", overlap)
    ends = service.rows(select(ClientSecret.expires_at).where(ClientSecret.client_id == "portal"))
    assert {row.expires_at for row in ends} == {None, NOON + timedelta(seconds=seconds)}


# client revoke


def test_revoke_ends_the_client_at_once_but_its_tokens_stay_valid(runner: Runner, service: Service) -> None:
    token = service.token()
    new = secret_of(succeed(runner, "client", "rotate", "portal", "--overlap", "24h"))
    succeed(runner, "client", "revoke", "portal")
    assert mint_status(service.client, "portal", new) == 401
    assert service.mint().json["code"] == "invalid_client"  # type: ignore[index]
    assert service.open(token).status_code == 200
    assert re.fullmatch(r"revoked \d{4}-\d\d-\d\d", describe(runner, "portal")[0])


def test_a_revoked_client_cannot_be_limited_rotated_revoked_or_created(runner: Runner) -> None:
    succeed(runner, "client", "revoke", "portal")
    assert "no live client 'portal'" in fail(runner, "client", "rotate", "portal")
    assert "no live client 'portal'" in fail(runner, "client", "limit", "portal", "none")
    assert "no live client 'portal'" in fail(runner, "client", "revoke", "portal")
    said = fail(runner, "client", "create", "portal", "--all-workspaces")
    assert "revoked" in said
    assert "rotate" not in said  # the advice `client rotate` would not help


def test_changes_of_clients_are_audited_without_secrets(runner: Runner, service: Service) -> None:
    made = secret_of(succeed(runner, "client", "create", "shop", "--all-workspaces"))
    new = secret_of(succeed(runner, "client", "rotate", "shop"))
    succeed(runner, "client", "revoke", "shop")
    trail = service.rows(select(Event.__table__).where(Event.client_id == "shop").order_by(Event.id))
    assert [event.type for event in trail] == ["client:created", "client:rotated", "client:revoked"]
    assert made not in repr(trail)
    assert new not in repr(trail)


# provision FILE


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file and return its path."""

    def written(content: str | bytes, name: str = "directory.toml") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return written


ACME = '[[workspaces]]\nslug = "acme"\nname = "Acme & Sons"\n'

# app allow, workspace allow


@pytest.mark.parametrize(("kind", "slug"), [("app", "orders"), ("workspace", "acme")])
def test_allow_adds_an_origin_and_disallow_removes_it(runner: Runner, kind: str, slug: str) -> None:
    both = succeed(runner, kind, "allow", slug, "https://www.portal.example", "https://b.example").stdout
    assert both.splitlines()[-2:] == ["https://www.portal.example", "https://b.example"]
    assert succeed(runner, kind, "allow", slug, "HTTPS://B.example:443").stdout == both
    left = succeed(runner, kind, "disallow", slug, "https://B.example").stdout
    assert left == both.removesuffix("https://b.example\n")
    assert succeed(runner, kind, "disallow", slug, "https://b.example").stdout == left


def test_an_allowed_origin_takes_effect_at_once(runner: Runner, service: Service) -> None:
    def ancestors() -> str:
        policy = service.open(service.token()).headers["Content-Security-Policy"]
        return policy.partition("frame-ancestors ")[2].partition(";")[0]

    before = ancestors()
    succeed(runner, "app", "allow", "orders", "https://b.example")
    assert ancestors() == f"{before} https://b.example"
    succeed(runner, "app", "disallow", "orders", "https://b.example")
    assert ancestors() == before


def test_a_change_of_origins_is_audited_once(runner: Runner, service: Service) -> None:
    for _ in range(2):
        succeed(runner, "app", "allow", "orders", "https://b.example")
    (event,) = service.rows(select(Event.__table__).where(Event.type == "app:changed"))
    assert event.client_id == "(operator)"
    assert event.details["after"]["allowed_origins"] == [
        *event.details["before"]["allowed_origins"],
        "https://b.example",
    ]


def test_a_stored_origin_that_is_no_longer_valid_can_be_removed(runner: Runner, service: Service) -> None:
    service.change(update(App).where(App.slug == "orders").values(allowed_origins=["https://B.example/"]))
    assert succeed(runner, "app", "disallow", "orders", "https://B.example/").stdout == ""


def test_provision_prints_a_summary(runner: Runner, write: Write) -> None:
    done = succeed(runner, "provision", write(ACME))
    assert done.stdout == "Provisioned 1 workspace, 0 users, 0 apps, 0 clients.\n"
    assert done.stderr == ""


def test_provision_prints_a_new_secret_once(runner: Runner, client: FlaskClient, write: Write) -> None:
    file = write('[[clients]]\nid = "shop"\n[[clients]]\nid = "till"\n')
    done = succeed(runner, "provision", file)
    secrets = [line for line in done.stdout.splitlines() if CLIENT_SECRET.fullmatch(line)]
    assert [mint_status(client, *pair) for pair in zip(("shop", "till"), secrets, strict=True)] == [201] * 2
    assert not CLIENT_SECRET.search(done.stderr)
    assert re.findall(r"Secret of client (\w+)", done.stderr) == ["shop", "till"]
    assert "pcs_" not in succeed(runner, "provision", file).output


def test_provision_prints_new_secrets_by_client_as_json(
    runner: Runner, client: FlaskClient, write: Write
) -> None:
    file = write('[[clients]]\nid = "shop"\n[[clients]]\nid = "till"\nworkspaces = ["acme"]\n')
    done = succeed(runner, "provision", file, "--json")
    assert done.stderr == ""
    printed = json.loads(done.stdout)
    statuses = {name: mint_status(client, name, secret) for name, secret in printed["secrets"].items()}
    assert statuses == {"shop": 201, "till": 201}
    [note] = printed["notes"]
    assert "client shop reaches all workspaces" in note
    assert [printed[kind] for kind in ("workspaces", "users", "apps", "clients")] == [0, 0, 0, 2]
    assert json.loads(succeed(runner, "provision", file, "--json").stdout)["secrets"] == {}


def test_provision_never_prints_a_secret_from_the_file(
    runner: Runner, client: FlaskClient, write: Write
) -> None:
    file = write(f'[[clients]]\nid = "shop"\nsecret = "{make_secret("s")}"\n')
    assert make_secret("s") not in succeed(runner, "provision", file).output
    assert mint_status(client, "shop", make_secret("s")) == 201


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(ACME.replace("\n", "\r\n"), id="line-ends-of-windows"),
        pytest.param("\ufeff" + ACME, id="byte-order-mark"),
    ],
)
def test_provision_reads_windows_line_ends_and_a_byte_order_mark(
    runner: Runner, write: Write, content: str
) -> None:
    assert "1 workspace," in succeed(runner, "provision", write(content)).stdout


def test_provision_notes_a_missing_member_and_a_missing_template(runner: Runner, write: Write) -> None:
    file = write(
        '[[apps]]\nslug = "empty"\nworkspace = "acme"\ntemplate = "no-such"\nusers = ["mallory@globex.test"]'
    )
    notes = succeed(runner, "provision", file).stderr.splitlines()
    assert len(notes) == 2
    assert any("mallory@globex.test" in note for note in notes)
    assert any("apps/no-such/templates/index.html" in note for note in notes)


def test_each_error_of_a_file_has_a_line(shared_runner: Runner, write: Write) -> None:
    said = fail(
        shared_runner, "provision", write('frobs = 1\n[[users]]\nemail = "ana"\n[[workspaces]]\nslug = ""\n')
    )
    assert len(said.splitlines()) == 3


# token list, token revoke, session list, session end


def rows_of(runner: Runner, *args: str) -> list[list[str]]:
    return [line.split("\t") for line in succeed(runner, *args).stdout.splitlines()]


def ids_of(runner: Runner, *args: str) -> list[str]:
    return [row[0] for row in rows_of(runner, *args)]


def test_an_operator_lists_tokens_and_sessions_of_all_workspaces(runner: Runner, service: Service) -> None:
    token, id_ = mint(service)
    _, session_id = open_session(service, token)
    _, wide = mint(service, "manager", workspaceSlug="acme")
    ledger = mint(service, "rival", appSlug="ledger", email="mallory@globex.test")[1]
    rows = {row[0]: row for row in rows_of(runner, "token", "list")}
    assert set(rows) == {id_, wide, ledger}
    assert rows[id_][1:4] == ["acme/orders", "ana@acme.test", "portal"]
    assert rows[id_][5:] == [token[-4:], "live", "1"]
    assert rows[wide][1] == "acme/*"
    assert ids_of(runner, "token", "list", "--app", "ledger") == [ledger]
    assert ids_of(runner, "token", "list", "--workspace", "globex") == [ledger]
    narrow = ("--user", "ANA@acme.test", "--app", "orders", "--workspace", "acme")
    assert ids_of(runner, "token", "list", *narrow) == [id_]
    (shown,) = rows_of(runner, "session", "list", "--user", "ana@acme.test")
    assert shown[:4] == [session_id, "acme/orders", "ana@acme.test", "portal"]
    assert shown[-1] == id_
    assert ids_of(runner, "session", "list", "--app", "ledger") == []
    assert token not in succeed(runner, "token", "list").output


def test_tokens_sessions_and_clients_are_listed_as_json(runner: Runner, service: Service) -> None:
    frame = service.frame(client="manager")
    for command, path in (("token", "personal-access-tokens"), ("session", "sessions")):
        [listed] = json.loads(succeed(runner, command, "list", "--json").stdout)
        assert listed == call(service, "GET", f"/api/ext/{path}", "manager").get_json()["items"][0]
    shown = succeed(runner, "client", "list", "--json").stdout
    assert frame.jwt not in shown
    clients = {client["id"]: client for client in json.loads(shown)}
    everywhere = clients["everywhere"] | {"secrets": len(clients["everywhere"]["secrets"])}
    assert everywhere == {
        **{"id": "everywhere", "workspaces": None, "scopes": ["mint"], "mintLimit": "1000 per minute"},
        **{"highestRole": "end-user", "revokedAt": None, "secrets": 1},
    }
    assert set(clients["portal"]["secrets"][0]) == {
        *("createdAt", "expiresAt", "lastUsedAt", "keyId", "keyKnown"),
    }


def test_a_command_lists_every_page(
    runner: Runner, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pat_service.cli.lists.MAX_LIMIT", 2)
    token, _ = mint(service)
    opened = sorted(open_session(service, token)[1] for _ in range(5))
    assert ids_of(runner, "session", "list") == opened


def test_an_operator_revokes_one_token_or_many(runner: Runner, service: Service) -> None:
    token, id_ = mint(service)
    jwt, _ = open_session(service, token)
    bens = mint(service, email=BEN)[1]
    for number in (1, 0):
        said = succeed(runner, "token", "revoke", id_.upper()).output
        assert said == f"Revoked {number} token(s), ended {number} session(s).\n"
    assert session_code(service, jwt) == "session_revoked"
    assert ids_of(runner, "token", "list") == [bens]
    statuses = {row[0]: row[6] for row in rows_of(runner, "token", "list", "--all")}
    assert statuses == {id_: "revoked", bens: "live"}
    done = succeed(runner, "token", "revoke", "--app", "orders", "--user", BEN)
    assert done.output == "Revoked 1 token(s), ended 0 session(s).\n"
    assert {event.client_id for event in service.events("token:revoked")} == {"(operator)"}


def test_an_operator_ends_one_session_or_many(runner: Runner, service: Service) -> None:
    token, _ = mint(service)
    opened = [open_session(service, token) for _ in range(3)]
    one = opened[0][1]
    fail(runner, "session", "end", one, "--app", "orders", code=2)
    for args, number in (([one], 1), ([one], 0), (["--workspace", "globex"], 0), (["--app", "orders"], 2)):
        assert succeed(runner, "session", "end", *args).output == f"Ended {number} session(s).\n"
    assert {session_code(service, jwt) for jwt, _ in opened} == {"session_revoked"}
    assert session_code(service, open_session(service, token)[0]) == "served"


def test_an_operator_ends_all_that_one_client_minted(runner: Runner, service: Service) -> None:
    ended = [open_session(service, mint(service, email=email)[0])[0] for email in ("ana@acme.test", BEN)]
    kept, _ = open_session(service, mint(service, "manager", appSlug="support")[0], SUPPORT)
    assert {row[3] for row in rows_of(runner, "token", "list", "--client", "portal")} == {"portal"}
    assert len(rows_of(runner, "session", "list", "--client", "manager")) == 1
    assert succeed(runner, "session", "end", "--client", "portal").output == "Ended 2 session(s).\n"
    said = succeed(runner, "token", "revoke", "--client", "portal").output
    assert said == "Revoked 2 token(s), ended 0 session(s).\n"
    assert {session_code(service, jwt) for jwt in ended} == {"session_revoked"}
    assert session_code(service, kept, SUPPORT) == "served"
    assert rows_of(runner, "token", "list", "--client", "portal") == []


def test_a_client_is_revoked_with_all_that_it_minted(runner: Runner, service: Service) -> None:
    token, _ = mint(service)
    jwt, _ = open_session(service, token)
    kept, _ = mint(service, "manager", email=BEN)
    said = succeed(runner, "client", "revoke", "portal", "--tokens").output
    assert said == "Client portal is revoked.\nRevoked 1 token(s), ended 1 session(s).\n"
    assert service.refusal(token) == "token_revoked"
    assert session_code(service, jwt) == "session_revoked"
    assert service.open(kept).status_code == 200


# Refusals

#: Arguments of `client` → a part of the error.
WRONG_CLIENTS = {
    "nowhere": ["create shop --workspace nowhere", "create shop --workspace acme --workspace nowhere"],
    "plenty": ["create shop --all-workspaces --mint-limit plenty", "limit portal plenty"],
    "nobody": ["limit nobody none", "rotate nobody", "revoke nobody"],
    "Portal": ["revoke Portal"],
}
BAD_IDS = ["", "por tal", "por:tal", "pörtal", "portal\n", "p" * 65, NOT_UTF8]
WRONG: list[tuple[list[str], str]] = [
    *((["client", *args.split()], said) for said, rows in WRONG_CLIENTS.items() for args in rows),
    *((["client", "create", id_, "--all-workspaces"], "client id") for id_ in BAD_IDS),
    *((["client", "create", "shop", "--workspace", slug], "workspace") for slug in ("", NOT_UTF8)),
    *(
        (
            ["client", "create", "shop", "--all-workspaces", "--mint-limit", limit],
            limit if limit != NOT_UTF8 else "limit",
        )
        for limit in ("0 per minute", "10 per minute;1 per day", NOT_UTF8)
    ),
    *((["client", "limit", "portal", limit], "limit") for limit in ("", NOT_UTF8)),
    *((["client", verb, NOT_UTF8], "client") for verb in ("rotate", "revoke")),
    *(
        ([*command, *args], "")
        for command in (["token", "revoke"], ["session", "end"])
        for args in (
            *(
                [UNKNOWN],
                ["orders"],
                [""],
                [NOT_UTF8],
                ["--app", "nowhere"],
                ["--app", ""],
                ["--app", NOT_UTF8],
            ),
            *(["--user", email] for email in ("nobody@acme.test", "ana", f"{NOT_UTF8}@acme.test")),
            *(["--workspace", "nowhere"], ["--workspace", "Acme"]),
            *(["--client", id_] for id_ in ("nobody", "", NOT_UTF8)),
            ["--app", "orders", "--user", "nobody@acme.test"],
        )
    ),
    (["client", "limit", NOT_UTF8, "none"], "client"),
    (["client", "rotate", ""], "client"),
    *(
        ([kind, verb, real if slug == "real" else slug, "https://good.example", origin], said)
        for kind, real in (("app", "orders"), ("workspace", "acme"))
        for verb in ("allow", "disallow")
        for slug, origin, said in (
            ("nothing", "https://b.example", "'nothing'"),
            (NOT_UTF8, "https://b.example", "There is no"),
            ("", "https://b.example", "There is no"),
            ("real", "portal.example", "portal.example: Must be"),
            ("real", "https://portal.example/page", "Must be an exact origin"),
            ("real", "null", "null: Must be"),
            ("real", "https://a\x1b[31m", r"a\x1b[31m: Must be"),
            ("real", NOT_UTF8, "Must be"),
        )
    ),
]


def assert_one_line(line: str, said: str) -> None:
    assert line.startswith("Error: ")
    assert said in line
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


@pytest.mark.parametrize(("args", "said"), WRONG, ids=ascii)
def test_a_wrong_value_is_refused_in_one_line(shared_runner: Runner, args: list[str], said: str) -> None:
    assert_one_line(fail(shared_runner, *args), said)
    assert "shop" not in succeed(shared_runner, "client", "list").stdout


@pytest.mark.parametrize(
    "args",
    [
        *(
            ["client", "create"],
            ["client", "create", "shop", "--all-workspaces", "--scope", "everything"],
            ["client", "frobnicate"],
        ),
        *(
            ["client", "create", "shop", "--all-workspaces", "--secret", "mine"],
            ["provision", "no-such-file.toml"],
        ),
        *(["provision", "."], ["provision", ""]),
        *(
            [*command, *args]
            for command in (["token", "revoke"], ["session", "end"])
            for args in ([], [UNKNOWN, "--app", "orders"], [UNKNOWN, UNKNOWN], ["--everything"])
        ),
        *(
            ["client", "rotate", "portal", "--overlap", time]
            for time in ("1", "-1h", "1.5h", "１h", "1w", "1h\n", "9999999d", NOT_UTF8)
        ),
    ],
    ids=ascii,
)
def test_a_wrong_argument_is_a_usage_error(shared_runner: Runner, args: list[str]) -> None:
    assert "Error: " in fail(shared_runner, *args, code=2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = \n", "line 1"),
        (b"\xff\xfe[\x00[\x00", "UTF-8"),
        ("frobs = 1", "frobs"),
        ('[[workspaces]]\nslug = "Acme"', "workspaces.0.slug"),
        ('[[workspaces]]\nslug = "x"\n"\\u001b[31mred" = 1\n', "\\x1b[31mred: Unknown field."),
        ('[[apps]]\nslug = "orders"\nworkspace = "nowhere"', "nowhere"),
        ('[[clients]]\nid = "shop"\nmint_limit = "plenty"', "clients.0.mint_limit"),
        ('[[clients]]\nid = "shop"\nsecret = "correct horse"', "clients.0.secret"),
        ("a = " + "[" * 3000, "TOML"),
        ("a = " + "9" * 5000, "TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    shared_runner: Runner, write: Write, content: str | bytes, said: str
) -> None:
    line = fail(shared_runner, "provision", write(content))
    assert_one_line(line, said)
    assert "horse" not in line


# A failing database


@pytest.fixture(params=["no schema", "no folder", "no database", "no server"])
def broken(request: pytest.FixtureRequest, make_app: Callable[..., Flask], tmp_path: Path) -> Runner:
    (tmp_path / "text.db").write_text("This is no database. " * 100)
    urls = {
        "no schema": f"sqlite:///{tmp_path}/empty.db",
        "no folder": f"sqlite:///{tmp_path}/nowhere/pat.db",
        "no database": f"sqlite:///{tmp_path}/text.db",
        "no server": f"postgresql://ana:correct-horse@127.0.0.1:{free_port()}/pat",
    }
    return make_app(DATABASE_URL=urls[request.param]).test_cli_runner()


def test_a_failing_database_gives_one_clear_line(broken: Runner, write: Write) -> None:
    for args in (
        ["client", "create", "shop", "--all-workspaces"],
        ["client", "list"],
        ["client", "rotate", "portal"],
        ["client", "revoke", "portal"],
        ["provision", write(ACME)],
    ):
        line = fail(broken, *args)
        assert len(line.splitlines()) == 1
        assert "DATABASE_URL" in line
        assert "db upgrade" in line
        assert "correct-horse" not in line


# Real processes


@pytest.fixture
def flask(app: Flask) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `flask --app app …` as an operator does, on the database of the app."""
    environ = {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": KEY,
        "PUBLIC_URL": PUBLIC_URL,
        "DATABASE_URL": f"sqlite:///{database_folder(app) / 'pat-service.db'}",
    }

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flask", "--app", "app", *args]
        return subprocess.run(command, cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.slow
def test_a_shell_captures_secrets_and_errors_of_real_processes(
    flask: Callable[..., Any], client: FlaskClient, write: Write
) -> None:
    made = flask("client", "create", "shop", "--all-workspaces")
    assert (made.returncode, made.stderr) == (0, "Secret of client shop, shown this once:\n")
    assert mint_status(client, "shop", made.stdout.strip()) == 201
    done = flask("provision", write('[[clients]]\nid = "till"\n'))
    summary, secret = done.stdout.splitlines()
    assert (done.returncode, summary) == (0, "Provisioned 0 workspaces, 0 users, 0 apps, 1 client.")
    assert mint_status(client, "till", secret) == 201
    refused = flask("provision", write("frobs = 1"))
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", "Error: frobs: Unknown field.\n")


# check: what apps declare


def test_check_says_that_apps_of_one_origin_share_what_they_declare(
    runner: Runner, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = service.app.extensions["pat_service.registry"]
    mapped = EmbeddedApp(csp={"img-src": ["https://tiles.example"]}, permissions=["geolocation", "camera"])
    monkeypatch.setitem(registry._apps, "orders", mapped)
    assert "share" not in succeed(runner, "check").stdout
    registry.apply_limits(development=False)
    line = (
        "All apps share one origin, so each app can use what another declares: orders (img-src "
        "https://tiles.example; camera; geolocation). With {app} in PUBLIC_URL each app has its own"
    )
    assert line in succeed(runner, "check").stdout.splitlines()
    monkeypatch.setitem(service.app.config, "PUBLIC_URL", "https://{app}.embed.example")
    assert "share" not in succeed(runner, "check").stdout


def test_check_names_the_sizes_that_the_proxy_needs_for_the_largest_upload(
    runner: Runner, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = service.app.extensions["pat_service.registry"]
    for name, size in (("orders", "5 MB"), ("support", "25 MB")):
        monkeypatch.setitem(registry._apps, name, EmbeddedApp(max_upload=size))
    assert "uploads" not in succeed(runner, "check").stdout
    registry.apply_limits(development=False)
    line = (
        "App support takes uploads of 25 MB, so the proxy must take 26 MB: client_max_body_size 26m in "
        "nginx, max_size and request_buffers 26MiB in Caddy"
    )
    assert line in succeed(runner, "check").stdout.splitlines()


# check: emails


def test_check_names_both_users_whose_emails_would_be_one(runner: Runner, service: Service) -> None:
    ids = {row.email: row.id for row in service.rows(select(User.id, User.email))}
    ana, ben = ids["ana@acme.test"], ids["ben@acme.test"]
    for id_, email in ((ana, "x@bücher.example"), (ben, "x@xn--bcher-kva.example")):
        service.change(update(User).where(User.id == id_).values(email=email))
    [line] = [line for line in succeed(runner, "check").stdout.splitlines() if line.startswith("User ")]
    assert line == (
        f"User {ben} has the email x@xn--bcher-kva.example, which no request can name, and x@bücher.example "
        f"is user {ana}; flask --app app user email {ben} NEW-EMAIL changes it"
    )
    # Both spellings name the older user, and the id names the other one.
    for email in ("x@bücher.example", "X@XN--BCHER-KVA.example"):
        assert service.rows(select(User.id).where(User.email == normalize_email(email))) == [(ana,)]
    assert service.mint(email=None, userId=ben).status_code == 201
    assert (
        succeed(runner, "user", "email", ben, "ben@acme.test").stdout
        == f"The email of {ben} is ben@acme.test.\n"
    )
    assert "User " not in succeed(runner, "check").stdout


def test_check_names_users_whose_email_is_no_longer_valid(runner: Runner, service: Service) -> None:
    service.change(update(User).where(User.email == "ana@acme.test").values(email="an\u200ba@acme.test"))
    [line] = [line for line in succeed(runner, "check").stdout.splitlines() if line.startswith("User ")]
    assert r"has the email an\u200ba@acme.test, which no request can name; flask" in line


# Terminals


def test_lists_escape_what_could_control_a_terminal(runner: Runner, service: Service) -> None:
    """Names that an older version stored may contain anything."""
    hostile = "\u202ean\x1b]0;x\x07a\x9b@acme.test"
    service.token()
    service.change(update(User).where(User.email == "ana@acme.test").values(email=hostile))
    service.change(update(App).where(App.slug == "orders").values(allowed_origins=["http://\x1b[2J"]))
    shown = succeed(runner, "token", "list").stdout + succeed(runner, "app", "allow", "orders", PORTAL).stdout
    assert r"\u202ean\x1b]0;x\x07a\x9b@acme.test" in shown
    assert r"http://\x1b[2J" in shown
    assert shown.isascii()
    assert not set(shown) - {*map(chr, range(32, 127)), "\t", "\n"}


@pytest.mark.parametrize(
    "group", ["", "app", "client", "grant", "member", "session", "token", "user", "workspace"]
)
def test_help_lists_every_command_with_a_whole_sentence(shared_runner: Runner, group: str) -> None:
    done = shared_runner.invoke(args=[*group.split(), "--help"], terminal_width=80)
    commands = done.output.partition("Commands:\n")[2].splitlines()
    assert commands
    assert [line for line in commands if line.endswith("...")] == []


def test_every_command_prints_by_the_function_that_escapes() -> None:
    sources = {path.name: path.read_text() for path in (PROJECT / "pat_service/cli").glob("*.py")}
    assert {name for name, source in sources.items() if "click.echo(" in source} == {"common.py", "doctor.py"}
