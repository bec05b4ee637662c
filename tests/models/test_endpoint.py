"""Endpoints: any OpenAI-compatible server, with its faults."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import polars as pl
import pytest
from conftest import simforge

from simforge import catalog
from simforge.errors import CallFailed, MalformedReply, ModelError, UsageError
from simforge.models import endpoint as endpoints
from simforge.models import endpoint_checks, providers
from simforge.models.rate_limits import UNLIMITED, Bounds, Gate
from simforge.models.replies import choice_probabilities, parse_reply
from simforge.types import ChatReply, ChatRequest, Finish, Message, Sampling


def request(text: str = "Hello", **settings) -> ChatRequest:
    sampling = Sampling(max_tokens=settings.pop("max_tokens", 60))
    return ChatRequest("m", (Message("user", text),), sampling, seed=1, **settings)


def ask(
    reference: str, *requests: ChatRequest, bounds: Bounds = UNLIMITED, **more
) -> list[ChatReply | BaseException]:
    """What comes of asking a model all of that at once; `more` changes its spec."""

    async def talk() -> list[ChatReply | BaseException]:
        client = await endpoints.Endpoint.open(
            replace(providers.resolve(reference), **more), bounds=bounds
        )
        try:
            return await asyncio.gather(
                *(client.chat(one) for one in requests), return_exceptions=True
            )
        finally:
            await client.close()

    return asyncio.run(talk())


def test_a_run_works_against_an_endpoint_and_a_second_one_asks_nothing(
    endpoint, tmp_path
):
    server = endpoint(latency_ms=2)
    command = ["generate", "psoup", "--personas", 8, "--model", server.model]
    assert simforge(*command, "--out", tmp_path / "a").status == 0
    asked_once = server.stats()["requests"]
    again = simforge(*command, "--out", tmp_path / "b", "--reuse", tmp_path / "a")
    checked = (
        server.stats()["requests"] - asked_once
    )  # each run looks once whether the server keeps to choices
    assert (again.status, checked) == (0, 1), again.err
    tables = [
        pl.read_parquet(tmp_path / run / "data/candidates/*.parquet") for run in "ab"
    ]
    assert tables[0].equals(tables[1]) and tables[0]["model"].unique().to_list() == [
        server.model
    ]
    assert (
        pl.read_parquet(tmp_path / "a/data/judgments/*.parquet")
        .filter(method="model")["p_a"]
        .null_count()
        == 0
    )


def test_schemas_choices_and_lengths_are_asked_for_as_servers_understand_them(endpoint):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
    }
    plain, shaped, chosen = ask(
        endpoint(latency_ms=1).model,
        request(),
        request(schema=json.dumps(schema)),
        request("x", choices=("1", "2", "tie")),
        enforces_choices=True,
    )
    assert (plain.finish, plain.prompt_tokens > 0, plain.completion_tokens > 0) == (
        Finish.stop,
        True,
        True,
    )
    assert isinstance(json.loads(shaped.text)["n"], int)
    assert chosen.text in ("1", "2", "tie") and sum(
        chosen.choice_probabilities.values()
    ) == pytest.approx(1)


@pytest.mark.parametrize("fault", ["fail", "limit", "cut"])
def test_a_call_that_fails_for_once_is_asked_again_with_the_same_words(endpoint, fault):
    server = endpoint(latency_ms=1, **{fault: 0.3})
    requests = [request(f"question {number}") for number in range(60)]
    replies = ask(server.model, *requests)
    assert all(isinstance(reply, ChatReply) for reply in replies)
    stats = server.stats()
    assert (
        stats["distinct_bodies"] == 60
        and stats["repeated_bodies"] == stats["faults"][fault] > 0
    )


def test_a_call_that_hangs_is_given_up_and_asked_again(endpoint):
    server = endpoint(latency_ms=1, hang=0.02)
    replies = ask(server.model, *(request(f"first {number}") for number in range(200)))
    assert all(isinstance(reply, ChatReply) for reply in replies)


def test_a_refused_request_is_that_requests_failure_with_the_servers_words():
    with pytest.raises(CallFailed, match="the answer has no message"):
        parse_reply({"error": "x"})


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("openai:stub@localhost:8000", "must be written openai:NAME@URL"),
        ("openai:@http://x/v1", "must be written openai:NAME@URL"),
        (
            "openai:stub@http://127.0.0.1:9/v1",
            "http://127.0.0.1:9/v1 cannot be reached",
        ),
    ],
)
def test_an_endpoint_that_is_not_there_is_told_before_anything_starts(
    tmp_path, reference, sentence
):
    done = simforge(
        "generate", "--personas", 2, "--model", reference, "--out", tmp_path / "r"
    )
    assert (done.status, sentence in done.err, (tmp_path / "r").exists()) == (
        2,
        True,
        False,
    ), done.err


def test_a_model_that_the_server_does_not_have_is_told_with_the_nearest(
    endpoint, tmp_path
):
    server = endpoint(latency_ms=1, model="qwen3-8b")
    reference = server.model.replace("stub", "qwen3-80b")
    done = simforge(
        "generate", "--personas", 2, "--model", reference, "--out", tmp_path / "r"
    )
    assert (
        done.status,
        "has no model 'qwen3-80b'; did you mean 'qwen3-8b'?" in done.err,
    ) == (2, True), done.err


def answer(text, finish="stop", **more):
    message = {"content": text, **more}
    return {"choices": [{"message": message, "finish_reason": finish}]}


HARMONY = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes."


@pytest.mark.parametrize(
    "text",
    [
        "<think>hm\nhm</think>\n\nYes.",
        "so I think\n</think>\n\nYes.",
        "<thinking>hm</thinking>Yes.",
        "<reasoning>hm</reasoning> Yes.",
        "<seed:think>hm</seed:think>Yes.",
        "[THINK]hm[/THINK]Yes.",
        "◁think▷hm◁/think▷Yes.",
        "<|begin_of_thought|>hm<|end_of_thought|>Yes.",
        "<|START_THINKING|>hm<|END_THINKING|>Yes.",
        "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>",
        "<THINK>hm</THINK>Yes.",
        "<analysis>hm</analysis>Yes.",
        "<think>a block ```py x</think>Yes.",
        HARMONY,
        f"{HARMONY}<|return|>",
        "analysisWe need to say yes.assistantfinalYes.",
        [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "Yes."}],
    ],
)
def test_thinking_is_taken_out_in_every_notation(text):
    reply = parse_reply(answer(text))
    assert (reply.text, reply.finish) == ("Yes.", Finish.stop)


@pytest.mark.parametrize(
    "text", ["<think>and then", "<thinking>hm", "<|channel|>analysis<|message|>hm"]
)
def test_thinking_that_never_ends_is_a_cut_off_answer(text):
    reply = parse_reply(answer(text))
    assert (reply.text, reply.finish) == ("", Finish.thought)


@pytest.mark.parametrize(
    "text",
    [
        "Put it after a `<think>` tag, as in analysis of text.",
        "Use the tag: `<think>x</think>` in HTML.",
        "```html\n<think>\nx\n</think>\n```\nThat is all.",
    ],
)
def test_an_answer_about_marks_of_thinking_is_left_as_it_is(text):
    assert parse_reply(answer(text)).text == text


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", Finish.stop),
        ("tool_calls", Finish.stop),
        ("length", Finish.length),
        ("content_filter", Finish.content_filter),
        ("error", None),
        ("abort", None),
        ("something new", None),
        (None, None),
        (7, None),
        ({}, None),
    ],
)
def test_only_an_answer_that_the_server_calls_finished_is(reason, finish):
    if finish is None:
        with pytest.raises(MalformedReply, match="finish_reason"):
            parse_reply(answer("Yes and", reason))
    else:
        assert parse_reply(answer("Yes and", reason)).finish == finish


def test_of_several_answers_the_whole_ones_are_kept():
    several = {
        "choices": [*answer("One.")["choices"], *answer("Tw", "error")["choices"]]
    }
    assert [one.text for one in parse_reply(several).completions] == ["One."]
    refused = answer(None, "stop", refusal="I cannot help with that.")
    assert parse_reply(refused).finish == Finish.content_filter


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [{"message": None}]},
        {"choices": [{"message": "x"}]},
        {"choices": [None]},
        {"choices": []},
        {"choices": {}},
        {},
    ],
)
def test_an_answer_without_a_message_is_a_failed_call(odd):
    with pytest.raises(CallFailed, match="the answer has no message"):
        parse_reply(odd)


@pytest.mark.parametrize(
    "count", [5_000_000_000, -4e9, float("nan"), float("inf"), "7.5", [], True, 10**400]
)
def test_a_count_that_is_none_is_a_failed_call(count):
    for name in ("prompt_tokens", "completion_tokens"):
        with pytest.raises(CallFailed, match=f"{name} is .*not a count of tokens"):
            parse_reply({**answer("Yes."), "usage": {name: count}})


def test_texts_can_always_be_stored():
    assert parse_reply(answer("a\ud800b")).text == "a?b"


def test_probabilities_of_choices_come_from_what_begins_exactly_one():
    def top(**tokens):
        import math

        found = [
            {"token": token, "logprob": math.log(p)} for token, p in tokens.items()
        ]
        return {"logprobs": {"content": [{"top_logprobs": found}]}}

    given = top(**{"1": 0.5, " 2": 0.25, "t": 0.2, "The": 0.05})
    assert choice_probabilities(given, ("1", "2", "tie")) == pytest.approx(
        {"1": 0.5 / 0.95, "2": 0.25 / 0.95, "tie": 0.2 / 0.95}
    )
    assert choice_probabilities(top(t=1.0), ("tie", "two")) == {}
    for broken in (
        None,
        [None],
        [{"token": "1"}],
        [{"token": "1", "logprob": None}],
        [{"token": "1", "logprob": 1e6}],
        [{"token": "1", "logprob": float("nan")}],
        [{"token": "1", "logprob": float("-inf")}],
    ):
        content = {"logprobs": {"content": [{"top_logprobs": broken}]}}
        assert choice_probabilities(content, ("1", "2")) == {}
    assert choice_probabilities({}, ("1", "2")) == {}


def test_dialogues_stay_at_their_url_and_spread_over_all(endpoint):
    servers = [endpoint(latency_ms=5) for _ in range(2)]
    name = f"openai:stub@{servers[0].url},{servers[1].url}"

    async def ask() -> None:
        client = await endpoints.Endpoint.open(providers.resolve(name))
        for turn in range(3):
            await asyncio.gather(
                *(
                    client.chat(
                        ChatRequest(
                            "m",
                            (
                                Message("system", f"person {n}"),
                                Message("user", "a"),
                                *[Message("assistant", "b")] * turn,
                            ),
                            Sampling(),
                            seed=1,
                        ),
                        f"dialogue {n}",
                    )
                    for n in range(40)
                )
            )
        await client.close()

    asyncio.run(ask())
    stats = [server.stats() for server in servers]
    assert (
        sum(one["requests"] for one in stats) == 120
        and min(one["requests"] for one in stats) > 30
    )
    # Each dialogue's second and third call find their first messages where the first call left
    # them.
    assert sum(one["prefix_reuse"] * one["prompt_chars"] for one in stats) > 0.5 * sum(
        one["prompt_chars"] for one in stats
    )


def test_the_gate_halves_under_load_and_learns_to_live_with_refusals_that_no_cut_prevents():
    async def asked(refuses) -> float:
        """The limit after 4,000 calls, as many at once as it allows; `refuses` is asked with
        the call's number, its place among those in flight, and how many those are."""
        gate, number = Gate(), 0
        while number < 4000:
            at_once = int(gate.limit)
            for _ in range(at_once):
                await gate.enter()
            for place in range(at_once):
                number += 1
                gate.record_refusal() if refuses(
                    number, place, at_once
                ) else gate.record_answer(0.05)
                gate.leave()
        return gate.limit

    assert (
        25
        <= asyncio.run(
            asked(lambda number, place, at_once: at_once > 60 and number % 3 == 0)
        )
        <= 75
    )
    assert asyncio.run(asked(lambda number, place, at_once: number % 10 == 0)) > 200
    assert asyncio.run(asked(lambda number, place, at_once: place >= 4)) < 30


def test_a_limit_that_is_not_reached_does_not_grow():
    gate = Gate()
    for _ in range(1000):
        asyncio.run(gate.enter())
        gate.record_answer(0.05)
        gate.leave()
    assert gate.limit == 16


def test_a_place_is_free_again_after_a_cancelled_wait():
    async def crowd() -> int:
        gate = Gate(max_in_flight=1)

        async def hold(seconds: float) -> None:
            await gate.enter()
            try:
                await asyncio.sleep(seconds)
            finally:
                gate.leave()

        tasks = [asyncio.create_task(hold(0.02)) for _ in range(4)]
        await asyncio.sleep(0.005)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return gate.in_flight

    assert asyncio.run(crowd()) == 0


def test_wrong_references_are_refused():
    for wrong in ("x@ftp://y", "@", "x@"):
        with pytest.raises(UsageError, match="must be written"):
            providers.resolve(f"openai:{wrong}")
    assert issubclass(CallFailed, ModelError)


def test_a_recipe_says_how_an_endpoint_is_asked_and_no_secret_gets_out(tmp_path):
    heard: list[tuple[dict, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def answer(self, status: int, content: dict) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            right = self.headers["Authorization"] == "Bearer sesame"
            self.answer(
                200 if right else 401,
                {"data": [{"id": "m"}]} if right else {"error": {"message": "who?"}},
            )

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((dict(self.headers), body))
            self.answer(
                200,
                {
                    "choices": [
                        {"message": {"content": "An answer."}, "finish_reason": "stop"}
                    ]
                },
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    recipe = catalog.entry("pipelines", "psoup").text
    (tmp_path / "mine.yaml").write_text(
        recipe
        + f'endpoints: {{"{url}*": {{key_variable: MY_KEY, headers: {{X-Lab: ours}}, body: {{top_k: '
        "7}}}\n"
    )
    command = [
        "generate",
        "./mine.yaml",
        "--personas",
        2,
        "--model",
        f"openai:m@{url}",
        "--set",
        "judge=null",
        "--out",
        "r",
    ]
    try:
        asked = simforge(*command, cwd=tmp_path, env={"MY_KEY": "sesame"})
        assert (asked.status, heard) == (2, []), asked.err
        grant = f"--key 127.0.0.1:{server.server_port}=MY_KEY"
        assert f"MY_KEY to 127.0.0.1:{server.server_port}" in asked.err
        assert grant in asked.err and not (tmp_path / "r").exists()
        command += grant.split()
        refused = simforge(*command, cwd=tmp_path, env={"MY_KEY": "wrong"})
        assert (
            refused.status,
            "refuses the key" in refused.err,
            "look at MY_KEY" in refused.err,
        ) == (2, True, True)
        done = simforge(*command, cwd=tmp_path, env={"MY_KEY": "sesame"})
        assert done.status == 0, done.err
    finally:
        server.shutdown()
        server.server_close()
    headers, body = heard[-1]
    assert (headers["Authorization"], headers["X-Lab"], body["top_k"]) == (
        "Bearer sesame",
        "ours",
        7,
    )
    written = [path for path in (tmp_path / "r").rglob("*") if path.is_file()]
    assert not any(
        b"sesame" in path.read_bytes() or b"X-Lab" in path.read_bytes()
        for path in written
    )


def test_a_killed_run_asks_again_only_what_was_in_flight(endpoint, tmp_path):
    server = endpoint(latency_ms=20)
    arguments = [
        "generate",
        "psoup",
        "--personas",
        60,
        "--model",
        server.model,
        "--concurrency",
        16,
    ]
    command = [
        sys.executable,
        "-m",
        "simforge",
        *map(str, arguments),
        "--out",
        str(tmp_path / "r"),
    ]
    for goal in (0.3, 0.6, 0.9):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while server.stats()["distinct_bodies"] < goal * 640 and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.wait()
    done = simforge(*arguments, "--out", tmp_path / "r")
    assert done.status == 0, done.err
    stats = server.stats()
    assert stats["repeated_bodies"] <= 3 * 48, (
        stats
    )  # three kills, each with at most 16 dialogues' calls in flight
    whole = simforge(*arguments, "--out", tmp_path / "whole", "--reuse", tmp_path / "r")
    assert (
        whole.status == 0
        and server.stats()["distinct_bodies"] == stats["distinct_bodies"]
    )
    for table in ("preferences", "judgments", "candidates", "discards"):
        files = [
            sorted((tmp_path / run / "data" / table).glob("*.parquet"))
            for run in ("r", "whole")
        ]
        assert [one.read_bytes() for one in files[0]] == [
            one.read_bytes() for one in files[1]
        ]


class Picky(BaseHTTPRequestHandler):
    """A server that refuses fields, or answers in ways of its own: `refuses` is set by the test."""

    refuses: dict[str, str] = {}
    heard: list[dict] = []
    gone_after = 10**9
    "Calls after which it has no such model."

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answer(200, {"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.heard.append(body)
        if len(self.heard) > self.gone_after:
            return self.answer(404, {"error": {"message": "The model does not exist."}})
        for field, words in self.refuses.items():
            if field in body:
                return self.answer(400, {"error": {"message": words, "param": field}})
        said = {
            "message": {"content": "<think>hm, hm, hm</think>Yes."},
            "finish_reason": "stop",
        }
        return self.answer(
            200,
            {"choices": [said], "usage": {"prompt_tokens": 9, "completion_tokens": 30}},
        )

    def answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def picky():
    """A server of that kind, and the reference of its model."""
    Picky.refuses, Picky.heard, Picky.gone_after = {}, [], 10**9
    server = ThreadingHTTPServer(("127.0.0.1", 0), Picky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"openai:m@http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_what_a_server_does_not_take_is_left_out_and_said_once(picky, caplog):
    Picky.refuses = {
        "seed": "seed is not supported",
        "temperature": "Only 1",
        "max_tokens": "use max_completion_tokens",
    }
    replies = ask(picky, *(request(f"question {number}") for number in range(5)))
    assert all(isinstance(reply, ChatReply) for reply in replies)
    assert {"seed", "temperature", "max_tokens"} & {*Picky.heard[-1]} == set()
    assert Picky.heard[-1]["max_completion_tokens"] == 60
    warned = [
        record.getMessage()
        for record in caplog.records
        if "does not take" in record.getMessage()
    ]
    assert len(warned) == 2


def test_a_refusal_that_is_about_something_else_is_the_calls_failure(picky):
    Picky.refuses = {"messages": "this model's maximum context length is 2048 tokens"}
    (reply,) = ask(picky, request())
    assert (
        isinstance(reply, CallFailed)
        and "maximum context length" in str(reply)
        and len(Picky.heard) == 1
    )


def test_a_call_that_is_refused_for_another_reason_ends_though_fields_were_left_out_before(
    picky,
):
    Picky.refuses = {"seed": "seed is not supported"}
    spec = providers.resolve(picky)

    async def talk() -> BaseException | ChatReply:
        client = await endpoints.Endpoint.open(spec)
        await client.chat(request())
        Picky.refuses = {"messages": "maximum context length is 2048 tokens"}
        try:
            return await client.chat(request())
        except CallFailed as problem:
            return problem
        finally:
            await client.close()

    assert (
        "maximum context length" in str(asyncio.run(asyncio.wait_for(talk(), 20)))
        and len(Picky.heard) == 3
    )


def test_thinking_is_counted_and_not_said(picky):
    (reply,) = ask(picky, request())
    assert (reply.text, reply.completion_tokens, reply.thinking_tokens) == (
        "Yes.",
        30,
        26,
    )


def test_a_server_that_ignores_choices_is_told_of_and_not_asked_for_them(picky, caplog):
    spec = endpoint_checks.check(providers.resolve(picky), needs_choices=True)
    assert not spec.enforces_choices and "does not keep to choices" in caplog.text
    (reply,) = ask(
        picky, request(choices=("1", "2")), enforces_choices=spec.enforces_choices
    )
    assert reply.text == "Yes." and "structured_outputs" not in Picky.heard[-1]


def test_several_answers_are_one_call_where_the_server_draws_them(
    endpoint, picky, tmp_path
):
    server = endpoint(latency_ms=1)
    (reply,) = ask(server.model, request(n=3))
    assert len(reply.completions) == 3 and server.stats()["requests"] == 1
    what = ["psoup-published", "--personas", 6, "--model", server.model]
    assert simforge("generate", *what, "--out", tmp_path / "r").status == 0
    asked = [
        body
        for body in (tmp_path / "r/work/ledger").glob("*.jsonl")
        for body in body.read_text().splitlines()
    ]
    candidates = pl.read_parquet(tmp_path / "r/data/candidates/*.parquet")
    drawn = [line for line in asked if '"answers"' in line]
    assert (
        0 < len(drawn) <= candidates.height / 2
        and candidates["completion_tokens"].null_count() > 0
    )
    (one,) = ask(picky, request(n=3))
    assert len(one.completions) == 1  # whoever asked draws the rest


def test_tokens_a_minute_are_kept_to(endpoint):
    server = endpoint(latency_ms=1, words=60)
    start = time.monotonic()
    replies = ask(
        server.model,
        *(request(f"q {number}") for number in range(40)),
        bounds=Bounds(tokens_per_minute=12_000),
    )
    spent = time.monotonic() - start
    used = sum(reply.prompt_tokens + reply.completion_tokens for reply in replies)
    assert (
        used > 1_500 and used <= 200 * (spent + 5) * 1.2
    )  # 200 a second, and a few seconds' worth at once


def test_an_endpoint_that_has_served_and_refuses_for_good_stops_the_run_so_that_it_can_go_on(
    picky, tmp_path
):
    Picky.gone_after = 30
    command = [
        "generate",
        "psoup",
        "--personas",
        40,
        "--model",
        picky,
        "--set",
        "judge=null",
        "--out",
        tmp_path / "r",
    ]
    stopped = simforge(*command)
    assert (
        stopped.status,
        "answered 404" in stopped.err,
        "To continue, run" in stopped.err,
    ) == (3, True, True), stopped.err
    Picky.gone_after = 10**9
    assert simforge(*command).status == 0


def test_a_model_that_moves_is_asked_where_it_is_by_those_who_wait_as_well(endpoint):
    first, second = endpoint(latency_ms=100), endpoint(latency_ms=1)
    spec = replace(providers.resolve("vllm:stub"), urls=(first.url,))

    async def talk() -> None:
        client = await endpoints.Endpoint.open(spec, bounds=Bounds(in_flight=1))
        calls = [
            asyncio.create_task(client.chat(request(f"q {number}"), "d"))
            for number in range(4)
        ]
        await asyncio.sleep(0.05)
        client.set_urls(())
        await asyncio.sleep(0.3)
        client.set_urls((second.url,))
        await asyncio.gather(*calls)
        await client.close()

    asyncio.run(talk())
    assert (first.stats()["requests"], second.stats()["requests"]) == (1, 3)


def test_a_changed_judge_pays_only_for_judging(endpoint, tmp_path):
    server = endpoint(latency_ms=1)
    words = ["generate", "psoup", "--personas", 8, "--model", server.model]
    assert simforge(*words, "--out", tmp_path / "a").status == 0
    asked = server.stats()["requests"]
    changed = catalog.entry("generators", "judge/pairwise").text.replace(
        "@system", "@system\nTake your time.", 1
    )
    (tmp_path / "judge.md").write_text(changed)
    again = [
        *words,
        "--set",
        f"judge.generator={tmp_path}/judge.md",
        "--reuse",
        tmp_path / "a",
    ]
    done = simforge(*again, "--out", tmp_path / "b")
    assert done.status == 0, done.err
    judged = pl.read_parquet(tmp_path / "b/data/judgments/*.parquet").filter(
        method="model"
    )
    orders = judged["verdict_ab"].count() + judged["verdict_ba"].count()
    assert (
        0 < server.stats()["requests"] - asked <= orders + 1
    )  # and one look whether choices are kept to
    ledger = simforge("ledger", tmp_path / "b").out
    assert int(ledger.split()[0]) == server.stats()["requests"] - asked - 1
