"""Bad input on every route of the directory: the contract's refusal, and nothing is changed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from pat_service.storage.database import db, reading
from tests.support.directory import ANA, BEN, NOBODY, Directory
from tests.support.world import ORDERS, SUPPORT, basic, lasting_service, problem_of

WORKSPACE = "workspaces/{acme}"
MEMBER = "workspaces/{acme}/members/{ana}"
USER = "users/{ana}"
APP = f"apps/{ORDERS}"
GRANT = f"apps/{SUPPORT}/grants/{{ben}}"
#: What takes a body, with one that is good.
TAKES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "workspaces"): {"slug": "initech"},
    ("PATCH", WORKSPACE): {"name": "Acme & Sons"},
    ("POST", "users"): {
        "email": "zoe@acme.test",
        "memberships": [{"workspaceId": "{acme}", "role": "end-user"}],
    },
    ("PATCH", USER): {"name": "Ana María"},
    ("PUT", MEMBER): {"role": "builder"},
    ("POST", "apps"): {"slug": "stock", "workspaceId": "{acme}"},
    ("PATCH", APP): {"name": "Purchases"},
}
LISTS = ("workspaces", "users", "apps", WORKSPACE + "/members", APP + "/grants")
REST = [
    *[("GET", path) for path in (*LISTS, WORKSPACE, USER, MEMBER, APP, f"apps/{ORDERS}/grants/{{ana}}")],
    *[("DELETE", path) for path in (WORKSPACE, USER, MEMBER, APP, f"apps/{ORDERS}/grants/{{ana}}")],
    ("PUT", GRANT),
]

UNFIT = ["A\0", "\ud800", "a\nb", "\x1b", "\x85", "a\x7f"]
NAMES = ["", "a" * 201, *UNFIT, 1, True, ["Acme"], {}, 1.5]
SLUGS = ["", "Acme", "a b", "-a", "a" * 65, "ä", "a/b", "a.b", "a\0", "\ud800", 1, False, ["a"], {}]
EMAILS = [
    "",
    "ana",
    "@",
    "a@b@c",
    "a" * 250 + "@acme.test",
    "a\0@acme.test",
    "\ud800@acme.test",
    1,
    True,
    [],
    {},
]
IDS = ["", "x", ORDERS[:-1], ORDERS + "0", "{" + ORDERS + "}", "\0", "\ud800", 1, True, [], {}]
ROLES = ["", "owner", "Admin", "end-user\0", 1, True, [], {}]
STATUSES = ["", "gone", "Active", "\ud800", 1, True, [], {}]
ORIGINS = [
    *("*", 1, True, {}, "https://portal.example"),
    *([1], [None], ["https://portal.example/"], ["javascript:alert(1)"], ["https://*.example"], ["null"]),
    *(["https://a.example\0"], ["\ud800"], [["https://a.example"]], ["https://a.example"] * 51),
]
MEMBERSHIPS = [
    *("acme", 1, True, {}, ["acme"], [1], [None], [[]], [{}]),
    *([{"workspaceId": NOBODY}], [{"role": "end-user"}], [{"workspaceId": "x", "role": "end-user"}]),
    [{"workspaceId": NOBODY, "role": "owner"}],
    [{"workspaceId": NOBODY, "role": "end-user", "x": 1}],
    [{"workspaceId": NOBODY, "role": "end-user"}, {"workspaceId": NOBODY.upper(), "role": "builder"}],
]
WRONG: list[tuple[str, str, str, list[Any]]] = [
    (method, path, field, values)
    for (method, path), fields in {
        ("POST", "workspaces"): {"slug": [*SLUGS, None], "name": NAMES, "allowedOrigins": ORIGINS},
        ("PATCH", WORKSPACE): {"slug": SLUGS, "name": NAMES, "allowedOrigins": ORIGINS},
        ("POST", "users"): {
            "email": [*EMAILS, None],
            "name": NAMES,
            "status": STATUSES,
            "memberships": MEMBERSHIPS,
        },
        ("PATCH", USER): {"email": EMAILS, "name": NAMES, "status": STATUSES},
        ("PUT", MEMBER): {"role": [*ROLES, None]},
        ("POST", "apps"): {
            "slug": [*SLUGS, None],
            "name": NAMES,
            "template": [*SLUGS, "../orders", "_part"],
            "workspaceId": [*IDS, None],
            "id": IDS,
            "allowedOrigins": ORIGINS,
        },
        ("PATCH", APP): {
            "slug": SLUGS,
            "name": NAMES,
            "template": SLUGS,
            "workspaceId": IDS,
            "allowedOrigins": ORIGINS,
        },
    }.items()
    for field, values in fields.items()
]


@pytest.fixture(scope="module")
def kept(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    """A directory that every test leaves as it was, which is seen at the end."""
    with lasting_service(schema, tmp_path_factory.mktemp("directory")) as service:
        directory = Directory(service)
        before = everything(directory)
        yield directory
        assert everything(directory) == before


def everything(directory: Directory) -> dict[str, list[str]]:
    """Every row of every table, but for events and for when a secret was used."""
    with directory.service.app.app_context(), reading() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table))))
            for table in db.metadata.sorted_tables
            if table.name not in ("events", "client_secrets")
        }


def filled(directory: Directory, text: str) -> str:
    known = {"acme": directory.acme, "ana": directory.user(ANA), "ben": directory.user(BEN)}
    for name, id_ in known.items():
        text = text.replace("{" + name + "}", id_)
    return text


def send(directory: Directory, method: str, path: str, body: Any = None, **options: Any) -> Any:
    """As the client that may do everything, so that nothing else stands in the way."""
    if isinstance(body, (dict, list)):
        body = filled(directory, json.dumps(body))
    return directory.call(method, filled(directory, path), body, "everywhere", **options)


@pytest.mark.parametrize(("method", "path", "field", "values"), WRONG)
def test_a_field_that_is_wrong_is_named(
    kept: Directory, method: str, path: str, field: str, values: list[Any]
) -> None:
    for value in values:
        answer = send(kept, method, path, TAKES[method, path] | {field: value})
        problem = problem_of(answer, 400, "invalid_payload")
        assert {name.partition(".")[0] for name in problem["errors"]} == {field}, value


@pytest.mark.parametrize(("method", "path"), TAKES)
def test_a_field_that_nobody_knows_is_refused(kept: Directory, method: str, path: str) -> None:
    for name in ("colour", "createdAt", "moves", "allowed_origins", "", "\ud800", "__proto__"):
        answer = send(kept, method, path, TAKES[method, path] | {name: "x"})
        problem = problem_of(answer, 400, "invalid_payload")
        assert len(problem["errors"]) == 1


def test_an_apps_id_does_not_change(kept: Directory) -> None:
    problem = problem_of(send(kept, "PATCH", APP, {"id": NOBODY}), 400, "invalid_payload")
    assert list(problem["errors"]) == ["id"]


def test_memberships_do_not_change_with_the_user(kept: Directory) -> None:
    problem = problem_of(send(kept, "PATCH", USER, {"memberships": []}), 400, "invalid_payload")
    assert list(problem["errors"]) == ["memberships"]


@pytest.mark.parametrize(("method", "path"), [key for key in TAKES if key[0] != "PATCH"])
def test_what_must_be_given_is_named(kept: Directory, method: str, path: str) -> None:
    required = {"workspaces": {"slug"}, "users": {"email"}, "apps": {"slug", "workspaceId"}, MEMBER: {"role"}}
    problem = problem_of(send(kept, method, path, {}), 400, "invalid_payload")
    assert set(problem["errors"]) == required[path]


@pytest.mark.parametrize(("method", "path"), [*TAKES, ("PUT", GRANT)])
def test_a_body_that_is_no_json_object_is_refused(kept: Directory, method: str, path: str) -> None:
    for body in (b"[]", b"null", b'"x"', b"{", b"\xff", b"[" * 9000, b'{"a":1,"a":2}', b"{}x"):
        problem_of(send(kept, method, path, body), 400, "invalid_payload")


@pytest.mark.parametrize(("method", "path"), [*TAKES, ("PUT", GRANT)])
def test_a_body_of_another_kind_or_size_is_refused(kept: Directory, method: str, path: str) -> None:
    body = filled(kept, json.dumps(TAKES.get((method, path), {})))
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json", ""):
        problem_of(send(kept, method, path, body, content_type=kind), 415, "unsupported_media_type")
    problem_of(send(kept, method, path, body + " " * 16_384), 413, "payload_too_large")


@pytest.mark.parametrize(("method", "path"), TAKES)
def test_no_body_is_no_json(kept: Directory, method: str, path: str) -> None:
    problem_of(send(kept, method, path), 415, "unsupported_media_type")
    problem_of(send(kept, method, path, b""), 400, "invalid_payload")


QUERIES = [
    *("cursor=x", "cursor=", "cursor=null", "limit=0", "limit=201", "limit=-1", "limit=1.5", "limit="),
    *("limit=%D9%A3", "limit=1e1", "limit=" + "9" * 400, "colour=red", "limit=1&limit=2", "=x", "%00=1"),
    f"cursor={NOBODY}&cursor={NOBODY}",
    f"cursor={NOBODY}%00",
    "cursor=%ED%A0%80",
]
FILTERS = {
    "workspaces": ["slug=", "slug=A", "slug=a%00", "slug=a&slug=a"],
    "users": ["email=", "email=a", "email=a%00@b", "status=", "status=gone", "workspaceId=x", "slug=a"],
    "apps": ["slug=", "slug=%FF", "workspaceId=", "workspaceId=1", "workspaceId=%00", "status=active"],
}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_that_is_asked_for_wrongly_is_refused(kept: Directory, path: str) -> None:
    for query in (*QUERIES, *FILTERS.get(path, ["slug=a"])):
        problem = problem_of(send(kept, "GET", f"{path}?{query}"), 400, "invalid_payload")
        assert len(problem["errors"]) == 1, query


@pytest.mark.parametrize("path", [WORKSPACE, USER, MEMBER, APP, GRANT])
@pytest.mark.parametrize("id_", ["x", "%00", "null", ORDERS + "0", "../users", ORDERS.replace("-", ""), "'"])
def test_an_address_that_nothing_can_have_is_not_found(kept: Directory, path: str, id_: str) -> None:
    """For those that nobody let in, too: such an address has no route."""
    path = filled(kept, path)
    for wrong in (path.rpartition("/")[0] + "/" + id_, path + "/", path.partition("/")[0] + "/" + id_):
        problem_of(send(kept, "GET", wrong), 404, "not_found")


@pytest.mark.parametrize(("method", "path"), [*TAKES, *REST])
def test_strangers_and_clients_without_the_scope_get_nowhere(kept: Directory, method: str, path: str) -> None:
    """Before anybody looks at what they send."""
    address = "/api/ext/" + filled(kept, path)
    problem_of(kept.service.client.open(address, method=method, data=b"{"), 401, "invalid_client")
    wrong = basic("manager", "x" * 40)
    problem_of(kept.service.client.open(address, method=method, headers=wrong), 401, "invalid_client")
    for client in ("portal", "auditor"):
        answer = kept.call(method, filled(kept, path), b"{", client)
        assert "provision" in problem_of(answer, 403, "scope_missing")["detail"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_method_that_an_address_does_not_take_is_refused(kept: Directory, method: str) -> None:
    taken = {method_ + " " + path for method_, path in (*TAKES, *REST)}
    for path in (*LISTS, WORKSPACE, USER, MEMBER, APP, GRANT):
        if f"{method} {path}" not in taken and not (method == "DELETE" and path == GRANT):
            answer = send(kept, method, path)
            problem_of(answer, 405, "method_not_allowed")
            assert "GET" in answer.headers["Allow"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(
    [
        "slug",
        "name",
        "email",
        "status",
        "memberships",
        "workspaceId",
        "role",
        "id",
        "template",
        "allowedOrigins",
    ]
)


@pytest.mark.slow
@given(body=st.dictionaries(_names, _json, max_size=4))
def test_whatever_is_sent_is_answered_by_the_contract(kept: Directory, body: dict[str, Any]) -> None:
    """With a field that nobody knows, so that none of it is done."""
    for method, path in TAKES:
        answer = send(kept, method, path, json.dumps(body | {"colour": 1}))
        problem_of(answer, 400, "invalid_payload")
