"""The migrations of the service and of its apps, read from their files.

Alembic costs a worker a tenth of a second and 9 MB, so readiness does without it. Each app has a branch of
its own. `app migrate` names an app's revisions `<app>_0001`, so that the database shows their owner.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

#: The service's own migrations.
VERSIONS: Final = Path(__file__).parents[2] / "migrations" / "versions"
#: The apps that come with the service.
_INCLUDED: Final = Path(__file__).parents[2] / "apps"
#: Alembic's limit is the column of its table.
MAX_LABEL_CHARS: Final = 32 - len("_0001")
#: A migration's lines that name it and its predecessors.
_REVISION: Final = re.compile(r"""^revision(?:: \w+)? = ["'](\w+)["']$""", re.MULTILINE)
_PREDECESSORS: Final = re.compile(r"^down_revision(?:: [^=]+)? = (.+)$", re.MULTILINE)
_DEPENDENCIES: Final = re.compile(r"^depends_on(?:: [^=]+)? = (.+)$", re.MULTILINE)
_NAME: Final = re.compile(r"""["'](\w+)["']""")
_OURS: Final = re.compile(r"\d{4}")
_OF_APP: Final = re.compile(r"(\w+)_\d{4}")


class UnusableMigrations(Exception):
    """One line that says what to change in which file."""


@dataclass(frozen=True)
class Branch:
    """Revisions → predecessors. `label` is an app's, or None for the service itself."""

    label: str | None
    predecessors: Mapping[str, frozenset[str]]

    @property
    def heads(self) -> set[str]:
        return set(self.predecessors) - frozenset().union(*self.predecessors.values())

    def owns(self, revision: str) -> bool:
        """Return whether the branch has the revision, or a newer release of it may."""
        if revision in self.predecessors:
            return True
        found = _OF_APP.fullmatch(revision)
        return found is None if self.label is None else found is not None and found[1] == self.label

    def is_behind(self, applied: set[str]) -> bool:
        """Return whether one of the branch's revisions is missing. A newer schema is not behind."""
        known = applied & set(self.predecessors)
        if not known:
            return bool(self.heads) and not any(self.owns(revision) for revision in applied)
        # A fork's own migration is another head.
        only_known = all(revision in self.predecessors for revision in applied if self.owns(revision))
        outdated = known & frozenset().union(*self.predecessors.values())
        return bool(outdated) or (only_known and known != self.heads)


def label_of(app: Path) -> str:
    """Return the label of the branch of the app in this folder, and the first part of its revisions' names.

    An own app that replaces an included one has another label, since databases may have the tables of that.
    """
    replaces = app.parent != _INCLUDED and (_INCLUDED / app.name / "migrations").is_dir()
    return f"{'own_' if replaces else ''}{app.name.replace('-', '_')}"[:MAX_LABEL_CHARS]


def read_branches(migrations: Mapping[str, Path], versions: Path = VERSIONS) -> list[Branch]:
    """Return the service's branch and those of apps, given the folder of each app's migrations."""
    of_apps = [Branch(label_of(folder.parent), _read(folder)) for folder in migrations.values()]
    return [Branch(None, _read(versions)), *of_apps]


def read_branch(label: str, folder: Path) -> Branch:
    """Return an app's branch as it is now."""
    _read.cache_clear()
    return Branch(label, _read(folder))


def list_gone(applied: set[str], branches: list[Branch]) -> list[str]:
    """Return the applied revisions whose app is gone. Without it, nothing can be done about them."""
    ours, *of_apps = branches
    gone = {revision for revision in applied if not any(branch.owns(revision) for branch in of_apps)}
    if applied & set(ours.predecessors):
        return sorted(r for r in gone if r not in ours.predecessors and _OURS.fullmatch(r) is None)
    return sorted(r for r in gone if _OF_APP.fullmatch(r))


def check(migrations: Mapping[str, Path], versions: Path = VERSIONS) -> None:
    """Raise UnusableMigrations if two migrations have one name, or an app's depend on another branch."""
    files: dict[str, Path] = {}
    for folder in (versions, *migrations.values()):
        own = _read(folder)
        for revision, file, text in _files(folder):
            if revision in files:
                raise UnusableMigrations(f"two migrations are named {revision}: {files[revision]} and {file}")
            files[revision] = file
            if folder == versions:
                continue
            if _names(_DEPENDENCIES, text):
                raise UnusableMigrations(
                    f"{file} must have depends_on = None: the service's own migrations always run first"
                )
            if not own[revision] <= own.keys():
                raise UnusableMigrations(
                    f"{file} must follow a migration of its own app, or have down_revision = None"
                )


@cache
def _read(folder: Path) -> dict[str, frozenset[str]]:
    return {revision: _names(_PREDECESSORS, text) for revision, _, text in _files(folder)}


def _files(folder: Path) -> Iterator[tuple[str, Path, str]]:
    for file in sorted(folder.glob("*.py")):
        text = file.read_text("utf-8", errors="replace")
        if found := _REVISION.search(text):
            yield found[1], file, text


def _names(line: re.Pattern[str], text: str) -> frozenset[str]:
    found = line.search(text)
    return frozenset(_NAME.findall(found[1])) if found else frozenset()
