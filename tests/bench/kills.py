"""Kills a run with SIGKILL at random moments, until it is sealed, again and again, and compares the
bytes with those of a run that nobody disturbed.

    uv run python tests/bench/kills.py [KILLS]      default: 100

Each start is killed after a random time between the start of Python and the end of the run, so that
kills fall into loading, playing, writing parts, compaction and sealing. Prints how many kills there
were in each stage, and in how many finished runs the bytes differ.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from simforge.identity import file_sha256

COMMAND = (
    "generate quickstart --personas 60 --seed 3 --model scripted: --set judge.share=1"
)


def digests(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): file_sha256(path)
        for path in sorted(out.rglob("*.parquet"))
    }


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "simforge", *COMMAND.split(), "--out", str(out)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def stage(out: Path) -> str:
    """Where a killed run was, by what it left."""
    work = out / "work"
    if (out / "manifest.json").exists():
        return "after sealing"
    if (work / "sealing").exists() or (out / "data").exists():
        return "sealing"
    if any(work.glob("parts/*.arrow")):
        return "playing, with parts"
    if any(work.glob("ledger/*.jsonl")):
        return "playing, before the first part"
    return "loading"


def main() -> int:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    source = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        begun = time.monotonic()
        if start(whole).wait() != 0:
            print("the undisturbed run failed")
            return 1
        longest = time.monotonic() - begun
        expected, out = digests(whole), Path(scratch) / "killed"
        stages: Counter[str] = Counter()
        finished = different = failed = 0
        while stages.total() < wanted:
            process = start(out)
            try:
                status = process.wait(timeout=source.uniform(0.2, 1.05) * longest)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                stages[stage(out)] += 1
                continue
            finished += 1
            failed += status != 0
            different += digests(out) != expected
            shutil.rmtree(out)
        if out.exists():
            failed += start(out).wait() != 0
            finished += 1
            different += digests(out) != expected
    for name, count in stages.most_common():
        print(f"{count:4} kills: {name}")
    print(
        f"{stages.total()} kills; {finished} runs ended, {failed} with a failure, "
        f"{different} with other bytes"
    )
    return int(bool(failed or different))


if __name__ == "__main__":
    sys.exit(main())
