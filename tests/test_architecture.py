"""The four rules of docs/dev/architecture.md, checked by folder, and the places of tests."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SERVICE = PROJECT / "pat_service"
#: A team may add apps, which follow rules of their own.
OUR_APPS = ("apps/orders", "apps/support")
FOLDERS = ("pat_service", *OUR_APPS, "demo", "migrations", "bench", "tools")
#: Rooms without HTTP: they take plain values, and return rows or raise errors.
PURE = ("rules", "storage", "credentials.py", "errors.py", "shapes.py")
HTTP = {"click", "flask", "flask_limiter", "flask_smorest", "http", "werkzeug"}
#: The rooms that requests and commands enter.
ENTRANCES = ("api", "embed", "gateway", "cli")


def modules_of(*places: str) -> list[Path]:
    found = [SERVICE / place for place in places]
    return sorted(file for place in found for file in ([place] if place.suffix else place.rglob("*.py")))


def imports(path: Path) -> Iterator[str]:
    """Return the full names of a module's imports, also of those in functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_contracts_of_import_linter_are_kept() -> None:
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


def test_every_module_has_a_docstring() -> None:
    modules = [*PROJECT.glob("*.py"), *(m for folder in FOLDERS for m in (PROJECT / folder).rglob("*.py"))]
    assert len(modules) > 30
    assert [m for m in modules if not ast.get_docstring(ast.parse(m.read_text("utf-8")))] == []


def test_rules_know_no_http() -> None:
    modules = modules_of(*PURE)
    assert SERVICE / "rules" / "minting.py" in modules
    found = {file: {name.partition(".")[0] for name in imports(file)} & HTTP for file in modules}
    assert {file: names for file, names in found.items() if names} == {}


def test_views_never_commit() -> None:
    """Only a rule opens a transaction."""
    forbidden = {"transaction", "write_lock"}
    modules = modules_of(*ENTRANCES, "http", "observability", "diagnosis")
    assert len(modules) > 30
    opened = {
        file: [name for name in imports(file) if name.startswith("pat_service.storage.database.")]
        for file in modules
        # `pat_service.embed` exports `transaction` to apps, which store their own rows.
        if file != SERVICE / "embed" / "__init__.py"
    }
    assert {
        f: names for f, names in opened.items() if {n.rpartition(".")[2] for n in names} & forbidden
    } == {}


def test_apps_import_only_the_public_api() -> None:
    modules = [file for folder in OUR_APPS for file in sorted((PROJECT / folder).rglob("*.py"))]
    assert len(modules) >= 3
    for file in modules:
        ours = [name for name in imports(file) if name.partition(".")[0] in ("pat_service", "app", "config")]
        assert all(name.startswith("pat_service.embed.") for name in ours), (file, ours)
        assert not any(name.startswith("pat_service.embed._") for name in ours)


def test_only_the_root_reads_the_configuration() -> None:
    readers = [file for file in PROJECT.glob("*.py") if any(n.startswith("config.") for n in imports(file))]
    assert {file.name for file in readers} == {"app.py", "gunicorn.conf.py", "relay.py"}


@pytest.mark.parametrize("file", modules_of("rules"), ids=lambda file: file.stem)
def test_every_rule_has_its_test_file(file: Path) -> None:
    if file.name != "__init__.py":
        folder = PROJECT / "tests" / file.parent.relative_to(SERVICE)
        assert (folder / f"test_{file.name}").is_file()
