"""The installation itself: its address, limits, keys, clock, and who may mint."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import func, select

from pat_service.credentials import Keyring
from pat_service.diagnosis.findings import Finding, Settings, is_loopback, ok, problem, warning
from pat_service.diagnosis.origins import Parent
from pat_service.rules import clients, key_usage
from pat_service.shapes import is_dns_label, parse_limit
from pat_service.storage.database import reading

#: Clocks may differ by this: a session is refused that another machine signed so far in the future.
MOST_APART: Final = timedelta(seconds=5)
#: An open frame asks so often whether its session lasts, by itself, in requests a minute.
CHECKS: Final = 3
#: Below these a page with some frames, or a portal with some viewers, meets the limit: requests a minute.
FEW_REQUESTS: Final = 30
FEW_OPENINGS: Final = 20
FEW_MINTS: Final = 60
FEW_FAILURES: Final = 5


# ---- Its address ----


def address(settings: Settings, slug: str | None, parents: Sequence[Parent]) -> list[Finding]:
    """Return what can be said of PUBLIC_URL without asking it. `slug`: of the app in the frame, if any."""
    about = "PUBLIC_URL"
    public_url: str | None = settings["PUBLIC_URL"]
    afar = [parent.origin for parent in parents if not parent.is_local]
    if public_url is None:
        text = "PUBLIC_URL is unset, so that frames have the address of a development server on this machine."
        change = "Set PUBLIC_URL to the address that viewers reach, such as https://embed.example."
        return [(problem if afar else warning)(about, text, change)]
    found = []
    url = urlsplit(public_url)
    local = is_loopback(url.hostname)
    if afar and local:
        found.append(
            problem(
                about,
                f"{public_url} is each viewer's own machine, and {', '.join(map(str, afar))} is not on it.",
                "Set PUBLIC_URL to the address that viewers reach, such as https://embed.example.",
            )
        )
    if url.scheme == "http" and any(parent.parts.scheme == "https" for parent in parents):
        text = "A page on https embeds a service on http: mixed content"
        if local:
            found.append(
                warning(
                    about, f"{text}, which Safari blocks even on loopback.", "Use https, or another browser."
                )
            )
        else:
            found.append(problem(about, f"{text}, which browsers block.", "Serve PUBLIC_URL by https."))
    if "{app}." in public_url and slug is not None and not is_dns_label(slug):
        found.append(
            problem(
                about,
                f"{slug} cannot be the first part of the app's host, so there is no address that opens it.",
                "Give the app a slug of a-z, 0-9 and -, with no - at an end: PATCH /api/ext/apps/<id>.",
            )
        )
    return found or [ok(about, f"Frames have the address {public_url}.")]


def proxies(settings: Settings) -> list[Finding]:
    """Return whether the number of proxies fits the address: the service itself speaks no TLS."""
    hops = settings["TRUSTED_PROXIES"]
    if not hops and (settings["PUBLIC_URL"] or "").startswith("https:"):
        return [
            warning(
                "proxies",
                "PUBLIC_URL is https, so a proxy is in front, and with TRUSTED_PROXIES=0 all callers have "
                "its address: failed authentications of one count for all.",
                "Set TRUSTED_PROXIES to the number of proxies in front, and let only them reach the service.",
            )
        ]
    return [ok("proxies", f"TRUSTED_PROXIES={hops}.")]


def framed_only(settings: Settings) -> list[Finding]:
    """Return whether a page outside any frame is served."""
    if settings["EMBED_FRAMED_ONLY"]:
        return [
            ok("frames", "EMBED_FRAMED_ONLY is on: outside a frame, an address is refused as not_framed.")
        ]
    return [
        warning(
            "frames",
            "EMBED_FRAMED_ONLY is off: whoever follows the address outside a frame opens the app too.",
            "Set EMBED_FRAMED_ONLY=on, unless somebody has to.",
        )
    ]


# ---- Limits ----


def limits(settings: Settings) -> list[Finding]:
    """Return which limits are too low for frames that do nothing wrong."""
    return [
        *_session_limit(settings["SESSION_RATE_LIMIT"]),
        _low(
            "OPEN_RATE_LIMIT",
            settings["OPEN_RATE_LIMIT"],
            FEW_OPENINGS,
            "frames of one token on one page, and their reloads, meet it",
        ),
        _low(
            "FAILURE_RATE_LIMIT",
            settings["FAILURE_RATE_LIMIT"],
            FEW_FAILURES,
            "a portal with a wrong secret is told 429 instead of why",
        ),
    ]


def _a_minute(limit: str) -> float:
    item = parse_limit(limit)
    return item.amount * 60 / item.get_expiry()


def _session_limit(limit: str | None) -> list[Finding]:
    name = "SESSION_RATE_LIMIT"
    if limit is None:
        return [ok("limits", f"{name} is off.")]
    change = f'Set {name}="{FEW_REQUESTS * 2} per minute", or leave it unset.'
    if _a_minute(limit) <= CHECKS:
        text = f"asks {CHECKS} times a minute by itself whether its session lasts, and has nothing left"
        return [problem("limits", f"{name} is {limit}: an open frame {text}.", change)]
    return [_low(name, limit, FEW_REQUESTS, "each page, part and datum of a frame is a request")]


def _low(name: str, limit: str, few: int, text: str) -> Finding:
    if _a_minute(limit) >= few:
        return ok("limits", f"{name} is {limit}.")
    return warning(
        "limits", f"{name} is {limit}, which is low: {text}.", f'Set {name}="{few * 2} per minute".'
    )


# ---- Who may mint ----


def minting(settings: Settings, keyring: Keyring, now: datetime, workspace: str, scope: str) -> list[Finding]:
    """Return which clients can mint for what is in the workspace with this slug, and their limits."""
    found = []
    for client in clients.list_clients(keyring, now):
        reaches = client.workspaces is None or workspace in client.workspaces
        if client.revoked_at is not None or scope not in client.scopes or not reaches:
            continue
        if not client.live_secrets:
            found.append(
                warning(
                    "clients",
                    f"Client {client.id} has no secret that is good.",
                    f"flask --app app client rotate {client.id}",
                )
            )
            continue
        limit = client.mint_limit or settings["MINT_RATE_LIMIT"]
        if _a_minute(limit) >= FEW_MINTS:
            found.append(ok("clients", f"Client {client.id} may mint {limit}."))
        else:
            found.append(
                warning(
                    "clients",
                    f"Client {client.id} may mint {limit}, which is low: each viewer's frame is a mint.",
                    f'flask --app app client limit {client.id} "{FEW_MINTS * 10} per minute"; or mint_limit '
                    "in the file that provision reads, beside the client's workspaces and scopes.",
                )
            )
    if found:
        return found
    command = f"flask --app app client create my-portal --workspace {workspace} --scope {scope}"
    return [problem("clients", f"No client can mint for workspace {workspace}.", command)]


# ---- Keys and clocks ----


def keys(keyring: Keyring, now: datetime) -> list[Finding]:
    """Return what lives under keys that this installation does not have."""
    uses = key_usage.key_uses(keyring, now)
    lost = [use for use in uses if use.place is None]
    if not lost:
        return [ok("SECRET_KEY", "All that lives hangs on a key that is here.")]
    # Then no portal can mint; what is lost of tokens and sessions alone ends by itself.
    level = problem if key_usage.all_secrets_lost(uses) else warning
    return [
        level(
            "SECRET_KEY",
            f"{use.tokens} token(s), {use.client_secrets} client secret(s) and {use.sessions} session(s) "
            f"hang on the key {use.key_id}, which is not here: they are refused as invalid.",
            "Put that key into SECRET_KEY_FALLBACKS, if this command and the server have the same settings.",
        )
        for use in lost
    ]


def database_clock() -> timedelta | None:
    """Return by how much the database's clock is before this machine's; None where it is the same one."""
    with reading() as connection:
        if connection.dialect.name != "postgresql":
            return None
        begun = datetime.now(UTC)
        told: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return told - (begun + (datetime.now(UTC) - begun) / 2)


def clock(apart: timedelta | None, whose: str) -> list[Finding]:
    """Return whether another clock, which is so much before this machine's, is near enough."""
    if apart is None:
        return []
    seconds = abs(apart).total_seconds()
    if abs(apart) <= MOST_APART:
        return [ok("clock", f"The clock of {whose} and this machine's are {seconds:.0f} s apart.")]
    which = "ahead of" if apart > timedelta(0) else "behind"
    return [
        problem(
            "clock",
            f"The clock of {whose} is {seconds:.0f} s {which} this machine's: at more than "
            f"{MOST_APART.seconds} s sessions are refused before they begin, and tokens end early or late.",
            "Keep both by NTP: see `timedatectl status`.",
        )
    ]
