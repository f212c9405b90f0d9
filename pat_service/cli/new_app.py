"""The command that writes a new app."""

from contextlib import suppress
from pathlib import Path
from typing import Final

import click
from flask import current_app
from flask.cli import with_appcontext
from sqlalchemy.exc import SQLAlchemyError

from pat_service.app_folders import choose_place
from pat_service.cli.common import checked, show
from pat_service.embed import Registry
from pat_service.errors import Refused
from pat_service.rules.directory import apps
from pat_service.shapes import UPSTREAM_TEMPLATE, check_slug, visible

#: The files of a new app. NAME and TITLE in names and texts are replaced.
FILES: Final = Path(__file__).parent / "new_app_files"


@click.command()
@with_appcontext
@click.argument("name", metavar="NAME", callback=checked(check_slug))
@click.option(
    "--path",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, writable=True, resolve_path=True, path_type=Path),
    help="The folder of apps. Default: the first one of APPS_PATH, or apps/ of this project.",
)
def new(name: str, path: Path | None) -> None:
    """Write a small app with a test into a new folder NAME. No other app may have this name."""
    own = current_app.config["APPS_PATH"]
    place = path or choose_place(own)
    folder = place / name
    if folder.exists():
        raise click.ClickException(f"{visible(str(folder))} exists already.")
    _require_free(name)
    title = name.replace("-", " ").replace("_", " ").capitalize()
    try:
        _write(folder, name, title)
    except OSError as error:
        raise click.ClickException(f"{visible(str(folder))} cannot be written: {error.strerror}.") from None
    show(f"Wrote {folder}.")
    if place not in (*own, choose_place(())):
        show(f"The service finds it with APPS_PATH={place}.")
    show(f"Let Ana of the demo open it:  flask --app app provision {folder / f'{name}.toml'}")
    show(f"Run its tests:                python -m pytest {folder}")


def _write(folder: Path, name: str, title: str) -> None:
    for file in sorted(FILES.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            written = folder / str(file.relative_to(FILES)).replace("NAME", name)
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(file.read_text("utf-8").replace("NAME", name).replace("TITLE", title), "utf-8")


def _require_free(name: str) -> None:
    """Refuse the name of another app: the new one would replace it, or stop the start."""
    if name == UPSTREAM_TEMPLATE:
        raise click.ClickException(f"{name} is the name of apps that run elsewhere; choose another name.")
    registry: Registry = current_app.extensions["pat_service.registry"]
    if folder := registry.folder(name):
        raise click.ClickException(
            f"{name} is an app in {visible(str(folder))}; choose another name. "
            "To replace an app of this project, make its folder by hand."
        )
    # There may be no database yet.
    with suppress(SQLAlchemyError, Refused):
        if name in apps.list_templates():
            raise click.ClickException(
                f"{name} is an app of the directory; choose another name, or make its folder by hand."
            )
