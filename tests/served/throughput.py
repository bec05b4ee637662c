"""Tokens a second of a run on a served vLLM, against vLLM's own offline engine on the same
requests.

    PYTHON tests/served/throughput.py [PERSONAS]      PYTHON is that of the environment that tests/served/run makes

The requests are those of `psoup` without a judge, whose prompts do not depend on answers.
Offline means one call of `LLM.chat` with all of them, no server and no client. Both are counted
from the first request to the last reply.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

MODEL = os.environ["SIMFORGE_VLLM_MODEL"]
ENGINE = {
    "dtype": "bfloat16",
    "max_model_len": 2048,
    "enforce_eager": True,
    "max_num_batched_tokens": 32768,
}
"No prompt is read in parts: on CPUs vLLM 0.32 dies of that where requests have seeds."
SERVED = {
    "vllm:*": {
        "gpus": 0,
        "cpus": 0.5,
        "arguments": {k.replace("_", "-"): v for k, v in ENGINE.items()},
    }
}


def main(personas: str = "24") -> None:
    with tempfile.TemporaryDirectory() as folder:
        speeds = {}
        for kind in ("record", "offline", "served"):
            command = [sys.executable, __file__, kind, personas, folder]
            env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
            said = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=env
            ).stdout
            if kind != "record":
                found = json.loads(
                    next(
                        line
                        for line in said.splitlines()
                        if line.startswith('{"tokens"')
                    )
                )
                speeds[kind] = found["tokens"] / found["seconds"]
                print(
                    f"{kind}: {found['tokens']:,} tokens in {found['seconds']:.0f} s, "
                    f"{speeds[kind]:,.0f} tokens/s",
                    flush=True,
                )
        print(f"served / offline: {speeds['served'] / speeds['offline']:.0%}")


def written(request: Any) -> str:
    """A model that keeps what it is asked."""
    with (Path(os.environ["KEPT"]) / "requests.jsonl").open("a") as file:
        file.write(
            json.dumps(
                [
                    [message.as_dict() for message in request.messages],
                    asdict(request.sampling),
                    request.seed,
                ]
            )
            + "\n"
        )
    return "An answer."


def run(personas: str, model: str, folder: Path, name: str) -> tuple[int, float]:
    from simforge.run import pipeline
    from simforge.run.options import Options
    from simforge.run.progress import Display
    from simforge.types import Usage

    class Clock(Display):
        began = ended = 0.0

        def running(self, *arguments: Any) -> Any:
            self.began = time.perf_counter()
            return super().running(*arguments)

        def replied(self, used: Usage) -> None:
            self.ended = time.perf_counter()

    clock = Clock()
    settings = Options(
        out=folder / name,
        personas=int(personas),
        pipeline="psoup",
        models=(model,),
        overrides=("judge=null", f"servers={json.dumps(SERVED)}"),
        executor="local",
    )
    used = pipeline.generate(settings, clock).manifest["usage"]["assistants"]
    return used[
        "completion_tokens"
    ] // 2, clock.ended - clock.began  # twins share each answer


def record(personas: str, folder: str) -> None:
    os.environ["KEPT"] = folder
    run(personas, "scripted:throughput:written", Path(folder), "recorded")


def served(personas: str, folder: str) -> None:
    tokens, seconds = run(personas, f"vllm:{MODEL}", Path(folder), "served")
    print(json.dumps({"tokens": tokens, "seconds": seconds}))


def offline(personas: str, folder: str) -> None:
    from vllm import LLM, SamplingParams

    lines = [
        json.loads(line)
        for line in (Path(folder) / "requests.jsonl").read_text().splitlines()
    ]
    engine = LLM(MODEL, **ENGINE)
    settings = [
        SamplingParams(
            temperature=s["temperature"],
            top_p=s["top_p"],
            max_tokens=s["max_tokens"],
            seed=seed,
        )
        for _, s, seed in lines
    ]
    start = time.perf_counter()
    outputs = engine.chat(
        [messages for messages, _, _ in lines], settings, use_tqdm=False
    )
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "tokens": sum(len(one.outputs[0].token_ids) for one in outputs),
                "seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("record", "offline", "served"):
        {"record": record, "offline": offline, "served": served}[sys.argv[1]](
            *sys.argv[2:]
        )
    else:
        main(*sys.argv[1:])
