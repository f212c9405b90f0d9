"""Firefox and WebKit, with another site's cookies blocked. A browser that is not installed is skipped."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.browser.others.driving import Browser
from tests.e2e.browser.others.firefox import firefox
from tests.e2e.browser.others.webkit import webkit

BROWSERS: Final[dict[str, Callable[[Path], AbstractContextManager[Browser]]]] = {
    "firefox": firefox,
    "webkit": webkit,
}


@pytest.fixture(scope="module", params=BROWSERS)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(BROWSERS[request.param](tmp_path_factory.mktemp(request.param)))
        except FileNotFoundError as missing:
            # CI skips them too: not every system has these packages. Only Chromium is required.
            pytest.skip(str(missing))
        yield browser
