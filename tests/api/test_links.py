"""Links of the OpenAPI document lead from a real answer to where they say."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.support.world import KEY, ORDERS, Service, basic, provision, renew

CLIENT = {
    "id": "walker",
    "secret": KEY,
    "scopes": ["mint", "mint:workspace", "provision", "audit"],
    "highest_role": "admin",
    "mint_limit": "1000000 per minute",
}
WISH = {"email": "ana@acme.test", "appId": ORDERS, "sessionExpiry": 60, "patExpiry": 1000}
#: What a link leads to and wants a body that the link does not give.
BODIES = {"putMember": {"role": "end-user"}, "changeWorkspace": {}, "changeUser": {}, "changeApp": {}}


class Walker:
    """Calls operations of the document by their ids, as a client that may do everything."""

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

    def begin(self) -> dict[str, Callable[[], tuple[Any, Any]]]:
        """Return how to get an answer from which links lead on: the request's body, and the answer."""
        one = {"limit": 1}
        acme = self.call("listWorkspaces", {}, {"slug": "acme"}).json["items"][0]["id"]
        ana = self.call("listUsers", {}, {"email": "ana@acme.test"}).json["items"][0]["id"]
        cleo = {"email": "cleo@acme.test", "memberships": [{"workspaceId": acme, "role": "end-user"}]}
        app = {"slug": "new", "workspaceId": acme}

        def calls(name: str, *, body: Any = None, query: Any = (), **path: str) -> Callable[[], Any]:
            return lambda: ({"body": body, "path": path}, self.call(name, path, dict(query), body))

        def opens() -> tuple[Any, Any]:
            token = self.call("mint", {}, {}, WISH).json["personalAccessToken"]
            body = {"appId": ORDERS, "accessToken": token}
            return {"body": body}, self.call("openSession", {}, {}, body)

        def lists(name: str) -> Callable[[], Any]:
            def after_two() -> tuple[Any, Any]:
                for email in ("ana@acme.test", "ben@acme.test"):
                    token = self.call("mint", {}, {}, WISH | {"email": email}).json["personalAccessToken"]
                    self.call("openSession", {}, {}, {"appId": ORDERS, "accessToken": token})
                return {}, self.call(name, {}, one)

            return after_two

        return {
            "mint": calls("mint", body=WISH),
            "openSession": opens,
            "createWorkspace": calls("createWorkspace", body={"slug": "initech"}),
            "createUser": calls("createUser", body=cleo),
            "createApp": calls("createApp", body=app),
            "putMember": calls("putMember", body={"role": "builder"}, workspaceId=acme, userId=ana),
            "putGrant": calls("putGrant", appId=ORDERS, userId=ana),
            "listMembers": calls("listMembers", query=one, workspaceId=acme),
            "listGrants": calls("listGrants", query=one, appId=ORDERS),
        } | {
            name: lists(name)
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
    """Return what a runtime expression of OpenAPI means, or a constant."""
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
def test_every_link_leads_to_something_that_is_there(standing: tuple[Flask, Path]) -> None:
    app, as_it_was = standing
    renew(app, as_it_was)
    provision(app, {"clients": [CLIENT]})
    walker = Walker(Service(app.test_client()))
    followed = 0
    linked = {
        name: operation["responses"][status]["links"]
        for name, (_, _, operation) in walker.operations.items()
        for status in ("200", "201")
        if "links" in operation["responses"].get(status, {})
    }
    assert linked.keys() == walker.begin().keys()
    for source, links in linked.items():
        for name, link in links.items():
            # Each from the same beginning: some of them delete.
            renew(app, as_it_was)
            provision(app, {"clients": [CLIENT]})
            request, answer = walker.begin()[source]()
            assert answer.status_code in (200, 201), (source, answer.text)
            given: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
            for parameter, expression in link.get("parameters", {}).items():
                place, _, key = parameter.partition(".")
                given[place][key] = value_of(expression, request, answer.json)
                assert given[place][key] is not None, (source, name)
            body = {k: value_of(v, request, answer.json) for k, v in link.get("requestBody", {}).items()}
            target = link["operationId"]
            led = walker.call(target, given["path"], given["query"], body or BODIES.get(target))
            # A workspace that has apps is there, and is not deleted.
            assert led.status_code in (200, 201, 204, 409), (source, name, led.text)
            followed += 1
    assert followed > 60
