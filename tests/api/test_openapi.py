"""The OpenAPI document, which comes from the code."""

import json
import re
from typing import Any

import pytest

from tests.world import MINT, ORDERS, Service, problem_of

DOCUMENT = "/api/openapi.json"
EXCHANGE = "/api/ext/users/session"
STATUSES = {
    MINT: {"201", "400", "401", "403", "404", "413", "415", "429", "503"},
    EXCHANGE: {"201", "400", "401", "413", "415", "429", "503"},
}


@pytest.fixture(scope="module")
def document(lasting: Service) -> dict[str, Any]:
    answer = lasting.client.get(DOCUMENT)
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
    """The one content type of a request or answer, and its schema."""
    ((content_type, media),) = resolve(document, message)["content"].items()
    return content_type, resolve(document, media["schema"])


def test_the_document_says_what_it_is(document: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.[01]\.\d+", document["openapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    references = set(re.findall(r'"\$ref": "([^"]+)"', text))
    assert references
    for reference in references:
        assert resolve(document, {"$ref": reference})


def test_both_routes_are_listed_and_nothing_else_of_the_api_is_left_out(
    lasting: Service, document: dict[str, Any]
) -> None:
    routes = {
        (rule.rule, method.lower())
        for rule in lasting.app.url_map.iter_rules()
        if rule.rule.startswith("/api/ext")
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}
    }
    listed = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert {(MINT, "post"), (EXCHANGE, "post")} <= listed
    assert listed == routes


@pytest.mark.parametrize("path", STATUSES)
def test_every_status_is_listed_and_each_refusal_is_a_problem(document: dict[str, Any], path: str) -> None:
    responses = document["paths"][path]["post"]["responses"]
    assert {status for status in responses if status != "default"} == STATUSES[path]
    for status in set(responses) - {"201"}:
        content_type, schema = body_of(document, responses[status])
        assert content_type == "application/problem+json"
        assert {"type", "title", "status", "detail", "code", "requestId", "message"} <= set(
            schema["properties"]
        )


def test_the_body_of_a_mint_is_described_as_the_contract_has_it(document: dict[str, Any]) -> None:
    operation = document["paths"][MINT]["post"]
    assert operation["summary"] or operation["description"]
    assert operation["requestBody"]["required"] is True
    content_type, schema = body_of(document, operation["requestBody"])
    assert content_type == "application/json"
    fields = {
        name: ({field["type"]} if isinstance(field["type"], str) else set(field["type"])) - {"null"}
        for name, field in schema["properties"].items()
    }
    assert fields == {
        "email": {"string"},
        "userId": {"string"},
        "appId": {"string"},
        "appSlug": {"string"},
        "sessionExpiry": {"integer"},
        "patExpiry": {"integer"},
        "endSessions": {"boolean"},
    }
    assert schema["additionalProperties"] is False


def test_every_optional_field_of_a_mint_may_be_null(document: dict[str, Any]) -> None:
    _, schema = body_of(document, document["paths"][MINT]["post"]["requestBody"])
    for name, field in schema["properties"].items():
        assert "null" in field["type"] or field.get("nullable"), name


@pytest.mark.parametrize("path", STATUSES)
def test_a_real_answer_has_the_fields_that_are_described(
    lasting: Service, document: dict[str, Any], path: str
) -> None:
    answer = lasting.mint()
    assert answer.json is not None
    if path == EXCHANGE:
        body = {"appId": ORDERS, "accessToken": answer.json["personalAccessToken"]}
        answer = lasting.client.post(EXCHANGE, json=body)
    content_type, schema = body_of(document, document["paths"][path]["post"]["responses"]["201"])
    assert answer.content_type == content_type
    assert set(answer.json or {}) == set(schema["properties"]) == set(schema["required"])


def test_a_mint_asks_for_basic_credentials_and_a_session_for_none(document: dict[str, Any]) -> None:
    ((name,),) = document["paths"][MINT]["post"]["security"]
    assert document["components"]["securitySchemes"][name] == {"type": "http", "scheme": "basic"}
    assert not document["paths"][EXCHANGE]["post"].get("security")


def test_the_document_is_read_and_not_written(lasting: Service) -> None:
    problem_of(lasting.client.post(DOCUMENT), 405, "method_not_allowed")
    assert "Set-Cookie" not in lasting.client.get(DOCUMENT).headers
