"""The service against the limit and a bare view, in interleaved rounds."""

from pathlib import Path
from typing import Final

from bench import rig
from bench.report import Results, Series

#: The base of each kind of work, and the service's aim.
AGAINST: Final = {
    "mint": ("limit", 0.80),
    "open": ("limit", 0.80),
    "session": ("limit", 0.85),
    "garbage": ("bare", 0.80),
}


def measure(kind: str, plan: rig.Plan, folder: Path, results: Results) -> None:
    with rig.stores(kind, folder) as (database, redis):
        rig.fill(database, redis)
        with rig.servers(database, redis, folder, plan) as targets:
            for work, (base, aim) in AGAINST.items():
                # The limit against itself shows the noise.
                names = ["service", base, f"{base} again"] + ([] if base == "bare" else ["bare"])
                runs = rig.interleaved({name: targets[name.split()[0]] for name in names}, work, plan)
                results.add(kind, work, base, aim, [Series(name, runs[name]) for name in names])
                if work == "mint":
                    # Minting has replaced the tokens that the next frames open with.
                    for name in ("service", "limit"):
                        targets[name].prepare()
