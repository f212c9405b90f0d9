"""The command that explains why a frame stays blank or refuses, and how to fix it."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from shlex import quote
from typing import Final

import click
from flask import current_app
from flask.cli import with_appcontext
from marshmallow import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from pat_service.cli.common import clip, find, first_page
from pat_service.diagnosis import (
    gateway_check,
    http_check,
    installation,
    networks,
    origins,
    people,
    upstreams,
)
from pat_service.diagnosis.origins import Parent, Target
from pat_service.embed import FORM_LIMIT_BYTES, Registry
from pat_service.embed.answers import APPS, HANDOVER, LAUNCHERS
from pat_service.errors import AppNotFound, Refused, UserNotFound, WorkspaceNotFound
from pat_service.findings import OK, PROBLEM, WARNING, Finding, ok, problem
from pat_service.http import probe
from pat_service.http.authentication import keyring
from pat_service.http.public_url import app_url, has_app_origins, public_url
from pat_service.rules import key_usage
from pat_service.rules.callers import MINT, MINT_WORKSPACE, OPERATOR
from pat_service.rules.directory import workspaces
from pat_service.shapes import check_email, check_slug, is_dns_label, visible
from pat_service.storage.readiness import START_DATABASE

#: In the order of the output.
LEVELS: Final = (PROBLEM, WARNING, OK)
COLOURS: Final = {OK: "green", WARNING: "yellow", PROBLEM: "red"}
#: No resource has this id. The 404 has the same headers as every answer.
NO_ID: Final = "00000000-0000-0000-0000-000000000000"


class _WrongArgument(click.ClickException):
    """An argument is malformed or names something that does not exist."""

    exit_code = 2


@click.command()
@click.option("--app", "app_slug", metavar="SLUG", help="The app in the frame.")
@click.option(
    "--workspace", "workspace_slug", metavar="SLUG", help="Or the workspace of the launcher in the frame."
)
@click.option(
    "--parent",
    "parents",
    multiple=True,
    metavar="ORIGIN",
    help="The page around the frame. Repeat the option for each page further out, up to the top.",
)
@click.option("--email", metavar="EMAIL", help="The user who views it.")
@click.option("--offline", is_flag=True, help="Send no HTTP request to PUBLIC_URL.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_appcontext
def doctor(
    app_slug: str | None,
    workspace_slug: str | None,
    parents: tuple[str, ...],
    email: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Explain why a frame stays blank or refuses, and how to fix it. It writes nothing and shows no token.

    Exit with 1 for a problem, with 2 if an argument names something that does not exist.
    """
    around = [_parse_parent(text) for text in parents]
    for check, text, name in (
        (check_slug, app_slug, "--app"),
        (check_slug, workspace_slug, "--workspace"),
        (check_email, email, "--email"),
    ):
        if text is not None:
            _check_argument(check, text, name)
    try:
        found = sorted(examine(app_slug, workspace_slug, around, email, offline=offline), key=_rank)
    except (AppNotFound, WorkspaceNotFound) as refusal:
        raise _WrongArgument(clip(refusal.detail)) from None
    (_print_json if as_json else _print_lines)(found)
    if any(finding.level == PROBLEM for finding in found):
        raise SystemExit(1)


def _rank(finding: Finding) -> int:
    return LEVELS.index(finding.level)


def _parse_parent(text: str) -> Parent:
    try:
        return origins.parse_parent(text)
    except ValidationError as error:
        raise _WrongArgument(f"--parent {clip(text)}: {error.messages[0]}") from None


def _check_argument(check: Callable[[str], object], text: str, name: str) -> None:
    try:
        check(text)
    except ValidationError as error:
        raise _WrongArgument(f"{name} {clip(text)}: {error.messages[0]}") from None


# ---- Checks ----


def examine(
    app_slug: str | None,
    workspace_slug: str | None,
    parents: list[Parent],
    email: str | None,
    *,
    offline: bool = False,
    uploads: bool = True,
) -> Iterator[Finding]:
    """Yield all findings. Raise AppNotFound or WorkspaceNotFound before the first one.

    `uploads`: also send a body as large as the app accepts. It can take a minute.
    """
    settings = current_app.config
    stores = list(_check_stores())
    target, in_database = None, list[Finding]()
    if not any(finding.part == "database" for finding in stores):
        try:
            target = _target(app_slug, workspace_slug)
            in_database.extend(_check_database(target, workspace_slug, parents, email))
        except (AppNotFound, WorkspaceNotFound):
            raise
        except (SQLAlchemyError, Refused):
            stores.append(problem("database", "The database failed during the checks.", START_DATABASE))
    slug = target.slug if target is not None and target.kind == "app" else None
    yield from stores
    yield from installation.check_public_url(settings, slug, parents)
    yield from origins.check_nesting(parents)
    yield from installation.check_proxies(settings)
    yield from installation.check_framed_only(settings)
    yield from installation.check_limits(settings)
    yield from _check_apps(target)
    if target is not None and target.upstream is not None:
        yield from upstreams.check_settings(settings, target.own_url)
    yield from in_database
    if offline:
        yield ok("address", "No HTTP request was sent to PUBLIC_URL, because of --offline.")
    elif settings["PUBLIC_URL"] is None:
        yield ok("address", "No HTTP request was sent, because PUBLIC_URL is unset.")
    elif target is not None and target.upstream is not None:
        if has_app_origins():
            yield from _check_upstream(target, target.upstream, parents)
    elif slug is None or not has_app_origins() or is_dns_label(slug):
        yield from networks.check_networks(public_url(), parents)
        yield from _check_address(target, uploads=uploads)


def _check_stores() -> Iterator[Finding]:
    """Yield problems of the stores, the schema and the workers."""
    findings: list[Finding] = current_app.extensions["pat_service.findings"]()
    yield from map(_as_sentence, findings)
    if not findings:
        yield ok("stores", "The database, its schema and the store of the limits are ready.")


def _check_apps(target: Target | None) -> Iterator[Finding]:
    """Yield findings about the module and templates of the app in the frame, or else of all apps."""
    registry: Registry = current_app.extensions["pat_service.registry"]
    template = None if target is None else target.template
    yield from map(_as_sentence, registry.list_findings(current_app.jinja_env, template))


def _as_sentence(finding: Finding) -> Finding:
    return replace(finding, text=f"{finding.text[0].upper()}{finding.text[1:]}.")


def _target(app_slug: str | None, workspace_slug: str | None) -> Target | None:
    """Return the app in the frame, or else the workspace."""
    target = None
    if workspace_slug is not None:
        workspace = find("workspace", workspace_slug)
        target = Target("workspace", workspace.id, workspace.slug, workspace.allowed_origins, workspace.slug)
    if app_slug is not None:
        app = find("app", app_slug)
        home = workspaces.read(OPERATOR, app.workspace_id)
        template = None if app.upstream else app.template
        target = Target("app", app.id, app.slug, app.allowed_origins, home.slug, template)
        if app.upstream:
            start, own_url = app.start or "/", home.apps_url
            target = replace(target, upstream=app.upstream, start=start, own_url=own_url)
    return target


def _check_database(
    target: Target | None, workspace_slug: str | None, parents: list[Parent], email: str | None
) -> Iterator[Finding]:
    now = datetime.now(UTC)
    yield from installation.check_keys(key_usage.key_uses(keyring(), now))
    yield from installation.check_clock(installation.database_clock(), "the database")
    if target is not None:
        yield from _check_target(target, workspace_slug)
        yield from origins.check_origins(target, parents)
        scope = MINT if target.kind == "app" else MINT_WORKSPACE
        yield from installation.check_clients(current_app.config, keyring(), now, target.workspace, scope)
    elif parents:
        yield ok(origins.PART, "Add --app or --workspace to check whether these parents may frame it.")
    if email is not None:
        yield from _check_user(email, target, parents, now)


def _check_target(target: Target, workspace_slug: str | None) -> Iterator[Finding]:
    """Yield problems of the app's workspace and template."""
    if workspace_slug not in (None, target.workspace):
        yield problem(
            "access",
            f"{target} is in workspace {target.workspace}, not in {workspace_slug}: a move ends "
            "its tokens and sessions for good, and drops its grants.",
            f"Mint for {target.workspace}; or move it: "
            f"flask --app app app change {target.slug} --workspace {workspace_slug}",
        )
    registry: Registry = current_app.extensions["pat_service.registry"]
    if target.template is not None and not registry.has_first_page(target.template):
        text = f"{target} has nothing to show: there is no {first_page(target.template)}."
        yield problem("template", text, "Add the file, and restart the service.")


def _check_user(email: str, target: Target | None, parents: list[Parent], now: datetime) -> Iterator[Finding]:
    try:
        id_ = str(find("user", email).id)
    except UserNotFound:
        place = "" if target is None else f" --workspace {target.workspace}"
        yield problem(
            people.ACCESS,
            f"There is no user {email}.",
            f"flask --app app user create {quote(email)}{place}; "
            'or mint with "provision", which creates the user.',
        )
        return
    if target is None:
        yield ok(people.ACCESS, f"The user {email} exists. Add --app or --workspace to check their access.")
        return
    access = people.check_access(email, id_, target)
    yield from access
    admitted = all(finding.level == OK for finding in access)
    most = current_app.config["MAX_SESSIONS_PER_TOKEN"]
    yield from people.check_tokens(keyring(), id_, target, parents, now, most, admitted=admitted)


def _check_address(target: Target | None, *, uploads: bool) -> list[Finding]:
    """Return findings about the answer to a frame's first request, the empty page, and about uploads."""
    registry: Registry = current_app.extensions["pat_service.registry"]
    if target is not None and target.kind == "app":
        url, limits = app_url(target.slug), registry.limits_of(target.template or "")
        found = http_check.check_answer(
            url,
            f"{APPS}/{target.id}{HANDOVER}",
            target,
            own_host=has_app_origins(),
            is_isolated=limits.is_isolated,
        )
        answers = not any(each.level == PROBLEM for each in found)
        if uploads and answers and limits.upload_bytes > FORM_LIMIT_BYTES:
            found += http_check.check_upload(url, f"{APPS}/{target.id}/data/doctor", limits.upload_bytes)
        return found
    id_ = NO_ID if target is None else target.id
    return http_check.check_answer(
        public_url(),
        f"{LAUNCHERS}/{id_}{HANDOVER}",
        target,
        own_host=False,
        is_isolated=registry.launcher_limits(("'self'",)).is_isolated,
    )


def _check_upstream(target: Target, upstream: str, parents: list[Parent]) -> Iterator[Finding]:
    """Yield findings about the frame, the proxy and the app, at a viewer's host that belongs to no viewer."""
    keys = keyring()
    tag = keys.current.viewer_tag(target.id, NO_ID, None)
    url = app_url(target.slug, tag=tag, own_url=target.own_url)
    setting = "PUBLIC_URL" if target.own_url is None else "apps_url"
    yield from networks.check_networks(url, parents)
    frame = http_check.check_answer(
        url,
        f"{APPS}/{target.id}{HANDOVER}",
        target,
        own_host=True,
        is_isolated=False,
        setting=setting,
    )
    found = list[Finding]()
    if not any(each.level == PROBLEM and each.part == http_check.PART for each in frame):
        proof = probe.sign(keys, f"{target.slug}--{tag}", time.time())
        found += gateway_check.check_gateway(gateway_check.ViewerSite(url, proof, setting))
        found += upstreams.check_open_port(upstream, url)
    yield from [*frame, *found]
    is_reached = any(each.text == gateway_check.REACHED for each in found)
    yield from upstreams.check_upstream(upstream, target.start, url, is_reached=is_reached)
    yield from upstreams.check_cookies_of(parents, url)


# ---- Output ----


def _print_lines(found: list[Finding]) -> None:
    levels = max(len(finding.level) for finding in found)
    parts = max(len(finding.part) for finding in found)
    for finding in found:
        level = finding.level.ljust(levels)
        if not os.environ.get("NO_COLOR"):
            level = click.style(level, fg=COLOURS[finding.level])
        click.echo(f"{level}  {finding.part.ljust(parts)}  {visible(finding.text)}")
        if finding.change is not None:
            click.echo(f"{' ' * (levels + parts + 2)}→ {visible(finding.change)}")
    counts = Counter(finding.level for finding in found)
    click.echo(f"{counts[PROBLEM]} problem(s), {counts[WARNING]} warning(s).")


def _print_json(found: list[Finding]) -> None:
    fine = all(finding.level != PROBLEM for finding in found)
    findings = [
        {"level": finding.level, "about": finding.part, "text": finding.text, "change": finding.change}
        for finding in found
    ]
    click.echo(json.dumps({"ok": fine, "findings": findings}, indent=2))
