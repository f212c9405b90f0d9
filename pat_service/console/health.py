"""The health page: whether the service can serve, its keys, limits and settings."""

from typing import Any, Final

from flask import Response, current_app

from pat_service.console.blueprint import OWNERS, allow, blueprint
from pat_service.console.forms import read_text
from pat_service.console.pages import render
from pat_service.diagnosis import installation
from pat_service.findings import OK, PROBLEM, WARNING
from pat_service.http.authentication import keyring, utcnow
from pat_service.observability.health import read_states
from pat_service.rules import key_usage
from pat_service.rules.key_usage import KeyUse
from pat_service.storage.database import db

#: The page counts up to this many live tokens by itself, and as many sessions. More takes a click.
MAX_COUNTED: Final = 10_000
#: What needs attention comes first.
_LEVELS: Final = (PROBLEM, WARNING, OK)


@blueprint.get("/health")
@allow(*OWNERS)
def health() -> Response:
    """Show the state of the service."""
    settings, now = current_app.config, utcnow()
    if read_text("keys") == "all":
        uses: list[KeyUse] | None = key_usage.key_uses(keyring(), now)
    else:
        uses = key_usage.few_key_uses(keyring(), now, MAX_COUNTED)
    findings = [
        *installation.check_public_url(settings, None, ()),
        *installation.check_proxies(settings),
        *installation.check_framed_only(settings),
        *installation.check_limits(settings),
        *([] if uses is None else installation.check_keys(uses)),
        *installation.check_clock(installation.database_clock(), "the database"),
    ]
    return render(
        "health.html",
        states=read_states(),
        findings=sorted(findings, key=lambda finding: _LEVELS.index(finding.level)),
        uses=uses,
        most=MAX_COUNTED,
        settings={name: _shown(settings[name]) for name in _setting_names()},
        database=db.engine.dialect.name,
    )


def _setting_names() -> tuple[str, ...]:
    names: tuple[str, ...] = current_app.extensions["pat_service.console_settings"]
    return names


def _shown(value: Any) -> str:
    """Return a setting as an operator would write it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)
