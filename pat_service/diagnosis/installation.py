"""Checks of the installation: address, proxies, limits, clients, keys and clock."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import func, select

from pat_service.credentials import Keyring
from pat_service.diagnosis.origins import Parent
from pat_service.findings import Finding, ok, problem, warning
from pat_service.rules import clients, key_usage
from pat_service.rules.key_usage import KeyUse
from pat_service.shapes import is_dns_label, is_loopback, parse_limit
from pat_service.storage.database import reading

#: The settings, by their names in docs/operate/configuration.md.
Settings = Mapping[str, Any]
#: With a larger difference, tokens and sessions end at another time than their expiry says.
MAX_CLOCK_DIFFERENCE: Final = timedelta(seconds=5)
#: An open frame checks its session this often.
CHECKS_PER_MINUTE: Final = 3
#: Lower limits refuse a page with a few frames, or a portal with a few viewers.
LOW_REQUESTS_PER_MINUTE: Final = 30
LOW_OPENINGS_PER_MINUTE: Final = 20
LOW_MINTS_PER_MINUTE: Final = 60
LOW_USER_MINTS_PER_MINUTE: Final = 5
LOW_FAILURES_PER_MINUTE: Final = 5


# ---- Its address ----


def check_public_url(settings: Settings, slug: str | None, parents: Sequence[Parent]) -> list[Finding]:
    """Check PUBLIC_URL without a request. `slug`: the app's, if the frame shows one."""
    part = "PUBLIC_URL"
    public_url: str | None = settings["PUBLIC_URL"]
    remote = [parent.origin for parent in parents if not parent.is_local]
    if public_url is None:
        text = "PUBLIC_URL is unset, so frames have the address of a development server on this machine."
        change = "Set PUBLIC_URL to the address that viewers reach, such as https://embed.example."
        return [(problem if remote else warning)(part, text, change)]
    found = []
    url = urlsplit(public_url)
    local = is_loopback(url.hostname or "")
    if remote and local:
        found.append(
            problem(
                part,
                f"{public_url} is each viewer's own machine, but {', '.join(map(str, remote))} is not on it.",
                "Set PUBLIC_URL to the address that viewers reach, such as https://embed.example.",
            )
        )
    if url.scheme == "http" and any(parent.parts.scheme == "https" for parent in parents):
        text = "A page on https embeds a service on http. This is mixed content"
        if local:
            found.append(
                warning(
                    part, f"{text}, which Safari blocks even on loopback.", "Use https, or another browser."
                )
            )
        else:
            found.append(problem(part, f"{text}, which browsers block.", "Serve PUBLIC_URL by https."))
    if "{app}." in public_url and slug is not None and not is_dns_label(slug):
        found.append(
            problem(
                part,
                f"{slug} cannot be the first part of the app's host, so the app has no address.",
                "Give the app a slug of a-z, 0-9 and inner dashes: "
                f"flask --app app app change {slug} --slug NEW-SLUG",
            )
        )
    return found or [ok(part, f"Frames have the address {public_url}.")]


def check_proxies(settings: Settings) -> list[Finding]:
    """Check that a proxy is trusted if the address is https, since the service itself speaks no TLS."""
    hops = settings["TRUSTED_PROXIES"]
    if not hops and (settings["PUBLIC_URL"] or "").startswith("https:"):
        return [
            warning(
                "proxies",
                "PUBLIC_URL is https, so a proxy is in front. With TRUSTED_PROXIES=0 all callers share the "
                "proxy's address, and FAILURE_RATE_LIMIT counts them together.",
                "Set TRUSTED_PROXIES to the number of proxies in front, and let only them reach the service.",
            )
        ]
    return [ok("proxies", f"TRUSTED_PROXIES={hops}.")]


def check_framed_only(settings: Settings) -> list[Finding]:
    """Check whether the service serves apps outside frames."""
    if settings["EMBED_FRAMED_ONLY"]:
        return [ok("frames", "EMBED_FRAMED_ONLY is on: apps open only in frames.")]
    return [
        warning(
            "frames",
            "EMBED_FRAMED_ONLY is off: apps also open outside frames.",
            "Set EMBED_FRAMED_ONLY=on, unless viewers need that.",
        )
    ]


# ---- Limits ----


def check_limits(settings: Settings) -> list[Finding]:
    """Check whether a limit is too low for ordinary frames."""
    return [
        *_check_session_limit(settings["SESSION_RATE_LIMIT"]),
        _check_limit(
            "OPEN_RATE_LIMIT",
            settings["OPEN_RATE_LIMIT"],
            LOW_OPENINGS_PER_MINUTE,
            "several frames of one token on a page, and their reloads, can exceed it",
        ),
        _check_limit(
            "USER_MINT_RATE_LIMIT",
            settings["USER_MINT_RATE_LIMIT"],
            LOW_USER_MINTS_PER_MINUTE,
            "each frame of a page needs a mint for its viewer",
        ),
        _check_limit(
            "FAILURE_RATE_LIMIT",
            settings["FAILURE_RATE_LIMIT"],
            LOW_FAILURES_PER_MINUTE,
            "a portal with a wrong secret gets 429 instead of the reason",
        ),
    ]


def _per_minute(limit: str) -> float:
    item = parse_limit(limit)
    return item.amount * 60 / item.get_expiry()


def _check_session_limit(limit: str | None) -> list[Finding]:
    name = "SESSION_RATE_LIMIT"
    if limit is None:
        return [ok("limits", f"{name} is off.")]
    change = f'Set {name}="{LOW_REQUESTS_PER_MINUTE * 2} per minute", or leave it unset.'
    if _per_minute(limit) <= CHECKS_PER_MINUTE:
        text = f"an open frame needs {CHECKS_PER_MINUTE} requests per minute to check its session"
        return [problem("limits", f"{name} is {limit}: {text}.", change)]
    return [
        _check_limit(
            name, limit, LOW_REQUESTS_PER_MINUTE, "each page, fragment and data call of a frame is a request"
        )
    ]


def _check_limit(name: str, limit: str, low: int, text: str) -> Finding:
    if _per_minute(limit) >= low:
        return ok("limits", f"{name} is {limit}.")
    return warning(
        "limits", f"{name} is {limit}, which is low: {text}.", f'Set {name}="{low * 2} per minute".'
    )


# ---- Clients ----


def check_clients(
    settings: Settings, keyring: Keyring, now: datetime, workspace: str, scope: str
) -> list[Finding]:
    """Check which clients can mint in the workspace with this slug, and their limits."""
    found = []
    for client in clients.list_clients(keyring, now):
        reaches = client.workspaces is None or workspace in client.workspaces
        if client.revoked_at is not None or scope not in client.scopes or not reaches:
            continue
        if not client.live_secrets:
            found.append(
                warning(
                    "clients",
                    f"Client {client.id} has no valid secret.",
                    f"flask --app app client rotate {client.id}",
                )
            )
            continue
        limit = client.mint_limit or settings["MINT_RATE_LIMIT"]
        if _per_minute(limit) >= LOW_MINTS_PER_MINUTE:
            found.append(ok("clients", f"Client {client.id} may mint {limit}."))
        else:
            found.append(
                warning(
                    "clients",
                    f"Client {client.id} may mint {limit}, which is low: each viewer's frame needs a mint.",
                    f'flask --app app client limit {client.id} "{LOW_MINTS_PER_MINUTE * 10} per minute"; or '
                    "mint_limit of the client in the file that provision reads.",
                )
            )
    if found:
        return found
    command = f"flask --app app client create my-portal --workspace {workspace} --scope {scope}"
    return [problem("clients", f"No client can mint for workspace {workspace}.", command)]


# ---- Keys and clocks ----


def check_keys(uses: Sequence[KeyUse]) -> list[Finding]:
    """Check that every live token, secret and session uses a configured key."""
    lost = [use for use in uses if use.place is None]
    if not lost:
        return [ok("SECRET_KEY", "Every live token, secret and session uses a configured key.")]
    # Without client secrets no portal can mint. Lost tokens and sessions only end early.
    level = problem if key_usage.all_secrets_lost(uses) else warning
    return [
        level(
            "SECRET_KEY",
            f"{use.tokens} token(s), {use.client_secrets} client secret(s) and {use.sessions} session(s) "
            f"use the key {use.key_id}, which is not configured: they are invalid.",
            "Add that key to SECRET_KEY_FALLBACKS, or give this command the server's settings.",
        )
        for use in lost
    ]


def database_clock() -> timedelta | None:
    """Return how far the database's clock is ahead of this machine's; None for SQLite."""
    with reading() as connection:
        if connection.dialect.name != "postgresql":
            return None
        sent = datetime.now(UTC)
        its_time: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return its_time - (sent + (datetime.now(UTC) - sent) / 2)


def check_clock(ahead: timedelta | None, name: str) -> list[Finding]:
    """Check that another clock is close enough. `ahead`: how far it is ahead of this machine's."""
    if ahead is None:
        return []
    seconds = abs(ahead).total_seconds()
    if abs(ahead) <= MAX_CLOCK_DIFFERENCE:
        return [ok("clock", f"The clocks of {name} and of this machine differ by {seconds:.0f} s.")]
    direction = "ahead of" if ahead > timedelta(0) else "behind"
    return [
        problem(
            "clock",
            f"The clock of {name} is {seconds:.0f} s {direction} this machine's. Beyond "
            f"{MAX_CLOCK_DIFFERENCE.seconds} s, tokens and sessions end early or late.",
            "Synchronise both clocks with NTP: see `timedatectl status`.",
        )
    ]
