"""Views of the directory: workspaces, users, members, apps, grants. All want the scope `provision`."""

from http import HTTPStatus
from typing import Any

from flask import g

from pat_service.api.blueprint import blueprint, problems
from pat_service.api.directory_schemas import (
    APP,
    APPS,
    GRANT,
    GRANTS,
    MEMBER,
    MEMBERS,
    USER,
    USERS,
    WORKSPACE,
    WORKSPACES,
    AppChange,
    AppQuery,
    MemberRequest,
    NewApp,
    NewUser,
    NewWorkspace,
    UserChange,
    UserQuery,
    WorkspaceChange,
    WorkspaceQuery,
)
from pat_service.api.fields import ListRequest
from pat_service.http.authentication import client_required, utcnow
from pat_service.http.payload import read_nothing
from pat_service.rules.callers import PROVISION
from pat_service.rules.directory import apps, grants, members, users, workspaces
from pat_service.storage.paging import Listing


def _made(thing: Any, is_new: bool) -> tuple[Any, HTTPStatus]:
    return thing, HTTPStatus.CREATED if is_new else HTTPStatus.OK


# Workspaces


@blueprint.route("/workspaces", methods=["GET"])
@client_required(PROVISION)
@blueprint.arguments(WorkspaceQuery, location="query")
@blueprint.response(200, WORKSPACES)
@problems(400, 401, 403, 429, 503)
def list_workspaces(query: dict[str, Any]) -> Listing:
    """List the workspaces of the client, a page at a time."""
    return workspaces.list_workspaces(g.caller, **query)


@blueprint.route("/workspaces", methods=["POST"])
@client_required(PROVISION)
@blueprint.arguments(NewWorkspace)
@blueprint.response(201, WORKSPACE)
@problems(400, 401, 403, 409, 413, 415, 429, 503)
def create_workspace(wish: dict[str, Any]) -> Any:
    """Make a workspace. A client that is limited to workspaces can make none."""
    return workspaces.create(g.caller, **wish, now=utcnow())


@blueprint.route("/workspaces/<id:workspace_id>", methods=["GET"])
@client_required(PROVISION)
@blueprint.response(200, WORKSPACE)
@problems(401, 403, 404, 429, 503)
def read_workspace(workspace_id: str) -> Any:
    """Read a workspace."""
    return workspaces.read(g.caller, workspace_id)


@blueprint.route("/workspaces/<id:workspace_id>", methods=["PATCH"])
@client_required(PROVISION)
@blueprint.arguments(WorkspaceChange)
@blueprint.response(200, WORKSPACE)
@problems(400, 401, 403, 404, 409, 413, 415, 429, 503)
def change_workspace(changes: dict[str, Any], workspace_id: str) -> Any:
    """Change a workspace."""
    return workspaces.change(g.caller, workspace_id, changes, utcnow())


@blueprint.route("/workspaces/<id:workspace_id>", methods=["DELETE"])
@client_required(PROVISION)
@blueprint.response(204)
@problems(401, 403, 404, 409, 429, 503)
def delete_workspace(workspace_id: str) -> None:
    """Delete a workspace that has no apps, with its members, tokens and sessions."""
    workspaces.remove(g.caller, workspace_id, utcnow())


# Users


@blueprint.route("/users", methods=["GET"])
@client_required(PROVISION)
@blueprint.arguments(UserQuery, location="query")
@blueprint.response(200, USERS)
@problems(400, 401, 403, 429, 503)
def list_users(query: dict[str, Any]) -> Listing:
    """List the members of the client's workspaces, a page at a time."""
    return users.list_users(g.caller, **query)


@blueprint.route("/users", methods=["POST"])
@client_required(PROVISION)
@blueprint.arguments(NewUser)
@blueprint.response(201, USER)
@blueprint.alt_response(200, schema=USER, success=True, description="The user was there and has joined")
@problems(400, 401, 403, 404, 409, 413, 415, 429, 503)
def create_user(wish: dict[str, Any]) -> Any:
    """Make a user, with memberships.

    Somebody who belongs to workspaces of others alone joins those of this client: then the answer is
    200, and their name and status stay as they are.
    """
    return _made(*users.create(g.caller, **wish, now=utcnow()))


@blueprint.route("/users/<id:user_id>", methods=["GET"])
@client_required(PROVISION)
@blueprint.response(200, USER)
@problems(401, 403, 404, 429, 503)
def read_user(user_id: str) -> Any:
    """Read a user, with the memberships in workspaces of the client."""
    return users.read(g.caller, user_id)


@blueprint.route("/users/<id:user_id>", methods=["PATCH"])
@client_required(PROVISION)
@blueprint.arguments(UserChange)
@blueprint.response(200, USER)
@problems(400, 401, 403, 404, 409, 413, 415, 429, 503)
def change_user(changes: dict[str, Any], user_id: str) -> Any:
    """Change or archive a user.

    A client that is limited to workspaces changes only users who belong to no other.
    """
    return users.change(g.caller, user_id, changes, utcnow())


@blueprint.route("/users/<id:user_id>", methods=["DELETE"])
@client_required(PROVISION)
@blueprint.response(204)
@problems(401, 403, 404, 409, 429, 503)
def delete_user(user_id: str) -> None:
    """Delete a user with all that is theirs.

    A client that is limited to workspaces deletes only users who belong to no other.
    """
    users.remove(g.caller, user_id, utcnow())


# Members


@blueprint.route("/workspaces/<id:workspace_id>/members", methods=["GET"])
@client_required(PROVISION)
@blueprint.arguments(ListRequest, location="query")
@blueprint.response(200, MEMBERS)
@problems(400, 401, 403, 404, 429, 503)
def list_members(query: dict[str, Any], workspace_id: str) -> Listing:
    """List the members of a workspace, a page at a time."""
    return members.list_members(g.caller, workspace_id, **query)


@blueprint.route("/workspaces/<id:workspace_id>/members/<id:user_id>", methods=["GET"])
@client_required(PROVISION)
@blueprint.response(200, MEMBER)
@problems(401, 403, 404, 429, 503)
def read_member(workspace_id: str, user_id: str) -> Any:
    """Read a membership."""
    return members.read(g.caller, workspace_id, user_id)


@blueprint.route("/workspaces/<id:workspace_id>/members/<id:user_id>", methods=["PUT"])
@client_required(PROVISION)
@blueprint.arguments(MemberRequest)
@blueprint.response(201, MEMBER)
@blueprint.alt_response(200, schema=MEMBER, success=True, description="The user was a member")
@problems(400, 401, 403, 404, 409, 413, 415, 429, 503)
def put_member(wish: dict[str, str], workspace_id: str, user_id: str) -> Any:
    """Make a user a member in this role, whether they are one or not."""
    return _made(*members.put(g.caller, workspace_id, user_id, wish["role"], utcnow()))


@blueprint.route("/workspaces/<id:workspace_id>/members/<id:user_id>", methods=["DELETE"])
@client_required(PROVISION)
@blueprint.response(204)
@problems(401, 403, 404, 409, 429, 503)
def remove_member(workspace_id: str, user_id: str) -> None:
    """Take a membership away. The user's grants stay, and open nothing until it is given back."""
    members.remove(g.caller, workspace_id, user_id, utcnow())


# Apps


@blueprint.route("/apps", methods=["GET"])
@client_required(PROVISION)
@blueprint.arguments(AppQuery, location="query")
@blueprint.response(200, APPS)
@problems(400, 401, 403, 429, 503)
def list_apps(query: dict[str, Any]) -> Listing:
    """List the apps in the client's workspaces, a page at a time."""
    return apps.list_apps(g.caller, **query)


@blueprint.route("/apps", methods=["POST"])
@client_required(PROVISION)
@blueprint.arguments(NewApp)
@blueprint.response(201, APP)
@problems(400, 401, 403, 404, 409, 413, 415, 429, 503)
def create_app(wish: dict[str, Any]) -> Any:
    """Make an app."""
    return apps.create(g.caller, **wish, now=utcnow())


@blueprint.route("/apps/<id:app_id>", methods=["GET"])
@client_required(PROVISION)
@blueprint.response(200, APP)
@problems(401, 403, 404, 429, 503)
def read_app(app_id: str) -> Any:
    """Read an app."""
    return apps.read(g.caller, app_id)


@blueprint.route("/apps/<id:app_id>", methods=["PATCH"])
@client_required(PROVISION)
@blueprint.arguments(AppChange)
@blueprint.response(200, APP)
@problems(400, 401, 403, 404, 409, 413, 415, 429, 503)
def change_app(changes: dict[str, Any], app_id: str) -> Any:
    """Change an app. Another workspace moves it: its tokens and sessions end, its grants are dropped."""
    return apps.change(g.caller, app_id, changes, utcnow())


@blueprint.route("/apps/<id:app_id>", methods=["DELETE"])
@client_required(PROVISION)
@blueprint.response(204)
@problems(401, 403, 404, 409, 429, 503)
def delete_app(app_id: str) -> None:
    """Delete an app with its grants, tokens and sessions."""
    apps.remove(g.caller, app_id, utcnow())


# Grants


@blueprint.route("/apps/<id:app_id>/grants", methods=["GET"])
@client_required(PROVISION)
@blueprint.arguments(ListRequest, location="query")
@blueprint.response(200, GRANTS)
@problems(400, 401, 403, 404, 429, 503)
def list_grants(query: dict[str, Any], app_id: str) -> Listing:
    """List the grants of an app, a page at a time."""
    return grants.list_grants(g.caller, app_id, **query)


@blueprint.route("/apps/<id:app_id>/grants/<id:user_id>", methods=["GET"])
@client_required(PROVISION)
@blueprint.response(200, GRANT)
@problems(401, 403, 404, 429, 503)
def read_grant(app_id: str, user_id: str) -> Any:
    """Read a grant: whether it is effective tells whether the user may open the app now."""
    return grants.read(g.caller, app_id, user_id)


@blueprint.route("/apps/<id:app_id>/grants/<id:user_id>", methods=["PUT"])
@client_required(PROVISION)
@blueprint.response(201, GRANT)
@blueprint.alt_response(200, schema=GRANT, success=True, description="The user had the grant")
@problems(400, 401, 403, 404, 409, 413, 415, 429, 503)
def put_grant(app_id: str, user_id: str) -> Any:
    """Let a user open an app, whether they may already or not. No body is wanted."""
    read_nothing()
    return _made(*grants.put(g.caller, app_id, user_id, utcnow()))


@blueprint.route("/apps/<id:app_id>/grants/<id:user_id>", methods=["DELETE"])
@client_required(PROVISION)
@blueprint.response(204)
@problems(401, 403, 404, 409, 429, 503)
def remove_grant(app_id: str, user_id: str) -> None:
    """Take a grant away."""
    grants.remove(g.caller, app_id, user_id, utcnow())
