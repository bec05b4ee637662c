"""What a run of many one-turn scenarios takes: scenarios a second, and the memory of the driver.

    uv run python tests/bench/scale.py [PERSONAS] [EXECUTOR] [WORKERS] [KEY=VALUE ...]

Plays `quickstart` with one turn and without a judge on the scripted model, first for a tenth of
PERSONAS (default 100,000), then for all, each in a process of its own, and prints both and the
difference of their peak memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main(
    personas: str = "100000",
    executor: str = "local",
    workers: str = "1",
    *overrides: str,
) -> None:
    peaks = []
    for count in (int(personas) // 10, int(personas)):
        command = [
            sys.executable,
            __file__,
            "one",
            str(count),
            executor,
            workers,
            *overrides,
        ]
        found = json.loads(
            subprocess.run(
                command, check=True, capture_output=True, text=True
            ).stdout.splitlines()[-1]
        )
        peaks.append(found["peak"])
        speeds = (
            f"{count / found['seconds']:,.0f} scenarios/s, "
            f"{found['calls'] / found['seconds']:,.0f} replies/s"
        )
        print(
            f"{count:,}: {found['seconds']:.0f} s, {speeds}, driver at most "
            f"{found['peak']:.0f} MiB",
            flush=True,
        )
    print(f"{peaks[1] - peaks[0]:.0f} MiB more for ten times as many")


def one(personas: str, executor: str, workers: str, *overrides: str) -> None:
    from simforge.run import pipeline
    from simforge.run.options import Options
    from simforge.run.progress import Display

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = Options(
            out=Path(folder) / "run",
            personas=int(personas),
            models=("scripted:",),
            overrides=("judge=null", "dialogue.turns=1", *overrides),
            executor=executor,
            workers=int(workers),
        )
        usage = pipeline.generate(settings, Display()).manifest["usage"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    calls = sum(used["calls"] for used in usage.values())
    print(
        json.dumps(
            {"seconds": time.perf_counter() - start, "peak": peak, "calls": calls}
        )
    )


if __name__ == "__main__":
    one(*sys.argv[2:]) if sys.argv[1:2] == ["one"] else main(*sys.argv[1:])
