"""Operations of frames in the API's document. The document does not list pages and data, which each app
defines."""

from typing import Any, Final

from pat_service.api.fields import EXAMPLE_TOKEN
from pat_service.credentials import CODE_PREFIX
from pat_service.http.headers import NONCE
from pat_service.http.public_url import TOKEN_PARAMETER
from pat_service.shapes import MAX_ANCESTORS, MAX_ORIGIN_LENGTH

TAG: Final = "Frames"
_PAGE: Final = {"text/html": {"schema": {"type": "string"}, "example": "<!doctype html>…"}}
_NO_NUL: Final = {"type": "string", "pattern": r"^[^\u0000]*$"}
_ID: Final = {"type": "string", "format": "uuid"}
_NAMED: Final = {
    "type": "object",
    "required": ["id", "slug", "name"],
    "properties": {"id": _ID, "slug": {"type": "string"}, "name": {"type": "string"}},
}
_USER: Final = {
    "type": "object",
    "required": ["id", "email", "name"],
    "properties": {"id": _ID, "email": {"type": "string"}, "name": {"type": "string"}},
}
_LAUNCHER_FIELDS: Final = {
    "sessionId": _ID,
    "expiresIn": {"type": "integer", "description": "In seconds."},
    "user": _USER,
    "workspace": _NAMED,
}
_CODE: Final = {"type": "string", "description": "A one-time code. It works once, within 30 s."}
_EXAMPLE_CODE: Final = f"{CODE_PREFIX}_…"
_OPENED: Final = {
    "type": "object",
    "minProperties": 1,
    "properties": {
        "session": {"type": "string", "description": "The session's JWT."},
        "expiresIn": {"type": "integer", "description": "In seconds."},
        "viewer": {"type": "object"},
        "page": {"type": ["string", "null"]},
        "moveTo": {
            "type": "string",
            "description": "The frame must navigate to this address, with a one-time code: only the browser "
            "can check the pages around the frame.",
        },
    },
    "example": {"session": "eyJ…", "expiresIn": 3600, "viewer": {"role": "end-user"}, "page": None},
}
_BY_SESSION: Final = {"tags": [TAG], "security": [{"session": []}]}
#: Deep links: where a frame of an app opens.
_PAGE_NAME: Final = {
    "type": ["string", "null"],
    "description": "The page that opens first: `a-z`, `0-9` and dashes. Default: `index`. Page and params "
    "have at most 2048 bytes together. A launcher has no pages.",
}
_PARAMS: Final = {
    "type": ["string", "null"],
    "description": "The page's query, as one URL-encoded text such as `id=BR-21782`, without NUL and `#`.",
}
_REFUSED: Final = ("400", "401", "403", "404", "429", "503")


def _refusals(*statuses: str) -> dict[str, Any]:
    return {status: {} for status in statuses}


def _paths_of(path: str, name: str, what: str, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the paths that open one kind of frame, and read and end its session."""
    token = {"type": "string", "description": f"The `{TOKEN_PARAMETER}` that the mint returned."}
    parameters = [{"in": "path", "name": name, "required": True, "schema": _ID}]
    page = {"200": {"description": f"The page of the {what}", "content": _PAGE}}
    if kind == "App":
        page["303"] = {"description": "With a workspace token: the same address, with a one-time code"}
    form = {
        "type": "object",
        "properties": {TOKEN_PARAMETER: token},
        # Other fields are ignored, but NUL is refused everywhere.
        "additionalProperties": _NO_NUL,
        "propertyNames": _NO_NUL,
    }
    answer = {"type": "object", "required": list(facts), "properties": facts}
    handover = {
        "type": "object",
        "required": ["accessToken", "parentOrigin"],
        "properties": {
            "accessToken": token
            | {"description": "The token that the host page passed on, or a launcher's one-time code."},
            "parentOrigin": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_ORIGIN_LENGTH,
                "description": "The origin of the host page. It must be an allowed origin.",
            },
            "ancestorOrigins": {
                "type": ["array", "null"],
                "minItems": 1,
                "maxItems": MAX_ANCESTORS,
                "items": {"type": "string", "minLength": 1, "maxLength": MAX_ORIGIN_LENGTH},
                "description": "The origins of all pages around the frame, as `location.ancestorOrigins` has "
                "them. Each must be allowed. null: the browser does not report them.",
            },
            "session": {
                "type": ["string", "null"],
                "description": "The session to renew. It ends at the first request of the new one, and after "
                "60 s at the latest. A session of another user, app or launcher is ignored.",
            },
            "nonce": {
                "type": ["string", "null"],
                "pattern": f"^{NONCE}$",
                "description": "The nonce of the waiting page. Send it to get the first page as well.",
            },
            "page": _PAGE_NAME,
            "params": _PARAMS,
        },
        "additionalProperties": False,
        "example": {"accessToken": EXAMPLE_TOKEN, "parentOrigin": "https://portal.example"},
    }
    return {
        path: {
            "parameters": parameters,
            "get": {
                "tags": [TAG],
                "operationId": f"open{kind}",
                "summary": f"Open the {what} in a frame, with a token or code in the address.",
                "description": "This is the `redirectUrl` of a mint. A browser gets it only inside a frame.",
                "security": [],
                "parameters": [
                    {"in": "query", "name": TOKEN_PARAMETER, "schema": token},
                    {"in": "query", "name": "code", "schema": _CODE},
                    {"in": "query", "name": "page", "schema": _PAGE_NAME | {"type": "string"}},
                    {"in": "query", "name": "params", "schema": _PARAMS | {"type": "string"}},
                ],
                "responses": page | _refusals(*_REFUSED),
            },
            "post": {
                "tags": [TAG],
                "operationId": f"open{kind}ByForm",
                "summary": f"Open the {what} in a frame, with the token in a form that targets the frame.",
                "description": "No address then contains the token.",
                "security": [],
                "requestBody": {
                    "required": True,
                    "content": {"application/x-www-form-urlencoded": {"schema": form}},
                },
                "responses": page | _refusals(*_REFUSED, "413", "415"),
            },
        },
        f"{path}/frame": {
            "parameters": parameters,
            "get": {
                "tags": [TAG],
                "operationId": f"await{kind}",
                "summary": "Get an empty page that waits for a token from its host page.",
                "description": "`embed.js` loads it into its iframe. No address then contains the token.",
                "security": [],
                "responses": {"200": {"description": "The waiting page", "content": _PAGE}}
                | _refusals("403", "404"),
            },
            "post": {
                "tags": [TAG],
                "operationId": f"handOver{kind}",
                "summary": "Open a session for the waiting page, or renew the session of an open frame.",
                "description": "The script of frames calls it.",
                "security": [],
                "requestBody": {"required": True, "content": {"application/json": {"schema": handover}}},
                "responses": {
                    "200": {
                        "description": "The session, and the first page if a nonce was sent",
                        "content": {"application/json": {"schema": _OPENED}},
                    }
                }
                | _refusals(*_REFUSED, "413", "415"),
            },
        },
        f"{path}/session": {
            "parameters": parameters,
            "get": _BY_SESSION
            | {
                "operationId": f"read{kind}Session",
                "summary": f"Read the session: its user, and the {what}.",
                "responses": {
                    "200": {"description": "The session", "content": {"application/json": {"schema": answer}}}
                }
                | _refusals("401", "404", "429", "503"),
            },
            "delete": _BY_SESSION
            | {
                "operationId": f"end{kind}Session",
                "summary": "End the session that the request carries.",
                "responses": {"204": {"description": "It has ended"}} | _refusals("401", "404", "429", "503"),
            },
        },
    }


def paths() -> dict[str, Any]:
    """Return the paths of frames, with their statuses."""
    facts = _LAUNCHER_FIELDS | {"app": _NAMED}
    launcher = "/embed-workspaces/{workspaceId}"
    return {
        **_paths_of("/embed-apps/{appId}", "appId", "app", "App", facts),
        **_paths_of(launcher, "workspaceId", "launcher of a workspace", "Launcher", _LAUNCHER_FIELDS),
        f"{launcher}/apps/{{appId}}": _exchange(),
        "/.well-known/jwks.json": _keys(),
    }


def _keys() -> dict[str, Any]:
    """Return the path of the keys of upstream apps' JWTs."""
    key = {name: {"type": "string"} for name in ("kid", "kty", "crv", "alg", "use", "x")}
    answer = {
        "type": "object",
        "required": ["keys"],
        "properties": {"keys": {"type": "array", "items": {"type": "object", "properties": key}}},
        "example": {"keys": [{"kid": "1e945e56f48b", "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA"}]},
    }
    listed = {"description": "A JWK set (RFC 7517)", "content": {"application/json": {"schema": answer}}}
    return {
        "get": {
            "tags": ["Introspection"],
            "operationId": "listKeys",
            "summary": "List the public keys that verify the JWT of an upstream app's viewer.",
            "description": "The app gets the JWT in the header `X-Embed-Jwt`, signed with EdDSA. Its `aud` "
            "is the app's slug. Without `{app}` in PUBLIC_URL there are no keys.",
            "security": [],
            "responses": {"200": listed} | _refusals("404"),
        }
    }


def _exchange() -> dict[str, Any]:
    """Return the path by which a launcher opens an app."""
    answer = {
        "type": "object",
        "required": ["code", "expiresIn", "url"],
        "properties": {
            "code": _CODE,
            "expiresIn": {"type": "integer", "description": "In seconds, the life of the code."},
            "url": {"type": "string", "description": "The address of the app's frame."},
        },
        "example": {"code": _EXAMPLE_CODE, "expiresIn": 30, "url": "/embed-apps/…"},
    }
    opened = {
        "description": "A one-time code for a session at the app",
        "content": {"application/json": {"schema": answer}},
    }
    names = ("workspaceId", "appId")
    return {
        "parameters": [{"in": "path", "name": name, "required": True, "schema": _ID} for name in names],
        "post": _BY_SESSION
        | {
            "operationId": "enterApp",
            "summary": "Open an app from the launcher.",
            "description": "The launcher passes the code on to the app's frame, which hands it over. "
            "The app's session ends with the launcher's at the latest.",
            "responses": {"201": opened} | _refusals("401", "403", "404", "409", "429", "503"),
        },
    }
