"""Links in the API's document: from an answer to the operations that take its ids."""

import re
from typing import Any, Final

#: Operation → JSON pointers to the ids in its answer. The first is the id of the resource that the answer
#: describes.
ANSWER_IDS: Final[dict[str, dict[str, str]]] = {
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
#: Operation → next operation → the next request's body.
NEXT_BODIES: Final[dict[str, dict[str, dict[str, Any]]]] = {
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


def add_links(paths: dict[str, Any]) -> None:
    """Add links to the answers of these paths."""
    operations = {
        operation["operationId"]: (path, operation)
        for path, item in paths.items()
        for method, operation in item.items()
        if method != "parameters"
    }
    for source, (path, operation) in operations.items():
        found = _by_ids(ANSWER_IDS.get(source, {}), operations) | _by_bodies(source)
        # The list of public keys has one page.
        if source.startswith("list") and operation["security"]:
            same = {f"path.{name}": f"$request.path.{name}" for name in _names(path)}
            following = same | {"query.cursor": "$response.body#/nextCursor"}
            found["nextPage"] = {"operationId": source, "parameters": following}
        for status, answer in operation["responses"].items():
            if found and status in ("200", "201"):
                answer["links"] = found


def _by_ids(ids: dict[str, str], operations: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for target, (path, operation) in operations.items():
        needed = _names(path)
        # Frame operations need no link: they take their ids from the session.
        by_client = any("client" in way for way in operation["security"])
        if by_client and set(needed) <= set(ids) and set(needed) & set(list(ids)[:1]):
            parameters = {f"path.{name}": f"$response.body#{ids[name]}" for name in needed}
            found[target] = {"operationId": target, "parameters": parameters}
    return found


def _names(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _by_bodies(source: str) -> dict[str, Any]:
    return {
        target: {"operationId": target, "requestBody": body}
        for target, body in NEXT_BODIES.get(source, {}).items()
    }
