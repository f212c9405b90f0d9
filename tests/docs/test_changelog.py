"""CHANGELOG.md keeps its format, and has the version that the service reports."""

import re

from pat_service import __version__
from tests.support.documents import text_of

TEXT = text_of("CHANGELOG.md")
GROUPS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def test_the_newest_version_is_that_of_the_service() -> None:
    versions = re.findall(r"^## \[(.+)\] - \d{4}-\d\d-\d\d$", TEXT, re.MULTILINE)
    assert versions[0] == __version__
    assert TEXT.index("## [Unreleased]") < TEXT.index(f"## [{__version__}]")


def test_each_version_has_its_groups_once_in_order_without_gaps_or_repeated_items() -> None:
    for version in re.split(r"^## \[.+$", TEXT, flags=re.MULTILINE)[1:]:
        groups = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert groups == [name for name in GROUPS if name in groups]
        assert len(re.findall(r"\n\n- ", version)) == len(groups)
        items = re.findall(r"^- .+$", version, re.MULTILINE)
        assert len(items) == len(set(items))


def test_changes_are_grouped_and_each_names_its_reader_in_two_lines_at_most() -> None:
    assert set(re.findall(r"^### (.+)$", TEXT, re.MULTILINE)) <= set(GROUPS)
    items = re.findall(r"^- .+(?:\n  .+)*", TEXT, re.MULTILINE)
    assert len(items) > 20
    for item in items:
        assert re.match(r"- (Host developers|App authors|Operators|Contributors|Viewers|Everybody): ", item)
        assert item.count("\n") <= 1, item
