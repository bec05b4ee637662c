"""Servers as they are: each oddity ends in an answer, or in a sentence with the server's words."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from conftest import simforge

from simforge.errors import CallFailed, ModelError
from simforge.models import addresses, endpoint, providers, rate_limits
from simforge.models.refusals import read_refusal
from simforge.types import ChatReply, ChatRequest, Message, Sampling

Answer = tuple[int, Any, dict[str, str]]
"Status, content (bytes as they are, anything else as JSON) and headers."


def ok(text: str = "Sure.", **more: Any) -> Answer:
    message = {"content": text, **more}
    choice = {"message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return 200, {"choices": [choice], "usage": usage}, {}


def refused(status: int, **error: Any) -> Answer:
    return status, {"error": error}, {}


class Odd(ThreadingHTTPServer):
    """A server whose answers are functions of the request."""

    daemon_threads = True
    chat: Callable[[dict[str, Any]], Answer]
    models: Answer
    heard: list[tuple[str, dict[str, Any], dict[str, str]]]
    "Path, body and headers of every POST."

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def model(self) -> str:
        return f"openai:m@{self.base}"


class Handler(BaseHTTPRequestHandler):
    server: Odd

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def send(self, status: int, content: Any, headers: dict[str, str]) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.heard.append((self.path, {}, dict(self.headers)))
        self.send(*self.server.models)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        self.server.heard.append((self.path, body, dict(self.headers)))
        self.send(*self.server.chat(body))


@pytest.fixture
def odd() -> Iterator[Callable[..., Odd]]:
    servers: list[Odd] = []

    def start(chat: Callable[[dict[str, Any]], Answer], models: Any = None) -> Odd:
        server = Odd(("127.0.0.1", 0), Handler)
        server.chat, server.heard = chat, []
        server.models = models or (200, {"data": [{"id": "m"}]}, {})
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(reference: str, *texts: str, system: str = "") -> list[Any]:
    """Ask all of that at once; failures are returned."""
    prefix = (Message("system", system),) if system else ()

    async def talk() -> list[Any]:
        client = await endpoint.Endpoint.open(providers.resolve(reference))
        requests = [
            ChatRequest("m", (*prefix, Message("user", text)), Sampling(), seed=1)
            for text in texts
        ]
        try:
            return await asyncio.gather(
                *(client.chat(request) for request in requests), return_exceptions=True
            )
        finally:
            await client.close()

    return asyncio.run(talk())


def generate(server: Odd, tmp_path: Any, people: int = 2, *more: object) -> Any:
    return simforge(
        *("generate", "psoup", "--personas", people, "--model", server.model),
        *("--set", "judge=null", "--out", tmp_path / "r", *more),
    )


LISTINGS = {
    "a bare list": (200, [{"id": "m"}], {}),
    "a list of names": (200, ["m"], {}),
    "names": (200, {"models": [{"name": "m"}]}, {}),
    "a page": (200, b"<html>Sign in</html>", {"Content-Type": "text/html"}),
    "null": (200, None, {}),
    "entries that are no objects": (200, {"data": [3, None, "x"]}, {}),
    "an empty body": (200, b"", {}),
    "broken JSON": (200, b'{"data": [', {}),
    "forbidden": (403, {"error": {"message": "no listing"}}, {}),
    "not found": (404, b"nothing here", {}),
    "an error": (500, b"oops", {}),
    "a longer name": (200, {"data": [{"id": "m:latest"}]}, {}),
    "a routed name": (200, {"data": [{"id": "vendor/m"}]}, {}),
}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_a_server_that_answers_is_used_whatever_it_lists(listing, odd, tmp_path):
    server = odd(lambda body: ok(), listing)
    done = generate(server, tmp_path)
    assert done.status == 0, done.err
    assert server.heard


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refused(401, message="bad key sk-123456789"), "bad key [removed]"),
        (refused(402, message="no credit left"), "no credit left"),
        (refused(404, message="no model m"), "no model m"),
        (refused(429, message="You exceeded your current quota"), "your current quota"),
        (refused(400, message="context of 5 tokens"), "context of 5 tokens"),
        (
            (307, b"", {"Location": "http://127.0.0.1:9/v1"}),
            "redirects are not followed",
        ),
    ],
    ids=["key", "money", "model", "quota", "every call", "redirect"],
)
def test_what_no_call_can_mend_stops_the_run_at_once_in_the_servers_words(
    answer, words, odd, tmp_path, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123456789")
    server = odd(lambda body: answer)
    start = time.monotonic()
    done = generate(server, tmp_path, 30)
    assert done.status == 2 and words in done.err, done.err
    assert "sk-123456789" not in done.out + done.err
    assert time.monotonic() - start < 20 and not (tmp_path / "r").exists()


def test_an_error_inside_a_good_answer_is_an_error(odd):
    for error in ({"code": 502}, {"code": "429"}, {"message": "upstream"}, "broken"):
        answers = iter([(200, {"error": error}, {}), ok("Again.")])
        (reply,) = ask(odd(lambda body, answers=answers: next(answers)).model, "Hi")
        assert isinstance(reply, ChatReply) and reply.text == "Again.", error
    choice = {
        "error": {"code": 502},
        "message": {"content": "ha"},
        "finish_reason": "stop",
    }
    answers = iter([(200, {"choices": [choice]}, {}), ok("Again.")])
    (reply,) = ask(odd(lambda body: next(answers)).model, "Hi")
    assert reply.text == "Again."


def test_a_system_role_that_is_refused_is_folded_into_the_first_message(odd, caplog):
    def chat(body: dict[str, Any]) -> Answer:
        if body["messages"][0]["role"] == "system":
            return refused(400, message="System role not supported")
        return ok(body["messages"][0]["content"])

    server = odd(chat)
    replies = ask(server.model, "Hi", "Ho", system="Be brief.")
    assert [reply.text for reply in replies] == ["Be brief.\n\nHi", "Be brief.\n\nHo"]
    assert caplog.text.count("has no system role") == 1


@pytest.mark.parametrize(
    ("body", "blamed"),
    [
        (
            {"error": {"message": "Unsupported parameter: 'seed'", "param": "seed"}},
            {"seed"},
        ),
        ({"message": "Unsupported field: top_p"}, {"top_p"}),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}, {"seed"}),
        (
            {"detail": [{"loc": ["body", "user"], "msg": "bad", "input": {"seed": 1}}]},
            set(),
        ),
        (
            {"error": {"message": "temperature must be <= 1", "param": "messages"}},
            set(),
        ),
        (
            {
                "error": {
                    "message": "we stop watering a tomato seed at this temperature"
                }
            },
            set(),
        ),
        ({"error": {"message": "unsupported: 'stop'"}}, {"stop"}),
    ],
)
def test_fields_are_dropped_on_clear_evidence_only(body, blamed):
    refusal = read_refusal(json.dumps(body).encode(), ["a message"])
    found = {name for name in endpoint.OPTIONAL_FIELDS if refusal.blames(name)}
    assert found == blamed


def test_a_context_that_is_too_long_renames_nothing():
    words = "maximum context length is 5; reduce max_tokens or max_completion_tokens"
    refusal = read_refusal(json.dumps({"error": {"message": words}}).encode())
    assert not refusal.asks_for("max_completion_tokens", "max_tokens")


def test_query_strings_stay_and_routes_go_before_them(odd):
    server = odd(lambda body: ok())
    ask(f"{server.model}?api-version=1", "Hi")
    assert server.heard[-1][0] == "/v1/chat/completions?api-version=1"
    assert addresses.route("http://h/v1/", "/x") == "http://h/v1/x"


def test_prompts_and_headers_do_not_follow_a_redirect(odd):
    other = odd(lambda body: ok())
    for status in (301, 302, 307, 308):
        first = odd(lambda body, status=status: (status, b"", {"Location": other.base}))
        (problem,) = ask(first.model, "Hi")
        assert isinstance(problem, ModelError) and "redirects" in str(problem)
    assert other.heard == []


def test_bodies_are_bounded_and_compressed_ones_too(odd, monkeypatch):
    zipped = gzip.compress(json.dumps(ok("Zipped.")[1]).encode())
    (reply,) = ask(
        odd(lambda b: (200, zipped, {"Content-Encoding": "gzip"})).model, "Hi"
    )
    assert reply.text == "Zipped."
    bomb = gzip.compress(b" " * (64 << 20))
    for answer in (
        (200, bomb, {"Content-Encoding": "gzip"}),
        (200, b" " * (17 << 20), {}),
        (200, b"x", {"Content-Encoding": "gzip"}),
        (200, b"x", {"Content-Encoding": "br"}),
    ):
        (problem,) = ask(odd(lambda body, answer=answer: answer).model, "Hi")
        assert isinstance(problem, CallFailed), answer[2]


def test_a_server_that_takes_one_call_at_a_time_loses_none(odd, monkeypatch):
    lock = threading.Lock()

    def chat(body: dict[str, Any]) -> Answer:
        with lock:
            time.sleep(0.15)
        return ok()

    monkeypatch.setattr(rate_limits, "INITIAL_DEADLINE", 1.0)
    monkeypatch.setattr(
        rate_limits.Gate.__init__, "__defaults__", (rate_limits.MAX_IN_FLIGHT, 1.0, 1)
    )
    replies = ask(odd(chat).model, *(f"question {number}" for number in range(40)))
    assert all(isinstance(reply, ChatReply) for reply in replies)


def test_a_group_of_calls_that_time_out_together_cuts_the_limit_once():
    gate = rate_limits.Gate()
    gate.limit, gate.in_flight, sent = 16.0, 16, time.monotonic()
    for _ in range(16):
        gate.record_timeout(sent)
    assert gate.limit == 8


def test_a_dead_address_is_told_at_once(tmp_path):
    dead = "openai:m@http://127.0.0.1:9/v1"
    start = time.monotonic()
    done = simforge(
        "generate", "--personas", 2, "--model", dead, "--out", tmp_path / "r"
    )
    assert done.status == 2 and "127.0.0.1:9/v1 cannot be reached" in done.err
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ({"http_proxy": "p:1"}, "http://p:1"),
        ({"ALL_PROXY": "socks5://p:1"}, None),
        ({"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "example.org"}, None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "http://[::1"}, "http://p:1"),
        (
            {"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost,::1,fe80::/10"},
            "http://p:1",
        ),
        ({}, None),
    ],
)
def test_all_clients_see_the_same_proxy(variables, proxy, monkeypatch):
    for name in (
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    addresses.proxy_for.cache_clear()
    assert addresses.proxy_for("http://example.org/v1") == proxy
    assert addresses.proxy_for("http://127.0.0.1:8000/v1") is None
    addresses.proxy_for.cache_clear()


def test_a_key_goes_only_where_the_user_allows_it(odd, tmp_path, monkeypatch):
    from simforge import catalog

    monkeypatch.setenv("OPENAI_API_KEY", "sk-default-key")
    monkeypatch.setenv("OTHER_KEY", "other-secret")
    monkeypatch.setenv("SIMFORGE_KEYS", str(tmp_path / "none.yaml"))
    server = odd(lambda body: ok())
    host = f"127.0.0.1:{server.server_port}"
    recipe = tmp_path / "theirs.yaml"
    content = yaml.safe_load(catalog.entry("pipelines", "psoup").text)
    content["models"] = dict.fromkeys(("assistants", "judge"), server.model)
    recipe.write_text(json.dumps(content))
    command = ("generate", recipe, "--personas", 2, "--set", "judge=null")
    done = simforge(*command, "--out", tmp_path / "a")
    assert done.status == 0 and f"OPENAI_API_KEY is not sent to {host}" in done.err
    assert not any("sk-default-key" in str(headers) for _, _, headers in server.heard)
    done = simforge(
        *command, "--out", tmp_path / "b", "--key", f"{host}=OPENAI_API_KEY"
    )
    assert done.status == 0 and f"OPENAI_API_KEY is sent to {host}" in done.err
    assert any("sk-default-key" in str(headers) for _, _, headers in server.heard)
    content["endpoints"] = {f"{server.base}*": {"key_variable": "OTHER_KEY"}}
    recipe.write_text(json.dumps(content))
    done = simforge(*command, "--out", tmp_path / "c")
    assert done.status == 2 and f"--key {host}=OTHER_KEY" in done.err
    (tmp_path / "none.yaml").write_text(f"'{host}': OTHER_KEY\n")
    done = simforge(*command, "--out", tmp_path / "d")
    assert done.status == 0, done.err
    assert any("other-secret" in str(headers) for _, _, headers in server.heard)


def test_a_key_with_a_line_break_is_stripped_and_an_odd_one_is_not_shown(
    odd, tmp_path, monkeypatch
):
    server = odd(lambda body: ok())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123456789\n")
    assert generate(server, tmp_path).status == 0
    assert server.heard[-1][2]["Authorization"] == "Bearer sk-123456789"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123\n456789")
    done = generate(server, tmp_path / "odd")
    assert done.status == 2 and "OPENAI_API_KEY has characters" in done.err
    assert "sk-123" not in done.err


def test_a_secret_that_a_server_repeats_is_stored_nowhere(odd, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123456789")
    server = odd(lambda body: ok("Your key is sk-123456789, and all is well with it."))
    body = "endpoints={'http*': {body: {token: body-secret}}}"
    done = generate(server, tmp_path, 2, "--set", f" {body}")
    assert done.status == 0, done.err
    for path in (tmp_path / "r").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"sk-123456789" not in content and b"body-secret" not in content, path
    assert "[removed]" in next((tmp_path / "r").glob("work/ledger/*.jsonl")).read_text()


def test_an_endpoint_that_moved_goes_on_where_it_is(odd, tmp_path):
    first, second = odd(lambda body: ok()), odd(lambda body: ok())
    command = ("generate", "psoup", "--personas", 6, "--set", "judge=null")
    out = ("--out", tmp_path / "r")
    done = simforge(*command, "--model", first.model, *out)
    assert done.status == 0, done.err
    (tmp_path / "r" / "manifest.json").unlink()
    for part in (tmp_path / "r").glob("work/parts/*.arrow"):
        part.unlink()
    refused_move = simforge(*command, "--model", second.model, *out)
    assert refused_move.status == 2 and "--moved OLD=NEW" in refused_move.err
    asked = len(second.heard)
    moved = ("--moved", f"{first.base}={second.base}")
    for model in (first.model, second.model):
        done = simforge(*command, "--model", model, *out, *moved)
        assert done.status == 0, done.err
    assert all(path.endswith("/models") for path, _, _ in second.heard[asked:])


def test_lost_dialogues_are_told_with_the_commonest_message(odd, tmp_path):
    seen = []

    def chat(body: dict[str, Any]) -> Answer:
        seen.append(body)
        if len(seen) <= 6:
            return ok()
        return refused(400, message="maximum context length of 512 tokens")

    done = generate(odd(chat), tmp_path, 12)
    assert done.status == 3
    assert "maximum context length of 512 tokens" in done.err


def test_a_model_that_only_thinks_is_told_as_that(odd, tmp_path):
    server = odd(lambda body: ok("", reasoning_content="hm, let me see"))
    done = generate(server, tmp_path)
    said = " ".join(done.out.split())
    assert "the model only thought" in said, done.out + done.err
    assert "switch thinking off" in said and "larger model" not in said


def test_a_line_comes_regularly_and_says_why_nothing_happens(
    odd, tmp_path, monkeypatch, capsys
):
    from simforge.run import progress

    monkeypatch.setattr(progress, "PLAIN_LINE_INTERVAL", 0.3)
    monkeypatch.setattr(progress, "SILENT_SECONDS", 1.0)

    def chat(body: dict[str, Any]) -> Answer:
        time.sleep(3.0)
        return ok()

    done = generate(odd(chat), tmp_path, 1)
    assert done.status == 0, done.err
    lines = [line for line in done.err.splitlines() if "in flight, oldest" in line]
    assert len(lines) > 3 and any("no reply for" in line for line in lines), done.err


def test_replaced_urls_are_those_of_the_spec():
    spec = replace(
        providers.resolve("openai:m@http://a/v1,http://b/v1"), urls=("http://c/v1",)
    )
    assert spec.fingerprint == "openai:m@http://a/v1,http://b/v1"
