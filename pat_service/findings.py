"""Findings of the checks: one line says what is wrong, and one says what to change."""

from dataclasses import dataclass, replace
from typing import Final

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """`part` names a part of the installation. `change` says what to do, and is None if all is well.

    A `transient` finding does not prevent a start: the service answers 503 until the store is back.
    """

    level: str
    part: str
    text: str
    change: str | None = None
    transient: bool = False


def ok(part: str, text: str) -> Finding:
    return Finding(OK, part, text)


def warning(part: str, text: str, change: str) -> Finding:
    """Return a finding about something that affects only some viewers, or only later."""
    return Finding(WARNING, part, text, change)


def problem(part: str, text: str, change: str, *, transient: bool = False) -> Finding:
    """Return a finding about something that stops the service, or makes a frame blank or unsafe."""
    return Finding(PROBLEM, part, text, change, transient)


def at_most_warning(finding: Finding) -> Finding:
    """Return the finding, with a problem lowered to a warning."""
    return replace(finding, level=WARNING) if finding.level == PROBLEM else finding
