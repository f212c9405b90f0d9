"""Commands that print the version, check the installation and its keys, and delete expired rows."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import click
from flask import current_app
from flask.cli import with_appcontext

from pat_service import __version__
from pat_service.app_folders import list_writable_by_all
from pat_service.cli.common import first_page, plain_errors, show
from pat_service.diagnosis.upstreams import COLD_LOAD_REQUESTS, NEEDS_PROXY, is_limit_low
from pat_service.embed import FORM_LIMIT_BYTES, Registry
from pat_service.embed.app_limits import AppLimits
from pat_service.findings import PROBLEM, Finding
from pat_service.http.authentication import keyring
from pat_service.http.public_url import has_app_origins
from pat_service.rules import key_usage, retention, usage
from pat_service.rules.directory import apps, emails, slugs, upstreams, users
from pat_service.rules.directory.emails import UnreachableUser
from pat_service.rules.key_usage import KeyUse
from pat_service.shapes import is_dns_label
from pat_service.storage import readiness
from pat_service.storage.database import db

_WRONG_KEY: Final = (
    "No client secret uses a configured key, so SECRET_KEY is not the key of this database. "
    "Set that key, or add it to SECRET_KEY_FALLBACKS"
)


_HOMELESS: Final = (
    "only clients of all workspaces can change their names. flask --app app user home EMAIL SLUG gives a home"
)


@click.command()
def version() -> None:
    """Print the version of the service."""
    show(f"pat-service {__version__}")


@click.command()
@click.option("--deploy", is_flag=True, help="Also check the settings that only a deployment needs.")
@with_appcontext
def check(deploy: bool) -> None:
    """Check whether the service can start and serve.

    Exit with 1 if it cannot, or if an app is disabled or has a broken template. Other lines are warnings.
    Show also which SECRET_KEY is in use: you can remove an old key that is not.
    """
    findings: list[Finding] = current_app.extensions["pat_service.findings"](deploy=deploy)
    for finding in findings:
        show(f"pat-service: {finding.text}", err=True)
    registry: Registry = current_app.extensions["pat_service.registry"]
    of_apps = registry.list_findings(current_app.jinja_env)
    for finding in of_apps:
        show(f"pat-service: {finding.text}", err=True)
    for folder in list_writable_by_all(current_app.config["APPS_PATH"]):
        show(f"pat-service: every user of this machine can change {folder}, and so run code here", err=True)
    if findings:
        raise SystemExit(1)
    with plain_errors():
        pooler = readiness.describe_pooler(db.engine)
        uses = key_usage.key_uses(keyring(), datetime.now(UTC))
        templates = apps.list_templates()
        upstream_apps = apps.list_upstreams()
        homeless = users.count_homeless()
        unreachable = emails.list_unreachable()
        gone = readiness.list_gone_revisions(db.engine, current_app.extensions["pat_service.migrations"])
    if pooler:
        show(pooler)
    for use in uses:
        show(f"{_name(use)} {use.key_id}: {_verdict(use)}")
    if wrong_key := key_usage.all_secrets_lost(uses):
        show(f"pat-service: {_WRONG_KEY}", err=True)
    for slug, template in templates.items():
        if not registry.has_first_page(template):
            show(f"App {slug} has nothing to show: there is no {first_page(template)}")
        if has_app_origins() and not is_dns_label(slug):
            show(f"App {slug} cannot open: its slug cannot be the first part of its host")
        elif refusal := slugs.explain_refusal(slug, app_hosts=has_app_origins(), by_operator=False):
            show(
                f"App {slug} keeps its slug until it is renamed. No client could give the slug now: {refusal}"
            )
    lacks_hosts = bool(upstream_apps) and not has_app_origins()
    if lacks_hosts:
        show(
            f"pat-service: {', '.join(upstream_apps)} cannot open: an upstream {upstreams.NEEDS_HOSTS}",
            err=True,
        )
    unheard = bool(upstream_apps) and not current_app.config["TRUSTED_PROXIES"]
    if unheard:
        show(f"pat-service: {', '.join(upstream_apps)} cannot open: {NEEDS_PROXY}", err=True)
    if upstream_apps and is_limit_low(current_app.config):
        show(
            f"SESSION_RATE_LIMIT is lower than {COLD_LOAD_REQUESTS} requests, which the first page of "
            f"{', '.join(upstream_apps)} may need"
        )
    for line in _describe_declared(current_app.extensions["pat_service.registry"].limits()):
        show(line)
    for revision in gone:
        show(f"Migration {revision} belongs to no app of this installation. Its tables stay as they are")
    for user in unreachable:
        show(_describe_unreachable(user))
    if homeless:
        show(f"{homeless} user(s) have no home workspace: {_HOMELESS}")
    if wrong_key or lacks_hosts or unheard or any(finding.level == PROBLEM for finding in of_apps):
        raise SystemExit(1)


def _describe_declared(limits: Mapping[str, AppLimits]) -> Iterator[str]:
    """Yield what the operator must know about the limits that apps declare."""
    wider = [f"{name} ({each.summary})" for name, each in limits.items() if each.summary]
    if wider and not has_app_origins():
        yield (
            f"All apps share one origin, so each app can use what another declares: {', '.join(wider)}. "
            "With {app} in PUBLIC_URL each app has its own"
        )
    largest = max(limits, key=lambda name: limits[name].upload_bytes, default=None)
    if largest is not None and (size := limits[largest].upload_bytes) > FORM_LIMIT_BYTES:
        megabytes = size // 1024**2
        needed = megabytes + 1
        yield (
            f"App {largest} takes uploads of {megabytes} MB, so the proxy must take {needed} MB: "
            f"client_max_body_size {needed}m in nginx, max_size and request_buffers {needed}MiB in Caddy"
        )


def _describe_unreachable(user: UnreachableUser) -> str:
    other = "" if user.other_id is None else f", and {user.other_email} is user {user.other_id}"
    return (
        f"User {user.id} has the email {user.email}, which no request can name{other}; "
        f"flask --app app user email {user.id} NEW-EMAIL changes it"
    )


def _name(use: KeyUse) -> str:
    if use.place is None:
        return "Unknown key"
    return f"Fallback key {use.place}" if use.place else "Current key"


def _verdict(use: KeyUse) -> str:
    if use.place == 0:
        return _count(use)
    if use.place is None:
        return f"{_count(use)} are dead; add the key to SECRET_KEY_FALLBACKS to revive them, unless it leaked"
    if use.idle:
        return "not in use: you can remove it, unless you added it for a rotation"
    return f"in use: {_count(use)}"


def _count(use: KeyUse) -> str:
    return f"{use.tokens} token(s), {use.client_secrets} client secret(s), {use.sessions} session(s)"


@click.command()
@with_appcontext
def purge() -> None:
    """Delete expired tokens and sessions, and old events.

    Tokens and sessions go RETAIN_DAYS after their expiry, and events after RETAIN_EVENT_DAYS. This works in
    small batches, and can run while the service is running.
    """
    event_days = current_app.config["RETAIN_EVENT_DAYS"]
    with plain_errors():
        deleted = retention.purge(
            datetime.now(UTC),
            timedelta(days=current_app.config["RETAIN_DAYS"]),
            None if event_days is None else timedelta(days=event_days),
        )
    show(f"Deleted {deleted.tokens} token(s), {deleted.sessions} session(s), {deleted.events} event(s).")


@click.command("count-usage")
@with_appcontext
def count_usage() -> None:
    """Count the hours that have ended, for the console's overview.

    The overview counts a few hours itself whenever it is open. This counts all of them.
    """
    with plain_errors():
        now = datetime.now(UTC)
        hours = len(usage.list_uncounted(now))
        usage.count_hours(now)
    show(f"Counted {hours} hour(s).")
