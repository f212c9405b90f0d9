"""The registry of apps: what the modules `apps/<template>.py` declare."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pat_service.rules.access import Viewer

Function = TypeVar("Function", bound=Callable[[Viewer], Any])


@dataclass(frozen=True)
class Page:
    """Another page to answer with. Without a context, that page's own function gives it."""

    name: str
    context: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Form:
    """What takes a POST, and the page that shows it again where it does not validate."""

    function: Callable[[Viewer], Any]
    page: str


class EmbeddedApp:
    """The functions of one app. Each is given the viewer, and reads the rest from `flask.request`.

    Only what is declared here can be called from outside.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Callable[[Viewer], Any]] = {}
        self.forms: dict[str, Form] = {}
        self.data_functions: dict[tuple[str, str], Callable[[Viewer], Any]] = {}

    def page(self, name: str) -> Callable[[Function], Function]:
        """Declare what gives the page `<name>.html` its context: a mapping, a `Page`, or a Response."""

        def declare(function: Function) -> Function:
            self.pages[name] = function
            return function

        return declare

    def form(self, name: str, page: str | None = None) -> Callable[[Function], Function]:
        """Declare what takes a POST to `pages/<name>`. It returns what a page function does.

        Where it raises marshmallow's ValidationError the answer is 422: `page` again (by default the one
        of the same name), with `errors` (field → texts) and `form` (what was sent) in its context.
        """

        def declare(function: Function) -> Function:
            self.forms[name] = Form(function, page or name)
            return function

        return declare

    def data(self, name: str, methods: Iterable[str] = ("GET",)) -> Callable[[Function], Function]:
        """Declare what answers `data/<name>`: anything that JSON can hold, or a Response such as a file."""

        def declare(function: Function) -> Function:
            for method in methods:
                self.data_functions[method.upper(), name] = function
            return function

        return declare

    def data_methods(self, name: str) -> list[str]:
        return sorted(method for method, known in self.data_functions if known == name)


class Registry:
    """Every app module of a package, by template name. A template without a module needs none."""

    def __init__(self, package: str) -> None:
        """Import all of them now: one that cannot be imported stops the start, not a viewer."""
        self._apps: dict[str, EmbeddedApp] = {}
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
            declared = getattr(importlib.import_module(f"{package}.{found.name}"), "app", None)
            if isinstance(declared, EmbeddedApp):
                self._apps[found.name] = declared

    def get(self, template: str) -> EmbeddedApp:
        return self._apps.get(template) or EmbeddedApp()
