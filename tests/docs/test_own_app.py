"""The app of docs/apps/your-own-app.md passes its own test and the project's checks of apps."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.browser.checkout import copy_project
from tests.support.documents import snippets

pytestmark = pytest.mark.slow

GUIDE = "docs/apps/your-own-app.md"
MODULES = ["apps/quote/__init__.py", "apps/quote/tests/test_quote.py"]
CHECKS = ["apps/quote", "tests/test_architecture.py", "tests/embed/test_templates.py"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = copy_project(tmp_path_factory.mktemp("own-app") / "tree")
    for snippet in [*snippets(GUIDE, "The files"), *snippets(GUIDE, "Test it")]:
        path = tree / snippet.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(snippet.text, "utf-8")
    return tree


@pytest.mark.parametrize(
    "command",
    [
        ["pytest", "-q", "-n", "0", "-m", "", "-k", "not linter", *CHECKS],
        ["ruff", "check", "--no-cache", *MODULES],
        ["ruff", "format", "--no-cache", "--check", *MODULES],
    ],
    ids=["pytest", "ruff check", "ruff format"],
)
def test_the_example_app_passes_the_tests_of_apps(tree: Path, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tree, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
