"""Examples in the API's document. Most are made from the schemas."""

from typing import Any, Final

from pat_service.api.fields import EXAMPLE_ID, EXAMPLE_MOMENT, EXAMPLE_TOKEN

#: Example requests of a mint.
MINT_EXAMPLES: Final = {
    "app": {
        "summary": "For one app",
        "value": {
            "email": "ana@acme.test",
            "appSlug": "orders",
            "sessionExpiry": 60,
            "patExpiry": 1_000_000,
            "attributes": {"region": "north"},
        },
    },
    "workspace": {
        "summary": "For all apps of a workspace, for single use",
        "value": {
            "email": "ana@acme.test",
            "workspaceSlug": "acme",
            "sessionExpiry": 60,
            "patExpiry": 1_000_000,
            "singleUse": True,
        },
    },
    "newcomer": {
        "summary": "For a user who may be new",
        "value": {
            "email": "cleo@acme.test",
            "appSlug": "orders",
            "sessionExpiry": 60,
            "patExpiry": 3600,
            "provision": {"name": "Cleo", "role": "end-user"},
        },
    },
}
_MINTED: Final[dict[str, Any]] = {
    "personalAccessToken": EXAMPLE_TOKEN,
    "redirectUrl": f"https://embed.example/embed-apps/{EXAMPLE_ID}?personal-access-token={EXAMPLE_TOKEN}",
    "tokenId": EXAMPLE_ID,
    "expiresIn": 1_000_000,
    "sessionExpiresIn": 3600,
}
#: Answers to two of the example requests.
MINTED_EXAMPLES: Final = {
    "app": {"summary": "For one app", "value": _MINTED},
    "workspace": {
        "summary": "For all apps of a workspace, for single use",
        "value": _MINTED
        | {
            "redirectUrl": _MINTED["redirectUrl"].replace("/embed-apps/", "/embed-workspaces/"),
            "singleUse": True,
        },
    },
}
_APP: Final[dict[str, Any]] = {"name": "Orders", "allowedOrigins": ["https://portal.example"]}
_ELSEWHERE: Final = {
    "upstream": "http://sales.internal:8501",
    "start": "/reports?year=2026",
    "permissions": ["fullscreen"],
}
#: Example requests that change an app.
APP_CHANGE_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "template": {"summary": "With a template", "value": _APP | {"template": "orders"}},
    "upstream": {"summary": "That runs elsewhere", "value": _APP | _ELSEWHERE},
}
#: Example requests that create an app.
NEW_APP_EXAMPLES: Final = {
    name: example | {"value": {"slug": "orders", "workspaceId": EXAMPLE_ID} | example["value"]}
    for name, example in APP_CHANGE_EXAMPLES.items()
}
#: Name of a field → example.
BY_NAME: Final = {
    "slug": "orders",
    "template": "orders",
    "name": "Orders",
    "email": "ana@acme.test",
    "allowedOrigins": "https://portal.example",
    "nextCursor": EXAMPLE_ID,
}
_BY_FORMAT: Final = {"uuid": EXAMPLE_ID, "date-time": EXAMPLE_MOMENT, "uri": "https://embed.example"}
_BY_TYPE: Final[dict[str, Any]] = {"boolean": True, "integer": 1, "number": 1, "string": "…", "null": None}


def make_example(schema: dict[str, Any], schemas: dict[str, Any], name: str = "") -> Any:
    """Return a value that fits the schema. `schemas`: the components that it can reference."""
    if "$ref" in schema:
        return make_example(schemas[schema["$ref"].rpartition("/")[2]], schemas, name)
    for key in "anyOf", "oneOf":
        if key in schema:
            return make_example(schema[key][0], schemas, name)
    if "example" in schema:
        return schema["example"]
    if "enum" in schema:
        return schema["enum"][0]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if kinds[0] == "array":
        return [make_example(schema["items"], schemas, name)]
    if kinds[0] == "object":
        return {key: make_example(value, schemas, key) for key, value in schema.get("properties", {}).items()}
    return _BY_FORMAT.get(schema.get("format", "")) or BY_NAME.get(name) or _BY_TYPE[kinds[0]]
