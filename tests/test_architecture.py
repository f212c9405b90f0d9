"""The walls of docs/architecture.md: imports go down, and every module says what it is for."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
FOLDERS = ("pat_service", "apps", "demo", "migrations", "bench")
#: The rules of the second wall: plain values in, rows or errors out.
RULES = (
    "access",
    "arrivals",
    "callers",
    "clients",
    "credentials",
    "directory",
    "events",
    "introspection",
    "live",
    "provisioning",
    "sessions",
    "tokens",
    "trail",
    "upkeep",
)
HTTP = {"click", "flask", "flask_limiter", "flask_smorest", "http", "werkzeug"}


def imports(path: Path) -> Iterator[str]:
    """The packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def test_the_walls_are_kept() -> None:
    """The contracts of pyproject.toml."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_every_module_says_what_it_is_for() -> None:
    modules = [*PROJECT.glob("*.py"), *(m for folder in FOLDERS for m in (PROJECT / folder).rglob("*.py"))]
    assert len(modules) > 30
    assert [m for m in modules if not ast.get_docstring(ast.parse(m.read_text("utf-8")))] == []


def test_rules_know_no_http() -> None:
    folder = PROJECT / "pat_service"
    modules = {rule: [*folder.glob(f"{rule}.py"), *folder.glob(f"{rule}/*.py")] for rule in RULES}
    found = {rule: {name for path in paths for name in imports(path)} for rule, paths in modules.items()}
    assert all(found.values())
    assert {rule: names & HTTP for rule, names in found.items() if names & HTTP} == {}
