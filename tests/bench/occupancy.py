"""How much of the allowed concurrency is in use, and how soon the first call is made, against a
stub endpoint.

    uv run --with uvloop python tests/bench/occupancy.py STUB_OPENAI.PY [PERSONAS] [EXECUTOR] [WORKERS]

Plays `psoup` without a judge with 512 dialogues and 512 calls in flight, latency log-normal
around 500 ms (sigma 0.6). Prints the mean share of the 512 in use between a quarter and three
quarters of the run, and the seconds from the command's start to its first call.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from endpoint_throughput import serving

ALLOWED = 512


def main(
    stub: str, personas: str = "1500", executor: str = "local", workers: str = "1"
) -> None:
    with (
        serving(stub, "--latency-ms", "500", "--sigma", "0.6") as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        words = [
            "generate",
            "psoup",
            "--personas",
            personas,
            "--set",
            "judge=null",
            "--model",
            f"openai:stub@{url}/v1",
        ]
        words += [
            "--executor",
            executor,
            "--workers",
            workers,
            "--concurrency",
            str(ALLOWED // int(workers)),
        ]
        words += ["--max-in-flight", str(ALLOWED), "--out", str(Path(folder) / "run")]
        start = time.perf_counter()
        run = subprocess.Popen(
            [sys.executable, "-m", "simforge", *words], stdout=subprocess.DEVNULL
        )
        seen: list[tuple[float, int, int]] = []
        while run.poll() is None:
            stats = json.load(urllib.request.urlopen(f"{url}/stats"))
            seen.append(
                (time.perf_counter() - start, stats["requests"], stats["in_flight"])
            )
            time.sleep(0.05)
        assert run.returncode == 0
    total = seen[-1][1]
    middle = [
        in_flight
        for _, requests, in_flight in seen
        if 0.25 * total <= requests <= 0.75 * total
    ]
    print(
        f"first call after {next(at for at, requests, _ in seen if requests > 1):.1f} s"
    )
    print(
        f"{sum(middle) / len(middle) / ALLOWED:.0%} of {ALLOWED} in use; {total:,} calls; at "
        f"most {max(middle)}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
