"""Print the measurements and, on request, write them into docs/dev/performance-notes.md."""

import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bench.load import Run
from bench.rig import Plan
from tests.support.servers import PROJECT

PAGE: Final = PROJECT / "docs" / "dev" / "performance-notes.md"
BAR, GAP, LEFT, WIDTH = 18, 10, 190, 640


@dataclass(frozen=True)
class Series:
    """One of the compared servers, with a run for each round."""

    name: str
    runs: Sequence[Run]


@dataclass(frozen=True)
class Row:
    """A series against its base: medians of the ratios of all rounds, and the series' own figures."""

    kind: str
    work: str
    name: str
    base: str
    ratio: float
    least: float
    most: float
    cpu: float
    rate: float
    middle: float
    tail: float
    aim: float | None

    @property
    def tail_ratio(self) -> float:
        return self.tail / self.middle

    def line(self) -> str:
        aim = "" if self.aim is None else f"  aim {self.aim:.2f}"
        return (
            f"{self.kind:10} {self.work:12} {self.name:14} / {self.base:11} {self.ratio:5.2f} "
            f"({self.least:.2f} to {self.most:.2f})  by cpu {self.cpu:5.2f}  {self.rate:6.0f}/s  "
            f"p50 {self.middle * 1000:6.1f} ms  p99 {self.tail_ratio:4.1f} x p50{aim}"
        )


class Results:
    """The rows of a run, in order."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.say(
            f"{plan.rounds} rounds of {plan.seconds} s, {plan.connections} connections, "
            f"{plan.workers} gthread worker(s) of 8 threads; {machine()}"
        )

    def say(self, note: str) -> None:
        self.notes.append(note)
        print(note, flush=True)

    def add(self, kind: str, work: str, base: str, aim: float, series: Sequence[Series]) -> None:
        """Compare each series with the base. The aim applies to the first series."""
        bases = next(its.runs for its in series if its.name == base)
        for its in series:
            if its.name == base:
                continue
            pairs = list(zip(its.runs, bases, strict=True))
            ratios = [run.rate / other.rate for run, other in pairs]
            row = Row(
                kind,
                work,
                its.name,
                base,
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                statistics.median(other.cpu_each / run.cpu_each for run, other in pairs),
                statistics.median(run.rate for run in its.runs),
                statistics.median(run.percentile(0.5) for run in its.runs),
                statistics.median(run.percentile(0.99) for run in its.runs),
                aim if its is series[0] else None,
            )
            self.rows.append(row)
            print(row.line(), flush=True)

    def compare(self, what: str, unit: str, values: Mapping[str, Sequence[float]], aim: str) -> None:
        """Report the first series as a multiple of the second."""
        (name, its), (base, bases) = values.items()
        ratio = statistics.median(one / other for one, other in zip(its, bases, strict=True))
        self.say(
            f"{what}: {name} {statistics.median(its):.2f} {unit}, "
            f"{base} {statistics.median(bases):.2f} {unit}: "
            f"{ratio:.2f} times as much (aim: {aim})"
        )

    def write(self, part: str) -> None:
        """Put the table between this part's marks in the page, and draw its plot next to it."""
        begin, end = f"<!-- {part} -->", f"<!-- end of {part} -->"
        before, _, rest = PAGE.read_text().partition(begin)
        _, _, after = rest.partition(end)
        PAGE.write_text(f"{before}{begin}\n{self._table(part)}{end}{after}")
        PAGE.with_name(f"performance-{part}.svg").write_text(self._plot())

    def _table(self, part: str) -> str:
        lines = [f"Measured {datetime.now(UTC):%Y-%m-%d}: {self.notes[0]}.", ""]
        lines += ["| database | work | compared | ratio | least to most | by CPU | p99 / median | aim |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for row in self.rows:
            aim = "" if row.aim is None else f"≥ {row.aim:.2f}"
            lines.append(
                f"| {row.kind} | {row.work} | {row.name} / {row.base} | {row.ratio:.2f} | "
                f"{row.least:.2f} to {row.most:.2f} | {row.cpu:.2f} | {row.tail_ratio:.1f} | {aim} |"
            )
        lines += ["", f"![Ratios and aims](performance-{part}.svg)", ""]
        return "\n".join(lines + [f"- {note}" for note in self.notes[1:]]) + "\n"

    def _plot(self) -> str:
        """Draw a bar for each ratio that has an aim, with a mark at the aim."""
        rows = [row for row in self.rows if row.aim is not None]
        most = max(1.0, *(row.ratio for row in rows))
        scale = (WIDTH - LEFT - 60) / most
        parts = []
        for number, row in enumerate(rows):
            top = GAP + number * (BAR + GAP)
            middle, end = top + BAR * 0.75, LEFT + row.ratio * scale
            aim = LEFT + (row.aim or 0) * scale
            parts += [
                f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{row.kind}, {row.work}</text>',
                f'<rect x="{LEFT}" y="{top}" width="{row.ratio * scale:.1f}" height="{BAR}" rx="2"/>',
                f'<path d="M{aim:.1f} {top - 3}v{BAR + 6}"/>',
                f'<text x="{max(end, aim) + 6:.1f}" y="{middle}">{row.ratio:.2f}</text>',
            ]
        height = GAP + len(rows) * (BAR + GAP)
        style = (
            "text{font:12px system-ui,sans-serif;fill:#57606a}rect{fill:#4f7cac}"
            "path{stroke:#c2410c;stroke-width:2}"
            "@media(prefers-color-scheme:dark){text{fill:#adb5bd}rect{fill:#6c9bd1}path{stroke:#fb923c}}"
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
            f"<title>Ratios, with a mark at the aim</title><style>{style}</style>"
            f"{''.join(parts)}</svg>\n"
        )


def machine() -> str:
    return f"{os.cpu_count()} processors, Python {platform.python_version()}, {sys.platform}"
