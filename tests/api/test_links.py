"""Every link of the OpenAPI document leads from a real answer to an existing resource."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.support.people import KEY, ORDERS, Service, basic, provision, restore_database

CLIENT = {
    "id": "walker",
    "secret": KEY,
    "scopes": ["mint", "mint:workspace", "provision", "audit"],
    "highest_role": "admin",
    "mint_limit": "1000000 per minute",
}
MINT_BODY = {"email": "ana@acme.test", "appId": ORDERS, "sessionExpiry": 60, "patExpiry": 1000}
#: Bodies for operations that links lead to, if the link has no body.
BODIES = {"putMember": {"role": "end-user"}, "changeWorkspace": {}, "changeUser": {}, "changeApp": {}}


class Walker:
    """A client with all scopes that calls operations by their ids."""

    def __init__(self, service: Service) -> None:
        self.service = service
        document = json.loads(service.client.get("/api/openapi.json").data)
        self.operations = {
            operation["operationId"]: (path, method, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method != "parameters"
        }

    def call(self, name: str, path: dict[str, str], query: dict[str, Any], body: Any = None) -> Any:
        template, method, _ = self.operations[name]
        return self.service.client.open(
            template.format(**path),
            method=method,
            query_string=query,
            json=body,
            headers=basic("walker", KEY),
        )

    def sources(self) -> dict[str, Callable[[], tuple[Any, Any]]]:
        """Return calls by operation id; each returns its request and an answer that has links."""
        one = {"limit": 1}
        acme = self.call("listWorkspaces", {}, {"slug": "acme"}).json["items"][0]["id"]
        ana = self.call("listUsers", {}, {"email": "ana@acme.test"}).json["items"][0]["id"]
        cleo = {"email": "cleo@acme.test", "memberships": [{"workspaceId": acme, "role": "end-user"}]}
        app = {"slug": "new", "workspaceId": acme}

        def calls(name: str, *, body: Any = None, query: Any = (), **path: str) -> Callable[[], Any]:
            return lambda: ({"body": body, "path": path}, self.call(name, path, dict(query), body))

        def open_session() -> tuple[Any, Any]:
            token = self.call("mint", {}, {}, MINT_BODY).json["personalAccessToken"]
            body = {"appId": ORDERS, "accessToken": token}
            return {"body": body}, self.call("openSession", {}, {}, body)

        def listing(name: str) -> Callable[[], Any]:
            def list_after_two_mints() -> tuple[Any, Any]:
                for email in ("ana@acme.test", "ben@acme.test"):
                    token = self.call("mint", {}, {}, MINT_BODY | {"email": email}).json[
                        "personalAccessToken"
                    ]
                    self.call("openSession", {}, {}, {"appId": ORDERS, "accessToken": token})
                return {}, self.call(name, {}, one)

            return list_after_two_mints

        return {
            "mint": calls("mint", body=MINT_BODY),
            "openSession": open_session,
            "createWorkspace": calls("createWorkspace", body={"slug": "initech"}),
            "createUser": calls("createUser", body=cleo),
            "createApp": calls("createApp", body=app),
            "putMember": calls("putMember", body={"role": "builder"}, workspaceId=acme, userId=ana),
            "putGrant": calls("putGrant", appId=ORDERS, userId=ana),
            "listMembers": calls("listMembers", query=one, workspaceId=acme),
            "listGrants": calls("listGrants", query=one, appId=ORDERS),
        } | {
            name: listing(name)
            for name in (
                "listWorkspaces",
                "listUsers",
                "listApps",
                "listTokens",
                "listSessions",
                "listEvents",
            )
        }


def value_of(expression: Any, request: Any, answer: Any) -> Any:
    """Return the value of an OpenAPI runtime expression, or a constant as it is."""
    if not str(expression).startswith("$"):
        return expression
    source, *steps = re.split(r"#/|/|(?<=path)\.", expression)
    value = {
        "$request.body": request.get("body"),
        "$request.path": request.get("path"),
        "$response.body": answer,
    }[source]
    for step in steps:
        value = value[int(step) if isinstance(value, list) else step]
    return value


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_every_link_leads_to_an_existing_resource(app_and_snapshot: tuple[Flask, Path]) -> None:
    app, as_it_was = app_and_snapshot
    restore_database(app, as_it_was)
    provision(app, {"clients": [CLIENT]})
    walker = Walker(Service(app.test_client()))
    followed = 0
    linked = {
        name: operation["responses"][status]["links"]
        for name, (_, _, operation) in walker.operations.items()
        for status in ("200", "201")
        if "links" in operation["responses"].get(status, {})
    }
    assert linked.keys() == walker.sources().keys()
    for source, links in linked.items():
        for name, link in links.items():
            # Some links delete, so each starts from the same data.
            restore_database(app, as_it_was)
            provision(app, {"clients": [CLIENT]})
            request, answer = walker.sources()[source]()
            assert answer.status_code in (200, 201), (source, answer.text)
            given: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
            for parameter, expression in link.get("parameters", {}).items():
                place, _, key = parameter.partition(".")
                given[place][key] = value_of(expression, request, answer.json)
                assert given[place][key] is not None, (source, name)
            body = {k: value_of(v, request, answer.json) for k, v in link.get("requestBody", {}).items()}
            target = link["operationId"]
            reached = walker.call(target, given["path"], given["query"], body or BODIES.get(target))
            # 409: a workspace with apps cannot be deleted.
            assert reached.status_code in (200, 201, 204, 409), (source, name, reached.text)
            followed += 1
    assert followed > 60
