"""Keep the clients: make, change, limit, rotate, revoke, list. `callers` knows one again by its secret."""

import hmac
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from marshmallow import ValidationError
from sqlalchemy import Connection, Select, delete, insert, or_, select, update

from pat_service.credentials import CLIENT_SECRET_PREFIX, Keyring, Secret, generate
from pat_service.errors import Conflict
from pat_service.rules import events
from pat_service.shapes import is_client_id, parse_limit
from pat_service.storage.database import AnyRow, reading, transaction
from pat_service.storage.models import LEAST_ROLE, Client, ClientSecret, ClientWorkspace, Workspace, new_id

#: A secret that a person brings must be at least this many characters long.
MIN_SECRET_LENGTH: Final = 32


def create(
    keyring: Keyring,
    client_id: str,
    *,
    workspaces: Collection[str] | None,
    scopes: Iterable[str],
    mint_limit: str | None,
    highest_role: str = LEAST_ROLE,
    now: datetime,
) -> Secret:
    """Make a client, limited to the workspaces with these slugs (None: all), and return its secret, once.

    Raise Conflict where the id is taken or malformed, or a workspace is unknown.
    """
    _require_id(client_id)
    with transaction() as connection:
        current = connection.execute(select(Client.revoked_at).where(Client.id == client_id)).first()
        if current is not None:
            way_out = "rotate gives it a new secret" if current.revoked_at is None else "it was revoked"
            raise Conflict(f"The id {client_id!r} is taken: {way_out}. Choose another for a new client.")
        put(
            connection,
            client_id,
            workspaces=workspaces,
            scopes=scopes,
            mint_limit=mint_limit,
            highest_role=highest_role,
            now=now,
        )
        secret = generate(CLIENT_SECRET_PREFIX)
        add_secret(connection, keyring, client_id, secret, now)
    return secret


def put(
    connection: Connection,
    client_id: str,
    *,
    workspaces: Collection[str] | None,
    scopes: Iterable[str],
    mint_limit: str | None,
    highest_role: str = LEAST_ROLE,
    now: datetime,
) -> dict[str, Any] | None:
    """Create the client or make it be just this. Its secrets stay.

    Return what it was, as the trail tells it; None if it is new.
    """
    _require_id(client_id)
    _require_limit(mint_limit)
    slugs = sorted(set(workspaces or ()))
    given: dict[str, Any] = {
        "scopes": sorted(set(scopes)),
        "mint_limit": mint_limit,
        "highest_role": highest_role,
    }
    facts = given | {"all_workspaces": workspaces is None, "revoked_at": None}
    # As the trail tells it: see `_shown`.
    after = given | {"workspaces": None if workspaces is None else slugs, "revoked": False}
    current = connection.execute(_locked(client_id)).first()
    if current is None:
        connection.execute(insert(Client), facts | {"id": client_id, "created_at": now})
        _put_workspaces(connection, client_id, slugs)
        events.record(connection, events.CLIENT_CREATED, now, client_id=client_id, details={"after": after})
        return None
    before = _shown(connection, current)
    if changed := [name for name in after if before[name] != after[name]]:
        connection.execute(update(Client).where(Client.id == client_id), facts)
        _put_workspaces(connection, client_id, slugs)
        details = {"before": {n: before[n] for n in changed}, "after": {n: after[n] for n in changed}}
        events.record(connection, events.CLIENT_CHANGED, now, client_id=client_id, details=details)
    return before


def _put_workspaces(connection: Connection, client_id: str, slugs: Collection[str]) -> None:
    connection.execute(delete(ClientWorkspace).where(ClientWorkspace.client_id == client_id))
    for slug in slugs:
        place = select(Workspace.id).where(Workspace.slug == slug)
        found = connection.execute(place).scalar() if slug.isascii() else None
        if found is None:
            raise Conflict(f"There is no workspace {slug!r}.")
        connection.execute(insert(ClientWorkspace), {"client_id": client_id, "workspace_id": found})


def _shown(connection: Connection, client: AnyRow) -> dict[str, Any]:
    """What the trail tells of a client. `workspaces` are slugs, in order; None: all."""
    places = (
        select(Workspace.slug)
        .join(ClientWorkspace, ClientWorkspace.workspace_id == Workspace.id)
        .where(ClientWorkspace.client_id == client.id)
    )
    return {
        "scopes": client.scopes,
        "workspaces": None if client.all_workspaces else sorted(connection.execute(places).scalars()),
        "mint_limit": client.mint_limit,
        "highest_role": client.highest_role,
        "revoked": client.revoked_at is not None,
    }


def knows_secret(connection: Connection, keyring: Keyring, client_id: str, secret: Secret) -> bool:
    """Tell whether `secret` is the client's, so that giving it again changes nothing.

    Raise Conflict for one that `rotate` or `revoke` has retired: it may have leaked, and never comes back.
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
    """Tell whether the client has a secret that does not end."""
    lasting = ClientSecret.expires_at.is_(None)
    return (
        connection.execute(
            select(ClientSecret.id).where(ClientSecret.client_id == client_id, lasting)
        ).first()
        is not None
    )


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
    """Give the client this secret in place of the one it has, which ends at once."""
    lasting = ClientSecret.expires_at.is_(None)
    connection.execute(delete(ClientSecret).where(ClientSecret.client_id == client_id, lasting))
    _retire_secrets(connection, client_id, now)
    add_secret(connection, keyring, client_id, secret, now)
    events.record(connection, events.CLIENT_ROTATED, now, client_id=client_id)


def _retire_secrets(connection: Connection, client_id: str, ends_at: datetime) -> None:
    """Let the client's secrets end at this moment, or sooner where they would."""
    later = or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > ends_at)
    connection.execute(
        update(ClientSecret).where(ClientSecret.client_id == client_id, later).values(expires_at=ends_at)
    )


def rotate(keyring: Keyring, client_id: str, now: datetime, overlap: timedelta = timedelta(0)) -> Secret:
    """Return a new secret of the client, once; the old ones work for `overlap` more. Raise Conflict."""
    secret = generate(CLIENT_SECRET_PREFIX)
    with transaction() as connection:
        _require_live(connection, client_id)
        _retire_secrets(connection, client_id, now + overlap)
        add_secret(connection, keyring, client_id, secret, now)
        events.record(connection, events.CLIENT_ROTATED, now, client_id=client_id)
    return secret


def limit(client_id: str, mint_limit: str | None, now: datetime) -> None:
    """Let the client mint at most so much (None: MINT_RATE_LIMIT); all else of it stays. Raise Conflict."""
    _require_limit(mint_limit)
    with transaction() as connection:
        before = _require_live(connection, client_id).mint_limit
        if before == mint_limit:
            return
        connection.execute(update(Client).where(Client.id == client_id).values(mint_limit=mint_limit))
        details = {"before": {"mint_limit": before}, "after": {"mint_limit": mint_limit}}
        events.record(connection, events.CLIENT_CHANGED, now, client_id=client_id, details=details)


def revoke(client_id: str, now: datetime) -> None:
    """End the client at once, with all of its secrets; its tokens go on. Raise Conflict if it is not live."""
    with transaction() as connection:
        _require_live(connection, client_id)
        connection.execute(update(Client).where(Client.id == client_id).values(revoked_at=now))
        _retire_secrets(connection, client_id, now)
        events.record(connection, events.CLIENT_REVOKED, now, client_id=client_id)


def _require_id(client_id: str) -> None:
    if not is_client_id(client_id):
        raise Conflict(f"{client_id!r} is no client id: use up to 64 letters, digits, dots and dashes.")


def _require_limit(mint_limit: str | None) -> None:
    try:
        if mint_limit is not None:
            parse_limit(mint_limit)
    except ValidationError as error:
        raise Conflict(f"The mint limit {mint_limit!r}: {error.messages[0]}") from None


def _locked(client_id: str) -> Select[*tuple[Any, ...]]:
    # Held until the commit: of racing rotations each must see the secret that the last one made.
    return select(Client.__table__).where(Client.id == client_id).with_for_update()


def _require_live(connection: Connection, client_id: str) -> AnyRow:
    _require_id(client_id)
    current = connection.execute(_locked(client_id)).first()
    if current is None or current.revoked_at is not None:
        raise Conflict(f"There is no live client {client_id!r}.")
    return current


@dataclass(frozen=True, slots=True)
class ListedSecret:
    """A secret that has not ended. It is dead all the same where its key is none of the keyring's."""

    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    key_id: str
    key_known: bool


@dataclass(frozen=True, slots=True)
class ClientView:
    """A client as the operator sees it: no secret, not even as a digest."""

    id: str
    scopes: tuple[str, ...]
    workspaces: tuple[str, ...] | None
    mint_limit: str | None
    highest_role: str
    secrets: tuple[ListedSecret, ...]
    revoked_at: datetime | None

    @property
    def live_secrets(self) -> int:
        return sum(secret.key_known for secret in self.secrets)


def list_clients(keyring: Keyring, now: datetime) -> list[ClientView]:
    """Return every client, by id, with its secrets, the oldest first."""
    with reading() as connection:
        clients = list(connection.execute(select(Client.__table__).order_by(Client.id)))
        slugs = list(
            connection.execute(
                select(ClientWorkspace.client_id, Workspace.slug)
                .join(Workspace, Workspace.id == ClientWorkspace.workspace_id)
                .order_by(Workspace.slug)
            )
        )
        lasting = or_(ClientSecret.expires_at.is_(None), ClientSecret.expires_at > now)
        secrets = list(
            connection.execute(
                select(ClientSecret.__table__)
                .where(lasting)
                .order_by(ClientSecret.created_at, ClientSecret.id)
            )
        )
    return [
        ClientView(
            id=client.id,
            scopes=tuple(client.scopes),
            workspaces=None if client.all_workspaces else tuple(s for c, s in slugs if c == client.id),
            mint_limit=client.mint_limit,
            highest_role=client.highest_role,
            secrets=tuple(
                ListedSecret(
                    secret.created_at,
                    secret.expires_at,
                    secret.last_used_at,
                    secret.key_id,
                    keyring.get(secret.key_id) is not None,
                )
                for secret in secrets
                if secret.client_id == client.id
            ),
            revoked_at=client.revoked_at,
        )
        for client in clients
    ]
