"""The public class of an app: its pages, forms and data, and the limits that it declares."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pat_service.embed.app_limits import DEFAULT_LIMITS
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
        preload: Iterable[str] = (),
    ) -> None:
        """Declare what the app needs beyond the default. A wrong value stops the start.

        `csp`: directive → sources to add. `max_upload`: the largest form or upload, such as "25 MB".
        `permissions`: features of the browser, which the host page must allow too.
        `preload`: static files of the first page, which the frame loads while it waits for its session.
        """
        self.declared = csp, max_upload, permissions, preload
        self.limits = DEFAULT_LIMITS
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
