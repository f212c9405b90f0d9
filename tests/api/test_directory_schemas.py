"""Every route of the directory refuses bad input and changes nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from pat_service.storage.database import db, reading
from tests.support.directory import ANA, BEN, UNKNOWN, Directory
from tests.support.people import ORDERS, SUPPORT, basic, long_lived_service, problem_of

WORKSPACE = "workspaces/{acme}"
MEMBER = "workspaces/{acme}/members/{ana}"
USER = "users/{ana}"
APP = f"apps/{ORDERS}"
GRANT = f"apps/{SUPPORT}/grants/{{ben}}"
#: Routes with a body → a valid body.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
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
WITHOUT_BODY = [
    *[("GET", path) for path in (*LISTS, WORKSPACE, USER, MEMBER, APP, f"apps/{ORDERS}/grants/{{ana}}")],
    *[("DELETE", path) for path in (WORKSPACE, USER, MEMBER, APP, f"apps/{ORDERS}/grants/{{ana}}")],
    ("PUT", GRANT),
]

CONTROL_CHARACTERS = ["A\0", "\ud800", "a\nb", "\x1b", "\x85", "a\x7f"]
NAMES = ["", "a" * 201, *CONTROL_CHARACTERS, 1, True, ["Acme"], {}, 1.5]
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
    *([{"workspaceId": UNKNOWN}], [{"role": "end-user"}], [{"workspaceId": "x", "role": "end-user"}]),
    [{"workspaceId": UNKNOWN, "role": "owner"}],
    [{"workspaceId": UNKNOWN, "role": "end-user", "x": 1}],
    [{"workspaceId": UNKNOWN, "role": "end-user"}, {"workspaceId": UNKNOWN.upper(), "role": "builder"}],
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
def directory(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    """A directory that no test may change; the end of the module checks that."""
    with long_lived_service(schema, tmp_path_factory.mktemp("directory")) as service:
        directory = Directory(service)
        before = all_rows(directory)
        yield directory
        assert all_rows(directory) == before


def all_rows(directory: Directory) -> dict[str, list[str]]:
    """Return every row. Leave out events, and client secrets, whose time of last use changes."""
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
    """Send as a client that can do everything, so that only the input can be refused."""
    if isinstance(body, (dict, list)):
        body = filled(directory, json.dumps(body))
    return directory.call(method, filled(directory, path), body, "everywhere", **options)


@pytest.mark.parametrize(("method", "path", "field", "values"), WRONG)
def test_an_error_names_the_wrong_field(
    directory: Directory, method: str, path: str, field: str, values: list[Any]
) -> None:
    for value in values:
        answer = send(directory, method, path, BODIES[method, path] | {field: value})
        problem = problem_of(answer, 400, "invalid_payload")
        assert {name.partition(".")[0] for name in problem["errors"]} == {field}, value


#: Fields of a new app or user that cannot change.
FIXED: dict[Any, dict[str, Any]] = {("PATCH", APP): {"id": UNKNOWN}, ("PATCH", USER): {"memberships": []}}


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_an_unknown_or_fixed_field_is_refused(directory: Directory, method: str, path: str) -> None:
    names = ("colour", "createdAt", "moves", "allowed_origins", "", "\ud800", "__proto__")
    wrong: dict[str, Any] = dict.fromkeys(names, "x")
    for name, value in (wrong | FIXED.get((method, path), {})).items():
        answer = send(directory, method, path, BODIES[method, path] | {name: value})
        assert len(problem_of(answer, 400, "invalid_payload")["errors"]) == 1


@pytest.mark.parametrize(("method", "path"), [key for key in BODIES if key[0] != "PATCH"])
def test_an_error_names_each_missing_field(directory: Directory, method: str, path: str) -> None:
    required = {"workspaces": {"slug"}, "users": {"email"}, "apps": {"slug", "workspaceId"}, MEMBER: {"role"}}
    problem = problem_of(send(directory, method, path, {}), 400, "invalid_payload")
    assert set(problem["errors"]) == required[path]


@pytest.mark.parametrize(("method", "path"), [*BODIES, ("PUT", GRANT)])
def test_a_body_must_be_a_json_object_of_the_right_type_and_size(
    directory: Directory, method: str, path: str
) -> None:
    for bad in (b"[]", b"null", b'"x"', b"{", b"\xff", b"[" * 9000, b'{"a":1,"a":2}', b"{}x"):
        problem_of(send(directory, method, path, bad), 400, "invalid_payload")
    body = filled(directory, json.dumps(BODIES.get((method, path), {})))
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json", ""):
        problem_of(send(directory, method, path, body, content_type=kind), 415, "unsupported_media_type")
    problem_of(send(directory, method, path, body + " " * 16_384), 413, "payload_too_large")
    if (method, path) in BODIES:
        problem_of(send(directory, method, path), 415, "unsupported_media_type")
        problem_of(send(directory, method, path, b""), 400, "invalid_payload")


QUERIES = [
    *("cursor=x", "cursor=", "cursor=null", "limit=0", "limit=201", "limit=-1", "limit=1.5", "limit="),
    *("limit=%D9%A3", "limit=1e1", "limit=" + "9" * 400, "colour=red", "limit=1&limit=2", "=x", "%00=1"),
    f"cursor={UNKNOWN}&cursor={UNKNOWN}",
    f"cursor={UNKNOWN}%00",
    "cursor=%ED%A0%80",
]
FILTERS = {
    "workspaces": ["slug=", "slug=A", "slug=a%00", "slug=a&slug=a"],
    "users": ["email=", "email=a", "email=a%00@b", "status=", "status=gone", "workspaceId=x", "slug=a"],
    "apps": ["slug=", "slug=%FF", "workspaceId=", "workspaceId=1", "workspaceId=%00", "status=active"],
}


@pytest.mark.parametrize("path", LISTS)
def test_a_wrong_query_of_a_list_is_refused(directory: Directory, path: str) -> None:
    for query in (*QUERIES, *FILTERS.get(path, ["slug=a"])):
        problem = problem_of(send(directory, "GET", f"{path}?{query}"), 400, "invalid_payload")
        assert len(problem["errors"]) == 1, query


@pytest.mark.parametrize("path", [WORKSPACE, USER, MEMBER, APP, GRANT])
@pytest.mark.parametrize("id_", ["x", "%00", "null", ORDERS + "0", "../users", ORDERS.replace("-", ""), "'"])
def test_an_address_that_no_resource_can_have_is_not_found(directory: Directory, path: str, id_: str) -> None:
    path = filled(directory, path)
    for wrong in (path.rpartition("/")[0] + "/" + id_, path + "/", path.partition("/")[0] + "/" + id_):
        problem_of(send(directory, "GET", wrong), 404, "not_found")


@pytest.mark.parametrize(("method", "path"), [*BODIES, *WITHOUT_BODY])
def test_strangers_and_clients_without_the_scope_are_refused_before_their_body_is_read(
    directory: Directory, method: str, path: str
) -> None:
    address = "/api/ext/" + filled(directory, path)
    problem_of(directory.service.client.open(address, method=method, data=b"{"), 401, "invalid_client")
    wrong = basic("manager", "x" * 40)
    problem_of(directory.service.client.open(address, method=method, headers=wrong), 401, "invalid_client")
    for client in ("portal", "auditor"):
        answer = directory.call(method, filled(directory, path), b"{", client)
        assert "provision" in problem_of(answer, 403, "scope_missing")["detail"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_wrong_method_is_refused(directory: Directory, method: str) -> None:
    taken = {method_ + " " + path for method_, path in (*BODIES, *WITHOUT_BODY)}
    for path in (*LISTS, WORKSPACE, USER, MEMBER, APP, GRANT):
        if f"{method} {path}" not in taken and not (method == "DELETE" and path == GRANT):
            answer = send(directory, method, path)
            problem_of(answer, 405, "method_not_allowed")
            assert "GET" in answer.headers["Allow"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(sorted({field for _, _, field, _ in WRONG}))


@pytest.mark.slow
@given(body=st.dictionaries(_names, _json, max_size=4))
def test_random_bodies_are_refused_by_the_contract(directory: Directory, body: dict[str, Any]) -> None:
    for method, path in BODIES:
        # The unknown field makes every body invalid, so none changes anything.
        answer = send(directory, method, path, json.dumps(body | {"colour": 1}))
        problem_of(answer, 400, "invalid_payload")
