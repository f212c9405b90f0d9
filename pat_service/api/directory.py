"""Views of the directory: workspaces, users, members, apps, grants. All need the scope `provision`."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from flask import g

from pat_service.api.blueprint import blueprint, problems
from pat_service.api.directory_schemas import (
    AppAnswerSchema,
    AppChangeSchema,
    AppQuerySchema,
    GrantAnswerSchema,
    MemberAnswerSchema,
    MemberRequestSchema,
    NewAppSchema,
    NewUserSchema,
    NewWorkspaceSchema,
    UserAnswerSchema,
    UserChangeSchema,
    UserQuerySchema,
    WorkspaceAnswerSchema,
    WorkspaceChangeSchema,
    WorkspaceQuerySchema,
)
from pat_service.api.examples import APP_CHANGE_EXAMPLES, NEW_APP_EXAMPLES
from pat_service.api.fields import ListRequestSchema, page_of
from pat_service.http.authentication import client_required, utcnow
from pat_service.http.payload import read_nothing
from pat_service.http.public_url import site
from pat_service.rules.callers import PROVISION
from pat_service.rules.directory import apps, grants, members, users, workspaces
from pat_service.storage.paging import Listing


def route(method: str, path: str) -> Callable[[Any], Any]:
    """Register a view for clients with the scope `provision`."""
    return lambda view: blueprint.route(path, methods=[method])(client_required(PROVISION)(view))


def _with_status(answer: Any, is_new: bool) -> tuple[Any, HTTPStatus]:
    return answer, HTTPStatus.CREATED if is_new else HTTPStatus.OK


# Workspaces


@route("GET", "/workspaces")
@blueprint.arguments(WorkspaceQuerySchema, location="query")
@blueprint.response(200, page_of(WorkspaceAnswerSchema))
def list_workspaces(query: dict[str, Any]) -> Listing:
    """List the client's workspaces, page by page."""
    return workspaces.list_workspaces(g.caller, **query)


@route("POST", "/workspaces")
@blueprint.arguments(NewWorkspaceSchema)
@blueprint.response(201, WorkspaceAnswerSchema)
@problems(409)
def create_workspace(request: dict[str, Any]) -> Any:
    """Create a workspace. A client that is limited to workspaces cannot create one."""
    return workspaces.create(g.caller, **request, now=utcnow(), site=site())


@route("GET", "/workspaces/<id:workspace_id>")
@blueprint.response(200, WorkspaceAnswerSchema)
@problems(404)
def read_workspace(workspace_id: str) -> Any:
    """Read a workspace."""
    return workspaces.read(g.caller, workspace_id)


@route("PATCH", "/workspaces/<id:workspace_id>")
@blueprint.arguments(WorkspaceChangeSchema)
@blueprint.response(200, WorkspaceAnswerSchema)
@problems(404, 409)
def change_workspace(changes: dict[str, Any], workspace_id: str) -> Any:
    """Change a workspace."""
    return workspaces.change(g.caller, workspace_id, changes, utcnow(), site=site())


@route("DELETE", "/workspaces/<id:workspace_id>")
@blueprint.response(204)
@problems(404, 409)
def delete_workspace(workspace_id: str) -> None:
    """Delete a workspace that has no apps, and its memberships, tokens and sessions."""
    workspaces.remove(g.caller, workspace_id, utcnow())


# Users


@route("GET", "/users")
@blueprint.arguments(UserQuerySchema, location="query")
@blueprint.response(200, page_of(UserAnswerSchema))
def list_users(query: dict[str, Any]) -> Listing:
    """List the members of the client's workspaces, page by page."""
    return users.list_users(g.caller, **query)


@route("POST", "/users")
@blueprint.arguments(NewUserSchema)
@blueprint.response(201, UserAnswerSchema)
@blueprint.alt_response(200, schema=UserAnswerSchema, success=True, description="The user existed and joined")
@problems(404, 409)
def create_user(request: dict[str, Any]) -> Any:
    """Create a user with memberships.

    The first workspace is the user's home. If the user exists and is a member of other clients' workspaces
    only, they join the given workspaces. The answer is then 200, and the user's name and status do not
    change.
    """
    return _with_status(*users.create(g.caller, **request, now=utcnow()))


@route("GET", "/users/<id:user_id>")
@blueprint.response(200, UserAnswerSchema)
@problems(404)
def read_user(user_id: str) -> Any:
    """Read a user, with the memberships in the client's workspaces."""
    return users.read(g.caller, user_id)


@route("PATCH", "/users/<id:user_id>")
@blueprint.arguments(UserChangeSchema)
@blueprint.response(200, UserAnswerSchema)
@problems(404, 409)
def change_user(changes: dict[str, Any], user_id: str) -> Any:
    """Change or archive a user.

    A client that is limited to workspaces sets the status there. It can change the name if it reaches the
    user's home, and the email if also no other workspace has known the user.
    """
    return users.change(g.caller, user_id, changes, utcnow())


@route("DELETE", "/users/<id:user_id>")
@blueprint.response(204)
@problems(404, 409)
def delete_user(user_id: str) -> None:
    """Delete a user, and their memberships, grants, tokens and sessions.

    A client that is limited to workspaces must reach the user's home, and no other workspace may have known
    the user.
    """
    users.remove(g.caller, user_id, utcnow())


# Members


@route("GET", "/workspaces/<id:workspace_id>/members")
@blueprint.arguments(ListRequestSchema, location="query")
@blueprint.response(200, page_of(MemberAnswerSchema))
@problems(404)
def list_members(query: dict[str, Any], workspace_id: str) -> Listing:
    """List the members of a workspace, page by page."""
    return members.list_members(g.caller, workspace_id, **query)


@route("GET", "/workspaces/<id:workspace_id>/members/<id:user_id>")
@blueprint.response(200, MemberAnswerSchema)
@problems(404)
def read_member(workspace_id: str, user_id: str) -> Any:
    """Read a membership."""
    return members.read(g.caller, workspace_id, user_id)


@route("PUT", "/workspaces/<id:workspace_id>/members/<id:user_id>")
@blueprint.arguments(MemberRequestSchema)
@blueprint.response(201, MemberAnswerSchema)
@blueprint.alt_response(200, schema=MemberAnswerSchema, success=True, description="The user was a member")
@problems(404, 409)
def put_member(request: dict[str, str], workspace_id: str, user_id: str) -> Any:
    """Make a user a member in this role, or change the member's role.

    A user who was archived in the workspace stays archived.
    """
    return _with_status(*members.put(g.caller, workspace_id, user_id, request["role"], utcnow()))


@route("DELETE", "/workspaces/<id:workspace_id>/members/<id:user_id>")
@blueprint.response(204)
@problems(404, 409)
def remove_member(workspace_id: str, user_id: str) -> None:
    """Remove a membership. The user's grants stay, but open nothing until the user is a member again."""
    members.remove(g.caller, workspace_id, user_id, utcnow())


# Apps


@route("GET", "/apps")
@blueprint.arguments(AppQuerySchema, location="query")
@blueprint.response(200, page_of(AppAnswerSchema))
def list_apps(query: dict[str, Any]) -> Listing:
    """List the apps in the client's workspaces, page by page."""
    return apps.list_apps(g.caller, **query)


@route("POST", "/apps")
@blueprint.arguments(NewAppSchema, examples=NEW_APP_EXAMPLES)
@blueprint.response(201, AppAnswerSchema)
@problems(404, 409)
def create_app(request: dict[str, Any]) -> Any:
    """Create an app."""
    return apps.create(g.caller, **request, now=utcnow(), site=site())


@route("GET", "/apps/<id:app_id>")
@blueprint.response(200, AppAnswerSchema)
@problems(404)
def read_app(app_id: str) -> Any:
    """Read an app."""
    return apps.read(g.caller, app_id)


@route("PATCH", "/apps/<id:app_id>")
@blueprint.arguments(AppChangeSchema, examples=APP_CHANGE_EXAMPLES)
@blueprint.response(200, AppAnswerSchema)
@problems(404, 409)
def change_app(changes: dict[str, Any], app_id: str) -> Any:
    """Change an app. A move to another workspace ends its tokens and sessions, and drops its grants."""
    return apps.change(g.caller, app_id, changes, utcnow(), site=site())


@route("DELETE", "/apps/<id:app_id>")
@blueprint.response(204)
@problems(404, 409)
def delete_app(app_id: str) -> None:
    """Delete an app, and its grants, tokens and sessions."""
    apps.remove(g.caller, app_id, utcnow())


# Grants


@route("GET", "/apps/<id:app_id>/grants")
@blueprint.arguments(ListRequestSchema, location="query")
@blueprint.response(200, page_of(GrantAnswerSchema))
@problems(404)
def list_grants(query: dict[str, Any], app_id: str) -> Listing:
    """List the grants of an app, page by page."""
    return grants.list_grants(g.caller, app_id, **query)


@route("GET", "/apps/<id:app_id>/grants/<id:user_id>")
@blueprint.response(200, GrantAnswerSchema)
@problems(404)
def read_grant(app_id: str, user_id: str) -> Any:
    """Read a grant. It is effective if the user may open the app now."""
    return grants.read(g.caller, app_id, user_id)


@route("PUT", "/apps/<id:app_id>/grants/<id:user_id>")
@blueprint.response(201, GrantAnswerSchema)
@blueprint.alt_response(200, schema=GrantAnswerSchema, success=True, description="The user had the grant")
@problems(400, 404, 409, 413, 415)
def put_grant(app_id: str, user_id: str) -> Any:
    """Grant a user access to an app. The request has no body."""
    read_nothing()
    return _with_status(*grants.put(g.caller, app_id, user_id, utcnow()))


@route("DELETE", "/apps/<id:app_id>/grants/<id:user_id>")
@blueprint.response(204)
@problems(404, 409)
def remove_grant(app_id: str, user_id: str) -> None:
    """Remove a grant."""
    grants.remove(g.caller, app_id, user_id, utcnow())
