"""How many calls a second go through HTTP, and what they cost this process, against a stub
endpoint.

    uv run --with uvloop python tests/bench/endpoint_throughput.py STUB_OPENAI.PY [PERSONAS] [FAULTS ...]

Plays `psoup` without a judge against a stub that answers after 50 ms, with 512 dialogues in
flight: once to warm up, once clean, and once per fault (`limit=0.1`, or
`fail=0.05,cut=0.01,hang=0.005`). Prints calls a second, CPU per call (templates, hashing,
filters, ledger and tables included; start-up is in the warm-up), and the time of each faulty
run as a multiple of the clean one.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simforge.run import pipeline
from simforge.run.options import Options
from simforge.run.progress import Display


def main(stub: str, personas: str = "1000", *faults: str) -> None:
    run(stub, 50, "")
    clean = run(stub, int(personas), "")
    speed, cpu = (
        clean["requests"] / clean["seconds"],
        1000 * clean["cpu"] / clean["requests"],
    )
    print(f"clean: {speed:,.0f} calls/s, {cpu:.2f} ms CPU a call")
    for fault in faults:
        faulty = run(stub, int(personas), fault)
        ratio = faulty["seconds"] / clean["seconds"]
        asked = f"{faulty['requests']} requests for {clean['requests']} calls"
        print(
            f"{fault}: {ratio:.2f} times the clean time; {asked}, {faulty['lost']} dialogues lost"
        )


@contextmanager
def serving(stub: str, *flags: str) -> Iterator[str]:
    """A stub endpoint for the time of the block; gives its address."""
    command = [sys.executable, stub, "--port", "0", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://{server.stdout.readline().rpartition(' ')[2].strip()}"
    finally:
        server.terminate()
        server.wait()


def run(stub: str, personas: int, fault: str) -> dict[str, float]:
    named = [one.partition("=") for one in fault.split(",") if one]
    with serving(
        stub, "--latency-ms", "50", *(p for n, _, v in named for p in (f"--{n}", v))
    ) as url:
        with tempfile.TemporaryDirectory() as folder:
            settings = Options(
                out=Path(folder) / "run",
                personas=personas,
                pipeline="psoup",
                models=(f"openai:stub@{url}/v1",),
                overrides=("judge=null",),
                concurrency=512,
                max_failures=1.0,
            )
            cpu, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            done = pipeline.generate(settings, Display())
            spent, after = (
                time.perf_counter() - start,
                resource.getrusage(resource.RUSAGE_SELF),
            )
        stats = json.load(urllib.request.urlopen(f"{url}/stats"))
        return {
            "seconds": spent,
            "cpu": after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime,
            "requests": stats["requests"],
            "lost": done.manifest["dialogues"]["failed"],
        }


if __name__ == "__main__":
    main(*sys.argv[1:])
