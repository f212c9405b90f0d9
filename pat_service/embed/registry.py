"""The registry of apps: the folders `apps/<template>/` with a module, templates and static files."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import BaseLoader, FileSystemLoader, PrefixLoader

from pat_service.embed.app_limits import AppLimits, WrongDeclaration, parse_limits
from pat_service.rules.access import Viewer

Function = TypeVar("Function", bound=Callable[[Viewer], Any])


@dataclass(frozen=True)
class Page:
    """A page to answer with. Without a context, that page's own function provides it."""

    name: str
    context: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Form:
    """The function that receives a POST, and the page that shows an invalid form again."""

    function: Callable[[Viewer], Any]
    page: str


class EmbeddedApp:
    """The functions of one app. Each receives the viewer and reads `flask.request`.

    Requests can call declared functions only.
    """

    def __init__(
        self,
        *,
        csp: Mapping[str, Iterable[str]] | None = None,
        max_upload: str | None = None,
        permissions: Iterable[str] = (),
    ) -> None:
        """Declare what the app needs beyond the default. A wrong value stops the start.

        `csp`: directive → sources to add. `max_upload`: the largest form or upload, such as "25 MB".
        `permissions`: features of the browser, which the host page must allow too.
        """
        self.declared = csp, max_upload, permissions
        self.limits = AppLimits()
        self.pages: dict[str, Callable[[Viewer], Any]] = {}
        self.forms: dict[str, Form] = {}
        self.data_functions: dict[tuple[str, str], Callable[[Viewer], Any]] = {}

    def page(self, name: str) -> Callable[[Function], Function]:
        """Declare the function of the page `<name>.html`. It returns a context, a `Page` or a Response."""

        def declare(function: Function) -> Function:
            self.pages[name] = function
            return function

        return declare

    def form(self, name: str, page: str | None = None) -> Callable[[Function], Function]:
        """Declare the function for a POST to `pages/<name>`. It returns the same as a page function.

        If it raises marshmallow's ValidationError, the response is 422 with `page` (default: `name`). The
        context then has `errors` (field → texts) and `form` (the sent fields).
        """

        def declare(function: Function) -> Function:
            self.forms[name] = Form(function, page or name)
            return function

        return declare

    def data(self, name: str, methods: Iterable[str] = ("GET",)) -> Callable[[Function], Function]:
        """Declare the function of `data/<name>`. It returns a JSON value, or a Response such as a file."""

        def declare(function: Function) -> Function:
            for method in methods:
                self.data_functions[method.upper(), name] = function
            return function

        return declare

    def data_methods(self, name: str) -> list[str]:
        return sorted(method for method, known in self.data_functions if known == name)


class Registry:
    """The apps of a package, by template name: one folder each. An app may have no module."""

    def __init__(self, package: str) -> None:
        """Import every module, so that a broken one stops the start."""
        self._apps: dict[str, EmbeddedApp] = {}
        self._folders = dict(_list_folders(importlib.import_module(package).__path__))
        for name, folder in self._folders.items():
            if (folder / "__init__.py").is_file():
                declared = getattr(importlib.import_module(f"{package}.{name}"), "app", None)
                if isinstance(declared, EmbeddedApp):
                    self._apps[name] = declared

    def get(self, template: str) -> EmbeddedApp:
        return self._apps.get(template) or EmbeddedApp()

    def apply_limits(self, *, development: bool) -> None:
        """Check what the apps declare, and apply it. Raise WrongDeclaration with the name of the app."""
        for name, app in self._apps.items():
            try:
                app.limits = parse_limits(*app.declared, development=development)
            except WrongDeclaration as error:
                raise WrongDeclaration(f"apps/{name}: {error}") from None

    def limits(self) -> dict[str, AppLimits]:
        """Return the limits of each app, by template name."""
        return {name: app.limits for name, app in self._apps.items()}

    def launcher_limits(self, apps: str) -> AppLimits:
        """Return the limits of a launcher, which has the frames of all apps in it. `apps`: their source."""
        each = self.limits().values()
        return AppLimits(
            sources={"connect-src": (apps,), "frame-src": (apps,)},
            permissions=frozenset().union(*(limits.permissions for limits in each)),
            is_isolated=all(limits.is_isolated for limits in each),
        )

    def loader(self) -> BaseLoader:
        """Return the loader of the templates `apps/<template>/<page>.html`."""
        loaders = {name: FileSystemLoader(folder / "templates") for name, folder in self._folders.items()}
        return PrefixLoader({"apps": PrefixLoader(loaders)})

    def has_first_page(self, template: str) -> bool:
        folder = self._folders.get(template)
        return folder is not None and (folder / "templates" / "index.html").is_file()

    def static_folders(self) -> dict[str, Path]:
        """Return the folder of each app's public files, by template."""
        return {template: folder / "static" for template, folder in self._folders.items()}


def _list_folders(places: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for place in places:
        for folder in sorted(Path(place).iterdir()):
            if folder.is_dir() and not folder.name.startswith(("_", ".")):
                yield folder.name, folder
