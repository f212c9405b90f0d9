"""What the API's JSON looks like. Shape only: no schema asks the database."""

from typing import Any, Final

from flask import current_app
from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validates_schema
from marshmallow.validate import Length

from pat_service.shapes import check_email, check_text, parse_uuid
from pat_service.tokens import Wish

MAX_TEXT: Final = 255
EXAMPLE_ID: Final = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"


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


class Request(Schema):
    """Unknown fields are refused; `null` for an optional one means absent."""

    error_messages = {"unknown": "Is not a field of this request."}  # noqa: RUF012 - marshmallow reads it

    @pre_load
    def drop_nulls(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        optional = {field.data_key or name for name, field in self.load_fields.items() if not field.required}
        return {key: value for key, value in data.items() if value is not None or key not in optional}


def _text(**options: Any) -> fields.String:
    wrong: Any = {"invalid": "Must be a text.", "required": "Is required: a text."}
    return fields.String(error_messages=wrong, **options)


def _any_text(**options: Any) -> fields.String:
    length = Length(1, MAX_TEXT, error=f"Must be a text of 1 to {MAX_TEXT} characters.")
    return _text(validate=[length, check_text], **options)


def _uuid(**options: Any) -> fields.String:
    return _text(validate=parse_uuid, metadata={"format": "uuid", "example": EXAMPLE_ID}, **options)


class MintRequest(Request):
    """A wish for a token: exactly one of `email` and `userId`, and of `appId` and `appSlug`."""

    email = _text(validate=check_email, load_default=None, metadata={"example": "ana@acme.test"})
    user_id = _any_text(data_key="userId", load_default=None)
    app_id = _uuid(data_key="appId", load_default=None)
    app_slug = _any_text(data_key="appSlug", load_default=None)
    session_expiry = Duration("SESSION", "minutes", data_key="sessionExpiry", metadata={"example": 60})
    pat_expiry = Duration("PAT", "seconds", data_key="patExpiry", metadata={"example": 1_000_000})
    end_sessions = StrictBoolean(
        data_key="endSessions",
        load_default=False,
        allow_none=True,
        metadata={"description": "Also end the open sessions of this user and app."},
    )

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_complete(self, wish: dict[str, Any], given: dict[str, Any], **_: Any) -> None:
        errors: dict[str, list[str]] = {}
        for names in (("email", "userId"), ("appId", "appSlug")):
            if sum(given.get(name) is not None for name in names) != 1:
                errors |= {name: [f"Exactly one of {' and '.join(names)} is required."] for name in names}
        for field in self._durations().values():
            if given.get(str(field.data_key)) is None and field.default() is None:
                errors[str(field.data_key)] = [f"Is required. {field.wanted()}"]
        if errors:
            raise ValidationError(errors)

    @post_load
    def make(self, wish: dict[str, Any], **_: Any) -> Wish:
        for name, field in self._durations().items():
            wish[name] = wish[name] or field.default()
        return Wish(
            email=wish["email"],
            user_id=wish["user_id"],
            app_id=parse_uuid(wish["app_id"]) if wish["app_id"] else None,
            app_slug=wish["app_slug"],
            pat_seconds=wish["pat_expiry"],
            session_seconds=wish["session_expiry"] * 60,
            end_sessions=wish["end_sessions"],
        )

    def _durations(self) -> dict[str, Duration]:
        return {name: field for name, field in self.load_fields.items() if isinstance(field, Duration)}


class MintAnswer(Schema):
    """A new token, shown this once. The two durations are seconds."""

    personal_access_token = fields.String(data_key="personalAccessToken", required=True)
    redirect_url = fields.Url(data_key="redirectUrl", required=True)
    token_id = fields.UUID(data_key="tokenId", required=True)
    expires_in = fields.Integer(data_key="expiresIn", required=True)
    session_expires_in = fields.Integer(data_key="sessionExpiresIn", required=True)


class SessionRequest(Request):
    """A token to open a session with, for a program."""

    app_id = _uuid(data_key="appId", required=True)
    access_token = _text(data_key="accessToken", required=True)


class _User(Schema):
    id = fields.String(required=True)
    email = fields.String(required=True)
    name = fields.String(required=True)


class _App(Schema):
    id = fields.String(required=True)
    slug = fields.String(required=True)
    name = fields.String(required=True)


class _Session(Schema):
    id = fields.String(required=True)
    expires_in = fields.Integer(data_key="expiresIn", required=True, metadata={"description": "In seconds."})


class SessionAnswer(Schema):
    """An open session: `signedPat` is the JWT that further requests carry as a Bearer token."""

    signed_pat = fields.String(data_key="signedPat", required=True)
    session = fields.Nested(_Session, required=True)
    user = fields.Nested(_User, required=True)
    app = fields.Nested(_App, required=True)


class ProblemAnswer(Schema):
    """What every failure looks like (RFC 9457)."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    code = fields.String(required=True)
    request_id = fields.String(data_key="requestId", required=True)
    message = fields.String(required=True)
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))


MINT = MintRequest()
MINTED = MintAnswer()
SESSION = SessionRequest()
OPENED = SessionAnswer()
PROBLEM = ProblemAnswer()
