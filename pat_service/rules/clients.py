"""Create, change, limit, rotate, revoke and list clients. `callers` authenticates them."""

import hmac
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from marshmallow import ValidationError
from sqlalchemy import Connection, Select, bindparam, delete, insert, or_, select, update
from sqlalchemy.sql.elements import BindParameter

from pat_service.credentials import CLIENT_SECRET_PREFIX, Keyring, Secret, generate
from pat_service.errors import ClientNotFound, Conflict
from pat_service.rules import events, token_admin
from pat_service.rules.callers import Caller
from pat_service.rules.token_admin import Counts, TokenFilter
from pat_service.shapes import is_client_id, parse_limit
from pat_service.storage.database import AnyRow, UtcDateTime, reading, transaction
from pat_service.storage.models import LEAST_ROLE, Client, ClientSecret, ClientWorkspace, Workspace, new_id
from pat_service.storage.paging import Listing, PageRequest, page

#: In characters, for a secret from the provisioning file.
MIN_SECRET_LENGTH: Final = 32


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """The scopes and limits of a client. `workspaces` are slugs; None means all workspaces."""

    workspaces: Collection[str] | None
    scopes: Iterable[str]
    mint_limit: str | None
    highest_role: str = LEAST_ROLE


def create(keyring: Keyring, client_id: str, options: ClientOptions, now: datetime) -> Secret:
    """Create a client and return its secret. The secret is shown once.

    Raise Conflict if the id is taken or malformed, or a workspace is unknown.
    """
    _require_id(client_id)
    with transaction() as connection:
        current = connection.execute(select(Client.revoked_at).where(Client.id == client_id)).first()
        if current is not None:
            way_out = "rotate gives it a new secret" if current.revoked_at is None else "it was revoked"
            raise Conflict(f"The id {client_id!r} is taken: {way_out}. Choose another for a new client.")
        put(connection, client_id, options, now)
        secret = generate(CLIENT_SECRET_PREFIX)
        add_secret(connection, keyring, client_id, secret, now)
    return secret


def put(
    connection: Connection, client_id: str, options: ClientOptions, now: datetime
) -> dict[str, Any] | None:
    """Create the client, or change it to have exactly these options. Its secrets stay the same.

    Return its former audited values, or None if it is new.
    """
    _require_id(client_id)
    _require_limit(options.mint_limit)
    slugs = None if options.workspaces is None else sorted(set(options.workspaces))
    common: dict[str, Any] = {
        "scopes": sorted(set(options.scopes)),
        "mint_limit": options.mint_limit,
        "highest_role": options.highest_role,
    }
    facts = common | {"all_workspaces": slugs is None, "revoked_at": None}
    after = common | {"workspaces": slugs, "revoked": False}
    current = connection.execute(_locked(client_id)).first()
    if current is None:
        connection.execute(insert(Client), facts | {"id": client_id, "created_at": now})
        _put_workspaces(connection, client_id, slugs or ())
        events.record(connection, events.CLIENT_CREATED, now, client_id=client_id, details={"after": after})
        return None
    before = _read_audited(connection, current)
    if changed := [name for name in after if before[name] != after[name]]:
        connection.execute(update(Client).where(Client.id == client_id), facts)
        _put_workspaces(connection, client_id, slugs or ())
        details = {"before": {n: before[n] for n in changed}, "after": {n: after[n] for n in changed}}
        events.record(connection, events.CLIENT_CHANGED, now, client_id=client_id, details=details)
    return before


def _put_workspaces(connection: Connection, client_id: str, slugs: Collection[str]) -> None:
    connection.execute(delete(ClientWorkspace).where(ClientWorkspace.client_id == client_id))
    for slug in slugs:
        statement = select(Workspace.id).where(Workspace.slug == slug)
        workspace_id = connection.execute(statement).scalar() if slug.isascii() else None
        if workspace_id is None:
            raise Conflict(f"There is no workspace {slug!r}.")
        connection.execute(insert(ClientWorkspace), {"client_id": client_id, "workspace_id": workspace_id})


def _read_audited(connection: Connection, client: AnyRow) -> dict[str, Any]:
    """Return the values of a client for an audit event. `workspaces` are sorted slugs; None means all."""
    slugs = (
        select(Workspace.slug)
        .join(ClientWorkspace, ClientWorkspace.workspace_id == Workspace.id)
        .where(ClientWorkspace.client_id == client.id)
    )
    return {
        "scopes": client.scopes,
        "workspaces": None if client.all_workspaces else sorted(connection.execute(slugs).scalars()),
        "mint_limit": client.mint_limit,
        "highest_role": client.highest_role,
        "revoked": client.revoked_at is not None,
    }


def knows_secret(connection: Connection, keyring: Keyring, client_id: str, secret: Secret) -> bool:
    """Return whether the client already has this secret.

    Raise Conflict if `rotate` or `revoke` has retired it: it may have leaked, so it stays invalid.
    """
    statement = select(ClientSecret.digest, ClientSecret.key_id, ClientSecret.expires_at).where(
        ClientSecret.client_id == client_id
    )
    for row in connection.execute(statement):
        key = keyring.get(row.key_id)
        if key and hmac.compare_digest(key.digest(secret), row.digest):
            if row.expires_at is not None:
                raise Conflict("This secret was retired by rotate or revoke; give the client a new one.")
            return True
    return False


def has_secret(connection: Connection, client_id: str) -> bool:
    """Return whether the client has a secret that does not expire."""
    statement = select(ClientSecret.id).where(
        ClientSecret.client_id == client_id, ClientSecret.expires_at.is_(None)
    )
    return connection.execute(statement).first() is not None


def add_secret(
    connection: Connection, keyring: Keyring, client_id: str, secret: Secret, now: datetime
) -> None:
    connection.execute(
        insert(ClientSecret),
        {
            "id": new_id(),
            "client_id": client_id,
            "digest": keyring.current.digest(secret),
            "key_id": keyring.current.id,
            "created_at": now,
        },
    )


def replace_secret(
    connection: Connection, keyring: Keyring, client_id: str, secret: Secret, now: datetime
) -> None:
    """Replace the client's secrets. The old ones end at once."""
    lasting = ClientSecret.expires_at.is_(None)
    connection.execute(delete(ClientSecret).where(ClientSecret.client_id == client_id, lasting))
    _retire_secrets(connection, client_id, now)
    add_secret(connection, keyring, client_id, secret, now)
    events.record(connection, events.CLIENT_ROTATED, now, client_id=client_id)


def _retire_secrets(connection: Connection, client_id: str, ends_at: datetime) -> None:
    """End the client's secrets at this time, unless they end sooner."""
    later = or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > ends_at)
    connection.execute(
        update(ClientSecret).where(ClientSecret.client_id == client_id, later).values(expires_at=ends_at)
    )


def rotate(keyring: Keyring, client_id: str, now: datetime, overlap: timedelta = timedelta(0)) -> Secret:
    """Return a new secret of the client, which is shown once. Its old secrets still work for `overlap`.

    Raise Conflict if the client is not live.
    """
    secret = generate(CLIENT_SECRET_PREFIX)
    with transaction() as connection:
        _require_live(connection, client_id)
        _retire_secrets(connection, client_id, now + overlap)
        add_secret(connection, keyring, client_id, secret, now)
        events.record(connection, events.CLIENT_ROTATED, now, client_id=client_id)
    return secret


def limit(client_id: str, mint_limit: str | None, now: datetime) -> None:
    """Set the client's mint limit; None means MINT_RATE_LIMIT. Raise Conflict if the client is not live."""
    _require_limit(mint_limit)
    with transaction() as connection:
        before = _require_live(connection, client_id).mint_limit
        if before == mint_limit:
            return
        connection.execute(update(Client).where(Client.id == client_id).values(mint_limit=mint_limit))
        details = {"before": {"mint_limit": before}, "after": {"mint_limit": mint_limit}}
        events.record(connection, events.CLIENT_CHANGED, now, client_id=client_id, details=details)


def change(client_id: str, options: ClientOptions, now: datetime) -> None:
    """Change a live client to have exactly these options. Raise Conflict as `create` does."""
    with transaction() as connection:
        _require_live(connection, client_id)
        put(connection, client_id, options, now)


def revoke(client_id: str, now: datetime) -> None:
    """Revoke the client and its secrets at once. Its tokens stay valid. Raise Conflict if it is not live."""
    with transaction() as connection:
        _require_live(connection, client_id)
        connection.execute(update(Client).where(Client.id == client_id).values(revoked_at=now))
        _retire_secrets(connection, client_id, now)
        events.record(connection, events.CLIENT_REVOKED, now, client_id=client_id)


def revoke_tokens(caller: Caller, client_id: str, now: datetime) -> Counts:
    """Revoke the tokens of a revoked client and end their sessions, after its running mints have ended."""
    wait_for_mints(client_id)
    return token_admin.revoke_tokens(caller, TokenFilter(client_id=client_id), now)


def _require_id(client_id: str) -> None:
    if not is_client_id(client_id):
        raise Conflict(f"{client_id!r} is not a client id: use up to 64 letters, digits, dots and dashes.")


def _require_limit(mint_limit: str | None) -> None:
    try:
        if mint_limit is not None:
            parse_limit(mint_limit)
    except ValidationError as error:
        raise Conflict(f"The mint limit {mint_limit!r}: {error.messages[0]}") from None


def wait_for_mints(client_id: str) -> None:
    """Wait until the running mints of a revoked client have ended. Later ones are refused."""
    with transaction() as connection:
        connection.execute(select(Client.id).where(Client.id == client_id).with_for_update()).first()


def _locked(client_id: str) -> Select[*tuple[Any, ...]]:
    # Concurrent rotations wait for each other, so each one sees the previous one's secret. Mints do not wait.
    return select(Client.__table__).where(Client.id == client_id).with_for_update(key_share=True)


def _require_live(connection: Connection, client_id: str) -> AnyRow:
    _require_id(client_id)
    current = connection.execute(_locked(client_id)).first()
    if current is None or current.revoked_at is not None:
        raise Conflict(f"There is no live client {client_id!r}.")
    return current


def require_existing(client_id: str) -> str:
    """Return the id of the client, live or revoked. Raise Conflict if there is none."""
    with reading() as connection:
        statement = select(Client.id).where(Client.id == client_id)
        if not is_client_id(client_id) or connection.execute(statement).first() is None:
            raise Conflict(f"There is no client {client_id!r}.")
    return client_id


@dataclass(frozen=True, slots=True)
class ListedSecret:
    """A secret that has not ended. It cannot be used if its key is not configured."""

    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    key_id: str
    key_known: bool


@dataclass(frozen=True, slots=True)
class ClientView:
    """A client as the operator sees it, without secrets and digests."""

    id: str
    scopes: tuple[str, ...]
    workspaces: tuple[str, ...] | None
    mint_limit: str | None
    highest_role: str
    secrets: tuple[ListedSecret, ...]
    created_at: datetime
    revoked_at: datetime | None

    @property
    def live_secrets(self) -> int:
        return sum(secret.key_known for secret in self.secrets)

    @property
    def last_used_at(self) -> datetime | None:
        """The last use of a secret that has not ended."""
        return max((secret.last_used_at for secret in self.secrets if secret.last_used_at), default=None)


def list_clients(keyring: Keyring, now: datetime) -> list[ClientView]:
    """Return all clients, sorted by id. Each has its live secrets, oldest first."""
    with reading() as connection:
        rows = connection.execute(_clients.order_by(Client.id)).all()
        return _build_views(connection, keyring, now, rows)


def list_page(keyring: Keyring, page_request: PageRequest, now: datetime) -> Listing:
    """Return a page of the clients, as `list_clients` does."""
    with reading() as connection:
        listing = page(connection, _clients, Client.id, page_request, {})
        return replace(listing, items=_build_views(connection, keyring, now, listing.items))


def read(keyring: Keyring, client_id: str, now: datetime) -> ClientView:
    """Return the client, live or revoked. Raise NotFound."""
    with reading() as connection:
        rows = (
            connection.execute(_clients.where(Client.id == client_id)).all()
            if is_client_id(client_id)
            else []
        )
        if not rows:
            raise ClientNotFound
        return _build_views(connection, keyring, now, rows)[0]


def _build_views(
    connection: Connection, keyring: Keyring, now: datetime, rows: Sequence[AnyRow]
) -> list[ClientView]:
    ids = {"clients": [row.id for row in rows], "now": now}
    slugs, secrets = defaultdict[str, list[str]](list), defaultdict[str, list[ListedSecret]](list)
    for client_id, slug in connection.execute(_slugs, ids):
        slugs[client_id].append(slug)
    for secret in connection.execute(_live_secrets, ids):
        is_known = keyring.get(secret.key_id) is not None
        secrets[secret.client_id].append(
            ListedSecret(secret.created_at, secret.expires_at, secret.last_used_at, secret.key_id, is_known)
        )
    return [
        ClientView(
            id=client.id,
            scopes=tuple(client.scopes),
            workspaces=None if client.all_workspaces else tuple(slugs[client.id]),
            mint_limit=client.mint_limit,
            highest_role=client.highest_role,
            secrets=tuple(secrets[client.id]),
            created_at=client.created_at,
            revoked_at=client.revoked_at,
        )
        for client in rows
    ]


_clients = select(Client.__table__, Client.id.label("key"))
_listed: BindParameter[list[str]] = bindparam("clients", expanding=True)
_slugs = (
    select(ClientWorkspace.client_id, Workspace.slug)
    .join(Workspace, Workspace.id == ClientWorkspace.workspace_id)
    .where(ClientWorkspace.client_id.in_(_listed))
    .order_by(Workspace.slug)
)
_live_secrets = (
    select(ClientSecret.__table__)
    .where(
        ClientSecret.client_id.in_(_listed),
        or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > bindparam("now", type_=UtcDateTime)),
    )
    .order_by(ClientSecret.created_at, ClientSecret.id)
)
