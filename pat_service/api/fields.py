"""The kinds of fields and requests that the API's schemas are made of. Shape only."""

import re
from datetime import UTC, datetime
from typing import Any, Final

from flask import current_app
from marshmallow import Schema, ValidationError, fields, post_load, pre_load
from marshmallow.validate import Length, OneOf

from pat_service.listing import MAX_LIMIT, USUAL_LIMIT, Wanted
from pat_service.models import ROLES
from pat_service.shapes import (
    MAX_NAME_LENGTH,
    check_email,
    check_name,
    check_slug,
    check_text,
    parse_origin,
    parse_uuid,
)

MAX_TEXT: Final = 255
MAX_ORIGINS: Final = 50
EXAMPLE_ID: Final = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
EXAMPLE_MOMENT: Final = "2026-11-22T10:15:00Z"


class Duration(fields.Integer):
    """A whole number from 1 to the operator's maximum; required, unless the operator sets a default.

    `kind` names the settings `MAX_<kind>_EXPIRY` and `DEFAULT_<kind>_EXPIRY`.
    """

    def __init__(self, kind: str, unit: str, **options: Any) -> None:
        metadata = {"description": f"In {unit}. Required, unless the operator sets a default.", "minimum": 1}
        options["metadata"] = metadata | options.pop("metadata", {})
        super().__init__(strict=True, load_default=None, **options)
        self.kind, self.unit = kind, unit

    def wanted(self) -> str:
        most = current_app.config[f"MAX_{self.kind}_EXPIRY"]
        return f"Must be a whole number of {self.unit} from 1 to {most}."

    def default(self) -> int | None:
        value: int | None = current_app.config[f"DEFAULT_{self.kind}_EXPIRY"]
        return value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> int:
        # Not isinstance: to Python, True is an int.
        if type(value) is not int or not 1 <= value <= current_app.config[f"MAX_{self.kind}_EXPIRY"]:
            raise ValidationError(self.wanted())
        return value


class StrictBoolean(fields.Boolean):
    """JSON's own true and false, and no text or number that might mean them."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> bool:
        if type(value) is not bool:
            raise ValidationError("Must be true or false.")
        return value


class QueryBoolean(fields.Boolean):
    """`true` or `false`, in a query."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> bool:
        if value not in ("true", "false"):
            raise ValidationError("Must be true or false.")
        return bool(value == "true")


class QueryInteger(fields.Integer):
    """ASCII digits of a number from 1 to `most`, in a query."""

    def __init__(self, most: int, **options: Any) -> None:
        options["metadata"] = {"minimum": 1, "maximum": most} | options.pop("metadata", {})
        super().__init__(**options)
        self.most = most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", value, re.ASCII) or not 1 <= int(value) <= self.most:
            raise ValidationError(f"Must be a whole number from 1 to {self.most}.")
        return int(value)


class Moment(fields.String):
    """A moment in UTC, as RFC 3339 writes it: `2026-11-22T10:15:00Z`."""

    def __init__(self, **options: Any) -> None:
        metadata = {"format": "date-time", "example": EXAMPLE_MOMENT}
        options["metadata"] = metadata | options.pop("metadata", {})
        super().__init__(**options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> str | None:
        return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> Any:
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError
            return moment.astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            raise ValidationError(f"Must be a moment with its zone, such as {EXAMPLE_MOMENT}.") from None


class Request(Schema):
    """Unknown fields are refused; `null` for an optional one means absent."""

    error_messages = {"unknown": "Is not a field of this request."}  # noqa: RUF012 - marshmallow reads it

    @pre_load
    def drop_nulls(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        optional = {field.data_key or name for name, field in self.load_fields.items() if not field.required}
        return {key: value for key, value in data.items() if value is not None or key not in optional}


class ListRequest(Request):
    """Which page of a list. What a filter adds is kept beside `wanted`."""

    cursor = fields.String(
        load_default=None,
        validate=parse_uuid,
        metadata={"description": "`nextCursor` of the page before; leave it out for the first."},
    )
    limit = QueryInteger(
        MAX_LIMIT, load_default=USUAL_LIMIT, metadata={"description": "Items of a page, at most."}
    )

    @post_load
    def make(self, query: dict[str, Any], **_: Any) -> dict[str, Any]:
        return query | {"wanted": Wanted(query.pop("cursor"), query.pop("limit"))}


def page_of(item: type[Schema]) -> Schema:
    """Return the schema of one page of a list of such items."""
    kinds: dict[str, fields.Field[Any]] = {
        "items": fields.List(fields.Nested(item), required=True),
        "next_cursor": fields.String(
            data_key="nextCursor",
            required=True,
            allow_none=True,
            metadata={"description": "Give it as `cursor` for the next page; null: nothing follows."},
        ),
    }
    return Schema.from_dict(kinds, name=f"{item.__name__}Page")()


def text(**options: Any) -> fields.String:
    wrong: Any = {"invalid": "Must be a text.", "required": "Is required: a text."}
    return fields.String(error_messages=wrong, **options)


def any_text(**options: Any) -> fields.String:
    length = Length(1, MAX_TEXT, error=f"Must be a text of 1 to {MAX_TEXT} characters.")
    return text(validate=[length, check_text], **options)


def uuid(**options: Any) -> fields.String:
    metadata = {"format": "uuid", "example": EXAMPLE_ID} | options.pop("metadata", {})
    return text(validate=parse_uuid, metadata=metadata, **options)


def email(**options: Any) -> fields.String:
    return text(validate=check_email, metadata={"example": "ana@acme.test"}, **options)


def name(**options: Any) -> fields.String:
    metadata = {"minLength": 1, "maxLength": MAX_NAME_LENGTH, "example": "Ana"} | options.pop("metadata", {})
    return text(validate=check_name, metadata=metadata, **options)


def slug(**options: Any) -> fields.String:
    metadata = {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$", "example": "orders"} | options.pop("metadata", {})
    return text(validate=check_slug, metadata=metadata, **options)


def role(**options: Any) -> fields.String:
    return text(validate=OneOf(ROLES, error=f"Must be one of {', '.join(ROLES)}."), **options)


def origins(least: int = 0, **options: Any) -> fields.List[Any]:
    """Origins as browsers write them, each once."""
    origin = text(validate=parse_origin, metadata={"example": "https://portal.example"})
    number = Length(least, MAX_ORIGINS, error=f"Must be a list of {least} to {MAX_ORIGINS} origins.")
    return fields.List(
        origin, validate=number, error_messages={"invalid": "Must be a list of origins."}, **options
    )
