"""Examples in the API's document, where a view gives none: made from the schemas."""

from typing import Any, Final

from pat_service.api.fields import EXAMPLE_ID, EXAMPLE_MOMENT

#: Ways to mint.
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
        "summary": "For all apps of a workspace",
        "value": {
            "email": "ana@acme.test",
            "workspaceSlug": "acme",
            "sessionExpiry": 60,
            "patExpiry": 1_000_000,
            "singleUse": True,
        },
    },
    "newcomer": {
        "summary": "For somebody who may be new",
        "value": {
            "email": "cleo@acme.test",
            "appSlug": "orders",
            "sessionExpiry": 60,
            "patExpiry": 3600,
            "provision": {"name": "Cleo", "role": "end-user"},
        },
    },
}
#: What a text of this name looks like.
USUAL: Final = {
    "slug": "orders",
    "template": "orders",
    "name": "Orders",
    "email": "ana@acme.test",
    "allowedOrigins": "https://portal.example",
    "nextCursor": EXAMPLE_ID,
}
_OF_FORMATS: Final = {"uuid": EXAMPLE_ID, "date-time": EXAMPLE_MOMENT, "uri": "https://embed.example"}
_OF_TYPES: Final[dict[str, Any]] = {"boolean": True, "integer": 1, "number": 1, "string": "…", "null": None}


def sample(schema: dict[str, Any], schemas: dict[str, Any], name: str = "") -> Any:
    """Return a value that fits the schema; `schemas` are those that it can refer to."""
    if "$ref" in schema:
        return sample(schemas[schema["$ref"].rpartition("/")[2]], schemas, name)
    for key in "anyOf", "oneOf":
        if key in schema:
            return sample(schema[key][0], schemas, name)
    if "example" in schema:
        return schema["example"]
    if "enum" in schema:
        return schema["enum"][0]
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if kinds[0] == "array":
        return [sample(schema["items"], schemas, name)]
    if kinds[0] == "object":
        return {key: sample(value, schemas, key) for key, value in schema.get("properties", {}).items()}
    return _OF_FORMATS.get(schema.get("format", "")) or USUAL.get(name) or _OF_TYPES[kinds[0]]
