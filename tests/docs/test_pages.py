"""The documentation as a whole: its links resolve, each page can be reached, the README is short."""

import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from pat_service import __version__
from tests.support.documents import CODE, FENCE, HEADING, text_of
from tests.support.servers import PROJECT

MOST_LINES: Final = 150
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
EXTERNAL: Final = re.compile(r"[a-z]+:")
NOT_OURS: Final = {"node_modules", "vendor", "instance"}
PAGES: Final = sorted(
    page.relative_to(PROJECT)
    for pattern in ("*.md", "[!.]*/**/*.md")
    for page in PROJECT.glob(pattern)
    if NOT_OURS.isdisjoint(page.relative_to(PROJECT).parts)
)


def prose(page: Path) -> str:
    return FENCE.sub("", text_of(str(page)))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of the page's headings, as GitHub makes them."""
    return frozenset(
        re.sub(r"[^\w\- ]", "", CODE.sub(r"\1", heading[2]).lower()).replace(" ", "-")
        for heading in HEADING.finditer(prose(page))
    )


def links(page: Path) -> list[tuple[Path, str]]:
    """Return file and anchor of each relative link."""
    found = []
    for target in LINK.findall(prose(page)):
        if not EXTERNAL.match(target):
            path, _, anchor = target.partition("#")
            file = (PROJECT / page.parent / path).resolve().relative_to(PROJECT) if path else page
            found.append((file, anchor))
    return found


def test_all_pages_are_found() -> None:
    assert Path("README.md") in PAGES
    assert len(PAGES) > 15


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_resolve(page: Path) -> None:
    broken = [
        f"{file}#{anchor}"
        for file, anchor in links(page)
        if not (PROJECT / file).exists() or (anchor and anchor not in anchors(file))
    ]
    assert broken == []


def test_every_page_is_linked_from_the_readme_or_a_page_linked_there() -> None:
    first = {file for file, _ in links(Path("README.md"))}
    second = {file for page in first & set(PAGES) for file, _ in links(page)}
    assert set(PAGES) - {Path("README.md")} - first - second == set()


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= MOST_LINES


def test_the_readme_names_the_version() -> None:
    assert f"version {__version__}" in text_of("README.md")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_has_one_title(page: Path) -> None:
    assert [heading[1] for heading in HEADING.finditer(prose(page))].count("#") == 1
