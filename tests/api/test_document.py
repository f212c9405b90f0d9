"""The OpenAPI document, which is made from the code."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from pat_service.embed.handover import _HandoverSchema
from pat_service.errors import BY_CODE
from pat_service.rules.callers import SCOPES
from tests.support.people import MINT, ORDERS, SECRETS, Service, basic, problem_of, provision

DOCUMENT = "/api/openapi.json"
EXCHANGE = "/api/ext/users/session"
STATUSES_OF_PATHS = {
    MINT: {"201", "400", "401", "403", "404", "409", "413", "415", "429", "503"},
    EXCHANGE: {"201", "400", "401", "403", "413", "415", "429", "503"},
}
#: Codes that the description lists once for all operations.
COMMON_CODES = {"method_not_allowed", "internal_error"}


@pytest.fixture(scope="module")
def document(shared: Service) -> dict[str, Any]:
    answer = shared.client.get(DOCUMENT)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    found: dict[str, Any] = json.loads(answer.data)
    return found


def resolve(document: dict[str, Any], node: Any) -> Any:
    """Follow a reference inside the document."""
    while "$ref" in node:
        assert node["$ref"].startswith("#/")
        found: Any = document
        for name in node["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        node = found
    return node


def body_of(document: dict[str, Any], message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the only content type of a request or answer, and its schema."""
    ((content_type, media),) = resolve(document, message)["content"].items()
    return content_type, resolve(document, media["schema"])


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path and method of each operation, and the operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


def codes(document: dict[str, Any], response: dict[str, Any]) -> list[str]:
    """Return the codes that an answer lists."""
    schema = resolve(document, response)["content"]["application/problem+json"]["schema"]
    found: list[str] = schema["allOf"][1]["properties"]["code"]["enum"]
    return found


def examples(document: dict[str, Any], media: dict[str, Any]) -> list[Any]:
    """Return the examples of a body."""
    if "example" in media:
        return [media["example"]]
    return [resolve(document, example)["value"] for example in media["examples"].values()]


def test_the_document_is_openapi_with_a_title_and_versions(document: dict[str, Any]) -> None:
    validate(document)
    assert re.fullmatch(r"3\.[01]\.\d+", document["openapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    references = set(re.findall(r'"\$ref": "([^"]+)"', text))
    assert references
    for reference in references:
        assert resolve(document, {"$ref": reference})


def test_every_route_is_listed(shared: Service, document: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", lambda found: f"{{{found[1]}}}", rule.rule).lower(), method.lower())
        for rule in shared.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}
    }
    listed = {(path, method) for path, method, _ in operations(document)}
    in_routes = {(re.sub("([A-Z])", r"_\1", path).lower(), method) for path, method in listed}
    assert in_routes <= routes
    assert {route for route in routes if route[0].startswith("/api/ext")} <= in_routes
    # The document lists neither the pages and data of apps, nor the addresses for reports of blank frames.
    frames = {route for route in routes - in_routes if re.match("/embed-(apps|workspaces)", route[0])}
    assert all(re.search("/pages/|/data/|/(reports|blank)$", path) for path, _ in frames)


def test_every_operation_has_a_summary_a_tag_and_its_security(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for path, _, operation in operations(document):
        assert operation["summary"].endswith("."), path
        assert len(operation["tags"]) == 1
        assert set(operation["tags"]) <= tags
        schemes = {scheme for way in operation["security"] for scheme in way}
        assert schemes <= document["components"]["securitySchemes"].keys()


def test_every_code_has_its_status_and_an_example(document: dict[str, Any]) -> None:
    seen = set()
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            found = codes(document, response)
            assert found
            assert {BY_CODE[code].status for code in found} == {int(status)}
            media = resolve(document, response)["content"]["application/problem+json"]
            assert [example["code"] for example in examples(document, media)] == found
            seen |= set(found)
    assert seen | COMMON_CODES == BY_CODE.keys()
    assert all(code in document["info"]["description"] for code in COMMON_CODES)


def test_every_body_has_a_valid_example(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for message in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for kind, media in resolve(document, message).get("content", {}).items():
                if kind == "text/html":
                    continue
                schema = {"components": document["components"]} | media["schema"]
                found = examples(document, media)
                assert found, (path, method)
                for example in found:
                    OAS31Validator(schema).validate(example)


def test_the_answer_of_a_plain_mint_is_not_for_single_use(document: dict[str, Any]) -> None:
    mint = document["paths"]["/api/ext/users/personal-access-token"]["post"]
    plain, single = examples(document, mint["responses"]["201"]["content"]["application/json"])
    assert plain.keys() ^ single.keys() == {"singleUse"}
    assert "singleUse" not in plain


def test_the_service_accepts_the_shape_of_every_example(app: Flask, document: dict[str, Any]) -> None:
    provision(app, {"clients": [{"id": "any", "secret": SECRETS["portal"], "scopes": list(SCOPES)}]})
    tried = 0
    for path, method, operation in operations(document):
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            for example in examples(document, media):
                body = {"json": example} if kind == "application/json" else {"data": example}
                answer = app.test_client().open(
                    re.sub("{.*?}", ORDERS, path),
                    method=method,
                    headers=basic("any", SECRETS["portal"]),
                    **body,
                )
                assert answer.status_code not in (400, 413, 415), (path, answer.text)
                tried += 1
    assert tried > 10


def test_each_operation_accepts_exactly_its_documented_scopes(app: Flask, document: dict[str, Any]) -> None:
    for scope in SCOPES:
        secret = SECRETS["portal"]
        provision(app, {"clients": [{"id": "narrow", "secret": secret, "scopes": [scope]}]})
        for path, method, operation in operations(document):
            accepted = [way["client"] for way in operation["security"] if "client" in way]
            if not accepted:
                continue
            assert all(f"`{name}`" in operation["description"] for (name,) in accepted)
            answer = app.test_client().open(
                re.sub("{.*?}", ORDERS, path), method=method, headers=basic("narrow", secret)
            )
            if [scope] not in accepted:
                problem_of(answer, 403, "scope_missing")
            else:
                assert answer.status_code != 403, (path, scope, answer.text)


@pytest.mark.parametrize("path", STATUSES_OF_PATHS)
def test_every_status_is_listed_and_every_error_is_a_problem(document: dict[str, Any], path: str) -> None:
    responses = document["paths"][path]["post"]["responses"]
    assert {status for status in responses if status != "default"} == STATUSES_OF_PATHS[path]
    for status in set(responses) - {"201"}:
        content_type, schema = body_of(document, responses[status])
        assert content_type == "application/problem+json"
        assert {"type", "title", "status", "detail", "code", "requestId", "message"} <= set(
            resolve(document, schema["allOf"][0])["properties"]
        )


def test_the_document_describes_the_body_of_a_mint(document: dict[str, Any]) -> None:
    operation = document["paths"][MINT]["post"]
    assert operation["summary"] or operation["description"]
    assert operation["requestBody"]["required"] is True
    content_type, schema = body_of(document, operation["requestBody"])
    assert content_type == "application/json"
    texts = ("email", "userId", "appId", "appSlug", "workspaceId", "workspaceSlug")
    fields = {name: kinds(document, field) for name, field in schema["properties"].items()}
    assert fields == {name: {"string", "null"} for name in texts} | {
        "sessionExpiry": {"integer", "null"},
        "patExpiry": {"integer", "null"},
        "endSessions": {"boolean", "null"},
        "singleUse": {"boolean", "null"},
        "provision": {"object", "null"},
        "attributes": {"object", "null"},
        "allowedOrigins": {"array", "null"},
    }
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("kind", ["apps/{appId}", "workspaces/{workspaceId}"])
def test_the_document_has_each_field_of_a_handover(document: dict[str, Any], kind: str) -> None:
    _, schema = body_of(document, document["paths"][f"/embed-{kind}/frame"]["post"]["requestBody"])
    fields = {field.data_key or name for name, field in _HandoverSchema().fields.items()}
    assert set(schema["properties"]) == fields


def kinds(document: dict[str, Any], field: dict[str, Any]) -> set[str]:
    """Return the types that a field may have."""
    ways = [resolve(document, way)["type"] for way in field.get("anyOf", [field])]
    return {kind for way in ways for kind in ([way] if isinstance(way, str) else way)}


@pytest.mark.parametrize("path", STATUSES_OF_PATHS)
def test_a_real_answer_has_the_documented_fields(
    shared: Service, document: dict[str, Any], path: str
) -> None:
    answer = shared.mint(singleUse=True)
    assert answer.json is not None
    if path == EXCHANGE:
        body = {"appId": ORDERS, "accessToken": answer.json["personalAccessToken"]}
        answer = shared.client.post(EXCHANGE, json=body)
    content_type, schema = body_of(document, document["paths"][path]["post"]["responses"]["201"])
    assert answer.content_type == content_type
    assert set(answer.json or {}) == set(schema["properties"])
    assert set(schema["properties"]) - set(schema["required"]) <= {"singleUse"}


def test_a_mint_needs_basic_credentials_and_a_session_needs_none(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["client"]["type"], schemes["client"]["scheme"]) == ("http", "basic")
    assert (schemes["session"]["type"], schemes["session"]["scheme"]) == ("http", "bearer")
    assert document["paths"][MINT]["post"]["security"] == [
        {"client": ["mint"]},
        {"client": ["mint:workspace"]},
    ]
    assert document["paths"][EXCHANGE]["post"]["security"] == []


def test_the_operator_sets_the_bounds_of_a_mint(make_app: Callable[..., Flask]) -> None:
    app = make_app(MAX_PAT_EXPIRY="500", MAX_SESSION_EXPIRY="20", DEFAULT_SESSION_EXPIRY="10")
    document = json.loads(app.test_client().get(DOCUMENT).data)
    _, schema = body_of(document, document["paths"][MINT]["post"]["requestBody"])
    pat, session = schema["properties"]["patExpiry"], schema["properties"]["sessionExpiry"]
    assert (pat["minimum"], pat["maximum"]) == (1, 500)
    assert (session["minimum"], session["maximum"]) == (1, 20)
    assert [all_["required"] for all_ in schema["allOf"] if "required" in all_] == [["patExpiry"]]
