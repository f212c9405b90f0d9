"""The demo as `make run` starts it, in a copy of the project."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.browser.checkout import environment
from tests.support.servers import free_port, wait_for

LAPTOP = ("-m", "demo.laptop")


@dataclass(frozen=True)
class Run:
    """A running demo: its address, its output and its main process."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(tree: Path, *options: str, port: int | None = None, **environ: str) -> Iterator[Run]:
    """Run the demo, and end it as Ctrl-C in a terminal does."""
    port, log = port or free_port(), tree / "log"
    env = environment(tree) | environ
    command = [sys.executable, *options, "--port", str(port)]
    with log.open("wb") as out:
        # A shell in the background lets its children ignore SIGINT.
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        wait_for(lambda: f" * Open http://localhost:{port}/" in log.read_text(), process)
        yield Run(f"http://localhost:{port}", log, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait(20)
        # Nothing of the group is left.
        wait_for(lambda: not _lives(process.pid))


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
