"""Ten-turn dialogues in flight together against one of them alone.

    uv run python tests/bench/turns.py

64 dialogues of the `aloe` pipeline, ten turns each, against a stub endpoint of 200 ms; the floor is one dialogue by
itself. No dialogue waits for another, so the ratio says what playing, guarding and recording them costs. With latencies
that are log-normal (sigma 0.8) the floor is the longest of the 64 alone, and the median dialogue shows that a straggler
delays only itself. Also printed: how much of the prompts a prefix cache would serve.
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

from simforge import config, models
from simforge.dialogue import play
from simforge.guards import GUARDS
from simforge.ledger import Ledger
from simforge.pipeline import prepare
from simforge.roles import Roles

STUB = Path(__file__).parents[3] / "shared" / "tools" / "stub_openai.py"
LOOSE = [f"dialogue.guards.{name}=flag" for name in GUARDS]
"The stub has ninety words and says them over and over: guards look, and change nothing."


def started(*flags: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, str(STUB), "--port", "0", *flags], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, f"http://{process.stdout.readline().rpartition(' ')[2].strip()}/v1"


async def timed(url: str, people: range) -> tuple[float, list[float]]:
    """Seconds for all dialogues together, and each one's own."""
    recipe = config.load("aloe", LOOSE, [f"openai:stub@{url}"])
    plan, script = prepare(recipe, people.stop, seed=0)
    spec = models.resolve(recipe.models["user"])
    model = await models.open_model(spec)
    own: list[float] = []
    with tempfile.TemporaryDirectory() as scratch, Ledger(Path(scratch)) as ledger:
        roles = Roles(dict.fromkeys(recipe.roles, (spec, model)), ledger, 0)

        async def one(number: int) -> None:
            start = time.monotonic()
            episode = await play(plan.scenario(number), script, roles)
            own.append(time.monotonic() - start)
            assert len(episode.lines[0].turns) == recipe.dialogue.turns, episode.lines[0].ending

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
        process, url = started("--latency-ms", arguments.latency_ms, "--sigma", sigma, "--words", "40")
        try:
            alone = [asyncio.run(timed(url, range(n, n + 1)))[0] for n in (0, 1)]
            together, own = asyncio.run(timed(url, range(arguments.dialogues)))
            with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as answer:
                stats = json.load(answer)
        finally:
            process.terminate()
            process.wait()
        print(
            f"sigma {sigma}: one dialogue {alone[0]:.1f} and {alone[1]:.1f} s, {arguments.dialogues} together "
            f"{together:.1f} s, ratio {together / max(alone):.2f}; a dialogue among them: median "
            f"{statistics.median(own):.1f} s, longest {max(own):.1f} s; prefix reuse {stats['prefix_reuse']:.2f}"
        )


if __name__ == "__main__":
    main()
