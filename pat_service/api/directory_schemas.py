"""Requests and answers of the directory. They check shape only."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validates, validates_schema
from marshmallow.validate import OneOf

from pat_service.api.fields import (
    ListRequestSchema,
    Moment,
    RequestSchema,
    email,
    name,
    origins,
    page_of,
    role,
    slug,
    text,
    uuid,
)
from pat_service.http.public_url import has_app_origins
from pat_service.shapes import is_dns_label
from pat_service.storage.models import LEAST_ROLE, USER_STATUSES

NULLABLE: Any = {"allow_none": True}


def status(**options: Any) -> fields.String:
    return text(validate=OneOf(USER_STATUSES, error=f"Must be one of {', '.join(USER_STATUSES)}."), **options)


# Requests. A change holds the fields to change; null means absent.


class WorkspaceChangeSchema(RequestSchema):
    """Fields of a workspace to change. The allowed origins are those of its launcher."""

    slug = slug(metadata={"example": "acme"}, **NULLABLE)
    name = name(metadata={"example": "Acme"}, **NULLABLE)
    allowed_origins = origins(data_key="allowedOrigins", **NULLABLE)


class NewWorkspaceSchema(WorkspaceChangeSchema):
    """A new workspace. Its name defaults to its slug."""

    slug = slug(required=True, metadata={"example": "acme"})


class NewMembershipSchema(RequestSchema):
    """A workspace, and the user's role in it."""

    workspace_id = uuid(data_key="workspaceId", required=True)
    role = role(required=True, metadata={"example": LEAST_ROLE})


class UserChangeSchema(RequestSchema):
    """Fields of a user to change. An archived user can open nothing."""

    email = email(**NULLABLE)
    name = name(**NULLABLE)
    status = status(metadata={"example": "archived"}, **NULLABLE)


class NewUserSchema(UserChangeSchema):
    """A new user. The name defaults to the email, the status to active."""

    email = email(required=True)
    status = status(metadata={"example": "active"}, **NULLABLE)
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


class AppChangeSchema(RequestSchema):
    """Fields of an app to change. A move to another workspace ends its tokens, sessions and grants."""

    template = slug(metadata={"description": "The folder below templates/apps/."}, **NULLABLE)
    slug = slug(**NULLABLE)
    name = name(metadata={"example": "Orders"}, **NULLABLE)
    workspace_id = uuid(data_key="workspaceId", **NULLABLE)
    allowed_origins = origins(data_key="allowedOrigins", **NULLABLE)

    @validates("slug")
    def check_host(self, slug: str | None, **_: Any) -> None:
        if slug and has_app_origins() and not is_dns_label(slug):
            raise ValidationError(
                "Must be at most 63 of a-z, 0-9 and inner dashes, since it is part of the app's host."
            )


class NewAppSchema(AppChangeSchema):
    """A new app. Its name and template default to its slug. Only a new app can choose its id."""

    id = uuid(attribute="app_id", **NULLABLE)
    slug = slug(required=True)
    workspace_id = uuid(data_key="workspaceId", required=True)


class WorkspaceQuerySchema(ListRequestSchema):
    slug = slug(metadata={"example": "acme"})


class UserQuerySchema(ListRequestSchema):
    email = email()
    status = status(metadata={"example": "active"})
    workspace_id = uuid(data_key="workspaceId", metadata={"description": "Only members of this workspace."})


class AppQuerySchema(ListRequestSchema):
    slug = slug()
    workspace_id = uuid(data_key="workspaceId", metadata={"description": "Only apps of this workspace."})


# Answers.


class WorkspaceAnswerSchema(Schema):
    """A workspace."""

    id = fields.UUID(required=True)
    slug = fields.String(required=True, metadata={"example": "acme"})
    name = fields.String(required=True, metadata={"example": "Acme"})
    allowed_origins = fields.List(fields.String(), data_key="allowedOrigins", required=True)
    created_at = Moment(data_key="createdAt", required=True)


class MembershipAnswerSchema(Schema):
    """A workspace of a user, and the user's role in it."""

    workspace_id = fields.UUID(data_key="workspaceId", required=True)
    role = fields.String(required=True, validate=OneOf(("admin", "builder", "end-user")))


class PersonAnswerSchema(Schema):
    """The user of a membership or a grant."""

    id = fields.UUID(required=True)
    email = fields.String(required=True)
    name = fields.String(required=True, metadata={"example": "Ana"})
    status = fields.String(required=True, validate=OneOf(USER_STATUSES))


class UserAnswerSchema(PersonAnswerSchema):
    """A user, with the memberships in the client's workspaces."""

    memberships = fields.List(fields.Nested(MembershipAnswerSchema), required=True)
    created_at = Moment(data_key="createdAt", required=True)


class MemberAnswerSchema(MembershipAnswerSchema):
    """A member of a workspace."""

    user_id = fields.UUID(data_key="userId", required=True)
    user = fields.Nested(PersonAnswerSchema, required=True)


class AppAnswerSchema(Schema):
    """An app."""

    id = fields.UUID(required=True)
    slug = fields.String(required=True)
    name = fields.String(required=True)
    workspace_id = fields.UUID(data_key="workspaceId", required=True)
    template = fields.String(required=True)
    allowed_origins = fields.List(fields.String(), data_key="allowedOrigins", required=True)
    created_at = Moment(data_key="createdAt", required=True)


class GrantAnswerSchema(Schema):
    """A grant of an app."""

    app_id = fields.UUID(data_key="appId", required=True)
    user_id = fields.UUID(data_key="userId", required=True)
    effective = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether the user may open the app now, as an active member of its workspace."
        },
    )
    user = fields.Nested(PersonAnswerSchema, required=True)


WORKSPACES, WORKSPACE = page_of(WorkspaceAnswerSchema), WorkspaceAnswerSchema()
USERS, USER = page_of(UserAnswerSchema), UserAnswerSchema()
MEMBERS, MEMBER = page_of(MemberAnswerSchema), MemberAnswerSchema()
APPS, APP = page_of(AppAnswerSchema), AppAnswerSchema()
GRANTS, GRANT = page_of(GrantAnswerSchema), GrantAnswerSchema()
