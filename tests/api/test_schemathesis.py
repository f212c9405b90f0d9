"""Whatever the API's document allows is sent to a running service, links included, by schemathesis.

`make fuzz` sends much more than the few cases of `make test`. Each run has a database of its own.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from pat_service.storage.models import App, User, Workspace
from tests.support.servers import PROJECT, gunicorn
from tests.support.world import KEY, ORDERS, SECRETS, Service, lasting_service, provision

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

#: Cases of each operation, and chains of links, at most.
CASES = int(os.environ.get("FUZZ_CASES", "3"))
CHAINS = int(os.environ.get("FUZZ_CHAINS", "40"))
#: What covers each schema is refused for its form, whoever sends it: once is enough, but for `make fuzz`.
NARROW = "examples,coverage,fuzzing" if "FUZZ_CASES" in os.environ else "examples,fuzzing"
SEED = os.environ.get("FUZZ_SEED", "11")
MANY = "1000000 per minute"
CLIENT: dict[str, Any] = {
    "id": "fuzzer",
    "secret": SECRETS["manager"],
    "scopes": ["mint", "mint:workspace", "provision", "audit"],
    "highest_role": "admin",
    "mint_limit": MANY,
}
#: {ids}, {session}, {has_no_limits}: of this run.
CONFIG = f"""
hooks = "tests.support.schemathesis_hooks"

[auth.openapi]
client = {{{{ username = "{CLIENT["id"]}", password = "{CLIENT["secret"]}" }}}}
session = {{{{ bearer = "{{session}}" }}}}

# So that more is found than what is not there.
[generation.dictionaries]
string = {{{{ dictionary = "known", probability = 0.3 }}}}

[dictionaries.known]
values = [{{ids}}, "ana@acme.test", "ben@acme.test", "orders", "acme"]

# The document has no inference to make: it says itself what leads where.
[phases.stateful.inference]
algorithms = []

# What is wrong leads nowhere; it is sent in the other phases.
[phases.stateful.generation]
mode = "positive"

# A client that is limited to workspaces must name a membership, which a schema for all cannot say.
[[operations]]
include-operation-id = "createUser"
checks.positive_data_acceptance.enabled = {{has_no_limits}}

# What was revoked or has ended can still be read.
[[operations]]
include-operation-id = ["readToken", "readSession", "revokeToken", "endSession"]
checks.use_after_free.enabled = false

# One filter at least, whichever it is: OpenAPI has no words for that.
[[operations]]
include-operation-id = ["revokeTokens", "endSessions"]
checks.positive_data_acceptance.enabled = false
"""


def run(
    service: Service, folder: Path, phases: str, cases: int, *, has_no_limits: bool
) -> subprocess.CompletedProcess[str]:
    """Send what the document allows, as CLIENT, to a server on this service's database."""
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
        )


@pytest.mark.parametrize(
    ("workspaces", "phases", "cases"),
    [
        pytest.param([], "stateful", CHAINS, id="links of everything"),
        pytest.param([], "examples,coverage,fuzzing", CASES, id="each of everything"),
        pytest.param(["acme"], "stateful", CHAINS, id="links of one workspace"),
        pytest.param(["acme"], NARROW, CASES, id="each of one workspace"),
    ],
)
def test_a_client_meets_nothing_that_the_document_does_not_say(
    schema: Path, tmp_path: Path, workspaces: list[str], phases: str, cases: int
) -> None:
    with lasting_service(schema, tmp_path) as service:
        provision(service.app, {"clients": [CLIENT | ({"workspaces": workspaces} if workspaces else {})]})
        done = run(service, tmp_path, phases, cases, has_no_limits=not workspaces)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in (tmp_path / "log").read_text()
    print(done.stdout)
