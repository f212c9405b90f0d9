"""Apps that run elsewhere: who may name their address, and the one workspace that an address belongs to."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from pat_service.errors import Conflict, InvalidPayload
from pat_service.storage.database import transaction
from pat_service.storage.models import App, Upstream, Workspace
from tests.rules.test_concurrency import race
from tests.support.directory import ANA, Directory
from tests.support.people import (
    LEDGER,
    ORDERS,
    PORTAL,
    SECRETS,
    SUPPORT,
    Service,
    basic,
    changed,
    problem_of,
    provision,
)

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
HOSTS: Final = "https://{app}.embed.example"
SALES: Final = "http://10.0.0.7:8501"
OTHER: Final = "http://10.0.0.8:8501"
APPS_URL: Final = "https://{app}.apps.portal.example"


@pytest.fixture(params=BOTH)
def directory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Directory:
    """The directory on each database. Each app has its own host."""
    app = request.getfixturevalue("app" if request.param == "sqlite" else "postgres_app")
    monkeypatch.setitem(app.config, "PUBLIC_URL", HOSTS)
    return Directory(Service(app.test_client()))


def create(directory: Directory, slug: str = "sales", client: str = "everywhere", **fields: Any) -> Any:
    body = {"slug": slug, "workspaceId": directory.acme} | ({"upstream": SALES} | fields)
    return directory.call("POST", "apps", body, client)


def change(directory: Directory, app_id: str, client: str = "everywhere", **fields: Any) -> Any:
    return directory.call("PATCH", f"apps/{app_id}", fields, client)


def made(directory: Directory, slug: str = "sales", **fields: Any) -> str:
    """Create an app, and return its id."""
    answer = create(directory, slug, **fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def rows_of(directory: Directory) -> list[Any]:
    return directory.service.rows(select(App.__table__).order_by(App.slug))


def workspaces_of(directory: Directory, upstream: str = SALES) -> list[str]:
    rows = directory.service.rows(select(App.workspace_id).where(App.upstream == upstream).distinct())
    return [row.workspace_id for row in rows]


# Fields


def test_an_app_that_runs_elsewhere_has_defaults_and_is_recorded(directory: Directory) -> None:
    id_ = made(directory, upstream="HTTP://10.0.0.7:08501")
    sales = directory.ok("GET", f"apps/{id_}")
    fields = {"template": "upstream", "upstream": SALES, "start": "/", "permissions": []}
    assert {name: sales[name] for name in fields} == fields
    [(type_, client, workspace, details)] = directory.take_event_facts()
    assert (type_, client, workspace) == ("app:created", "everywhere", "acme")
    assert details["after"].items() >= fields.items()
    answer = change(directory, id_, start="/reports?year=2026", permissions=["fullscreen", "camera"])
    assert answer.json["permissions"] == ["camera", "fullscreen"]
    [(type_, _, _, details)] = directory.take_event_facts()
    assert (type_, details) == (
        "app:changed",
        {
            "before": {"start": "/", "permissions": []},
            "after": {"start": "/reports?year=2026", "permissions": ["camera", "fullscreen"]},
        },
    )
    # What an answer holds can be sent again.
    again = {name: answer.json[name] for name in ("template", "upstream", "start", "permissions")}
    assert change(directory, id_, **again).json == answer.json
    assert directory.take_event_facts() == []


def test_a_change_of_the_address_keeps_start_and_permissions(directory: Directory) -> None:
    id_ = made(directory, start="/a", permissions=["camera"])
    answer = change(directory, id_, upstream=OTHER)
    assert (answer.json["upstream"], answer.json["start"]) == (OTHER, "/a")
    assert answer.json["permissions"] == ["camera"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"template": "orders"}, "template"),
        ({"upstream": None, "start": "/"}, "start"),
        ({"upstream": None, "permissions": []}, "permissions"),
        ({"upstream": None, "template": "upstream"}, "template"),
        ({"upstream": "http://embed.example"}, "upstream"),
        ({"upstream": "http://169.254.169.254"}, "upstream"),
        ({"upstream": "http://10.0.0.7:8501/"}, "upstream"),
        ({"upstream": "http://sa\x00les"}, "upstream"),
        ({"upstream": "\ud800"}, "upstream"),
        ({"upstream": ""}, "upstream"),
        ({"upstream": 7}, "upstream"),
        ({"upstream": True}, "upstream"),
        ({"upstream": [SALES]}, "upstream"),
        ({"upstream": {"host": "sales"}}, "upstream"),
        ({"upstream": "http://" + "a" * 12_000}, "upstream"),
        ({"start": "//evil.example"}, "start"),
        ({"start": "/\x00"}, "start"),
        ({"start": "/\ud800"}, "start"),
        ({"start": 7}, "start"),
        ({"start": "/" * 12_000}, "start"),
        ({"permissions": ["usb"]}, "permissions"),
        ({"permissions": "camera"}, "permissions"),
        ({"permissions": [7]}, "permissions"),
        ({"permissions": [["camera"]]}, "permissions"),
        ({"permissions": {"camera": True}}, "permissions"),
        ({"permissions": ["camera"] * 6}, "permissions"),
        ({"permissions": [None]}, "permissions"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_bad_input_names_its_field(directory: Directory, fields: dict[str, Any], name: str) -> None:
    errors = problem_of(create(directory, **fields), 400, "invalid_payload")["errors"]
    assert {key.partition(".")[0] for key in errors} == {name}
    assert "sales" not in [row.slug for row in rows_of(directory)]
    if fields.keys() == {name} and name != "template":
        id_ = made(directory)
        problem_of(change(directory, id_, **fields), 400, "invalid_payload")
        assert directory.ok("GET", f"apps/{id_}")["upstream"] == SALES


def test_no_app_of_our_own_has_the_template_upstream(directory: Directory) -> None:
    body = {"slug": "upstream", "workspaceId": directory.acme}
    for client in ("manager", "everywhere"):
        problem_of(directory.call("POST", "apps", body, client), 400, "invalid_payload")
        problem_of(change(directory, ORDERS, client, template="upstream"), 400, "invalid_payload")
    directory.ok("POST", "apps", body | {"template": "orders"}, status=201)
    for fields in ({"start": "/a"}, {"permissions": ["camera"]}):
        problem_of(change(directory, ORDERS, **fields), 409, "conflict")


@pytest.mark.parametrize("slug", ["a" * 50, "a--b", "my_app", "xn--a", "xn", "-a", "a-"])
def test_a_slug_that_is_no_part_of_a_viewers_host_is_refused(directory: Directory, slug: str) -> None:
    problem_of(create(directory, slug), 400, "invalid_payload")
    id_ = made(directory)
    problem_of(change(directory, id_, slug=slug), 400, "invalid_payload")
    # Also if the slug was there first.
    if slug == "a" * 50:
        change(directory, ORDERS, slug=slug)
        errors = problem_of(change(directory, ORDERS, upstream=SALES), 400, "invalid_payload")["errors"]
        assert "at most 49" in errors["slug"][0]
    assert made(directory, "a" * 49)


def test_an_upstream_needs_a_host_for_each_app(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = made(directory)
    monkeypatch.setitem(directory.service.app.config, "PUBLIC_URL", "https://embed.example")
    assert "{app} in PUBLIC_URL" in problem_of(create(directory, "b"), 409, "conflict")["detail"]
    problem_of(change(directory, ORDERS, upstream=SALES), 409, "conflict")
    problem_of(change(directory, id_, upstream=OTHER), 409, "conflict")
    # What is there can still be repaired and removed.
    assert change(directory, id_, name="Sales").status_code == 200
    assert change(directory, id_, template="orders").status_code == 200


# Only callers of all workspaces


def both_tenants(directory: Directory) -> str:
    """Let a client reach both tenants, but not all workspaces, and return its id."""
    client = {"id": "auditor", "secret": SECRETS["auditor"], "workspaces": ["acme", "globex"]}
    provision(
        directory.service.app, {"clients": [client | {"scopes": ["provision"], "highest_role": "admin"}]}
    )
    return "auditor"


FIELDS: Final[list[dict[str, Any]]] = [
    {"upstream": OTHER},
    {"upstream": SALES},
    {"start": "/"},
    {"permissions": []},
    {"upstream": OTHER, "start": "/", "permissions": ["camera"]},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_a_tenant_names_no_upstream(directory: Directory, fields: dict[str, Any]) -> None:
    sales, before = made(directory), rows_of(directory)
    for client in ("manager", both_tenants(directory)):
        body = {"slug": "mine", "workspaceId": directory.acme} | fields
        answers = [
            directory.call("POST", "apps", body, client),
            directory.call("POST", "apps", body | {"template": "upstream"}, client),
            directory.call("POST", "apps", body | {"id": sales, "slug": "sales"}, client),
            *(change(directory, id_, client, **fields) for id_ in (ORDERS, sales)),
        ]
        for answer in answers:
            detail = problem_of(answer, 403, "scope_missing")["detail"]
            assert "Only a client of all workspaces" in detail
    assert rows_of(directory) == before


def test_a_tenant_neither_moves_nor_replaces_an_upstream(directory: Directory) -> None:
    sales = made(directory)
    client = both_tenants(directory)
    for fields in (
        {"workspaceId": directory.globex},
        {"template": "orders"},
        {"template": "orders", "workspaceId": directory.globex},
    ):
        problem_of(change(directory, sales, client, **fields), 403, "scope_missing")
    # It may move its own apps.
    assert change(directory, ORDERS, client, workspaceId=directory.globex).status_code == 200
    assert workspaces_of(directory) == [directory.acme]


def test_a_tenant_creates_no_upstream_anew(directory: Directory) -> None:
    sales = made(directory)
    directory.ok("DELETE", f"apps/{sales}", status=204)
    body = {"id": sales, "slug": "sales", "workspaceId": directory.acme}
    problem_of(directory.call("POST", "apps", body | {"upstream": SALES}), 403, "scope_missing")
    problem_of(directory.call("POST", "apps", body | {"template": "upstream"}), 400, "invalid_payload")
    answer = directory.ok("POST", "apps", body, status=201)
    assert (answer["template"], answer["upstream"]) == ("sales", None)


def test_a_tenant_edits_the_rest_of_an_upstream_app(directory: Directory) -> None:
    sales = made(directory)
    fields = {"name": "Our sales", "slug": "our-sales", "allowedOrigins": [PORTAL]}
    answer = change(directory, sales, "manager", **fields, workspaceId=directory.acme, template="upstream")
    assert answer.status_code == 200
    assert answer.json.items() >= fields.items()
    assert answer.json["upstream"] == SALES
    directory.ok("PUT", f"apps/{sales}/grants/{directory.user(ANA)}", status=201)
    problem_of(change(directory, sales, "manager", slug="my_sales"), 400, "invalid_payload")
    problem_of(change(directory, sales, "rival", name="Mine"), 404, "app_not_found")


# One workspace


def test_apps_of_one_workspace_share_an_address(directory: Directory) -> None:
    assert made(directory, "a") != made(directory, "b")


SPELLINGS: Final = ["http://10.0.0.7:8501", "HTTP://10.0.0.7:08501", "http://[::ffff:10.0.0.7]:8501"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_other_workspace_gets_an_address(directory: Directory, spelling: str) -> None:
    sales = made(directory)
    fields = {"upstream": spelling, "workspaceId": directory.globex}
    detail = problem_of(create(directory, "b", **fields), 409, "conflict")["detail"]
    assert "An address belongs to one workspace" in detail
    problem_of(change(directory, LEDGER, upstream=spelling), 409, "conflict")
    with pytest.raises(Conflict, match="An address belongs to one workspace"):
        provision(directory.service.app, changed_app("ledger", upstream=spelling))
    assert [row.id for row in rows_of(directory) if row.upstream] == [sales]


def changed_app(slug: str, **fields: Any) -> dict[str, Any]:
    """Return the entry of an app that runs elsewhere."""
    document = changed("apps", slug, **fields)
    del document["apps"][0]["template"]
    return document


GIVE_UP: Final[dict[str, Callable[[Directory, str], Any]]] = {
    "deletes the app": lambda directory, id_: directory.ok("DELETE", f"apps/{id_}", status=204),
    "changes the address": lambda directory, id_: change(directory, id_, upstream=OTHER),
    "changes to a template": lambda directory, id_: change(directory, id_, template="orders"),
}


@pytest.mark.parametrize("way", GIVE_UP)
def test_an_address_that_no_app_uses_is_free(directory: Directory, way: str) -> None:
    GIVE_UP[way](directory, made(directory))
    assert change(directory, LEDGER, upstream=SALES).status_code == 200
    assert workspaces_of(directory) == [directory.globex]
    problem_of(create(directory, "b"), 409, "conflict")


def test_an_address_moves_along_with_its_only_app(directory: Directory) -> None:
    sales = made(directory)
    assert change(directory, sales, workspaceId=directory.globex).status_code == 200
    assert workspaces_of(directory) == [directory.globex]
    problem_of(create(directory, "b"), 409, "conflict")
    assert change(directory, sales, workspaceId=directory.acme).status_code == 200


def test_an_address_of_two_apps_does_not_move(directory: Directory) -> None:
    sales, other = made(directory, "a"), made(directory, "b")
    problem_of(change(directory, sales, workspaceId=directory.globex), 409, "conflict")
    moved = change(directory, sales, workspaceId=directory.globex, upstream=OTHER)
    assert moved.status_code == 200
    assert workspaces_of(directory) == [directory.acme]
    assert change(directory, other, workspaceId=directory.globex).status_code == 200


def test_a_deleted_workspace_leaves_no_address(directory: Directory) -> None:
    sales = made(directory)
    id_ = directory.ok("POST", "workspaces", {"slug": "initech"}, "everywhere", 201)["id"]
    change(directory, sales, workspaceId=id_)
    problem_of(directory.call("DELETE", f"workspaces/{id_}", client="everywhere"), 409, "conflict")
    directory.ok("DELETE", f"apps/{sales}", client="everywhere", status=204)
    directory.ok("DELETE", f"workspaces/{id_}", client="everywhere", status=204)
    assert directory.service.rows(select(Upstream.address)) == []
    assert made(directory, "b")


@pytest.mark.slow
def test_of_concurrent_claims_one_workspace_gets_the_address(directory: Directory) -> None:
    """Creations, changes and moves of both tenants claim one address at the same moment."""
    moving = made(directory, "moving", workspaceId=directory.globex, upstream=OTHER)
    for attempt in range(8):

        def create_in(workspace: str, slug: str) -> Callable[[Service], Any]:
            body = {"slug": slug, "workspaceId": workspace, "upstream": SALES}
            return lambda caller: _as(caller).call("POST", "apps", body, "everywhere")

        def patch(id_: str, **fields: Any) -> Callable[[Service], Any]:
            return lambda caller: _as(caller).call("PATCH", f"apps/{id_}", fields, "everywhere")

        answers = race(
            directory.service,
            create_in(directory.acme, f"a{attempt}"),
            create_in(directory.globex, f"b{attempt}"),
            patch(LEDGER, upstream=SALES),
            patch(SUPPORT, upstream=SALES),
            patch(moving, upstream=SALES, workspaceId=directory.acme),
            patch(moving, upstream=SALES, workspaceId=directory.globex),
        )
        assert {answer.status_code for answer in answers} <= {200, 201, 409}
        assert any(answer.status_code in (200, 201) for answer in answers)
        assert len(workspaces_of(directory)) == 1
        for row in rows_of(directory):
            if row.upstream == SALES:
                change(
                    directory, row.id, **({"upstream": OTHER} if row.id == moving else {"template": "orders"})
                )
        assert workspaces_of(directory) == []


def _as(caller: Service) -> Any:
    """Return what `Directory.call` needs, without provisioning again."""
    found = Directory.__new__(Directory)
    found.service = caller
    return found


# A change between template and upstream


def test_a_change_between_template_and_upstream_ends_tokens_and_sessions(directory: Directory) -> None:
    """Scripts of the former kind may have kept a session."""
    service = directory.service
    # The old frame is at a host that an upstream app does not have.
    for fields, code in (
        ({"upstream": SALES}, "session_invalid"),
        ({"template": "orders"}, "access_revoked"),
    ):
        token = service.token()
        session = service.client.post(
            "/api/ext/users/session",
            json={"appId": ORDERS, "accessToken": service.token(email="ben@acme.test")},
        )
        assert session.status_code == 201, session.text
        assert change(directory, ORDERS, **fields).status_code == 200
        bearer = {"Authorization": f"Bearer {session.get_json()['signedPat']}"}
        for text in (token, session.get_json()["signedPat"]):
            asked = service.client.post("/api/ext/introspect", data={"token": text}, headers=basic("manager"))
            assert asked.json == {"active": False}
        problem_of(
            service.client.get(
                f"/embed-apps/{ORDERS}/session", headers=bearer, base_url="https://orders.embed.example"
            ),
            *(401, code),
        )


def test_a_new_address_keeps_tokens_and_sessions(directory: Directory) -> None:
    change(directory, ORDERS, upstream=SALES)
    token = directory.service.token()
    change(directory, ORDERS, upstream=OTHER, start="/a")
    asked = directory.service.client.post(
        "/api/ext/introspect", data={"token": token}, headers=basic("manager")
    )
    assert asked.get_json()["active"] is True


# The file


def entry(slug: str, workspace: str = "acme", upstream: Any = SALES, **fields: Any) -> dict[str, Any]:
    kind = {"template": "orders"} if upstream is None else {"upstream": upstream}
    return {"slug": slug, "workspace": workspace} | kind | fields


def apply(directory: Directory, *apps: dict[str, Any]) -> Any:
    return provision(directory.service.app, {"apps": list(apps)})


def test_the_file_sets_an_upstream_and_a_second_run_changes_nothing(directory: Directory) -> None:
    document = [entry("sales", start="/a", permissions=["camera"]), entry("team", upstream=OTHER)]
    apply(directory, *document)
    first = rows_of(directory)
    assert [event[0] for event in directory.take_event_facts()] == ["app:created"] * 2
    apply(directory, *document)
    assert rows_of(directory) == first
    assert directory.take_event_facts() == []
    # A field that is absent gets its default.
    apply(directory, entry("sales"), entry("team", upstream=None))
    sales, team = (row for row in rows_of(directory) if row.slug in ("sales", "team"))
    assert (sales.start, sales.permissions) == ("/", [])
    assert (team.template, team.upstream, team.start, team.permissions) == ("orders", None, None, None)


@pytest.mark.parametrize("order", [1, -1])
def test_the_file_moves_addresses_between_workspaces_in_one_run(directory: Directory, order: int) -> None:
    apply(directory, entry("a"), entry("b", "globex", OTHER), entry("c", "globex", "http://sales"))
    # The first two swap their addresses, and the third one moves with its own.
    swapped = [entry("a", upstream=OTHER), entry("b", "globex"), entry("c", upstream="http://sales")]
    apply(directory, *swapped[::order])
    found = {row.slug: (row.upstream, row.workspace_id) for row in rows_of(directory) if row.upstream}
    assert found == {
        "a": (OTHER, directory.acme),
        "b": (SALES, directory.globex),
        "c": ("http://sales", directory.acme),
    }
    # An app that is not in the file keeps its address.
    with pytest.raises(Conflict, match="An address belongs to one workspace"):
        apply(directory, entry("b", "globex", OTHER))


def test_the_file_moves_an_address_to_a_new_app_and_drops_it_elsewhere(directory: Directory) -> None:
    sales = made(directory)
    apply(directory, entry("new", "globex"), entry("sales", upstream=None, id=sales))
    assert workspaces_of(directory) == [directory.globex]
    # The id finds an app that gets a new slug.
    apply(
        directory, entry("newer", "globex", OTHER, id=sales), entry("sales"), entry("new", "acme", "http://b")
    )
    assert workspaces_of(directory) == [directory.acme]


@pytest.mark.slow
def test_concurrent_files_and_requests_cause_no_deadlock(directory: Directory) -> None:
    """Every transaction locks apps before addresses."""
    ids = {slug: made(directory, slug, upstream=url) for slug, url in (("a", SALES), ("b", OTHER))}
    swapped = [entry("b", "globex"), entry("a", upstream=OTHER)]
    straight = [entry("a"), entry("b", "globex", OTHER)]

    def run_file(document: list[dict[str, Any]]) -> Callable[[Service], Any]:
        return lambda caller: provision(caller.app, {"apps": document})

    def patch(slug: str, **fields: Any) -> Callable[[Service], Any]:
        return lambda caller: _as(caller).call("PATCH", f"apps/{ids[slug]}", fields, "everywhere")

    for _ in range(10):
        answers = race(
            directory.service,
            run_file(swapped),
            run_file(straight),
            patch("a", upstream=SALES, workspaceId=directory.acme),
            patch("b", upstream=OTHER, workspaceId=directory.acme),
        )
        assert {answer.status_code for answer in answers[2:]} <= {200, 409}
        for upstream in (SALES, OTHER):
            assert len(workspaces_of(directory, upstream)) <= 1


@pytest.mark.parametrize(
    ("apps", "name", "text"),
    [
        ([entry("a"), entry("b", "globex", "HTTP://10.0.0.7:8501")], "apps", "Apps of two workspaces"),
        ([entry("a", template="orders")], "apps.0.template", "Must be absent"),
        ([entry("a"), entry("b", upstream=None, start="/")], "apps.1.start", "Needs an upstream"),
        ([entry("a", upstream=None, permissions=[])], "apps.0.permissions", "Needs an upstream"),
        ([entry("a_b")], "apps.0.slug", "at most 49"),
        ([entry("a", upstream="http://orders.embed.example")], "apps.0.upstream", "a host of this service"),
        ([{"slug": "upstream", "workspace": "acme"}], "apps.0.template", "reserved"),
        ([entry("a", upstream="http://169.254.169.254")], "apps.0.upstream", "link-local"),
        ([entry("a", upstream="http://sa\x00les")], "apps.0.upstream", "host name"),
        ([entry("a", upstream=7)], "apps.0.upstream", "valid string"),
        ([entry("a", start="//evil.example")], "apps.0.start", "Must be a path"),
        ([entry("a", permissions=["usb"])], "apps.0.permissions.0", "Must be one of"),
    ],
    ids=str,
)
def test_the_file_refuses_what_does_not_fit(
    directory: Directory, apps: list[dict[str, Any]], name: str, text: str
) -> None:
    before = rows_of(directory)
    with pytest.raises(InvalidPayload) as refused:
        apply(directory, *apps)
    assert [name] == list(refused.value.errors)
    assert text in refused.value.errors[name][0]
    assert rows_of(directory) == before


# Addresses of workspaces


def address(directory: Directory, apps_url: Any, workspace: str = "acme", client: str = "everywhere") -> Any:
    path = f"workspaces/{directory.workspaces[workspace]}"
    return directory.call("PATCH", path, {"appsUrl": apps_url}, client)


def test_a_workspace_gets_and_loses_an_own_address(directory: Directory) -> None:
    answer = address(directory, "HTTPS://{app}.apps.portal.example:443")
    assert answer.json["appsUrl"] == APPS_URL
    [(type_, _, _, details)] = directory.take_event_facts()
    assert (type_, details) == (
        "workspace:changed",
        {"before": {"apps_url": None}, "after": {"apps_url": APPS_URL}},
    )
    assert directory.ok("GET", f"workspaces/{directory.acme}")["appsUrl"] == APPS_URL
    assert address(directory, "").json["appsUrl"] is None
    body = {"slug": "initech", "appsUrl": APPS_URL}
    assert directory.ok("POST", "workspaces", body, "everywhere", 201)["appsUrl"] == APPS_URL


def test_a_tenant_sets_no_address_of_a_workspace(directory: Directory) -> None:
    address(directory, APPS_URL)
    for apps_url in ("https://{app}.evil.example", APPS_URL, ""):
        problem_of(address(directory, apps_url, client="manager"), 403, "scope_missing")
        problem_of(address(directory, apps_url, client="rival"), 404, "not_found")
    assert directory.ok("GET", f"workspaces/{directory.acme}")["appsUrl"] == APPS_URL


@pytest.mark.parametrize(
    "apps_url",
    [APPS_URL, f"{APPS_URL}:8443", "https://{app}.portal.example", "https://{app}.a.apps.portal.example"],
)
def test_workspaces_share_no_hosts(directory: Directory, apps_url: str) -> None:
    address(directory, APPS_URL)
    problem_of(address(directory, apps_url, "globex"), 409, "conflict")
    body = {"slug": "initech", "appsUrl": apps_url}
    problem_of(directory.call("POST", "workspaces", body, "everywhere"), 409, "conflict")
    with pytest.raises(Conflict, match="Workspace 'globex': Another workspace has this address"):
        provision(directory.service.app, {"workspaces": [{"slug": "globex", "apps_url": apps_url}]})
    assert address(directory, apps_url).status_code == 200


@pytest.mark.parametrize(
    "apps_url",
    [
        "https://{app}.embed.example",
        "https://{app}.a.embed.example",
        "https://{app}.example",
        "https://portal.example",
        "http://{app}.portal.example",
        "https://{app}.portal.example/\x00",
        7,
        [APPS_URL],
        "\ud800",
        "https://{app}." + "a." * 6_000,
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_a_bad_address_of_a_workspace_names_its_field(directory: Directory, apps_url: Any) -> None:
    errors = problem_of(address(directory, apps_url), 400, "invalid_payload")["errors"]
    assert list(errors) == ["appsUrl"]
    if isinstance(apps_url, str):
        with pytest.raises(InvalidPayload) as refused:
            provision(directory.service.app, {"workspaces": [{"slug": "acme", "apps_url": apps_url}]})
        assert list(refused.value.errors) == ["workspaces.0.apps_url"]


def test_the_file_swaps_and_removes_addresses_of_workspaces(directory: Directory) -> None:
    names = ("acme", "globex")
    urls = {"acme": APPS_URL, "globex": "https://{app}.other.example"}
    for listed in (urls, {"acme": urls["globex"], "globex": urls["acme"]}, {"acme": urls["acme"]}, {}):
        document = [
            {"slug": name, **({"apps_url": listed[name]} if name in listed else {})} for name in names
        ]
        for _ in range(2):
            provision(directory.service.app, {"workspaces": document})
        rows = directory.service.rows(select(Workspace.slug, Workspace.apps_url))
        assert {row.slug: row.apps_url for row in rows if row.apps_url} == listed


@pytest.mark.slow
def test_of_concurrent_workspaces_one_gets_an_address(directory: Directory) -> None:
    for _ in range(5):

        def take(workspace: str) -> Callable[[Service], Any]:
            path = f"workspaces/{directory.workspaces[workspace]}"
            return lambda caller: Directory.call(
                _as(caller), "PATCH", path, {"appsUrl": APPS_URL}, "everywhere"
            )

        answers = race(directory.service, take("acme"), take("globex"))
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        for workspace in ("acme", "globex"):
            address(directory, "", workspace)


# The database is the last guard.


def run(directory: Directory, *statements: Any) -> None:
    """Execute the statements in one transaction."""
    with directory.service.app.app_context(), transaction() as connection:
        for statement in statements:
            connection.execute(statement)


def belong(app_id: str, **values: Any) -> Any:
    return update(App).where(App.id == app_id).values(values)


def test_the_database_keeps_an_address_in_one_workspace(directory: Directory) -> None:
    acme, globex = directory.acme, directory.globex
    owned = insert(Upstream).values(address=SALES, workspace_id=acme)
    run(directory, owned, belong(ORDERS, upstream=SALES))
    refused = [
        owned,
        belong(LEDGER, upstream=SALES),
        belong(LEDGER, upstream="http://10.0.0.8:8501"),
        belong(ORDERS, workspace_id=globex),
        update(Upstream).values(workspace_id=globex),
        update(Upstream).values(address="http://10.0.0.8:8501"),
    ]
    for statement in refused:
        with pytest.raises(IntegrityError):
            run(directory, statement)
    assert directory.service.rows(select(App.id, App.workspace_id).where(App.upstream == SALES)) == [
        (ORDERS, acme)
    ]


def test_an_address_moves_with_its_app_in_one_transaction(directory: Directory) -> None:
    globex = directory.globex
    run(
        directory,
        insert(Upstream).values(address=SALES, workspace_id=directory.acme),
        belong(ORDERS, upstream=SALES),
    )
    run(directory, update(Upstream).values(workspace_id=globex), belong(ORDERS, workspace_id=globex))
    assert directory.service.rows(select(Upstream.address, Upstream.workspace_id)) == [(SALES, globex)]
