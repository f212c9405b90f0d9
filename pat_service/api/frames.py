"""Frames in the API's document. They are no part of this API, but what it mints opens them.

What an app does inside its frame (its pages and data) is the app's own, and not listed.
"""

from typing import Any, Final

from pat_service.api.fields import EXAMPLE_TOKEN
from pat_service.http.headers import NONCE
from pat_service.http.public_url import TOKEN_PARAMETER
from pat_service.shapes import MAX_ORIGIN_LENGTH

TAG: Final = "Frames"
_PAGE: Final = {"text/html": {"schema": {"type": "string"}, "example": "<!doctype html>…"}}
_NO_NUL: Final = {"type": "string", "pattern": r"^[^\u0000]*$"}
_ID: Final = {"type": "string", "format": "uuid"}
_PLACE: Final = {
    "type": "object",
    "required": ["id", "slug", "name"],
    "properties": {"id": _ID, "slug": {"type": "string"}, "name": {"type": "string"}},
}
_PERSON: Final = {
    "type": "object",
    "required": ["id", "email", "name"],
    "properties": {"id": _ID, "email": {"type": "string"}, "name": {"type": "string"}},
}
_LAUNCHER_FACTS: Final = {
    "sessionId": _ID,
    "expiresIn": {"type": "integer", "description": "In seconds."},
    "user": _PERSON,
    "workspace": _PLACE,
}
_OPENED: Final = {
    "type": "object",
    "required": ["session", "expiresIn", "viewer", "page"],
    "properties": {
        "session": {"type": "string", "description": "The session's JWT."},
        "expiresIn": {"type": "integer", "description": "In seconds."},
        "viewer": {"type": "object"},
        "page": {"type": ["string", "null"]},
    },
    "example": {"session": "eyJ…", "expiresIn": 3600, "viewer": {"role": "end-user"}, "page": None},
}
_BY_SESSION: Final = {"tags": [TAG], "security": [{"session": []}]}
_REFUSED: Final = ("400", "401", "403", "404", "429", "503")


def _refusals(*statuses: str) -> dict[str, Any]:
    return {status: {} for status in statuses}


def _of(path: str, name: str, what: str, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the paths of one kind of frame: how it is opened, and what its session is."""
    given = {"type": "string", "description": f"As the mint returns it, with its `{TOKEN_PARAMETER}`."}
    at = [{"in": "path", "name": name, "required": True, "schema": _ID}]
    shown = {"200": {"description": f"The page of the {what}", "content": _PAGE}}
    form = {
        "type": "object",
        "properties": {
            TOKEN_PARAMETER: given,
            "session": {"type": "string", "description": "In place of the token, from frame to frame."},
        },
        # What else a form holds is passed over, but for NUL, which is refused everywhere.
        "additionalProperties": _NO_NUL,
        "propertyNames": _NO_NUL,
    }
    answer = {"type": "object", "required": list(facts), "properties": facts}
    handed = {
        "type": "object",
        "required": ["accessToken", "parentOrigin"],
        "properties": {
            "accessToken": given | {"description": "As the page around has handed it over."},
            "parentOrigin": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_ORIGIN_LENGTH,
                "description": "Of the page that it came from, which has to be one that may frame.",
            },
            "nonce": {
                "type": ["string", "null"],
                "pattern": f"^{NONCE}$",
                "description": "Of the page that waits, where the first page is wanted as well.",
            },
        },
        "additionalProperties": False,
        "example": {"accessToken": EXAMPLE_TOKEN, "parentOrigin": "https://portal.example"},
    }
    return {
        path: {
            "parameters": at,
            "get": {
                "tags": [TAG],
                "operationId": f"open{kind}",
                "summary": f"Open the {what} in a frame, with the token in the address.",
                "description": "The `redirectUrl` of a mint. A browser gets it only inside a frame.",
                "security": [],
                "parameters": [{"in": "query", "name": TOKEN_PARAMETER, "required": True, "schema": given}],
                "responses": shown | _refusals(*_REFUSED),
            },
            "post": {
                "tags": [TAG],
                "operationId": f"open{kind}ByForm",
                "summary": f"Open the {what} in a frame, with the token in a form that is targeted at it.",
                "description": "So the token is in no address. A frame of a workspace token goes from app "
                "to app in the same way, with its `session` in the form.",
                "security": [],
                "requestBody": {
                    "required": True,
                    "content": {"application/x-www-form-urlencoded": {"schema": form}},
                },
                "responses": shown | _refusals(*_REFUSED, "413", "415"),
            },
        },
        f"{path}/frame": {
            "parameters": at,
            "get": {
                "tags": [TAG],
                "operationId": f"await{kind}",
                "summary": "Get a page that holds nothing and waits for a token from the page around it.",
                "description": "What `embed.js` puts into its iframe: the token then stands in no address.",
                "security": [],
                "responses": {"200": {"description": "The page that waits", "content": _PAGE}}
                | _refusals("403", "404"),
            },
            "post": {
                "tags": [TAG],
                "operationId": f"handOver{kind}",
                "summary": "Open a session for the page that waits, or the next one for an open frame.",
                "description": "For the script of frames.",
                "security": [],
                "requestBody": {"required": True, "content": {"application/json": {"schema": handed}}},
                "responses": {
                    "200": {
                        "description": "The session, and the first page where a nonce came",
                        "content": {"application/json": {"schema": _OPENED}},
                    }
                }
                | _refusals(*_REFUSED, "413", "415"),
            },
        },
        f"{path}/session": {
            "parameters": at,
            "get": _BY_SESSION
            | {
                "operationId": f"read{kind}Session",
                "summary": "Read whose session this is, and what it is for.",
                "responses": {
                    "200": {
                        "description": "The session's own facts",
                        "content": {"application/json": {"schema": answer}},
                    }
                }
                | _refusals("401", "404", "429", "503"),
            },
            "delete": _BY_SESSION
            | {
                "operationId": f"end{kind}Session",
                "summary": "End the session that sends this.",
                "responses": {"204": {"description": "It has ended"}} | _refusals("401", "404", "429", "503"),
            },
        },
    }


def paths() -> dict[str, Any]:
    """Return the paths of frames, with the statuses that they answer."""
    facts = _LAUNCHER_FACTS | {"app": _PLACE}
    return _of("/embed-apps/{appId}", "appId", "app", "App", facts) | _of(
        "/embed-workspaces/{workspaceId}",
        "workspaceId",
        "launcher of a workspace",
        "Launcher",
        _LAUNCHER_FACTS,
    )
