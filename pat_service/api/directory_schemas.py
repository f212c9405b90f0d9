"""Requests and answers of the directory. They check shape only."""

from typing import Any, Final

from marshmallow import ValidationError, fields, post_load, validates_schema
from marshmallow.validate import OneOf

from pat_service.api.fields import (
    AnswerSchema,
    ListRequestSchema,
    Moment,
    RequestSchema,
    apps_url,
    email,
    given,
    name,
    origins,
    permissions,
    role,
    slug,
    start,
    text,
    upstream,
    uuid,
)
from pat_service.rules.directory.slugs import RESERVED_NAMES
from pat_service.shapes import UPSTREAM_TEMPLATE
from pat_service.storage.models import LEAST_ROLE, USER_STATUSES

STATUS: Final = (
    "A client that is limited to workspaces sets the status in them; any other client, in the installation."
)
NULLABLE: Any = {"allow_none": True}


def status(**options: Any) -> fields.String:
    return text(validate=OneOf(USER_STATUSES, error=f"Must be one of {', '.join(USER_STATUSES)}."), **options)


# Requests. A change holds the fields to change; null means absent.


class WorkspaceChangeSchema(RequestSchema):
    """Fields of a workspace to change. The allowed origins may frame its launcher."""

    slug = slug(metadata={"example": "acme"}, **NULLABLE)
    name = name(metadata={"example": "Acme"}, **NULLABLE)
    allowed_origins = origins(**NULLABLE)
    apps_url = apps_url(**NULLABLE)


class NewWorkspaceSchema(WorkspaceChangeSchema):
    """A new workspace. Its name defaults to its slug."""

    slug = slug(required=True, metadata={"example": "acme"})


class NewMembershipSchema(RequestSchema):
    """A workspace, and the user's role in it."""

    workspace_id = uuid(required=True)
    role = role(required=True, metadata={"example": LEAST_ROLE})


class UserChangeSchema(RequestSchema):
    """Fields of a user to change. An archived user can open nothing."""

    email = email(**NULLABLE)
    name = name(**NULLABLE)
    status = status(metadata={"example": "archived", "description": STATUS}, **NULLABLE)
    home_workspace_id = uuid(
        metadata={"description": "Moves the home. Only a client of all workspaces can send it."}, **NULLABLE
    )


class NewUserSchema(UserChangeSchema):
    """A new user. The name defaults to the email, the status to active."""

    email = email(required=True)
    status = status(metadata={"example": "active", "description": STATUS}, **NULLABLE)
    home_workspace_id = uuid(
        metadata={
            "description": "Default: the first workspace of memberships. "
            "Only a client of all workspaces can send it."
        },
        **NULLABLE,
    )
    memberships = fields.List(
        fields.Nested(NewMembershipSchema),
        load_default=list[Any],
        allow_none=True,
        error_messages={"invalid": "Must be a list of workspaceId and role."},
        metadata={"description": "A client that is limited to workspaces must name at least one."},
    )

    @validates_schema
    def check_listed_once(self, user: dict[str, Any], **_: Any) -> None:
        ids = [membership["workspace_id"] for membership in user["memberships"]]
        if len(ids) != len(set(ids)):
            raise ValidationError("Must name each workspace once.", "memberships")

    @post_load
    def make(self, user: dict[str, Any], **_: Any) -> dict[str, Any]:
        return user | {"roles": {m["workspace_id"]: m["role"] for m in user.pop("memberships")}}


class MemberRequestSchema(RequestSchema):
    """The member's role."""

    role = role(required=True, metadata={"example": LEAST_ROLE})


#: An app's new slug is not a reserved name.
_RESERVED: Final = ", ".join(f"`{name}`" for name in RESERVED_NAMES)
APP_SLUG: Final = {
    "pattern": f"^(?!(?:{'|'.join(RESERVED_NAMES)})$)[a-z0-9][a-z0-9_-]{{0,63}}$",
    "description": f"Reserved: {_RESERVED}. "
    "If each app has its own host, it must be a label of DNS without `--`. "
    "With an `upstream` it is such a label of at most 49 characters, and not `xn`.",
}


def _absent(*names: str) -> dict[str, Any]:
    """Return JSON Schema that allows only null in these fields."""
    return {"properties": {name: {"type": "null"} for name in names}}


class AppChangeSchema(RequestSchema):
    """Fields of an app to change. A move to another workspace ends its tokens, sessions and grants.

    A `template` replaces an `upstream`, and the other way round. This ends the app's tokens and sessions too.
    """

    template = slug(
        metadata={
            "pattern": f"^(?!{UPSTREAM_TEMPLATE}$)[a-z0-9][a-z0-9_-]{{0,63}}$",
            "description": "The app's folder below apps/.",
        },
        **NULLABLE,
    )
    upstream = upstream(**NULLABLE)
    start = start(**NULLABLE)
    permissions = permissions(**NULLABLE)

    def shape(self) -> dict[str, Any]:
        return {"anyOf": [_absent("template"), _absent("upstream", "start", "permissions")]}

    slug = slug(metadata=APP_SLUG, **NULLABLE)
    name = name(metadata={"example": "Orders"}, **NULLABLE)
    workspace_id = uuid(**NULLABLE)
    allowed_origins = origins(**NULLABLE)


class NewAppSchema(AppChangeSchema):
    """A new app. Its name and template default to its slug. Only this request can choose the id."""

    id = uuid(attribute="app_id", **NULLABLE)
    slug = slug(required=True, metadata=APP_SLUG)
    workspace_id = uuid(required=True)

    def shape(self) -> dict[str, Any]:
        of_upstream = [given(["upstream"], "string"), _absent("start", "permissions")]
        return {"allOf": [super().shape(), {"anyOf": of_upstream}]}


class WorkspaceQuerySchema(ListRequestSchema):
    slug = slug(metadata={"example": "acme"})


class UserQuerySchema(ListRequestSchema):
    email = email()
    status = status(metadata={"example": "active"})
    workspace_id = uuid(metadata={"description": "Only members of this workspace."})


class AppQuerySchema(ListRequestSchema):
    slug = slug()
    workspace_id = uuid(metadata={"description": "Only apps of this workspace."})


# Answers.


class WorkspaceAnswerSchema(AnswerSchema):
    """A workspace."""

    id = fields.UUID()
    slug = fields.String(metadata={"example": "acme"})
    name = fields.String(metadata={"example": "Acme"})
    allowed_origins = fields.List(fields.String())
    apps_url = fields.String(
        allow_none=True, metadata={"description": "null: the workspace has no address of its own."}
    )
    created_at = Moment()


class MembershipAnswerSchema(AnswerSchema):
    """A workspace of a user, and the user's role in it."""

    workspace_id = fields.UUID()
    role = fields.String(validate=OneOf(("admin", "builder", "end-user")))


class PersonAnswerSchema(AnswerSchema):
    """The user of a membership or a grant."""

    id = fields.UUID()
    email = fields.String()
    name = fields.String(metadata={"example": "Ana"})
    status = fields.String(
        validate=OneOf(USER_STATUSES),
        metadata={
            "description": "archived: the user is archived in the installation, "
            "or in a workspace to which the client is limited."
        },
    )


class UserAnswerSchema(PersonAnswerSchema):
    """A user, with the memberships in the client's workspaces."""

    optional = frozenset({"home_workspace_id"})

    home_workspace_id = fields.UUID(
        allow_none=True,
        metadata={
            "description": "The workspace whose clients can change the user's name. null: there is none. "
            "Only clients of all workspaces get this field."
        },
    )
    memberships = fields.List(fields.Nested(MembershipAnswerSchema))
    created_at = Moment()


class MemberAnswerSchema(MembershipAnswerSchema):
    """A member of a workspace."""

    user_id = fields.UUID()
    user = fields.Nested(PersonAnswerSchema)


class AppAnswerSchema(AnswerSchema):
    """An app."""

    id = fields.UUID()
    slug = fields.String()
    name = fields.String()
    workspace_id = fields.UUID()
    template = fields.String(metadata={"description": f"{UPSTREAM_TEMPLATE}: the app runs elsewhere."})
    upstream = fields.String(
        allow_none=True, metadata={"example": None, "description": "null: the app has a template."}
    )
    start = fields.String(allow_none=True, metadata={"example": None})
    permissions = fields.List(fields.String(), allow_none=True, metadata={"example": None})
    allowed_origins = fields.List(fields.String())
    created_at = Moment()


class GrantAnswerSchema(AnswerSchema):
    """A grant of an app."""

    app_id = fields.UUID()
    user_id = fields.UUID()
    effective = fields.Boolean(
        metadata={
            "description": "Whether the user may open the app now, as an active member of its workspace."
        }
    )
    user = fields.Nested(PersonAnswerSchema)
