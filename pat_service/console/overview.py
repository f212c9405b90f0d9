"""The first page of the console: usage, what needs attention, and the steps to a first embed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flask import Response, current_app, g
from flask import request as http_request

from pat_service.console.apps import name_workspaces, read_id
from pat_service.console.blueprint import blueprint
from pat_service.console.pages import render
from pat_service.diagnosis import installation
from pat_service.errors import AppNotFound
from pat_service.findings import OK, Finding, problem, warning
from pat_service.http.authentication import keyring, utcnow
from pat_service.observability.health import read_states
from pat_service.rules import events, first_embed, usage
from pat_service.rules.directory import apps as apps_rules
from pat_service.rules.usage import Usage, UsageFilter
from pat_service.storage.paging import DEFAULT_LIMIT, MAX_LIMIT, PageRequest

#: Hours that one view of the page counts. The page asks again while hours are left.
HOURS_AT_ONCE: Final = 4
#: Apps that the table and the list of problems name.
SHOWN_APPS: Final = 8


@dataclass(frozen=True, slots=True)
class Period:
    """A period that the page can show, as bars of `step`."""

    label: str
    length: timedelta
    step: timedelta


PERIODS: Final[Mapping[str, Period]] = {
    "day": Period("24 hours", timedelta(hours=24), timedelta(hours=1)),
    "week": Period("7 days", timedelta(days=7), timedelta(hours=6)),
    "month": Period("30 days", timedelta(days=30), timedelta(days=1)),
}
#: What a chart draws, and the events that it counts.
SERIES: Final[Mapping[str, tuple[str, ...]]] = {
    "Mints": (events.TOKEN_MINTED,),
    "Opens": (events.SESSION_OPENED,),
    "Refusals": usage.REFUSALS,
}
#: Who was refused, by the type of the event.
REFUSED_AT: Final = {
    events.MINT_REFUSED: "mint",
    events.OPEN_REFUSED: "opening",
    events.SESSION_REFUSED: "open frame",
}


@blueprint.get("/")
def overview() -> Response:
    """Show usage, what needs attention, and the first steps."""
    now = utcnow()
    left = usage.count_hours(now, HOURS_AT_ONCE)
    name = http_request.args.get("period", "")
    period = PERIODS[name if name in PERIODS else "day"]
    chosen = {"app": read_id("app"), "workspace": read_id("workspace")}
    end = usage.last_hour(now) + usage.HOUR
    usage_filter = UsageFilter(end - period.length, chosen["app"] or None, chosen["workspace"] or None)
    counts = usage.read(g.caller, usage_filter)
    chart = _draw(counts, end, period)
    live = usage.count_live(g.caller, usage_filter, now, MAX_LIMIT + 1)
    progress = first_embed.read_progress(g.caller)
    return render(
        "overview.html",
        period=next(key for key, value in PERIODS.items() if value is period),
        period_options=[(key, value.label) for key, value in PERIODS.items()],
        here=http_request.full_path.removesuffix("?"),
        has_clients="console.clients" in current_app.view_functions,
        chosen=chosen,
        workspaces=name_workspaces(),
        apps=_list_apps(),
        totals={name: counts.total(*types) for name, types in SERIES.items()},
        live=f"{MAX_LIMIT}+" if live > MAX_LIMIT else str(live),
        chart=chart,
        times=[f"{datetime.fromtimestamp(start, UTC):%Y-%m-%d %H:%M}" for start in chart["starts"]],
        causes=sorted(counts.by_cause.items(), key=lambda item: -item[1]),
        refused_at=REFUSED_AT,
        by_app=_rank_apps(counts),
        counted_until=end,
        left=left,
        progress=None if progress.is_complete else progress,
        problems=_list_problems(now),
        unframed=first_embed.list_unframed(g.caller, SHOWN_APPS),
    )


def _list_apps() -> dict[str, str]:
    """Return the names of the first apps, by id."""
    return {
        row.id: row.name for row in apps_rules.list_apps(g.caller, PageRequest(limit=DEFAULT_LIMIT)).items
    }


def _draw(counts: Usage, end: datetime, period: Period) -> dict[str, Any]:
    """Return the bars of the chart: their starts in seconds since 1970, and the numbers of each series.

    Of live sessions the largest number counts.
    """
    bars = period.length // period.step
    starts = [end - period.length + place * period.step for place in range(bars)]
    drawn: dict[str, list[int]] = {name: [0] * bars for name in SERIES}
    live = [0] * bars
    for hour, by_type in counts.by_hour.items():
        place = (hour - starts[0]) // period.step
        for name, types in SERIES.items():
            drawn[name][place] += sum(by_type.get(type_, 0) for type_ in types)
        live[place] = max(live[place], by_type.get(usage.LIVE, 0))
    return {
        "starts": [int(start.timestamp()) for start in starts],
        "series": [{"name": name, "values": values} for name, values in (drawn | {"Live": live}).items()],
    }


def _rank_apps(counts: Usage) -> list[dict[str, Any]]:
    """Return the apps with the most events, each with a number for each series."""
    ranked = sorted(counts.by_app.items(), key=lambda item: -sum(item[1].values()))[:SHOWN_APPS]
    return [
        {"id": app_id, "name": _name_app(app_id)}
        | {name: sum(by_type.get(type_, 0) for type_ in types) for name, types in SERIES.items()}
        for app_id, by_type in ranked
    ]


def _name_app(app_id: str) -> str | None:
    """Return the app's name, or None if it is gone or the events have no app."""
    try:
        return apps_rules.read(g.caller, app_id).name
    except AppNotFound:
        return None


def _list_problems(now: datetime) -> list[Finding]:
    """Return what needs attention. What only owners can change is shown to owners."""
    found = [
        problem(part, f"The {part} does not answer.", "The page Health and the log have more.")
        for part, state in read_states().items()
        if state != "ok"
    ]
    if g.caller.all_workspaces:
        settings = current_app.config
        found += installation.check_public_url(settings, None, ())
        found += installation.check_proxies(settings)
        found += installation.check_framed_only(settings)
        if old := len(keyring().keys) - 1:
            # What still uses them is on the page Health: counting reads every live token.
            text = f"{old} old key{'' if old == 1 else 's'} in SECRET_KEY_FALLBACKS."
            found.append(
                warning("SECRET_KEY", text, "Remove a key once nothing uses it: see the page Health.")
            )
    return [finding for finding in found if finding.level != OK]
