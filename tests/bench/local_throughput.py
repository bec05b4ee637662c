"""Tokens a second of a run against the bare engine on the same prompts.

    uv run python tests/bench/local_throughput.py [--model smollm2-135m] [--personas 32] [--concurrency 32]

Plays quickstart dialogues in this process and writes down every request; then gives the same
requests, all at once, to a bare `ContinuousBatchingPipeline` of its own, with nothing around
it. Prints both speeds and their ratio. The bare engine has all prompts from the start, where a
dialogue's second turn has to wait for its first: 1.0 is out of reach.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from simforge.models import contract, downloads, local, providers
from simforge.models.calls import Roles
from simforge.models.ledger import Ledger
from simforge.run.checks import load_recipe
from simforge.run.pipeline import prepare
from simforge.run.shards import Job, Shard, Worker
from simforge.types import ChatReply, ChatRequest


class Recorder:
    """A model that keeps what it was asked."""

    def __init__(self, model: contract.Model) -> None:
        self._model = model
        self.requests: list[ChatRequest] = []
        self.tokens = 0

    async def chat(self, request: ChatRequest) -> ChatReply:
        reply = await self._model.chat(request)
        self.requests.append(request)
        self.tokens += reply.completion_tokens
        return reply


async def run(name: str, personas: int, concurrency: int) -> tuple[Recorder, float]:
    """Play the dialogues; gives the recorder and the seconds, the loading of the model left out."""
    recipe = load_recipe(
        "quickstart", models=[f"local:{name}"], overrides=["judge=null"]
    )
    plan, script = prepare(recipe, personas, seed=0)
    specs = {role: providers.resolve(recipe.models[role]) for role in recipe.roles}
    recorder = Recorder(await local.LocalModel.open(name))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(script, specs, Path(folder), (), concurrency)
        roles = Roles(
            {role: (spec, recorder) for role, spec in specs.items()},
            Ledger(Path(folder)),
            0,
        )
        worker = Worker(job, roles)
        started = time.perf_counter()
        await worker.play(Shard(0, plan.scenarios(0, len(plan))))
        spent = time.perf_counter() - started
        await worker.close()
    return recorder, spent


def bare(name: str, requests: list[ChatRequest]) -> tuple[int, float]:
    """The same requests through an engine of their own; gives completion tokens and seconds."""
    pipeline = local._load(str(downloads.model_path(name)))
    tokenizer = pipeline.get_tokenizer()
    prompts = [
        tokenizer.encode(
            tokenizer.apply_chat_template([m.as_dict() for m in one.messages], True),
            add_special_tokens=False,
        )
        for one in requests
    ]
    configs = [local._generation_config(one) for one in requests]
    started = time.perf_counter()
    results = pipeline.generate([prompt.input_ids for prompt in prompts], configs)
    spent = time.perf_counter() - started
    return sum(len(result.m_generation_ids[0]) for result in results), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--personas", type=int, default=32)
    parser.add_argument("--concurrency", type=int, default=32)
    options = parser.parse_args()
    recorder, spent = asyncio.run(
        run(options.model, options.personas, options.concurrency)
    )
    local._engines.clear()
    tokens, bare_spent = bare(options.model, recorder.requests)
    ours, theirs = recorder.tokens / spent, tokens / bare_spent
    calls = len(recorder.requests)
    print(
        f"{options.model}, {options.personas} dialogues, {options.concurrency} in flight, "
        f"{calls} calls"
    )
    print(f"run   {recorder.tokens} tokens in {spent:.1f} s: {ours:.0f} tokens/s")
    print(f"bare  {tokens} tokens in {bare_spent:.1f} s: {theirs:.0f} tokens/s")
    print(f"ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
