"""The app of docs/apps/your-own-app.md passes the checks that the project's own apps pass."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.embed.test_templates import Scan
from tests.support.documents import snippets
from tests.support.servers import PROJECT
from tests.test_architecture import imports

FILES = {snippet.name: snippet.text for snippet in snippets("docs/apps/your-own-app.md", "The files")}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("apps") / "quote.py"
    path.write_text(FILES["apps/quote.py"], "utf-8")
    return path


def test_its_module_has_a_docstring_and_imports_the_public_api_alone(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text("utf-8")))
    ours = [name for name in imports(module) if name.partition(".")[0] in ("pat_service", "app", "config")]
    assert ours
    assert all(name.startswith("pat_service.embed.") for name in ours)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_its_module_has_the_projects_style(module: Path, command: list[str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--no-cache",
            "--config",
            PROJECT / "pyproject.toml",
            module,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("templates/")])
def test_its_templates_have_nothing_that_the_browser_blocks(name: str) -> None:
    assert Scan(FILES[name], "apps").wrong == []
