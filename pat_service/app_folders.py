"""The folders of apps: `apps/` of this project, and those of APPS_PATH."""

import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pat_service.shapes import UPSTREAM_TEMPLATE, is_slug, visible

#: The apps that come with the service.
INCLUDED: Final = Path(__file__).parents[1] / "apps"


class TwoAppsOfOneName(Exception):
    """One line that names both folders."""


class ReservedName(Exception):
    """One line that names the folder."""


def find_apps(own: Iterable[Path], included: Path = INCLUDED) -> dict[str, Path]:
    """Return each app's folder by its name. An own app replaces an included one of the same name.

    Raise TwoAppsOfOneName or ReservedName, or OSError if a folder cannot be listed.
    """
    found: dict[str, Path] = {}
    for place in own:
        for name, folder in _list_apps(place).items():
            if name in found:
                raise TwoAppsOfOneName(f"two apps are named {name}: {visible(f'{found[name]} and {folder}')}")
            found[name] = folder
    if UPSTREAM_TEMPLATE in found:
        named = visible(str(found[UPSTREAM_TEMPLATE]))
        raise ReservedName(f"{named} has the name of apps that run elsewhere; rename it")
    others = _list_apps(included) if included.is_dir() else {}
    return found | {name: folder for name, folder in others.items() if name not in found}


def choose_place(own: Sequence[Path]) -> Path:
    """Return the folder for a new app: the first one of APPS_PATH, or `apps/` of this project."""
    return own[0] if own else INCLUDED


def _list_apps(place: Path) -> dict[str, Path]:
    return {folder.name: folder for folder in sorted(place.iterdir()) if is_app(folder)}


def is_app(folder: Path) -> bool:
    """Return whether the folder has a module or templates, and a name that an app can have."""
    return is_slug(folder.name) and ((folder / "__init__.py").is_file() or (folder / "templates").is_dir())


def list_writable_by_all(places: Iterable[Path]) -> list[Path]:
    """Return these folders, and the folders of apps in them, that every user of the machine can change."""
    folders = [folder for place in places for folder in (place, *_list_apps(place).values())]
    return [folder for folder in folders if folder.stat().st_mode & stat.S_IWOTH]


def migration_folders(apps: Mapping[str, Path]) -> dict[str, Path]:
    """Return the folder of each app's own migrations, by the app's name."""
    folders = {name: folder / "migrations" for name, folder in apps.items()}
    return {name: folder for name, folder in folders.items() if folder.is_dir()}
