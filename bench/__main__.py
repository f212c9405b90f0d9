"""`make bench`, `make bench-growth` and `make bench-view`: the service's cost on this machine."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import gateway, growth, relay, report, rig, speed, start, view

ROUNDS = 7
KINDS = ["speed", "growth", "view", "relay", "gateway"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=KINDS, default="speed")
    parser.add_argument("--on", choices=["sqlite", "postgresql"], help="measure one database (default: both)")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default: 7; of the view: 9)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds for each server in a round")
    parser.add_argument(
        "--connections", type=int, default=16, help="open connections, each with one request in progress"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size of the grown database: 1 is a million tokens"
    )
    parser.add_argument(
        "--write", action="store_true", help="put the results into docs/dev/performance-notes.md"
    )
    options = parser.parse_args()
    if options.what == "view":
        with _folder() as folder:
            view.measure(options.rounds or view.ROUNDS, folder, write=options.write)
        return
    if options.what == "relay":
        relay.measure()
        return
    if options.what == "gateway":
        with _folder() as folder:
            gateway.measure(options.rounds or gateway.ROUNDS, folder)
        return
    plan = rig.Plan(options.rounds or ROUNDS, options.seconds, options.connections, options.workers)
    kinds = [options.on] if options.on else ["sqlite", "postgresql"]
    results = report.Results(plan)
    for kind in kinds:
        with _folder() as folder:
            if options.what == "growth":
                growth.measure(kind, plan, options.scale, folder, results)
            else:
                speed.measure(kind, plan, folder, results)
    if options.what == "speed":
        with _folder() as folder:
            start.measure(folder, results)
    if options.write:
        results.write(options.what)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user if this one is root
        yield folder


main()
