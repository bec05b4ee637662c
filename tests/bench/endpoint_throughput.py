"""How many calls a second go through HTTP, and what they cost this process, against a stub endpoint.

    uv run --with uvloop python tests/bench/endpoint_throughput.py STUB_OPENAI.PY [PERSONAS] [FAULTS ...]

Plays `psoup` without a judge once against a clean stub and once per fault (`limit=0.1`), all at 50 ms, with 512
dialogues in flight, and prints calls a second, CPU per call (templates, hashing, ledger and tables included) and the
time of each faulty run as a multiple of the clean one.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from simforge import pipeline
from simforge.display import Display


def main(stub: str, personas: str = "1000", *faults: str) -> None:
    clean = run(stub, int(personas), "")
    speed, cpu = clean["requests"] / clean["seconds"], 1000 * clean["cpu"] / clean["requests"]
    print(f"clean: {speed:,.0f} calls/s, {cpu:.2f} ms CPU a call")
    for fault in faults:
        faulty = run(stub, int(personas), fault)
        ratio = faulty["seconds"] / clean["seconds"]
        print(f"{fault}: {ratio:.2f} times the clean time; {faulty['requests']} requests for {faulty['calls']} calls, "
              f"{faulty['lost']} dialogues lost")  # fmt: skip


def run(stub: str, personas: int, fault: str) -> dict[str, float]:
    flags = [
        part
        for one in fault.split(",")
        if one
        for name, _, value in [one.partition("=")]
        for part in (f"--{name}", value)
    ]
    command = [sys.executable, stub, "--port", "0", "--latency-ms", "50", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://{server.stdout.readline().rpartition(' ')[2].strip()}"
        with tempfile.TemporaryDirectory() as folder:
            options = pipeline.Options(
                out=Path(folder) / "run",
                personas=personas,
                pipeline="psoup",
                models=(f"openai:stub@{url}/v1",),
                overrides=("judge=null",),
                concurrency=512,
                max_failures=1.0,
            )
            cpu, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            done = pipeline.generate(options, Display())
            spent, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        stats = json.load(urllib.request.urlopen(f"{url}/stats"))
        return {
            "seconds": spent,
            "cpu": after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime,
            "calls": done.manifest["usage"]["assistants"]["calls"],
            "requests": stats["requests"],
            "lost": done.manifest["dialogues"]["failed"],
        }
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
