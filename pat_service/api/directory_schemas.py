"""What the JSON of the directory looks like. Shape only: no schema asks the database."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validates, validates_schema
from marshmallow.validate import OneOf

from pat_service.api.fields import (
    ListRequest,
    Moment,
    Request,
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
    """Whether somebody may view anything at all."""
    return text(validate=OneOf(USER_STATUSES, error=f"Must be one of {', '.join(USER_STATUSES)}."), **options)


# Requests. A change names what is to be changed, and null means absent.


class WorkspaceChange(Request):
    """What is to be changed of a workspace. The allowed origins are those of its launcher."""

    slug = slug(metadata={"example": "acme"}, **NULLABLE)
    name = name(metadata={"example": "Acme"}, **NULLABLE)
    allowed_origins = origins(data_key="allowedOrigins", **NULLABLE)


class NewWorkspace(WorkspaceChange):
    """A workspace. Without a name, the slug stands for it."""

    slug = slug(required=True, metadata={"example": "acme"})


class NewMembership(Request):
    """A workspace, and the role of the user there."""

    workspace_id = uuid(data_key="workspaceId", required=True)
    role = role(required=True, metadata={"example": LEAST_ROLE})


class UserChange(Request):
    """What is to be changed of a user. Whoever is archived opens nothing."""

    email = email(**NULLABLE)
    name = name(**NULLABLE)
    status = status(metadata={"example": "archived"}, **NULLABLE)


class NewUser(UserChange):
    """A user. Without a name, the email stands for it; without a status they are active."""

    email = email(required=True)
    status = status(metadata={"example": "active"}, **NULLABLE)
    memberships = fields.List(
        fields.Nested(NewMembership),
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


class MemberRequest(Request):
    """The role that the member is to have."""

    role = role(required=True, metadata={"example": LEAST_ROLE})


class AppChange(Request):
    """What is to be changed of an app. Another workspace moves it, which ends what was made for it."""

    template = slug(metadata={"description": "The folder below templates/apps/."}, **NULLABLE)
    slug = slug(**NULLABLE)
    name = name(metadata={"example": "Orders"}, **NULLABLE)
    workspace_id = uuid(data_key="workspaceId", **NULLABLE)
    allowed_origins = origins(data_key="allowedOrigins", **NULLABLE)

    @validates("slug")
    def check_host(self, slug: str | None, **_: Any) -> None:
        if slug and has_app_origins() and not is_dns_label(slug):
            raise ValidationError(
                "Must be up to 63 of a-z, 0-9, and dashes between them: here it is part of the app's host."
            )


class NewApp(AppChange):
    """An app. Without a name or a template, the slug stands for it; the id may be chosen here, once."""

    id = uuid(attribute="app_id", **NULLABLE)
    slug = slug(required=True)
    workspace_id = uuid(data_key="workspaceId", required=True)


class WorkspaceQuery(ListRequest):
    slug = slug(metadata={"example": "acme"})


class UserQuery(ListRequest):
    email = email()
    status = status(metadata={"example": "active"})
    workspace_id = uuid(data_key="workspaceId", metadata={"description": "Members of this workspace."})


class AppQuery(ListRequest):
    slug = slug()
    workspace_id = uuid(data_key="workspaceId", metadata={"description": "Apps of this workspace."})


# Answers.


class WorkspaceAnswer(Schema):
    """A workspace."""

    id = fields.UUID(required=True)
    slug = fields.String(required=True, metadata={"example": "acme"})
    name = fields.String(required=True, metadata={"example": "Acme"})
    allowed_origins = fields.List(fields.String(), data_key="allowedOrigins", required=True)
    created_at = Moment(data_key="createdAt", required=True)


class MembershipAnswer(Schema):
    """A workspace of a user's, and their role there."""

    workspace_id = fields.UUID(data_key="workspaceId", required=True)
    role = fields.String(required=True, validate=OneOf(("admin", "builder", "end-user")))


class PersonAnswer(Schema):
    """Whom a membership or a grant is of."""

    id = fields.UUID(required=True)
    email = fields.String(required=True)
    name = fields.String(required=True, metadata={"example": "Ana"})
    status = fields.String(required=True, validate=OneOf(USER_STATUSES))


class UserAnswer(PersonAnswer):
    """A user, with the memberships in the client's workspaces."""

    memberships = fields.List(fields.Nested(MembershipAnswer), required=True)
    created_at = Moment(data_key="createdAt", required=True)


class MemberAnswer(MembershipAnswer):
    """A member of a workspace."""

    user_id = fields.UUID(data_key="userId", required=True)
    user = fields.Nested(PersonAnswer, required=True)


class AppAnswer(Schema):
    """An app."""

    id = fields.UUID(required=True)
    slug = fields.String(required=True)
    name = fields.String(required=True)
    workspace_id = fields.UUID(data_key="workspaceId", required=True)
    template = fields.String(required=True)
    allowed_origins = fields.List(fields.String(), data_key="allowedOrigins", required=True)
    created_at = Moment(data_key="createdAt", required=True)


class GrantAnswer(Schema):
    """A grant of an app."""

    app_id = fields.UUID(data_key="appId", required=True)
    user_id = fields.UUID(data_key="userId", required=True)
    effective = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether the user may open the app now: active, and a member of its workspace."
        },
    )
    user = fields.Nested(PersonAnswer, required=True)


WORKSPACES, WORKSPACE = page_of(WorkspaceAnswer), WorkspaceAnswer()
USERS, USER = page_of(UserAnswer), UserAnswer()
MEMBERS, MEMBER = page_of(MemberAnswer), MemberAnswer()
APPS, APP = page_of(AppAnswer), AppAnswer()
GRANTS, GRANT = page_of(GrantAnswer), GrantAnswer()
