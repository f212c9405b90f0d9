"""The doctor as a form: why a frame stays blank or refuses. The findings are those of the command."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Final

from flask import Response, current_app
from marshmallow import ValidationError

from pat_service.console.blueprint import OWNERS, allow, blueprint
from pat_service.console.forms import read_email, read_text
from pat_service.console.pages import render
from pat_service.diagnosis.origins import Parent, parse_parent
from pat_service.errors import AppNotFound, InvalidPayload, RateLimited, Refused, WorkspaceNotFound
from pat_service.findings import OK, PROBLEM, WARNING, Finding, warning

#: No further check starts after this time. A check makes a few requests of at most 5 s each.
MAX_SECONDS: Final = 15.0
MAX_PARENTS: Final = 5
RETRY_SECONDS: Final = 5
#: What needs attention comes first.
LEVELS: Final = (PROBLEM, WARNING, OK)
FIELDS: Final = ("app", "workspace", "parents", "email")

Examine = Callable[..., Iterator[Finding]]

#: One examination in each worker, so that waiting for the network cannot occupy its threads.
_running: Final = Lock()


@blueprint.get("/health/doctor")
@allow(*OWNERS)
def doctor() -> Response:
    """Show the form. The address can fill it in."""
    return _show({name: read_text(name) for name in FIELDS})


@blueprint.post("/health/doctor")
@allow(*OWNERS)
def examine() -> Response:
    """Show what the doctor finds. Its requests go to the service's own address and to the app's alone."""
    form = {name: read_text(name) for name in FIELDS}
    try:
        parents = _parse_parents(form["parents"])
        email = read_email("email") if form["email"] else None
        found = _collect(form["app"] or None, form["workspace"] or None, parents, email)
    except (AppNotFound, InvalidPayload, RateLimited, WorkspaceNotFound) as refusal:
        return _show(form, refusal.status, refusal=refusal)
    found.sort(key=lambda finding: LEVELS.index(finding.level))
    return _show(form, findings=found, counts=Counter(finding.level for finding in found))


def _show(
    form: dict[str, str],
    status: int = 200,
    *,
    refusal: Refused | None = None,
    findings: list[Finding] | None = None,
    counts: Counter[str] | None = None,
) -> Response:
    return render("doctor.html", status, form=form, refusal=refusal, findings=findings, counts=counts)


def _parse_parents(text: str) -> list[Parent]:
    """Return the pages around the frame, from the innermost on, which spaces or commas separate."""
    written = text.replace(",", " ").split()
    if len(written) > MAX_PARENTS:
        raise InvalidPayload({"parents": [f"Name at most {MAX_PARENTS} pages."]})
    try:
        return [parse_parent(one) for one in written]
    except ValidationError as error:
        raise InvalidPayload({"parents": [str(error.messages[0])]}) from None


def _collect(
    app: str | None, workspace: str | None, parents: list[Parent], email: str | None
) -> list[Finding]:
    """Return the findings within `MAX_SECONDS` and the time of one check."""
    run: Examine = current_app.extensions["pat_service.examine"]
    if not _running.acquire(blocking=False):
        raise RateLimited(RETRY_SECONDS, "examinations at once")
    try:
        found: list[Finding] = []
        end = time.monotonic() + MAX_SECONDS
        for finding in run(app, workspace, parents, email, uploads=False):
            found.append(finding)
            if time.monotonic() > end:
                text = f"The checks took over {MAX_SECONDS:.0f} s, so some are missing."
                found.append(warning("time", text, "Run all of them: flask --app app doctor"))
                break
        return found
    finally:
        _running.release()
