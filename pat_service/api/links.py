"""Links in the API's document: from an answer to the operations that its ids lead to."""

import re
from typing import Any, Final

#: Where an operation's answer holds the ids that paths name. The first is of what it is about.
GIVES: Final[dict[str, dict[str, str]]] = {
    "mint": {"tokenId": "/tokenId"},
    "openSession": {"sessionId": "/session/id"},
    "createWorkspace": {"workspaceId": "/id"},
    "createUser": {"userId": "/id", "workspaceId": "/memberships/0/workspaceId"},
    "createApp": {"appId": "/id"},
    "putMember": {"userId": "/userId", "workspaceId": "/workspaceId"},
    "putGrant": {"userId": "/userId", "appId": "/appId"},
    "listWorkspaces": {"workspaceId": "/items/0/id"},
    "listUsers": {"userId": "/items/0/id", "workspaceId": "/items/0/memberships/0/workspaceId"},
    "listApps": {"appId": "/items/0/id"},
    "listMembers": {"userId": "/items/0/userId", "workspaceId": "/items/0/workspaceId"},
    "listGrants": {"userId": "/items/0/userId", "appId": "/items/0/appId"},
    "listTokens": {"tokenId": "/items/0/id"},
    "listSessions": {"sessionId": "/items/0/id"},
}
#: Where what an operation wants in its body comes from.
FEEDS: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "listGrants": {
        "mint": {
            "userId": "$response.body#/items/0/userId",
            "appId": "$response.body#/items/0/appId",
            "sessionExpiry": 60,
            "patExpiry": 3600,
        }
    },
    "mint": {
        "openSession": {
            "appId": "$request.body#/appId",
            "accessToken": "$response.body#/personalAccessToken",
        },
        "introspect": {"token": "$response.body#/personalAccessToken"},
    },
    "openSession": {"introspect": {"token": "$response.body#/signedPat"}},
}


def add(paths: dict[str, Any]) -> None:
    """Give the links to the answers of these paths."""
    operations = {
        operation["operationId"]: (path, operation)
        for path, item in paths.items()
        for method, operation in item.items()
        if method != "parameters"
    }
    for source, (path, operation) in operations.items():
        found = _by_ids(GIVES.get(source, {}), operations) | _by_bodies(source)
        if source.startswith("list"):
            same = {f"path.{name}": f"$request.path.{name}" for name in _names(path)}
            following = same | {"query.cursor": "$response.body#/nextCursor"}
            found["nextPage"] = {"operationId": source, "parameters": following}
        for status, answer in operation["responses"].items():
            if found and status in ("200", "201"):
                answer["links"] = found


def _by_ids(gives: dict[str, str], operations: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for target, (path, operation) in operations.items():
        wanted = _names(path)
        # What a session of a frame is for, it says itself.
        by_client = any("client" in way for way in operation["security"])
        if by_client and set(wanted) <= set(gives) and set(wanted) & set(list(gives)[:1]):
            parameters = {f"path.{name}": f"$response.body#{gives[name]}" for name in wanted}
            found[target] = {"operationId": target, "parameters": parameters}
    return found


def _names(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _by_bodies(source: str) -> dict[str, Any]:
    return {
        target: {"operationId": target, "requestBody": body} for target, body in FEEDS.get(source, {}).items()
    }
