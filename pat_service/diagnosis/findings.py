"""Findings of the doctor: a line that says what is wrong, and a line that says what to change."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Final

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"

#: The settings, by their names in docs/operate/configuration.md.
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """`about` is the part of the installation. `change` says what to do; None if all is well."""

    level: str
    about: str
    text: str
    change: str | None = None


def ok(about: str, text: str) -> Finding:
    return Finding(OK, about, text)


def warning(about: str, text: str, change: str) -> Finding:
    """Return a finding that affects some viewers, or only later."""
    return Finding(WARNING, about, text, change)


def problem(about: str, text: str, change: str) -> Finding:
    """Return a finding that keeps a frame blank or unsafe."""
    return Finding(PROBLEM, about, text, change)


def at_most_warning(finding: Finding) -> Finding:
    """Return the finding with a problem lowered to a warning."""
    return replace(finding, level=WARNING) if finding.level == PROBLEM else finding


def is_loopback(host: str | None) -> bool:
    """Tell whether a browser takes the host for its own machine."""
    host = (host or "").strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
