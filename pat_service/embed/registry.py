"""The registry of apps: the folders `apps/<template>/` with a module, templates and static files."""

import importlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from jinja2 import BaseLoader, Environment, FileSystemLoader, PrefixLoader, TemplateSyntaxError

from pat_service.app_folders import is_app
from pat_service.credentials import redact
from pat_service.embed.app_limits import (
    DEFAULT_LIMITS,
    AppLimits,
    WrongDeclaration,
    parse_limits,
    upstream_limits,
)
from pat_service.embed.embedded_app import EmbeddedApp
from pat_service.errors import AppUnavailable
from pat_service.findings import Finding, problem, warning
from pat_service.shapes import GRANTABLE, is_slug, visible

MAX_REASON_CHARS: Final = 300
_REPAIR: Final = "Correct the app's module, and restart the service."
_ADD_PAGE: Final = "Add the template, unless the function always answers with another page."


class Registry:
    """The apps, by template name: one folder each. An app may have no module."""

    def __init__(self, package: str, folders: Mapping[str, Path], *, watched: Iterable[Path] = ()) -> None:
        """Import each app as `<package>.<name>`. An app that cannot be imported is disabled.

        In development, new apps in the `watched` folders are found while the service runs.
        """
        self._package = importlib.import_module(package)
        self._watched = tuple(watched)
        self._folders: dict[str, Path] = {}
        self._apps: dict[str, EmbeddedApp] = {}
        self._broken: dict[str, str] = {}
        self._loaders: dict[str, BaseLoader] = {}
        self._follow: Callable[[str, Path], object] = lambda _name, _folder: None
        self._add(folders)

    def _add(self, folders: Mapping[str, Path]) -> None:
        self._folders |= folders
        places = [str(folder.parent) for folder in self._folders.values()]
        # `apps.<name>` is then importable for every app, also from another app.
        self._package.__path__ = list(dict.fromkeys(places))
        importlib.invalidate_caches()
        for name, folder in folders.items():
            self._loaders[name] = FileSystemLoader(folder / "templates")
            self._follow(name, folder)
            if (folder / "__init__.py").is_file():
                self._import(name)

    def _import(self, name: str) -> None:
        try:
            module = importlib.import_module(f"{self._package.__name__}.{name}")
        except KeyboardInterrupt:
            # Ctrl-C during a slow import stops the start.
            raise
        # A module may even raise SystemExit.
        except BaseException as error:
            self._broken[name] = _explain(error, self._folders[name])
            return
        declared = getattr(module, "app", None)
        if isinstance(declared, EmbeddedApp):
            self._apps[name] = declared
        else:
            self._broken[name] = f"{self._folders[name] / '__init__.py'} has no line `app = EmbeddedApp()`"

    def get(self, template: str) -> EmbeddedApp:
        """Return the functions of an app. Raise AppUnavailable if the app is disabled."""
        if template not in self._apps and template not in self._broken:
            self._look_for(template)
        if template in self._broken:
            raise AppUnavailable
        return self._apps.get(template) or EmbeddedApp()

    def _look_for(self, name: str) -> None:
        """Load an app that is new, or whose module is new."""
        new = [place / name for place in self._watched if is_slug(name) and is_app(place / name)]
        if new and (name not in self._folders or (self._folders[name] / "__init__.py").is_file()):
            self._add({name: self._folders.get(name, new[0])})
            try:
                self._apply_limits_of(name, development=True)
            except WrongDeclaration as error:
                self._broken[name] = str(error)
                del self._apps[name]

    def apply_limits(self, *, development: bool) -> None:
        """Check what the apps declare, and apply it. Raise WrongDeclaration with the name of the app."""
        for name in self._apps:
            self._apply_limits_of(name, development=development)

    def _apply_limits_of(self, name: str, *, development: bool) -> None:
        if (app := self._apps.get(name)) is None:
            return
        try:
            app.limits = parse_limits(*app.declared, development=development)
        except WrongDeclaration as error:
            raise WrongDeclaration(f"apps/{name}: {error}") from None

    def limits_of(self, template: str) -> AppLimits:
        """Return the limits of an app, also of a disabled one."""
        app = self._apps.get(template)
        return DEFAULT_LIMITS if app is None else app.limits

    def limits(self) -> dict[str, AppLimits]:
        """Return the limits of each app, by template name."""
        return {name: app.limits for name, app in self._apps.items()}

    def launcher_limits(self, apps: tuple[str, ...], *, has_upstream: bool = False) -> AppLimits:
        """Return the limits of a launcher, which has the frames of all apps in it.

        `apps`: their sources. `has_upstream`: some of them run elsewhere, with any permissions.
        """
        each = [*self.limits().values(), *([upstream_limits(frozenset(GRANTABLE))] if has_upstream else [])]
        return AppLimits(
            sources={"connect-src": apps, "frame-src": apps},
            permissions=frozenset().union(*(limits.permissions for limits in each)),
            is_isolated=all(limits.is_isolated for limits in each),
        )

    def loader(self) -> BaseLoader:
        """Return the loader of the templates `apps/<template>/<page>.html`."""
        return PrefixLoader({"apps": PrefixLoader(self._loaders)})

    def folder(self, name: str) -> Path | None:
        return self._folders.get(name)

    def has_loaded(self, folder: Path) -> bool:
        """Return whether the app in this folder has a module that works."""
        return self._folders.get(folder.name) == folder and folder.name in self._apps

    def has_first_page(self, template: str) -> bool:
        folder = self._folders.get(template)
        return folder is not None and (folder / "templates" / "index.html").is_file()

    def follow(self, add: Callable[[str, Path], object]) -> None:
        """Call `add` with the name and the folder of each app, also of apps that come later."""
        self._follow = add
        for name, folder in self._folders.items():
            add(name, folder)

    def list_disabled(self, template: str | None = None) -> list[str]:
        """Return a line about each app that could not be imported, or only about this one."""
        return [
            f"app {name} is disabled: {reason}"
            for name, reason in sorted(self._broken.items())
            if template in (None, name)
        ]

    def list_findings(self, environment: Environment, template: str | None = None) -> list[Finding]:
        """Return findings about modules and templates: of the app with this template, or of all apps."""
        found = [problem("apps", line, _REPAIR) for line in self.list_disabled(template)]
        for name, folder in sorted(self._folders.items()):
            if template not in (None, name):
                continue
            found += _check_templates(environment, name, folder / "templates")
            found += [
                warning(
                    "apps", f"app {name} has a function for the page {page}, and no {page}.html", _ADD_PAGE
                )
                for page in self._apps.get(name, EmbeddedApp()).pages
                if not (folder / "templates" / f"{page}.html").is_file()
            ]
        return found


def _explain(error: BaseException, folder: Path) -> str:
    """Return the place in the app, if known, and the error in one line."""
    steps = [(step.filename, step.lineno) for step in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        steps.append((error.filename, error.lineno))
    own = [(Path(file), line) for file, line in steps if Path(file).is_relative_to(folder)]
    place = f"{own[-1][0]}, line {own[-1][1]}: " if own else ""
    text = "".join(traceback.format_exception_only(error)).strip() or type(error).__name__
    return visible(redact(place + text.splitlines()[-1]))[:MAX_REASON_CHARS]


def _check_templates(environment: Environment, app: str, folder: Path) -> Iterator[Finding]:
    for file in sorted(folder.rglob("*.html")):
        name = file.relative_to(folder).as_posix()
        try:
            environment.get_template(f"apps/{app}/{name}")
        except TemplateSyntaxError as error:
            text = f"{file}, line {error.lineno}: {error.message}"
            yield problem("apps", f"a template cannot be compiled: {visible(text)}", "Correct the template.")
        except (OSError, ValueError) as error:
            text = f"{file}: {error}"
            yield problem("apps", f"a template cannot be read: {visible(text)}", "Correct the template.")
