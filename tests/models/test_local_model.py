"""The embedded model: a real engine with a small model."""

from __future__ import annotations

import asyncio
import json
import math

import polars as pl
import pytest
from conftest import SMALL

from simforge.errors import NotFound, UsageError
from simforge.models import downloads, local, providers
from simforge.types import ChatReply, ChatRequest, Finish, Message, Sampling


def ask(*requests: ChatRequest) -> list[ChatReply]:
    """Ask all at once, in the process's one engine."""

    async def run():
        model = await providers.open_model(providers.resolve(SMALL))
        return await asyncio.gather(*(model.chat(request) for request in requests))

    return asyncio.run(run())


def request(
    text: str, seed: int = 1, sampling: Sampling | None = None, **more
) -> ChatRequest:
    return ChatRequest(
        "small",
        (Message("user", text),),
        sampling or Sampling(0.7, 0.95, 24),
        seed,
        **more,
    )


def test_it_answers_and_counts_its_tokens():
    (reply,) = ask(request("Name three fruits.", sampling=Sampling(0.0, 1.0, 200)))
    assert reply.text
    assert reply.finish == Finish.stop
    assert 5 < reply.prompt_tokens < 60
    assert 0 < reply.completion_tokens < 200


def test_the_token_limit_is_kept_and_said():
    (reply,) = ask(
        request("Count from one to a hundred.", sampling=Sampling(0.0, 1.0, 7))
    )
    assert (reply.completion_tokens, reply.finish) == (7, Finish.length)


def test_a_stop_text_ends_the_reply_and_is_not_part_of_it():
    (whole,) = ask(
        request("Count from one to ten with commas.", sampling=Sampling(0.0, 1.0, 40))
    )
    stop = whole.text.split()[3]
    (cut,) = ask(
        request(
            "Count from one to ten with commas.",
            sampling=Sampling(0.0, 1.0, 40, (stop,)),
        )
    )
    assert cut.text == whole.text.split(stop)[0].strip()
    assert cut.finish == Finish.stop


def test_the_same_request_alone_gives_the_same_text_and_another_seed_another():
    (one,), (same,), (other,) = (
        ask(request("Tell me a story.")),
        ask(request("Tell me a story.")),
        ask(request("Tell me a story.", 2)),
    )
    assert one.text == same.text != other.text


def test_a_prompt_read_before_is_counted_as_cached():
    text = "Here is a long letter. " * 30
    first, again = ask(request(text + "One?"))[0], ask(request(text + "Two?"))[0]
    assert first.cached_tokens < 64
    assert again.prompt_tokens - 64 < again.cached_tokens < again.prompt_tokens


def test_a_json_schema_binds_the_reply():
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["calm", "cross"]}, "age": {"type": "integer"}},
        "required": ["mood", "age"],
        "additionalProperties": False,
    }
    asked = [
        request(
            f"Describe person {i}.",
            i,
            Sampling(0.7, 0.95, 120),
            schema=json.dumps(schema),
        )
        for i in range(6)
    ]
    whole = [
        json.loads(reply.text) for reply in ask(*asked) if reply.finish == Finish.stop
    ]
    assert whole
    for value in whole:
        assert set(value) == {"mood", "age"}
        assert value["mood"] in ("calm", "cross")
        assert isinstance(value["age"], int)


def test_choices_come_with_probabilities_that_follow_the_prompt():
    options = ("yes", "no")
    leading = [
        request(
            f"Repeat exactly this word and nothing else: {word}",
            sampling=Sampling(0.0, 1.0, 4),
            choices=options,
        )
        for word in options
    ]
    yes, no = ask(*leading)
    for reply in (yes, no):
        assert math.isclose(sum(reply.choice_probabilities.values()), 1.0)
        assert reply.text == max(
            reply.choice_probabilities, key=reply.choice_probabilities.get
        )
    assert yes.choice_probabilities["yes"] > no.choice_probabilities["yes"]


def test_requests_share_the_batch_and_a_short_one_does_not_wait_for_a_long_one():
    ended: list[str] = []

    async def run():
        model = await providers.open_model(providers.resolve(SMALL))

        async def one(name: str, tokens: int):
            await model.chat(
                request("Tell me a long story.", sampling=Sampling(0.9, 1.0, tokens))
            )
            ended.append(name)

        await asyncio.gather(one("long", 120), one("short", 4))

    asyncio.run(run())
    assert ended == ["short", "long"]


def test_a_cancelled_request_leaves_the_engine_usable():
    async def run():
        model = await providers.open_model(providers.resolve(SMALL))
        task = asyncio.create_task(
            model.chat(
                request("Tell me a long story.", sampling=Sampling(0.9, 1.0, 400))
            )
        )
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return await model.chat(request("Hello?"))

    assert asyncio.run(run()).completion_tokens > 0


def test_the_model_is_loaded_once_in_a_process():
    ask(request("Hi."))
    before = dict(local._engines)
    ask(request("Hi."))
    assert {path: id(engine) for path, engine in local._engines.items()} == {
        p: id(e) for p, e in before.items()
    }


def test_a_model_that_is_not_there_says_which_there_are(tmp_path):
    with pytest.raises(NotFound, match="did you mean 'smollm2-135m'"):
        providers.resolve("local:smollm2-130m")
    with pytest.raises(UsageError, match="no GGUF file or OpenVINO folder at"):
        providers.resolve(f"local:{tmp_path}/none.gguf")
    with pytest.raises(UsageError, match="hf/OWNER/REPO/FILE"):
        providers.resolve("local:hf/owner")


def test_a_file_that_is_no_model_is_a_sentence(tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF no more")
    with pytest.raises(Exception, match="cannot be loaded as a local model"):
        asyncio.run(providers.open_model(providers.resolve(f"local:{path}")))


def test_a_cached_file_is_not_fetched_again(tmp_path, monkeypatch):
    known = downloads.KNOWN_MODELS["smollm2-135m"]
    source = downloads.model_path("smollm2-135m")
    target = tmp_path / "models" / known.file
    target.parent.mkdir()
    target.symlink_to(source)
    monkeypatch.setenv("SIMFORGE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    assert downloads.model_path("smollm2-135m") == target
    assert target.is_symlink()  # a fetch would have put a file in its place


def test_a_run_of_the_real_model_makes_pairs_in_its_own_words(real_run):
    read = {
        name: pl.read_parquet(real_run / f"data/{name}/*.parquet")
        for name in ("preferences", "candidates", "discards")
    }
    assert read["candidates"].height == 4 * 3 * 6
    assert read["preferences"].height + read["discards"].height == 4 * 3 * 3
    assert read["preferences"].height > 0
    assert read["candidates"]["completion_tokens"].min() > 0
    manifest = json.loads((real_run / "manifest.json").read_text())
    assert {about["fingerprint"] for about in manifest["models"].values()} == {
        "local:b179c9523d0e6a0f"
    }
