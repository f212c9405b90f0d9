"""Upkeep: what hangs on which key, and cleaning up."""

from datetime import UTC, datetime, timedelta
from typing import Final

import click
from flask import current_app
from flask.cli import with_appcontext

from pat_service.cli.common import plain_errors
from pat_service.http.authentication import keyring
from pat_service.http.public_url import has_app_origins
from pat_service.rules import key_usage, retention
from pat_service.rules.directory import apps
from pat_service.rules.key_usage import KeyUse
from pat_service.storage.readiness import Finding

_STRANGE: Final = (
    "No client's secret hangs on a key that is here: SECRET_KEY is not the one of this database. "
    "Set that one, or add it to SECRET_KEY_FALLBACKS"
)


@click.command()
@click.option("--deploy", is_flag=True, help="Also what gunicorn wants, and development does without.")
@with_appcontext
def check(deploy: bool) -> None:
    """Say what would keep the service from starting or serving, and what hangs on which SECRET_KEY.

    Exit with 1 where something would. An old key can go as soon as nothing hangs on it.
    """
    found: list[Finding] = current_app.extensions["pat_service.findings"](deploy=deploy)
    for finding in found:
        click.echo(f"pat-service: {finding.text}", err=True)
    if found:
        raise SystemExit(1)
    with plain_errors():
        uses = key_usage.key_uses(keyring(), datetime.now(UTC))
        unfit = apps.unfit_slugs() if has_app_origins() else []
    for use in uses:
        click.echo(f"{_name(use)} {use.key_id}: {_verdict(use)}")
    if strange := key_usage.all_secrets_lost(uses):
        click.echo(f"pat-service: {_STRANGE}", err=True)
    for slug in unfit:
        click.echo(f"App {slug}: cannot open, since its slug cannot be the first part of its host")
    if strange:
        raise SystemExit(1)


def _name(use: KeyUse) -> str:
    if use.place is None:
        return "Key that is not here"
    return f"Fallback key {use.place}" if use.place else "Current key"


def _verdict(use: KeyUse) -> str:
    if use.place == 0:
        return _what(use)
    if use.place is None:
        return f"{_what(use)} are dead; they work again with it among SECRET_KEY_FALLBACKS"
    if use.idle:
        return "nothing hangs on it: it can go, unless it is the next one"
    return f"in use: {_what(use)}"


def _what(use: KeyUse) -> str:
    return f"{use.tokens} token(s), {use.client_secrets} client secret(s), {use.sessions} session(s)"


@click.command()
@with_appcontext
def purge() -> None:
    """Delete tokens and sessions that expired over RETAIN_DAYS ago, in small batches beside traffic."""
    event_days = current_app.config["RETAIN_EVENT_DAYS"]
    with plain_errors():
        done = retention.purge(
            datetime.now(UTC),
            timedelta(days=current_app.config["RETAIN_DAYS"]),
            None if event_days is None else timedelta(days=event_days),
        )
    click.echo(f"Deleted {done.tokens} token(s), {done.sessions} session(s), {done.events} event(s).")
