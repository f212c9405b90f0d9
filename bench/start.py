"""Start time and memory of a worker, against the bare view."""

import time
from pathlib import Path
from typing import Final

from bench import load, rig
from bench.report import Results
from tests.support.servers import PROJECT, gunicorn

STARTS: Final = 5
APPS: Final = {"service": "bench.service:create_app()", "bare": "bench.bare:create_app()"}


def measure(folder: Path, results: Results) -> None:
    (folder / "gunicorn.conf.py").write_text('worker_class = "gthread"\nthreads = 8\n')
    database = f"sqlite:///{folder / 'bench.db'}"
    rig.fill(database, None)
    seconds: dict[str, list[float]] = {name: [] for name in APPS}
    memory: dict[str, list[float]] = {name: [] for name in APPS}
    for number in range(STARTS):
        for name, app in APPS.items():
            began = time.perf_counter()
            environ = rig.settings(database, None) | rig.PATHS
            # The bare view has its own gunicorn.conf.py, because ours imports half of the service.
            cwd = PROJECT if name == "service" else folder
            log = folder / f"{name}{number}.log"
            with gunicorn(environ, workers=1, app=app, log=log, cwd=cwd) as server:
                seconds[name].append(time.perf_counter() - began)
                target = rig.Target(name, server, range(10))
                target.prepare() if name == "service" else target.send(rig.open_request(rig.GARBAGE))
                memory[name].append(resident(load.children_of(server.process.pid)[0]))
    results.compare("start to the first answer", "s", seconds, aim="at most 2.5 times")
    results.compare("resident memory of a worker", "MB", memory, aim="at most 60 MB")


def resident(process: int) -> float:
    """Return the resident memory of a process, in megabytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(process)
