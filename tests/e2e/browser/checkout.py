"""A copy of the project, and a shell in it, for tests that follow the docs as a reader does."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.support.servers import PROJECT

NOT_COPIED: Final = (
    ".venv",
    "node_modules",
    ".git",
    "instance",
    "failures",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    ".env",
)


def copy_project(folder: Path) -> Path:
    """Copy the working tree without installed files, and return the copy.

    A server that runs in the copy has its own instance folder.
    """
    return Path(shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED)))


def environment(home: Path) -> dict[str, str]:
    """Return a shell's variables without the settings of this process."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(home), "LANG": "C.UTF-8", "FLASK_SKIP_DOTENV": "1"}


def shell(command: str, tree: Path, **environ: str) -> str:
    """Run the command in the copy `tree`, and return its standard output."""
    # The docs write `flask` or `.venv/bin/flask`; the tests' own environment has the same program.
    command = re.sub(r"(?:\.venv/bin/)?\bflask (?=--app)", f"{sys.executable} -m flask ", command)
    done = subprocess.run(
        ["sh", "-euc", command],
        cwd=tree,
        env=environment(tree) | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def curl(pasted: str, tree: Path, **environ: str) -> dict[str, Any]:
    """Run a pasted curl command, and return the JSON of its answer."""
    answer: dict[str, Any] = json.loads(shell(pasted.replace("curl ", "curl -sS ", 1), tree, **environ))
    return answer
