"""`make bench BENCH=--write` replaces one table of docs/dev/performance-notes.md, and its plot."""

import shutil
from pathlib import Path

import pytest

from bench import report
from bench.report import Results, Row
from bench.rig import Plan


@pytest.mark.parametrize(("part", "other"), [("speed", "growth"), ("growth", "speed")])
def test_a_benchmark_writes_only_its_own_table(
    part: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(shutil.copy(report.PAGE, tmp_path))
    monkeypatch.setattr(report, "PAGE", page)
    results = Results(Plan(1, 1.0, 16, 1))
    results.rows.append(Row("sqlite", "mint", "service", "limit", 0.5, 0.4, 0.6, 0.5, 10.0, 0.1, 0.2, 0.8))
    before = page.read_text()
    results.write(part)
    after = page.read_text()

    def table(text: str, name: str) -> str:
        return text.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]

    assert table(after, part).count("| sqlite | mint | service / limit | 0.50 |") == 1
    assert f"(performance-{part}.svg)" in table(after, part)
    assert (tmp_path / f"performance-{part}.svg").read_text().startswith("<svg")
    assert after.replace(table(after, part), "") == before.replace(table(before, part), "")
    assert table(after, other) == table(before, other) != ""
