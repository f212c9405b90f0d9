"""What schemathesis is told of the API beyond its document; it runs in a process of its own."""

import os
from typing import Any
from uuid import UUID

import schemathesis

#: Ids of what is to stay, or little would be left to ask for.
KEPT = os.environ["FUZZ_KEPT"].split()

FOLLOWS_LINKS = os.environ["FUZZ_PHASES"] == "stateful"


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Take the wish of a link as the whole wish: made-up fields beside it would make it another.

    Where links are followed, mint what the examples are: made-up users would get no token to go on with.
    """
    for item in raw_schema["paths"].values():
        for operation in (value for value in item.values() if isinstance(value, dict)):
            if operation["operationId"] == "mint" and FOLLOWS_LINKS:
                media = operation["requestBody"]["content"]["application/json"]
                media["schema"] = {"enum": [example["value"] for example in media["examples"].values()]}
            for answer in operation["responses"].values():
                for link in answer.get("links", {}).values():
                    if link["operationId"] == "mint":
                        link["x-schemathesis"] = {"merge_body": False}


@schemathesis.hook
def filter_body(_: schemathesis.HookContext, body: Any) -> bool:
    """Leave out 60.0: to JSON Schema it is an integer, to this API a float, which it refuses."""
    values = body.values() if isinstance(body, dict) else []
    return not any(isinstance(value, float) and value.is_integer() for value in values)


@schemathesis.hook
def map_query(context: schemathesis.HookContext, query: Any) -> Any:
    """List everything where the links of a list are to be followed."""
    lists = context.operation is not None and context.operation.method.upper() == "GET"
    return {} if lists and FOLLOWS_LINKS else query


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, __: dict[str, Any]) -> None:
    """Delete none of the people and places of the test's world; what was made on the way may go."""
    path = case.path_parameters or {}
    if case.method == "DELETE" and any(str(id_).lower() in KEPT for id_ in path.values()):
        case.path_parameters = dict.fromkeys(path, str(UUID(int=0)))
