"""What a whole audit takes: seconds and memory of `simforge audit` on a scripted run.

    uv run python tests/bench/audits.py [PAIRS]

Prints them for each family of scorers alone and for both, and the ratio of the whole to the
part without scorers that every `generate` does at its end.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PER_PERSON = 9
"Pairs of psoup."


def took(*command: str) -> tuple[float, float]:
    """Seconds, and the largest memory of any child so far in GiB."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "simforge", *command],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start, resource.getrusage(
        resource.RUSAGE_CHILDREN
    ).ru_maxrss / 2**20


def main(pairs: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run = str(Path(scratch) / "run")
        people = str(-(-pairs // PER_PERSON))
        made, _ = took(
            "generate",
            "psoup",
            "--personas",
            people,
            "--model",
            "scripted:",
            "--out",
            run,
        )
        print(
            f"{pairs:,} pairs: made in {made:.0f} s, with the part of the audit that needs no "
            "scorers"
        )
        for families in (("text",), ("embeddings",), ("text", "embeddings")):
            seconds, memory = took("audit", run, "--scorers", *families)
            name = " and ".join(families)
            print(
                f"{name:20}  {seconds:5.0f} s  {memory:4.1f} GiB at most  "
                f"{seconds / made:4.1f} x generate"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
