"""schemathesis sends requests that the API's document allows to a running service, and follows its links.

`make fuzz` sends many more cases than `make test`. Each run has its own database.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from pat_service.storage.models import App, User, Workspace
from tests.support.people import KEY, ORDERS, SECRETS, Service, long_lived_service, provision
from tests.support.servers import PROJECT, gunicorn

#: Maximum cases of each operation, and maximum chains of links.
CASES = int(os.environ.get("FUZZ_CASES", "3"))
CHAINS = int(os.environ.get("FUZZ_CHAINS", "40"))
#: The coverage phase tests schemas, not access: only `make fuzz` repeats it for a limited client.
NARROW = "examples,coverage,fuzzing" if "FUZZ_CASES" in os.environ else "examples,fuzzing"
SEED = os.environ.get("FUZZ_SEED", "11")
TIMEOUT_SECONDS = 300 + 60 * CASES
MANY = "1000000 per minute"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT_SECONDS + 60)]

CLIENT: dict[str, Any] = {
    "id": "fuzzer",
    "secret": SECRETS["manager"],
    "scopes": ["mint", "mint:workspace", "provision", "audit"],
    "highest_role": "admin",
    "mint_limit": MANY,
}
#: Each run fills in {ids}, {session} and {has_no_limits}.
CONFIG = f"""
hooks = "tests.support.schemathesis_hooks"

[auth.openapi]
client = {{{{ username = "{CLIENT["id"]}", password = "{CLIENT["secret"]}" }}}}
session = {{{{ bearer = "{{session}}" }}}}

# Known values, so that not every id answers 404.
[generation.dictionaries]
string = {{{{ dictionary = "known", probability = 0.3 }}}}

[dictionaries.known]
values = [{{ids}}, "ana@acme.test", "ben@acme.test", "orders", "acme"]

# The document itself has all links.
[phases.stateful.inference]
algorithms = []

# Refused requests lead to no link; the other phases send them.
[phases.stateful.generation]
mode = "positive"

# A limited client must name a membership; one schema for all clients cannot express that.
[[operations]]
include-operation-id = "createUser"
checks.positive_data_acceptance.enabled = {{has_no_limits}}

# A revoked token and an ended session can still be read.
[[operations]]
include-operation-id = ["readToken", "readSession", "revokeToken", "endSession"]
checks.use_after_free.enabled = false

# At least one filter is required, which OpenAPI cannot express.
[[operations]]
include-operation-id = ["revokeTokens", "endSessions"]
checks.positive_data_acceptance.enabled = false
"""


def run(
    service: Service, folder: Path, phases: str, cases: int, *, has_no_limits: bool
) -> subprocess.CompletedProcess[str]:
    """Run schemathesis as CLIENT against a server on this service's database."""
    opened = service.client.post(
        "/api/ext/users/session", json={"appId": ORDERS, "accessToken": service.token()}
    )
    assert opened.json is not None
    ids = [row.id for model in (Workspace, User, App) for row in service.rows(select(model.id))]
    config = CONFIG.format(
        ids=", ".join(f'"{id_}"' for id_ in ids),
        session=opened.json["signedPat"],
        has_no_limits=str(has_no_limits).lower(),
    )
    (folder / "schemathesis.toml").write_text(config)
    environ = {
        "SECRET_KEY": KEY,
        "PUBLIC_URL": "https://embed.example",
        "DATABASE_URL": f"sqlite:///{folder / 'pat-service.db'}",
        "OPEN_RATE_LIMIT": MANY,
        "FAILURE_RATE_LIMIT": MANY,
    }
    with gunicorn(environ, workers=1, log=folder / "log") as server:
        command = [
            *(str(Path(sys.executable).parent / "schemathesis"), "--config-file", "schemathesis.toml"),
            *("run", f"{server.url}/api/openapi.json", "--phases", phases),
            *("--seed", SEED, "--max-examples", str(cases), "--generation-database", "none"),
            *("--continue-on-failure", "--no-shrink", "--warnings", "off", "--no-color"),
        ]
        return subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(PROJECT), "FUZZ_KEPT": " ".join(ids), "FUZZ_PHASES": phases},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )


@pytest.mark.parametrize(
    ("workspaces", "phases", "cases"),
    [
        pytest.param([], "stateful", CHAINS, id="links, all workspaces"),
        pytest.param([], "examples,coverage,fuzzing", CASES, id="cases, all workspaces"),
        pytest.param(["acme"], "stateful", CHAINS, id="links, one workspace"),
        pytest.param(["acme"], NARROW, CASES, id="cases, one workspace"),
    ],
)
def test_a_client_gets_only_answers_that_the_document_lists(
    schema: Path, tmp_path: Path, workspaces: list[str], phases: str, cases: int
) -> None:
    with long_lived_service(schema, tmp_path) as service:
        provision(service.app, {"clients": [CLIENT | ({"workspaces": workspaces} if workspaces else {})]})
        done = run(service, tmp_path, phases, cases, has_no_limits=not workspaces)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in (tmp_path / "log").read_text()
    print(done.stdout)
