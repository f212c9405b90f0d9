"""Fields and base schemas of the API. They check shape only."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from flask import current_app
from marshmallow import Schema, ValidationError, fields, post_load, pre_load
from marshmallow.validate import Length, OneOf

from pat_service.addresses import (
    APPS_URL_PATTERN,
    MAX_START_BYTES,
    START_PATTERN,
    UPSTREAM_PATTERN,
    check_start,
    parse_apps_url,
    parse_upstream,
)
from pat_service.shapes import (
    GRANTABLE,
    MAX_EMAIL_LENGTH,
    MAX_NAME_LENGTH,
    MAX_ORIGIN_LENGTH,
    ORIGIN_PATTERN,
    check_email,
    check_name,
    check_slug,
    check_text,
    parse_origin,
    parse_uuid,
)
from pat_service.storage.models import ROLES
from pat_service.storage.paging import DEFAULT_LIMIT, MAX_LIMIT, PageRequest

MAX_TEXT: Final = 255
MAX_ORIGINS: Final = 50
EXAMPLE_ID: Final = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
EXAMPLE_MOMENT: Final = "2026-11-22T10:15:00Z"
#: It has the form of a token and a wrong checksum, so it opens nothing.
EXAMPLE_TOKEN: Final = f"pat_{'0123456789abcdef' * 4}00000000"
#: A label of a domain in ASCII, or with letters of Western Europe. The service accepts other letters too.
_EMAIL_LABEL: Final = (
    r"(?:(?![Xx][Nn]--)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"|[a-z0-9\u00df-\u00f6\u00f8-\u00ff]{1,30})"
)
#: JSON Schema patterns for the document: no control characters; one plain address.
TEXT_PATTERN: Final = r"^[^\u0000-\u001f\u007f-\u009f]*$"
EMAIL_PATTERN: Final = (
    r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~\u00c0-\u024f-]+@"
    rf"{_EMAIL_LABEL}(?:\.{_EMAIL_LABEL})*$"
)


class Duration(fields.Integer):
    """A whole number from 1 to `MAX_<kind>_EXPIRY`. Required, unless `DEFAULT_<kind>_EXPIRY` is set."""

    def __init__(self, kind: str, unit: str, **options: Any) -> None:
        metadata = {"description": f"In {unit}. Required, unless the operator sets a default.", "minimum": 1}
        options["metadata"] = metadata | options.pop("metadata", {})
        super().__init__(strict=True, load_default=None, **options)
        self.kind, self.unit = kind, unit

    def maximum(self) -> int:
        value: int = current_app.config[f"MAX_{self.kind}_EXPIRY"]
        return value

    def error_text(self) -> str:
        return f"Must be a whole number of {self.unit} from 1 to {self.maximum()}."

    def default(self) -> int | None:
        value: int | None = current_app.config[f"DEFAULT_{self.kind}_EXPIRY"]
        return value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> int:
        # isinstance would accept True, which is an int in Python.
        if type(value) is not int or not 1 <= value <= self.maximum():
            raise ValidationError(self.error_text())
        return value


class StrictBoolean(fields.Boolean):
    """A JSON boolean. It refuses texts and numbers."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> bool:
        if type(value) is not bool:
            raise ValidationError("Must be true or false.")
        return value


class QueryBoolean(fields.Boolean):
    """`true` or `false` in a query string."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> bool:
        if value not in ("true", "false"):
            raise ValidationError("Must be true or false.")
        return bool(value == "true")


class QueryInteger(fields.Integer):
    """A whole number from 1 to `maximum` in a query string, in ASCII digits."""

    def __init__(self, maximum: int, **options: Any) -> None:
        options["metadata"] = {"minimum": 1, "maximum": maximum} | options.pop("metadata", {})
        super().__init__(**options)
        self.maximum = maximum

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", value, re.ASCII) or not 1 <= int(value) <= self.maximum:
            raise ValidationError(f"Must be a whole number from 1 to {self.maximum}.")
        return int(value)


class Moment(fields.String):
    """A date and time with a zone (RFC 3339), answered in UTC: `2026-11-22T10:15:00Z`."""

    def __init__(self, **options: Any) -> None:
        metadata = {"format": "date-time", "example": EXAMPLE_MOMENT}
        options["metadata"] = metadata | options.pop("metadata", {})
        super().__init__(**options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **_: Any) -> str | None:
        return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> Any:
        try:
            if _RFC_3339.fullmatch(value) is None:
                raise ValueError
            moment = datetime.fromisoformat(value.upper())
            if moment.tzinfo is None:
                raise ValueError
            return moment.astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            raise ValidationError(f"Must be a date and time with a zone, such as {EXAMPLE_MOMENT}.") from None


class Parsed(fields.String):
    """A text that `parse` normalises or refuses."""

    def __init__(self, parse: Callable[[str], str], **options: Any) -> None:
        super().__init__(**options)
        self.parse = parse

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        return self.parse(super()._deserialize(value, attr, data, **options))


def to_camel_case(name: str) -> str:
    """Return a snake_case name as the API writes it."""
    return re.sub("_([a-z])", lambda match: match[1].upper(), name)


def given(names: list[str], kind: str) -> dict[str, Any]:
    """Return JSON Schema that requires these fields and refuses null."""
    return {"required": names, "properties": {name: {"type": kind} for name in names}}


def limit() -> QueryInteger:
    metadata = {"description": "Maximum number of items."}
    return QueryInteger(MAX_LIMIT, load_default=DEFAULT_LIMIT, metadata=metadata)


class CamelCaseSchema(Schema):
    """A schema whose fields have camelCase names in JSON, unless they set `data_key`."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        field_obj.data_key = field_obj.data_key or to_camel_case(field_name)


class AnswerSchema(CamelCaseSchema):
    """An answer. It always has all its fields, except the `optional` ones."""

    optional: ClassVar[frozenset[str]] = frozenset()

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        super().on_bind_field(field_name, field_obj)
        field_obj.required = field_name not in self.optional


class RequestSchema(CamelCaseSchema):
    """A request. It refuses unknown fields; `null` for an optional field means absent."""

    error_messages = {"unknown": "Is not a field of this request."}  # noqa: RUF012 - marshmallow reads it

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Computed once, since every request uses the same schema.
        fields_ = self.load_fields.items()
        self._optional = frozenset(field.data_key for _, field in fields_ if not field.required)
        self.durations = {name: field for name, field in fields_ if isinstance(field, Duration)}

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        super().on_bind_field(field_name, field_obj)
        field_obj.allow_none = not field_obj.required

    def shape(self) -> dict[str, Any]:
        """Return JSON Schema for rules that no single field expresses."""
        return {}

    @pre_load
    def drop_nulls(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, dict):
            return data  # marshmallow refuses it with its own text
        return {key: value for key, value in data.items() if value is not None or key not in self._optional}


class ListRequestSchema(RequestSchema):
    """A page of a list, loaded as `page_request`."""

    cursor = Parsed(
        parse_uuid,
        metadata={
            "format": "uuid",
            "description": "`nextCursor` of the previous page. Leave it out for the first page.",
        },
    )
    limit = limit()

    @post_load
    def make(self, query: dict[str, Any], **_: Any) -> dict[str, Any]:
        return query | {"page_request": PageRequest(query.pop("cursor", None), query.pop("limit"))}


def page_of(item: type[AnswerSchema]) -> Schema:
    """Return the schema of one page of these items."""
    kinds: dict[str, fields.Field[Any]] = {
        "items": fields.List(fields.Nested(item)),
        "next_cursor": fields.String(
            allow_none=True,
            metadata={
                "description": "Send it as `cursor` to get the next page. null: this is the last page."
            },
        ),
    }
    return AnswerSchema.from_dict(kinds, name=f"{item.__name__.removesuffix('Schema')}Page")()


_WRONG_TEXT: Final[Any] = {"invalid": "Must be a text.", "required": "Is required and must be a text."}


def text(**options: Any) -> fields.String:
    return fields.String(error_messages=_WRONG_TEXT, **options)


def parsed(parse: Callable[[str], str], **options: Any) -> fields.String:
    return Parsed(parse, error_messages=_WRONG_TEXT, **options)


def any_text(**options: Any) -> fields.String:
    length = Length(1, MAX_TEXT, error=f"Must be a text of 1 to {MAX_TEXT} characters.")
    metadata = {"pattern": TEXT_PATTERN} | options.pop("metadata", {})
    return text(validate=[length, check_text], metadata=metadata, **options)


def uuid(**options: Any) -> fields.String:
    metadata = {"format": "uuid", "example": EXAMPLE_ID} | options.pop("metadata", {})
    return parsed(parse_uuid, metadata=metadata, **options)


def email(**options: Any) -> fields.String:
    metadata = {"pattern": EMAIL_PATTERN, "maxLength": MAX_EMAIL_LENGTH, "example": "ana@acme.test"}
    return text(validate=check_email, metadata=metadata, **options)


def name(**options: Any) -> fields.String:
    shape = {"minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": TEXT_PATTERN, "example": "Ana"}
    metadata = shape | options.pop("metadata", {})
    return text(validate=check_name, metadata=metadata, **options)


def slug(**options: Any) -> fields.String:
    metadata = {"pattern": "^[a-z0-9][a-z0-9_-]{0,63}$", "example": "orders"} | options.pop("metadata", {})
    return text(validate=check_slug, metadata=metadata, **options)


def role(**options: Any) -> fields.String:
    return text(validate=OneOf(ROLES, error=f"Must be one of {', '.join(ROLES)}."), **options)


def origin(**options: Any) -> fields.String:
    shape = {"pattern": ORIGIN_PATTERN, "maxLength": MAX_ORIGIN_LENGTH, "example": "https://portal.example"}
    return parsed(parse_origin, metadata=shape | options.pop("metadata", {}), **options)


def origins(minimum: int = 0, **options: Any) -> fields.List[Any]:
    length = Length(minimum, MAX_ORIGINS, error=f"Must be a list of {minimum} to {MAX_ORIGINS} origins.")
    return fields.List(
        origin(), validate=length, error_messages={"invalid": "Must be a list of origins."}, **options
    )


def upstream(**options: Any) -> fields.String:
    shape = {
        "pattern": UPSTREAM_PATTERN,
        "maxLength": MAX_ORIGIN_LENGTH,
        "example": "http://sales.internal:8501",
        "description": "The address of an app that runs elsewhere, in place of `template`. "
        "Only a client of all workspaces can send it. One address belongs to one workspace.",
    }
    return parsed(parse_upstream, metadata=shape, **options)


def start(**options: Any) -> fields.String:
    shape = {
        "pattern": START_PATTERN,
        "maxLength": MAX_START_BYTES,
        "example": "/reports?year=2026",
        "description": "The path of the first page of an app with an `upstream`. Default: `/`.",
    }
    return text(validate=check_start, metadata=shape, **options)


def permissions(**options: Any) -> fields.List[Any]:
    feature = text(validate=OneOf(GRANTABLE, error=f"Must be one of {', '.join(GRANTABLE)}."))
    return fields.List(
        feature,
        validate=Length(0, len(GRANTABLE), error=f"Must be a list of at most {len(GRANTABLE)} features."),
        error_messages={"invalid": "Must be a list of browser features."},
        metadata={"description": "Browser features that the frame of an app with an `upstream` may use."},
        **options,
    )


def apps_url(**options: Any) -> fields.String:
    shape = {
        "pattern": APPS_URL_PATTERN,
        "maxLength": MAX_ORIGIN_LENGTH,
        "example": "https://{app}.apps.portal.example",
        "description": "The workspace's own address for its apps with an `upstream`. An empty text removes "
        "it. Only a client of all workspaces can send it.",
    }
    return parsed(lambda text: text and parse_apps_url(text), metadata=shape, **options)
