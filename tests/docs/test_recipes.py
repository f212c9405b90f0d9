"""The recipes of docs/host/api.md, run word for word in one shell against a server with the demo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import snippets
from tests.support.people import KEY
from tests.support.servers import PROJECT, flask_run

pytestmark = pytest.mark.slow

MARK = "=== "


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Return what each recipe printed, by its place in the section."""
    folder = tmp_path_factory.mktemp("recipes")
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DATABASE_URL": f"sqlite:///{folder / 'pat-service.db'}",
        "SECRET_KEY": KEY,
        "PYTHONPATH": str(PROJECT),
        "FLASK_APP": str(PROJECT / "app.py"),
    }
    directory = {
        "workspaces": [{"slug": "acme", "name": "Acme"}],
        "apps": [{"slug": "orders", "name": "Orders", "workspace": "acme"}],
    }
    (folder / "world.toml").write_text(
        "\n".join(
            f"[[{kind}]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in thing.items())
            for kind, things in directory.items()
            for thing in things
        )
    )
    for command in (["db", "upgrade"], ["provision", str(folder / "world.toml")]):
        subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", *command],
            cwd=PROJECT,
            env=environ,
            check=True,
            capture_output=True,
            timeout=120,
        )
    recipes = [snippet.text for snippet in snippets("docs/host/api.md", "Recipes")]
    assert len(recipes) == 6
    recipes.append(recipes[-1])  # to follow again
    with flask_run(environ) as server:
        recipes[0] = recipes[0].replace("http://127.0.0.1:5000", server.url)
        script = "set -u\n" + "".join(f"echo '{MARK}{place}'\n{text}\n" for place, text in enumerate(recipes))
        done = subprocess.run(
            ["bash", "-e", "-c", script.replace("--app app", f"--app {PROJECT / 'app.py'}")],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=180,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {int(part.partition("\n")[0]): part.partition("\n")[2] for part in done.stdout.split(MARK)[1:]}
    return parts | {-1: (folder / "trail.ndjson").read_text()}


def test_gia_is_provisioned_from_a_script(printed: dict[int, str]) -> None:
    grant = json.loads(printed[1])
    assert grant["effective"] is True
    assert grant["user"]["email"] == "gia@acme.test"


def test_hal_is_provisioned_at_the_mint(printed: dict[int, str]) -> None:
    assert json.loads(printed[2])["redirectUrl"].startswith("http://127.0.0.1")


def test_tokens_are_revoked_after_a_change_of_role(printed: dict[int, str]) -> None:
    assert '"role":"end-user"' in printed[3].replace(" ", "")
    assert printed[3].replace(" ", "").rstrip().endswith('{"revoked":0,"endedSessions":0}')


def test_the_clients_secret_rotates(printed: dict[int, str]) -> None:
    assert "back-office" in printed[4]


def test_a_follower_has_each_event_once(printed: dict[int, str]) -> None:
    lines = [json.loads(line) for line in printed[-1].splitlines()]
    ids = [int(line["id"]) for line in lines]
    assert ids == sorted(set(ids))
    types = [line["type"] for line in lines]
    assert {"user:created", "member:added", "grant:added", "token:minted", "client:rotated"} <= set(types)
    assert not any("pat_" in line for line in printed[-1].splitlines())
