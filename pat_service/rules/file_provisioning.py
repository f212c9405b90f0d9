"""Provision workspaces, users, apps and clients from one document.

Each listed entry is created or changed to match the document exactly. Everything else stays unchanged.
"""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, validates_schema
from marshmallow.validate import Length, OneOf
from sqlalchemy import Connection

from pat_service import addresses, shapes
from pat_service.addresses import Site
from pat_service.credentials import CLIENT_SECRET_PREFIX, Keyring, Secret, generate
from pat_service.errors import Conflict, InvalidPayload, flatten
from pat_service.rules import clients, directory, events
from pat_service.rules.callers import OPERATOR, SCOPES
from pat_service.rules.clients import MIN_SECRET_LENGTH, ClientOptions
from pat_service.rules.directory.changes import Change
from pat_service.storage.database import transaction
from pat_service.storage.models import LEAST_ROLE, ROLES, USER_STATUSES

MAX_SECRET_LENGTH: Final = 1024


def _slug(**options: Any) -> fields.String:
    return fields.String(validate=shapes.check_slug, **options)


def _name() -> fields.String:
    return fields.String(validate=shapes.check_name)


def _email(**options: Any) -> fields.String:
    return fields.String(validate=shapes.check_email, **options)


class WorkspaceSchema(Schema):
    slug = _slug(required=True)
    name = _name()
    allowed_origins = fields.List(fields.String(validate=shapes.parse_origin), load_default=list[str])
    apps_url = fields.String(load_default=None, validate=addresses.parse_apps_url)


class UserSchema(Schema):
    email = _email(required=True)
    name = _name()
    status = fields.String(load_default="active", validate=OneOf(USER_STATUSES))
    workspaces = fields.Dict(
        keys=_slug(), values=fields.String(validate=OneOf(ROLES)), load_default=dict[str, str]
    )
    home = _slug(load_default=None)


class AppSchema(Schema):
    id = fields.String(load_default=None, validate=shapes.parse_uuid)
    slug = _slug(required=True)
    name = _name()
    workspace = _slug(required=True)
    template = _slug()
    upstream = fields.String(validate=addresses.parse_upstream)
    start = fields.String(validate=addresses.check_start)
    permissions = fields.List(fields.String(validate=OneOf(shapes.GRANTABLE)))
    allowed_origins = fields.List(fields.String(validate=shapes.parse_origin), load_default=list[str])
    users = fields.List(_email(), load_default=list[str])


class ClientSchema(Schema):
    id = fields.String(required=True)
    secret = fields.String(
        load_default=None,
        validate=[
            Length(MIN_SECRET_LENGTH, MAX_SECRET_LENGTH, error="Must have {min} to {max} characters."),
            shapes.check_text,
        ],
    )
    workspaces = fields.List(_slug(), load_default=None)
    all_workspaces = fields.Boolean(load_default=None, truthy={True}, falsy={False})
    scopes = fields.List(fields.String(validate=OneOf(SCOPES)), load_default=lambda: ["mint"])
    mint_limit = fields.String(load_default=None, validate=shapes.parse_limit)
    highest_role = fields.String(load_default=LEAST_ROLE, validate=OneOf(ROLES))

    @validates_schema
    def check_reach(self, client: dict[str, Any], **_: Any) -> None:
        if client["all_workspaces"] not in (None, client["workspaces"] is None):
            text = "Must be true without workspaces, and false or absent with them."
            raise ValidationError(text, "all_workspaces")


class DocumentSchema(Schema):
    workspaces = fields.List(fields.Nested(WorkspaceSchema), load_default=list[Any])
    users = fields.List(fields.Nested(UserSchema), load_default=list[Any])
    apps = fields.List(fields.Nested(AppSchema), load_default=list[Any])
    clients = fields.List(fields.Nested(ClientSchema), load_default=list[Any])

    @validates_schema
    def check_listed_once(self, document: dict[str, list[dict[str, Any]]], **_: Any) -> None:
        # A second entry with the same name would silently undo the first.
        names = (
            ("workspaces", "slug"),
            ("users", "email"),
            ("apps", "slug"),
            ("apps", "id"),
            ("clients", "id"),
        )
        for kind, name in names:
            keys = [thing[name] for thing in document[kind] if thing[name] is not None]
            if kind in ("users", "apps"):
                keys = [shapes.normalize_email(key) for key in keys]
            repeated = sorted({key for key in keys if keys.count(key) > 1})
            if repeated:
                raise ValidationError(f"Listed more than once: {', '.join(repeated)}.", kind)

    @validates_schema
    def check_addresses(self, document: dict[str, list[dict[str, Any]]], **_: Any) -> None:
        owners: dict[str, str] = {}
        for app in document["apps"]:
            if "upstream" in app:
                upstream = addresses.parse_upstream(app["upstream"])
                if owners.setdefault(upstream, app["workspace"]) != app["workspace"]:
                    raise ValidationError(f"Apps of two workspaces have the upstream {upstream}.", "apps")


_SIDE = re.compile(r"(?P<entry>\.workspaces\.[^.]+)\.(?:key|value)\Z")
_document_schema = DocumentSchema()


@dataclass
class Provisioned:
    """The result of a run: numbers of listed entries, secrets to print once, and notes for the operator."""

    counts: dict[str, int]
    secrets: dict[str, Secret] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    templates: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> dict[str, Any]:
    """Parse a TOML text, or raise InvalidPayload with the position of the error."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidPayload({"file": [f"Is not valid TOML: {error}."]}) from None


def provision(
    keyring: Keyring, document: dict[str, Any], now: datetime, *, site: Site | None = None
) -> Provisioned:
    """Create or update everything that the document lists, or nothing. Applying it again changes nothing.

    Without a `site`, the service has no address yet.

    Raise InvalidPayload for an invalid document, and Conflict for an unknown reference or a wrong id.
    """
    try:
        listed = _document_schema.load(document)
    except ValidationError as error:
        messages = flatten(error.normalized_messages(), "file")
        # marshmallow ends the path of these errors in `key` or `value`, which the file does not contain.
        raise InvalidPayload(
            {_SIDE.sub(r"\g<entry>", name): texts for name, texts in messages.items()}
        ) from None
    site = site or Site()
    done = Provisioned({kind: len(listed[kind]) for kind in ("workspaces", "users", "apps", "clients")})
    with transaction() as connection:
        change = Change(connection, OPERATOR, now)
        directory.workspaces.give_up_addresses(
            change, {item["slug"]: _parse_apps_url(item) for item in listed["workspaces"]}
        )
        for place, item in enumerate(listed["workspaces"]):
            with _naming(f"Workspace {item['slug']!r}", f"workspaces.{place}"):
                _put_workspace(change, item, site)
        for item in listed["users"]:
            with _naming(f"User {item['email']!r}"):
                _put_user(change, item, done)
        for item in listed["apps"]:
            item["id"] = shapes.parse_uuid(item["id"]) if item["id"] else None
            item["kind"] = _parse_kind(item)
        directory.apps.claim_upstreams(
            change,
            [
                (item["id"], item["slug"], item["workspace"], item["kind"].get("upstream"))
                for item in listed["apps"]
            ],
        )
        apps = []
        for place, item in enumerate(listed["apps"]):
            with _naming(f"App {item['slug']!r}", f"apps.{place}"):
                apps.append(_put_app(change, item, done, site))
        for place, item in enumerate(listed["clients"]):
            with _naming(f"Client {item['id']!r}"):
                _put_client(connection, keyring, item, place, done, now)
        for slug, email in directory.grants.list_ineffective(connection, apps):
            done.notes.append(
                f"{email} has a grant of {slug} but is not a member of its workspace: the grant has no effect"
            )
        events.record(connection, events.DIRECTORY_PROVISIONED, now, details=dict(done.counts))
    return done


@contextmanager
def _naming(thing: str, place: str = "") -> Iterator[None]:
    """Prefix the text of a refusal with the entry of the file that caused it, or with its place."""
    try:
        yield
    except Conflict as conflict:
        raise Conflict(f"{thing}: {conflict.detail}") from None
    except InvalidPayload as refusal:
        if not place:
            raise
        named = {directory.workspaces.APPS_URL: "apps_url"}
        raise InvalidPayload(
            {f"{place}.{named.get(name, name)}": texts for name, texts in refusal.errors.items()}
        ) from None


def _parse_apps_url(item: dict[str, Any]) -> str | None:
    return None if item["apps_url"] is None else addresses.parse_apps_url(item["apps_url"])


def _put_workspace(change: Change, item: dict[str, Any], site: Site) -> None:
    directory.workspaces.put(
        change,
        item["slug"],
        name=item.get("name", item["slug"]),
        allowed_origins=[shapes.parse_origin(text) for text in item["allowed_origins"]],
        apps_url=_parse_apps_url(item),
        site=site,
    )


def _put_user(change: Change, item: dict[str, Any], done: Provisioned) -> None:
    before = directory.users.put(
        change,
        item["email"],
        name=item.get("name", item["email"]),
        status=item["status"],
        roles=item["workspaces"],
        home=item["home"],
    )
    if before == "archived" and item["status"] == "active":
        done.notes.append(f"{item['email']} was archived and is active again")


def _parse_kind(item: dict[str, Any]) -> dict[str, Any]:
    """Return the entry's template, or its upstream with start and permissions."""
    kind: dict[str, Any] = {
        name: item[name] for name in ("template", *directory.upstreams.FIELDS) if name in item
    }
    if "upstream" in kind:
        kind["upstream"] = addresses.parse_upstream(kind["upstream"])
    return kind


def _put_app(change: Change, item: dict[str, Any], done: Provisioned, site: Site) -> str:
    app_id = directory.apps.put(
        change,
        item["slug"],
        id_=item["id"],
        name=item.get("name", item["slug"]),
        workspace=item["workspace"],
        allowed_origins=[shapes.parse_origin(text) for text in item["allowed_origins"]],
        site=site,
        kind=item["kind"],
    )
    user_ids = {directory.users.require_id(change.connection, email) for email in item["users"]}
    directory.grants.put_all(change, app_id, user_ids)
    is_upstream = "upstream" in item
    done.templates[item["slug"]] = (
        shapes.UPSTREAM_TEMPLATE if is_upstream else item.get("template", item["slug"])
    )
    return app_id


def _put_client(
    connection: Connection,
    keyring: Keyring,
    item: dict[str, Any],
    place: int,
    done: Provisioned,
    now: datetime,
) -> None:
    client_id = item["id"]
    before = clients.put(
        connection,
        client_id,
        ClientOptions(item["workspaces"], item["scopes"], item["mint_limit"], item["highest_role"]),
        now,
    )
    if before is not None and before["revoked"]:
        done.notes.append(f"client {client_id} was revoked and is live again")
    if item["workspaces"] is None and not item["all_workspaces"]:
        done.notes.append(_note_reach(client_id, before))
    if item["secret"] is not None:
        secret = Secret(item["secret"])
        if not clients.knows_secret(connection, keyring, client_id, secret):
            # A stored secret stays valid, so only a new one is checked.
            _check_new_secret(secret, place)
            clients.replace_secret(connection, keyring, client_id, secret, now)
    elif not clients.has_secret(connection, client_id):
        done.secrets[client_id] = generate(CLIENT_SECRET_PREFIX)
        clients.add_secret(connection, keyring, client_id, done.secrets[client_id], now)


def _note_reach(client_id: str, before: dict[str, Any] | None) -> str:
    """Return the note about a client of all workspaces that the file does not confirm."""
    change = "reaches all workspaces"
    if before is not None and before["workspaces"] is not None:
        slugs = ", ".join(before["workspaces"]) or "no workspace"
        change = f"was limited to {slugs} and reaches all workspaces now"
    reason = "since the file lists none for it; all_workspaces = true in the file confirms this"
    return f"client {client_id} {change}, {reason}"


def _check_new_secret(secret: Secret, place: int) -> None:
    """Raise InvalidPayload for a secret of low variety. `place` is the index of its client in the file."""
    try:
        shapes.check_variety(secret.reveal())
    except ValidationError as error:
        way_out = (
            "Leave the secret out: a new client gets a generated one. For another client, see "
            "Rotating a client's secret in docs/operate/maintenance.md."
        )
        raise InvalidPayload({f"clients.{place}.secret": [f"{error.messages[0]} {way_out}"]}) from None
