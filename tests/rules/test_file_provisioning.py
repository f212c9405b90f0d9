"""The provisioning file: each entry replaces everything about its workspace, user, app or client."""

import json
import threading
from base64 import b64encode
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, select

from pat_service.credentials import Secret
from pat_service.errors import Conflict, InvalidPayload, Refused
from pat_service.http.authentication import utcnow
from pat_service.rules import clients, events, file_provisioning
from pat_service.rules.callers import OPERATOR
from pat_service.rules.file_provisioning import Provisioned
from pat_service.storage.database import db, reading, transaction
from pat_service.storage.models import App, Client, ClientSecret, Event, Grant, Member, User, Workspace
from tests.support.directory import Directory
from tests.support.people import (
    MINT,
    ORDERS,
    PORTAL,
    SECRETS,
    WORLD,
    Service,
    changed,
    make_secret,
    provision,
)
from tests.support.shared_fixtures import MakeService

#: The documented example, with a secret.
EXAMPLE = """
[[workspaces]]
slug = "acme"
name = "Acme"

[[users]]
email = "ana@acme.test"
name = "Ana"
status = "active"
workspaces = { acme = "end-user" }

[[apps]]
id = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"   # optional
slug = "orders"
name = "Orders"
workspace = "acme"
template = "orders"                            # apps/orders/
allowed_origins = ["http://localhost:8000"]
users = ["ana@acme.test"]                      # grants

[[clients]]
id = "portal"
secret = "correct horse battery staple and one more"
workspaces = ["acme"] # none: all
scopes = ["mint"]     # mint, provision, audit
mint_limit = "600 per minute"   # optional
"""
SECRET = "correct horse battery staple and one more"


def load(app: Flask, text: str) -> Provisioned:
    """Provision from the text of a file."""
    return provision(app, file_provisioning.parse(text))


def tables(app: Flask, *, but_events: bool = True) -> dict[str, list[str]]:
    """Return every row of every table."""
    with app.app_context(), reading() as connection:
        return {
            table.name: sorted(repr(tuple(row)) for row in connection.execute(select(table)))
            for table in db.metadata.sorted_tables
            if not (but_events and table.name == "events")
        }


def mint_status(client: FlaskClient, id_: str, secret: str, email: str = "ana@acme.test") -> int:
    header = "Basic " + b64encode(f"{id_}:{secret}".encode()).decode()
    body = {"email": email, "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000}
    return client.post(MINT, json=body, headers={"Authorization": header}).status_code


@pytest.fixture(scope="module")
def shared_app(make_shared: MakeService) -> Flask:
    """An app for tests of refusals, which change nothing."""
    return make_shared().app


@pytest.fixture
def empty(make_app) -> Flask:
    app: Flask = make_app()
    return app


# The documented example


def test_the_example_makes_ana_a_viewer_of_orders(empty: Flask) -> None:
    done = load(empty, EXAMPLE)
    assert done.counts == {"workspaces": 1, "users": 1, "apps": 1, "clients": 1}
    assert (done.secrets, done.notes) == ({}, [])
    service = Service(empty.test_client())
    assert mint_status(service.client, "portal", SECRET) == 201
    (app,) = service.rows(select(App.__table__))
    assert (app.id, app.slug, app.name, app.template) == (ORDERS, "orders", "Orders", "orders")
    assert app.allowed_origins == ["http://localhost:8000"]


@pytest.mark.parametrize("document", [EXAMPLE, json.dumps(WORLD)], ids=["example", "world"])
def test_a_second_run_changes_nothing(empty: Flask, document: str) -> None:
    parsed = file_provisioning.parse(EXAMPLE) if document == EXAMPLE else json.loads(document)
    provision(empty, parsed)
    before = tables(empty)
    for _ in range(2):
        assert provision(empty, parsed).secrets == {}
        assert tables(empty) == before


def test_a_second_run_ends_no_token_and_no_session(app: Flask, service: Service) -> None:
    frame, token = service.frame(), service.token()
    provision(app, WORLD)
    assert service.get(frame, "session").status_code == 200
    assert service.open(token).status_code == 200


def test_the_order_in_the_file_does_not_matter(empty: Flask) -> None:
    blocks = ["[[" + block for block in EXAMPLE.split("[[")[1:]]
    load(empty, "\n".join(reversed(blocks)))
    assert mint_status(empty.test_client(), "portal", SECRET) == 201


def test_an_empty_file_changes_nothing(app: Flask) -> None:
    before = tables(app)
    assert load(app, "# nothing yet\n").counts == {"workspaces": 0, "users": 0, "apps": 0, "clients": 0}
    assert tables(app) == before


@pytest.mark.parametrize("kind", ["workspaces", "users", "apps", "clients"])
def test_entries_that_the_file_does_not_list_stay(app: Flask, kind: str) -> None:
    before = tables(app)
    provision(app, {kind: WORLD[kind][:1]})
    assert tables(app) == before


def test_fields_that_an_entry_leaves_out_have_defaults(empty: Flask) -> None:
    load(
        empty,
        """
        workspaces = [{ slug = "acme" }]
        users = [{ email = "Ana@Acme.test" }]
        apps = [{ slug = "orders", workspace = "acme" }]
        clients = [{ id = "portal" }]
        """,
    )
    service = Service(empty.test_client())
    assert [row.name for row in service.rows(select(Workspace.__table__))] == ["acme"]
    (ana,) = service.rows(select(User.__table__))
    assert (ana.email, ana.status) == ("ana@acme.test", "active")
    (orders,) = service.rows(select(App.__table__))
    assert (orders.name, orders.template, orders.allowed_origins) == ("orders", "orders", [])
    (portal,) = service.rows(select(Client.__table__))
    assert (portal.scopes, portal.all_workspaces, portal.mint_limit) == (["mint"], True, None)
    assert service.rows(select(Member)) == service.rows(select(Grant)) == []


def test_a_changed_field_is_changed(app: Flask, service: Service) -> None:
    frame = service.frame()
    provision(app, changed("workspaces", "acme", name="Acme & Sons"))
    provision(app, changed("users", "ana@acme.test", name="Ana María", workspaces={"acme": "admin"}))
    provision(app, changed("apps", "orders", name="Purchases", allowed_origins=["https://new.example"]))
    answer = service.get(frame, "session")
    facts: Any = answer.json
    assert (facts["workspace"]["name"], facts["user"]["name"], facts["app"]["name"]) == (
        *("Acme & Sons", "Ana María", "Purchases"),
    )
    assert "frame-ancestors https://new.example" in answer.headers["Content-Security-Policy"]
    assert service.rows(select(Member.role).join(User).where(User.email == "ana@acme.test")) == [("admin",)]


# An entry replaces everything


def test_an_entry_without_lists_removes_grants_members_and_origins(app: Flask, service: Service) -> None:
    load(app, 'apps = [{ slug = "orders", workspace = "acme" }]\nusers = [{ email = "ana@acme.test" }]')
    assert service.rows(select(Grant).where(Grant.app_id == ORDERS)) == []
    assert service.rows(select(Member).join(User).where(User.email == "ana@acme.test")) == []
    assert service.rows(select(App.allowed_origins).where(App.id == ORDERS)) == [([],)]
    refused = service.open("pat_0", Accept="application/json")
    assert "frame-ancestors 'none'" in refused.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"workspaces": ["globex"]}, "user_not_found"),
        ({"workspaces": []}, "user_not_found"),
        ({"scopes": ["audit", "provision"]}, "scope_missing"),
        ({"scopes": []}, "scope_missing"),
    ],
)
def test_a_client_loses_what_it_no_longer_lists(service: Service, change: dict[str, Any], code: str) -> None:
    provision(service.app, changed("clients", "portal", **change))
    assert service.mint().json["code"] == code  # type: ignore[index]


def test_a_client_loses_the_limit_that_it_no_longer_lists(app: Flask, service: Service) -> None:
    assert {service.mint().status_code for _ in range(11)} == {201}
    portal = {"id": "portal", "secret": SECRETS["portal"], "workspaces": ["acme"]}
    provision(app, {"clients": [portal | {"mint_limit": "1 per minute"}]})
    assert service.mint().status_code == 201
    assert service.mint().json["code"] == "rate_limited"  # type: ignore[index]
    provision(app, {"clients": [portal]})
    assert service.rows(select(Client.mint_limit).where(Client.id == "portal")) == [(None,)]


def test_a_client_without_workspaces_in_the_file_reaches_all(app: Flask, service: Service) -> None:
    everywhere = {"clients": [{"id": "rival", "secret": SECRETS["rival"]}]}
    (note,) = provision(app, everywhere).notes
    assert note.startswith("client rival was limited to globex and reaches all workspaces now")
    assert service.mint(client="rival").status_code == 201
    (note,) = provision(app, everywhere).notes
    assert note == (
        "client rival reaches all workspaces, since the file lists none for it; "
        "all_workspaces = true in the file confirms this"
    )


def test_a_confirmed_client_of_all_workspaces_is_not_noted(app: Flask, service: Service) -> None:
    confirmed = "[[clients]]\nid = 'rival'\nall_workspaces = true"
    assert load(app, confirmed).notes == load(app, confirmed).notes == []
    assert service.mint(client="rival").status_code == 201
    assert load(app, "[[clients]]\nid = 'rival'\nworkspaces = ['globex']\nall_workspaces = false").notes == []
    assert service.mint(client="rival").status_code == 404


def test_a_reactivated_user_is_noted(app: Flask, service: Service) -> None:
    assert provision(app, changed("users", "ana@acme.test", status="archived")).notes == []
    back = changed("users", "ana@acme.test")
    assert provision(app, back).notes == ["ana@acme.test was archived and is active again"]
    assert provision(app, back).notes == []
    assert service.mint().status_code == 201


# Moves


@pytest.fixture
def both(app: Flask) -> Flask:
    """Ana is a member of both workspaces, so only the move ends her access."""
    provision(app, changed("users", "ana@acme.test", workspaces={"acme": "end-user", "globex": "end-user"}))
    return app


def test_each_move_ends_the_tokens_since_the_last_move(both: Flask, service: Service) -> None:
    provision(both, changed("apps", "orders", workspace="globex"))
    frame = service.frame(client="rival")
    for workspace in ("acme", "globex"):
        provision(both, changed("apps", "orders", workspace=workspace))
        assert service.get(frame, "session").json["code"] == "access_revoked"  # type: ignore[index]


def test_a_new_slug_or_template_does_not_move_the_app(app: Flask, service: Service) -> None:
    frame, token = service.frame(), service.token()
    provision(app, changed("apps", "orders", slug="purchases", template="support"))
    assert service.get(frame, "session").json["app"]["slug"] == "purchases"  # type: ignore[index]
    assert service.open(token).status_code == 200
    assert service.mint(appSlug="orders").json["code"] == "app_not_found"  # type: ignore[index]


# Secrets


def test_a_changed_secret_replaces_the_old_one_at_once(app: Flask, client: FlaskClient) -> None:
    provision(app, changed("clients", "portal", secret=make_secret("new", 32)))
    assert mint_status(client, "portal", SECRETS["portal"]) == 401
    assert mint_status(client, "portal", make_secret("new", 32)) == 201


def test_a_missing_secret_is_generated_once(app: Flask, client: FlaskClient) -> None:
    text = 'clients = [{ id = "second" }, { id = "third" }]'
    made = load(app, text).secrets
    assert list(made) == ["second", "third"]
    assert load(app, text).secrets == {}
    for id_, secret in made.items():
        assert mint_status(client, id_, secret.reveal()) == 201


def test_a_secret_stays_if_a_later_file_omits_it(app: Flask, client: FlaskClient) -> None:
    assert load(app, 'clients = [{ id = "portal" }]').secrets == {}
    assert mint_status(client, "portal", SECRETS["portal"]) == 201


@pytest.mark.parametrize("overlap", [timedelta(0), timedelta(hours=1)])
def test_a_file_cannot_restore_a_retired_secret(app: Flask, client: FlaskClient, overlap: timedelta) -> None:
    with app.app_context():
        rotated = clients.rotate(app.extensions["pat_service.keyring"], "portal", utcnow(), overlap).reveal()
    with pytest.raises(Conflict, match="Client 'portal': This secret was retired"):
        provision(app, changed("clients", "portal"))
    assert mint_status(client, "portal", rotated) == 201


def test_a_new_secret_in_the_file_ends_a_rotation_and_its_overlap(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        keyring = app.extensions["pat_service.keyring"]
        rotated = clients.rotate(keyring, "portal", utcnow(), timedelta(hours=1)).reveal()
    assert mint_status(client, "portal", SECRETS["portal"]) == 201
    assert mint_status(client, "portal", rotated) == 201
    provision(app, changed("clients", "portal", secret=make_secret("new")))
    assert mint_status(client, "portal", rotated) == 401
    assert mint_status(client, "portal", SECRETS["portal"]) == 401
    assert mint_status(client, "portal", make_secret("new")) == 201


def test_only_a_new_secret_restores_a_revoked_client(app: Flask, client: FlaskClient) -> None:
    with app.app_context():
        clients.revoke("portal", utcnow())
    assert mint_status(client, "portal", SECRETS["portal"]) == 401
    with pytest.raises(Conflict, match="Client 'portal': This secret was retired"):
        provision(app, changed("clients", "portal"))
    assert mint_status(client, "portal", SECRETS["portal"]) == 401
    notes = provision(app, changed("clients", "portal", secret=make_secret("new"))).notes
    assert any("portal" in note and "revoked" in note for note in notes)
    assert mint_status(client, "portal", make_secret("new")) == 201


@pytest.mark.parametrize("weak", ["s" * 40, "abcdefg" * 5, "correct-horse-battery" * 2])
def test_a_new_secret_of_low_variety_is_refused_and_the_error_names_the_rotation(
    app: Flask, client: FlaskClient, weak: str
) -> None:
    with pytest.raises(InvalidPayload) as refused:
        provision(app, {"clients": [{"id": "other"}, *changed("clients", "portal", secret=weak)["clients"]]})
    [(field, [text])] = refused.value.errors.items()
    assert field == "clients.1.secret"
    assert text.startswith("Must have at least 8 different characters")
    assert "Rotating a client's secret in docs/operate/maintenance.md" in text
    assert weak not in text
    assert mint_status(client, "portal", SECRETS["portal"]) == 201


def test_a_stored_secret_of_low_variety_stays_in_the_file(app: Flask, client: FlaskClient) -> None:
    """An older version accepted it."""
    weak = "s" * 40
    with app.app_context(), transaction() as connection:
        keyring = app.extensions["pat_service.keyring"]
        clients.add_secret(connection, keyring, "portal", Secret(weak), utcnow())
    for _ in range(2):
        provision(app, changed("clients", "portal", secret=weak))
    assert mint_status(client, "portal", weak) == 201


# All or nothing

BROKEN = {
    "a user of no workspace": changed("users", "ana@acme.test", workspaces={"nowhere": "end-user"}),
    "an app of no workspace": changed("apps", "orders", workspace="nowhere"),
    "an app of an unknown user": changed("apps", "orders", users=["ana@acme.test", "zoe@acme.test"]),
    "a client of no workspace": changed("clients", "portal", workspaces=["acme", "nowhere"]),
    "a slug of another app": changed("apps", "orders", slug="ledger"),
    "an id that does not fit the slug": changed("apps", "orders", id="00000000-0000-4000-8000-000000000000"),
    "a client with an impossible id": changed("clients", "portal", id="por tal"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_one_wrong_entry_undoes_the_whole_run(shared_app: Flask, broken: dict[str, Any]) -> None:
    before = tables(shared_app, but_events=False)
    more: dict[str, Any] = {
        "workspaces": [{"slug": "acme", "name": "Changed"}, {"slug": "new"}],
        "users": [{"email": "new@acme.test", "workspaces": {"new": "admin"}}],
        "apps": [{"slug": "new", "workspace": "new"}],
        "clients": [{"id": "new"}],
    }
    document = {kind: more[kind] + broken.get(kind, []) for kind in more}
    with pytest.raises(Refused) as refused:
        provision(shared_app, document)
    assert isinstance(refused.value, (Conflict, InvalidPayload))
    assert tables(shared_app, but_events=False) == before


def test_a_failure_at_the_end_undoes_everything(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tables(app, but_events=False)
    record = events.record

    def failing(connection: Any, type_: str, *args: Any, **options: Any) -> None:
        if type_ == events.DIRECTORY_PROVISIONED:
            raise RuntimeError("the disk is full")
        record(connection, type_, *args, **options)

    monkeypatch.setattr(events, "record", failing)
    with pytest.raises(RuntimeError):
        load(app, EXAMPLE.replace('"Acme"', '"Changed"') + '\n[[workspaces]]\nslug = "new"\n')
    assert tables(app, but_events=False) == before


# Refusals

WRONG_TOML = [
    *("workspaces", "= 1", 'a = "\\ud800"', 'a = "open', "a = 1\na = 2", "a = 2026-02-31", "a\0 = 1"),
    *("a = " + "[" * 3000, "a = " + "9" * 5000),
]
#: A valid entry of each kind.
ENTRIES: dict[str, dict[str, Any]] = {
    "workspaces": {"slug": "acme"},
    "users": {"email": "ana@acme.test"},
    "apps": {"slug": "orders", "workspace": "acme"},
    "clients": {"id": "portal"},
}
CONTROLS = ["\0", "A\ncme", "A\x1bcme", "A\x85cme"]
#: A place in an entry, and values that are wrong there. Before item 1 of a list, item 0 is valid.
WRONG_VALUES: dict[str, list[Any]] = {
    "workspaces.slug": [
        *(1, True, ["acme"], None, "", "Acme", "a b", "-acme", "_acme", "a" * 65, "äcme", "acme\n", "a/b"),
        *("a.b", "а"),
    ],
    "workspaces.name": [date(2026, 11, 22), *CONTROLS],
    "workspaces.colour": ["red"],
    "users.email": [None, "ana", "ana@acme@test", "a" * 250 + "@acme.test"],
    "users.name": ["", "a" * 201, *CONTROLS],
    "users.status": [True, "gone", "Active"],
    "users.workspaces": [["acme"]],
    "users.workspaces.acme": [True, "owner"],
    "users.workspaces.A!": ["admin"],
    "users.role": ["admin"],
    "apps.id": ["orders", ""],
    "apps.slug": [None],
    "apps.name": CONTROLS,
    "apps.workspace": [None],
    "apps.template": ["../orders", "_orders", ""],
    "apps.allowed_origins": ["*"],
    "apps.allowed_origins.1": [
        *("portal.example", "https://portal.example/", "https://*.example.com", ""),
        *("https://portal.example; script-src *", "https://portal.example\r\nX-Evil: 1"),
    ],
    "apps.users": ["ana@acme.test"],
    "apps.users.0": [1, "ana"],
    "apps.origins": [[]],
    "clients.id": [None, 1],
    "clients.secret": ["", "s" * 31, "s" * 1025, *(make_secret("shop") + control for control in CONTROLS)],
    "clients.scope": ["mint"],
    "clients.scopes": ["mint"],
    "clients.scopes.1": ["all"],
    "clients.mint_limit": [600, "plenty", "0 per minute", "10 per minute; 1 per day"],
    "clients.workspaces": ["acme"],
    "clients.all_workspaces": [False, "true"],
}
WRONG_VALUES["users.email"] += [f"ana{control}@acme.test" for control in CONTROLS]
VALID_ITEMS: dict[str, Any] = {"allowed_origins": "*", "scopes": "mint"}


def wrong_entry(place: str, value: Any) -> tuple[str, dict[str, Any]]:
    """Return a document with this value, and the place that its error must name. None removes a field."""
    kind, field, *inner = place.split(".")
    where = ".".join([kind, "0", field, *inner])
    if inner:
        before = [VALID_ITEMS[field]] if inner == ["1"] else []
        value = [*before, value] if inner[0].isdigit() else {inner[0]: value}
    entry = ENTRIES[kind] | {field: value}
    return where, {kind: [{name: given for name, given in entry.items() if given is not None}]}


REFUSED_DOCUMENTS = [
    ("frobs", {"frobs": []}),
    ("workspace", {"workspace": {"slug": "acme"}}),
    ("workspaces", {"workspaces": "acme"}),
    ("workspaces.0", {"workspaces": ["acme"]}),
    ("workspaces", {"workspaces": {"slug": "acme"}}),
    ("clients.0.all_workspaces", {"clients": [{"id": "shop", "all_workspaces": True, "workspaces": []}]}),
    ("workspaces.1.slug", {"workspaces": [{"slug": "acme"}, {"slug": "B"}]}),
    *(wrong_entry(place, value) for place, values in WRONG_VALUES.items() for value in values),
]


@pytest.mark.parametrize("text", WRONG_TOML)
def test_a_text_that_is_no_toml_is_refused(text: str) -> None:
    with pytest.raises(InvalidPayload) as refused:
        file_provisioning.parse(text)
    assert list(refused.value.errors) == ["file"]


@pytest.mark.parametrize(("place", "document"), REFUSED_DOCUMENTS, ids=range(len(REFUSED_DOCUMENTS)))
def test_a_wrong_file_is_refused_names_the_place_and_changes_nothing(
    shared_app: Flask, place: str, document: dict[str, Any]
) -> None:
    before = tables(shared_app, but_events=False)
    with pytest.raises(InvalidPayload) as refused:
        provision(shared_app, {"users": [{"email": "new@acme.test"}]} | document)
    assert list(refused.value.errors) == [place]
    assert all(text and text[0].isupper() for texts in refused.value.errors.values() for text in texts)
    assert tables(shared_app, but_events=False) == before


def test_an_error_in_the_toml_names_the_line(shared_app: Flask) -> None:
    with pytest.raises(InvalidPayload) as refused:
        load(shared_app, "a = 1\nb = 2\nc = \n")
    assert "line 3" in refused.value.errors["file"][0]


def test_every_error_is_reported_at_once(shared_app: Flask) -> None:
    with pytest.raises(InvalidPayload) as refused:
        load(shared_app, "frobs = 1\n[[users]]\nemail = 'ana'\n[[clients]]\nid = 'portal'\nscopes = ['x']")
    assert set(refused.value.errors) == {"frobs", "users.0.email", "clients.0.scopes.0"}


def test_a_refusal_does_not_repeat_a_secret(shared_app: Flask) -> None:
    with pytest.raises(InvalidPayload) as refused:
        load(shared_app, "[[clients]]\nid = 'portal'\nsecret = 'correct horse'")
    assert "horse" not in json.dumps(refused.value.errors)


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"workspaces": [{"slug": "acme"}, {"slug": "acme"}]}, "workspaces"),
        ({"users": [{"email": "ana@acme.test"}, {"email": "ANA@Acme.test"}]}, "users"),
        ({"users": [{"email": "jos\u00e9@acme.test"}, {"email": "jose\u0301@acme.test"}]}, "users"),
        (changed("apps", "orders")["apps"] * 2, "apps"),
        ([changed("apps", "orders")["apps"][0], changed("apps", "orders", slug="b")["apps"][0]], "apps"),
        (
            [
                changed("apps", "orders")["apps"][0],
                changed("apps", "orders", slug="b", id=ORDERS.upper())["apps"][0],
            ],
            "apps",
        ),
        ({"clients": [{"id": "portal"}, {"id": "portal", "secret": make_secret("s")}]}, "clients"),
    ],
)
def test_an_entry_that_is_listed_twice_is_refused(shared_app: Flask, document: Any, kind: str) -> None:
    before = tables(shared_app, but_events=False)
    with pytest.raises(InvalidPayload) as refused:
        provision(shared_app, {"apps": document} if isinstance(document, list) else document)
    assert list(refused.value.errors) == [kind]
    assert "more than once" in refused.value.errors[kind][0]
    assert tables(shared_app, but_events=False) == before


@pytest.mark.parametrize(
    ("document", "names"),
    [
        (BROKEN["a user of no workspace"], ["ana@acme.test", "nowhere"]),
        (BROKEN["an app of no workspace"], ["orders", "nowhere"]),
        (BROKEN["an app of an unknown user"], ["orders", "zoe@acme.test"]),
        (BROKEN["a client of no workspace"], ["portal", "nowhere"]),
        (BROKEN["a slug of another app"], ["ledger", ORDERS]),
        (BROKEN["an id that does not fit the slug"], ["orders", ORDERS]),
    ],
)
def test_a_conflict_names_the_entry_and_its_reference(
    shared_app: Flask, document: dict[str, Any], names: list[str]
) -> None:
    with pytest.raises(Conflict) as refused:
        provision(shared_app, document)
    assert all(name in refused.value.detail for name in names), refused.value.detail
    assert "\n" not in refused.value.detail


@pytest.mark.parametrize(
    "id_", ["", "por tal", "portal:x", "pörtal", "-portal", "portal\n", "a" * 65, "a\0", "a/b"]
)
def test_a_client_id_is_plain_text_that_fits_basic_credentials(shared_app: Flask, id_: str) -> None:
    with pytest.raises((Conflict, InvalidPayload)):
        load(shared_app, f"[[clients]]\nid = {json.dumps(id_)}")


# Texts and spellings


def test_an_email_in_another_spelling_is_the_same_user(app: Flask, service: Service) -> None:
    before = dict(service.rows(select(User.email, User.id)))
    provision(app, changed("users", "ana@acme.test", email="ANA@Acme.Test"))
    provision(app, changed("apps", "orders", users=["Ana@ACME.test", "ana@acme.test", "BEN@acme.test"]))
    assert dict(service.rows(select(User.email, User.id))) == before
    assert len(service.rows(select(Grant).where(Grant.app_id == ORDERS))) == 2


def test_an_id_in_upper_case_is_the_same_app(app: Flask) -> None:
    before = tables(app)
    provision(app, changed("apps", "orders", id=ORDERS.upper()))
    assert tables(app) == before


def test_an_origin_that_is_listed_twice_is_stored_once(app: Flask, service: Service) -> None:
    origins = [PORTAL, PORTAL.upper(), PORTAL + ":80", "https://other.example"]
    provision(app, changed("apps", "orders", allowed_origins=origins))
    assert service.rows(select(App.allowed_origins).where(App.id == ORDERS)) == [
        ([PORTAL, "https://other.example"],)
    ]


def test_client_ids_that_differ_by_case_are_two_clients(app: Flask) -> None:
    assert list(load(app, "clients = [{ id = 'shop' }, { id = 'Shop' }]").secrets) == ["shop", "Shop"]


def test_a_slug_that_an_app_gives_up_is_free(app: Flask, service: Service) -> None:
    provision(
        app,
        {
            "apps": [
                changed("apps", "orders", slug="orders-old")["apps"][0],
                {"slug": "orders", "workspace": "acme", "users": ["ana@acme.test"]},
            ]
        },
    )
    assert service.mint(appSlug="orders-old").status_code == 201
    assert service.mint(appSlug="orders").status_code == 201
    assert service.rows(select(App.id).where(App.slug == "orders-old")) == [(ORDERS,)]


# Notes and events


def test_an_ineffective_grant_is_noted(app: Flask, service: Service) -> None:
    done = provision(app, changed("apps", "orders", users=["ana@acme.test", "mallory@globex.test"]))
    (note,) = done.notes
    assert "mallory@globex.test" in note
    assert "orders" in note
    assert service.mint(client="everywhere", email="mallory@globex.test").status_code == 403


def test_the_event_of_a_run_has_no_secrets(empty: Flask) -> None:
    made = load(empty, EXAMPLE + '\n[[clients]]\nid = "second"\n').secrets["second"].reveal()
    service = Service(empty.test_client())
    trail = service.rows(select(Event.__table__))
    (run,) = [event for event in trail if event.type == "directory:provisioned"]
    assert run.details == {"workspaces": 1, "users": 1, "apps": 1, "clients": 2}
    assert {"portal", "second"} <= {event.client_id for event in trail}
    assert SECRET not in repr(trail)
    assert made not in repr(trail)


def test_concurrent_runs_have_the_result_of_one(empty: Flask) -> None:
    start, failures = threading.Barrier(6), []

    def run() -> None:
        start.wait()
        try:
            load(empty, EXAMPLE)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = tables(empty)
    assert {name: len(rows[name]) for name in ("workspaces", "users", "members", "apps", "grants")} == (
        dict.fromkeys(("workspaces", "users", "members", "apps", "grants"), 1)
    )
    assert len(rows["client_secrets"]) == 1


def test_a_client_without_secrets_gets_a_new_one(app: Flask, service: Service) -> None:
    service.change(delete(ClientSecret).where(ClientSecret.client_id == "portal"))
    made = load(app, 'clients = [{ id = "portal", workspaces = ["acme"] }]').secrets["portal"]
    assert mint_status(service.client, "portal", made.reveal()) == 201


# Audit events


@pytest.fixture
def trail(app: Flask, service: Service) -> Callable[[], list[tuple[Any, ...]]]:
    """Return the directory's new events: type, workspace, subject, details."""
    slugs = {id_: slug for slug, id_ in service.rows(select(Workspace.slug, Workspace.id))}
    emails = {id_: email for email, id_ in service.rows(select(User.email, User.id))}
    seen = service.count(Event)

    def since() -> list[tuple[Any, ...]]:
        nonlocal seen
        rows = service.rows(select(Event.__table__).order_by(Event.id))[seen:]
        seen += len(rows)
        subjects = ("workspace:", "user:", "member:", "app:", "grant:")
        rows = [row for row in rows if row.type.startswith(subjects)]
        assert {row.client_id for row in rows} <= {OPERATOR.id}
        return [
            (row.type, slugs.get(row.workspace_id), emails.get(row.user_id) or row.app_id, row.details)
            for row in rows
        ]

    return since


def test_a_second_run_records_no_change(app: Flask, trail: Any) -> None:
    provision(app, WORLD)
    assert trail() == []


def test_each_new_entry_is_recorded(empty: Flask) -> None:
    load(empty, EXAMPLE)
    rows = Service(empty.test_client()).rows(select(Event.__table__).order_by(Event.id))
    assert [(row.type, row.details) for row in rows if row.client_id == OPERATOR.id] == [
        ("workspace:created", {"after": {"slug": "acme", "name": "Acme", "allowed_origins": []}}),
        ("user:created", {"after": {"email": "ana@acme.test", "name": "Ana", "status": "active"}}),
        ("member:added", {"after": {"role": "end-user"}}),
        (
            "app:created",
            {
                "after": {
                    "slug": "orders",
                    "name": "Orders",
                    "template": "orders",
                    "allowed_origins": ["http://localhost:8000"],
                }
            },
        ),
        ("grant:added", None),
    ]
    workspace, user, member, app, grant = (row for row in rows if row.client_id == OPERATOR.id)
    assert len({row.workspace_id for row in (workspace, user, member, app, grant)}) == 1
    assert user.user_id == grant.user_id
    assert app.app_id == grant.app_id == ORDERS


def test_only_real_changes_are_recorded(app: Flask, trail: Any) -> None:
    provision(app, changed("workspaces", "acme", name="Acme & Sons"))
    assert trail() == [
        ("workspace:changed", "acme", None, {"before": {"name": "Acme"}, "after": {"name": "Acme & Sons"}})
    ]
    provision(
        app,
        changed(
            "users", "ana@acme.test", status="archived", workspaces={"acme": "builder", "globex": "end-user"}
        ),
    )
    ana = "ana@acme.test"
    assert sorted(trail(), key=str) == [
        ("member:added", "globex", ana, {"after": {"role": "end-user"}}),
        ("member:changed", "acme", ana, {"before": {"role": "end-user"}, "after": {"role": "builder"}}),
        ("user:changed", "acme", ana, {"before": {"status": "active"}, "after": {"status": "archived"}}),
    ]
    provision(app, changed("users", ana, status="archived", workspaces={"acme": "builder"}))
    assert trail() == [("member:removed", "globex", ana, {"before": {"role": "end-user"}})]
    provision(app, changed("apps", "orders", name="Purchases", users=["ana@acme.test"]))
    assert trail() == [
        ("app:changed", "acme", ORDERS, {"before": {"name": "Orders"}, "after": {"name": "Purchases"}}),
        ("grant:removed", "acme", "ben@acme.test", None),
    ]


def test_each_workspace_gets_its_own_event_of_a_move(both: Flask, trail: Any) -> None:
    """A move drops the old grants; the file's grants are for the new workspace."""
    provision(both, changed("apps", "orders", workspace="globex", name="Purchases", users=["ana@acme.test"]))
    facts = {"slug": "orders", "name": "Orders", "template": "orders", "allowed_origins": [PORTAL]}
    events_ = trail()
    assert sorted(events_[:2]) == [
        ("grant:removed", "acme", "ana@acme.test", None),
        ("grant:removed", "acme", "ben@acme.test", None),
    ]
    assert events_[2:] == [
        ("app:moved", "acme", ORDERS, {"before": facts}),
        ("app:moved", "globex", ORDERS, {"after": facts | {"name": "Purchases"}}),
        ("grant:added", "globex", "ana@acme.test", None),
    ]


def test_the_file_sets_and_keeps_a_home(directory: Directory) -> None:
    app = directory.service.app

    def home(email: str) -> str | None:
        (user,) = directory.items(f"users?email={email}", client="everywhere")
        found: str | None = user["homeWorkspaceId"]
        return found

    assert home("ana@acme.test") == directory.acme, "the first of its workspaces"
    provision(app, changed("users", "ana@acme.test", home="globex"))
    assert home("ana@acme.test") == directory.globex
    provision(app, changed("users", "ana@acme.test"))
    assert home("ana@acme.test") == directory.globex
    both = {"globex": "end-user", "acme": "end-user"}
    provision(app, {"users": [{"email": "zoe@acme.test", "workspaces": both}]})
    assert home("zoe@acme.test") == directory.globex
    provision(app, {"users": [{"email": "dan@acme.test"}]})
    assert home("dan@acme.test") is None
