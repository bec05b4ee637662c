"""Ten-turn dialogues in flight together against one of them alone.

    uv run python tests/bench/turns.py

64 dialogues of the `aloe` pipeline, ten turns each, against a stub endpoint of 200 ms. The
floor is the longest of them played again by itself. No dialogue waits for another, so the ratio
says what playing, guarding and recording them costs; with latencies that are log-normal (sigma
0.8) the median shows that a straggler delays only itself. Also printed: how much of the prompts
a prefix cache would serve.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from simforge.dialogue.guards import GUARDS
from simforge.dialogue.play import play
from simforge.models import providers
from simforge.models.calls import Roles
from simforge.models.ledger import Ledger
from simforge.run.checks import load_recipe
from simforge.run.pipeline import prepare

STUB = Path(__file__).parents[1] / "stubs" / "openai_endpoint.py"
LOOSE = [f"dialogue.guards.{name}=flag" for name in GUARDS]
"The stub has ninety words and says them over and over: guards look, and change nothing."


def started(*flags: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, str(STUB), "--port", "0", *flags],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, f"http://{process.stdout.readline().rpartition(' ')[2].strip()}/v1"


async def timed(url: str, people: range) -> tuple[float, dict[int, float]]:
    """Seconds for all dialogues together, and each one's own by its number."""
    recipe = load_recipe("aloe", LOOSE, [f"openai:stub@{url}"])
    plan, script = prepare(recipe, people.stop, seed=0)
    spec = providers.resolve(recipe.models["user"])
    model = await providers.open_model(spec)
    own: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as scratch, Ledger(Path(scratch)) as ledger:
        roles = Roles(dict.fromkeys(recipe.roles, (spec, model)), ledger, 0)

        async def one(number: int) -> None:
            start = time.monotonic()
            episode = await play(plan.scenario(number), script, roles)
            own[number] = time.monotonic() - start
            assert len(episode.branches[0].turns) == recipe.dialogue.turns, (
                episode.branches[0].ending
            )

        start = time.monotonic()
        await asyncio.gather(*(one(number) for number in people))
        whole = time.monotonic() - start
    await model.close()
    return whole, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--dialogues", type=int, default=64)
    parser.add_argument("--latency-ms", default="200")
    arguments = parser.parse_args()
    for sigma in ("0", "0.8"):
        process, url = started(
            "--latency-ms", arguments.latency_ms, "--sigma", sigma, "--words", "40"
        )
        try:
            together, own = asyncio.run(timed(url, range(arguments.dialogues)))
            longest = max(own, key=lambda number: own[number])
            with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as answer:
                stats = json.load(answer)
            urllib.request.urlopen(
                url.removesuffix("/v1") + "/reset", data=b""
            ).close()  # then latencies are the same
            alone, _ = asyncio.run(timed(url, range(longest, longest + 1)))
        finally:
            process.terminate()
            process.wait()
        print(
            f"sigma {sigma}: {arguments.dialogues} together {together:.1f} s, the longest of "
            f"them alone {alone:.1f} s, "
            f"ratio {together / alone:.2f}; the median dialogue "
            f"{statistics.median(own.values()):.1f} s; "
            f"prefix reuse {stats['prefix_reuse']:.2f}"
        )


if __name__ == "__main__":
    main()
