"""The `local` provider: OpenVINO GenAI's continuous batching, in this process.

All dialogues of a process share one engine. `chat` adds a request to the running batch and
waits for its result. A task, the pump, steps the engine while there is work, so the next
request of a dialogue joins the batch at the next step, and no dialogue waits for a slower one.
The engine holds Python's lock (GIL) during a step, so the pump runs in the event loop itself: a
thread would not overlap with other work and would add switching costs.

Measured limits of the engine: it does not repeat a text if the batch around it differs
(repetition comes from the ledger), and it returns the log-probability of the chosen token only.
That is computed before the grammar mask is applied, so the probability of a choice is measured
by forcing that choice.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simforge.errors import CallFailed, ModelError
from simforge.identity import rng
from simforge.install import how_to_install
from simforge.models import downloads
from simforge.models.thinking import split_thinking
from simforge.types import ChatReply, ChatRequest, Finish, Message

if TYPE_CHECKING:
    import openvino_genai


log = logging.getLogger("simforge")


CACHE_GB = 2
"Memory for the KV cache."


BATCH_TOKENS = 512
"Maximum number of tokens per step. Larger: faster prompts; smaller: faster reaction to Ctrl-C."


YIELDS_PER_STEP = 12
"""Turns of the event loop between two steps: enough for a finished dialogue to parse and record
the answer and send its next request before the next step, so that its place in the batch does
not stay empty for a step."""


CACHE_BLOCK = 32
"Tokens per block of the engine's prefix cache, on CPUs."


_engines: dict[str, Engine] = {}


@dataclass(slots=True)
class _Job:
    handle: Any
    done: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Output:
    tokens: list[int]
    log_probabilities: list[float]
    finish: Finish
    prompt_tokens: int
    cached_tokens: int


class LocalModel:
    """A local model as a client."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    async def open(cls, name: str) -> LocalModel:
        """Load the model, or share it if this process has already loaded it."""
        path = str(downloads.model_path(name))
        if path not in _engines:
            log.info("loading local:%s", name)
            _engines[path] = Engine(await _run_in_thread(lambda: _load(path)))
        return cls(_engines[path])

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        if request.choices:
            return await self._choose(request)
        config = _generation_config(request)
        out = await self._engine.generate(request.messages, config)
        text = _cut_at_stop(self._engine.decode(out.tokens), request.sampling.stop)
        parts = split_thinking(text)
        return ChatReply(
            text=parts.visible,
            finish=Finish.thought if parts.is_unfinished else out.finish,
            prompt_tokens=out.prompt_tokens,
            cached_tokens=out.cached_tokens,
            completion_tokens=len(out.tokens),
            thinking_tokens=round(
                len(out.tokens) * parts.characters / max(1, len(text))
            ),
        )

    async def close(self) -> None:
        """Do nothing: the engine stays loaded for the next client."""

    async def _choose(self, request: ChatRequest) -> ChatReply:
        """Force each choice in turn and normalise their probabilities. The first runs alone, so
        that the others read the prompt from the prefix cache."""
        first, *others = request.choices
        outs = [await self._force_choice(request, first)]
        outs += await asyncio.gather(
            *(self._force_choice(request, choice) for choice in others)
        )
        logs = [sum(out.log_probabilities) for out in outs]
        top = max(logs)
        shares = [math.exp(value - top) for value in logs]
        probabilities = {
            c: s / sum(shares) for c, s in zip(request.choices, shares, strict=True)
        }
        if request.sampling.temperature == 0:
            text = max(probabilities, key=lambda choice: probabilities[choice])
        else:
            tempered = [
                math.pow(p, 1 / request.sampling.temperature)
                for p in probabilities.values()
            ]
            text = rng(request.seed, "choice").choices(request.choices, tempered)[0]
        return ChatReply(
            text=text,
            finish=Finish.stop,
            prompt_tokens=sum(out.prompt_tokens for out in outs),
            cached_tokens=sum(out.cached_tokens for out in outs),
            completion_tokens=sum(len(out.tokens) for out in outs),
            choice_probabilities=probabilities,
        )

    async def _force_choice(self, request: ChatRequest, choice: str) -> _Output:
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 4 * len(choice) + 8
        config.logprobs = 1
        config.structured_output_config = openvino_genai.StructuredOutputConfig(
            regex=re.escape(choice)
        )
        return await self._engine.generate(request.messages, config)


class Engine:
    """One loaded model and its batch; used from one event loop at a time."""

    def __init__(self, pipeline: openvino_genai.ContinuousBatchingPipeline) -> None:
        import openvino_genai

        self._pipeline = pipeline
        self._tokenizer = pipeline.get_tokenizer()
        self._running = openvino_genai.GenerationStatus.RUNNING
        self._length = openvino_genai.GenerationFinishReason.LENGTH
        self._end_token = self._tokenizer.get_eos_token_id()
        self._jobs: dict[int, _Job] = {}
        self._last_request = 0
        self._pump: asyncio.Task[None] | None = None
        self._prefixes = _PrefixCounter()

    async def generate(
        self, messages: tuple[Message, ...], config: openvino_genai.GenerationConfig
    ) -> _Output:
        """Run one request through the shared batch."""
        prompt = self._tokenizer.apply_chat_template(
            [message.as_dict() for message in messages], True
        )
        tokens = self._tokenizer.encode(prompt, add_special_tokens=False).input_ids
        ids = tokens.data[0].tolist()
        self._last_request += 1
        number = self._last_request
        try:
            handle = self._pipeline.add_request(number, tokens, config)
        except RuntimeError as problem:
            raise CallFailed(
                f"the local engine refused a prompt of {len(ids)} tokens: {_last_line(problem)}"
            ) from None
        cached = self._prefixes.count(ids)
        job = _Job(handle, asyncio.get_running_loop().create_future())
        self._jobs[number] = job
        if (
            self._pump is None
            or self._pump.done()
            or self._pump.get_loop() is not job.done.get_loop()
        ):
            self._pump = asyncio.create_task(self._step_while_busy())
        try:
            output = await job.done
        except asyncio.CancelledError:
            handle.cancel()
            raise
        finally:
            self._jobs.pop(number, None)
        generated = [
            token for token in output.generated_ids if token != self._end_token
        ]
        finish = Finish.length if output.finish_reason == self._length else Finish.stop
        return _Output(
            generated,
            output.generated_log_probs[: len(generated)],
            finish,
            len(ids),
            cached,
        )

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens)) if tokens else ""

    async def _step_while_busy(self) -> None:
        try:
            while self._jobs:
                self._pipeline.step()
                for number, job in list(self._jobs.items()):
                    if job.handle.get_status() != self._running:
                        self._finish(job)
                        del self._jobs[number]
                for _ in range(YIELDS_PER_STEP):
                    await asyncio.sleep(0)
        except Exception as problem:  # on any error, no request may be left waiting
            failure = ModelError(f"the local engine stopped: {_last_line(problem)}")
            for job in self._jobs.values():
                if not job.done.done():
                    job.done.set_exception(failure)

    def _finish(self, job: _Job) -> None:
        if job.done.done():  # cancelled meanwhile
            return
        outputs = job.handle.read_all()
        if outputs:
            job.done.set_result(outputs[0])
        else:
            status = job.handle.get_status().name
            job.done.set_exception(
                CallFailed(
                    f"the local engine gave no answer ({status}): the prompt may not "
                    f"fit into its {CACHE_GB} GB cache"
                )
            )


class _PrefixCounter:
    """Counter of the prompt tokens that the engine's prefix cache contains: the leading whole
    blocks that an earlier prompt shares. The engine does not report them. Exact until the cache
    is full, an upper bound after that."""

    def __init__(self, max_blocks: int = 65_536) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._max_blocks = max_blocks

    def count(self, ids: list[int]) -> int:
        block_hash, cached, unbroken = 0, 0, True
        for start in range(
            0, len(ids) - CACHE_BLOCK, CACHE_BLOCK
        ):  # the last token is always computed
            block_hash = hash((block_hash, *ids[start : start + CACHE_BLOCK]))
            unbroken = unbroken and block_hash in self._blocks
            cached += CACHE_BLOCK if unbroken else 0
            self._blocks[block_hash] = None
            self._blocks.move_to_end(block_hash)
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)
        return cached


def _generation_config(request: ChatRequest) -> openvino_genai.GenerationConfig:
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = request.sampling.max_tokens
    config.do_sample = request.sampling.temperature > 0
    if config.do_sample:
        config.temperature = request.sampling.temperature
        config.top_p = request.sampling.top_p
        config.rng_seed = request.seed
    if request.sampling.stop:
        config.stop_strings = set(request.sampling.stop)
    if request.schema is not None:
        config.structured_output_config = openvino_genai.StructuredOutputConfig(
            json_schema=request.schema
        )
    return config


def _load(path: str) -> openvino_genai.ContinuousBatchingPipeline:
    try:
        import openvino_genai
    except ImportError:
        raise ModelError(
            f"local models need openvino-genai: {how_to_install('local')}."
        ) from None
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GB
    scheduler.enable_prefix_caching = True
    scheduler.max_num_seqs = 256
    scheduler.max_num_batched_tokens = BATCH_TOKENS
    try:
        return openvino_genai.ContinuousBatchingPipeline(path, scheduler, "CPU", {})
    except RuntimeError as problem:
        raise ModelError(
            f"{path} cannot be loaded as a local model: {_last_line(problem)}"
        ) from None


async def _run_in_thread(work: Any) -> Any:
    """Run blocking work in a daemon thread, so that an interrupt does not wait for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, problem: BaseException | None) -> None:
        if not done.done():
            done.set_exception(problem) if problem else done.set_result(result)

    def run() -> None:
        result, problem = None, None
        try:
            result = work()
        except Exception as raised:
            problem = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=run, daemon=True, name="simforge-load").start()
    return await done


def _cut_at_stop(text: str, stop: tuple[str, ...]) -> str:
    """Cut the text at the first stop text: a token may contain the stop text and more."""
    ends = [text.find(stop_text) for stop_text in stop if stop_text in text]
    return text[: min(ends)].strip() if ends else text.strip()


def _last_line(problem: Exception) -> str:
    return str(problem).strip().split("\n")[-1][:300]
