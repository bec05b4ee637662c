#!/usr/bin/env python3
"""A stub OpenAI-compatible server, for load, fault and overhead tests.

It holds no model. Each answer is a pure function of the request body (so two
runs with the same prompts give the same bytes), arrives after a set latency,
and can fail on purpose. It serves one process's worth of traffic: about ten
thousand requests a second on one core with uvloop installed.

    python openai_endpoint.py --port 8081 --latency-ms 50
    python openai_endpoint.py --latency-ms 200 --sigma 0.6 --fail 0.05 --hang 0.001

POST /v1/chat/completions  answers chat requests: `n`, `max_tokens`, `stop`,
                           `logprobs`/`top_logprobs`, `response_format`
                           (`json_object`, `json_schema`), vLLM's
                           `structured_outputs`/`guided_choice`, `stream`
POST /v1/completions       the same for plain prompts
GET  /v1/models            the model's name
GET  /health               200
GET  /stats                requests, in flight, most in flight, faults given,
                           distinct and repeated bodies, prompt prefix reuse
POST /reset                zeroes the counters

Faults (each a share of requests, drawn from the request's hash and its
attempt number, so a retry of the same body can succeed):
  --fail        HTTP 500          --limit     HTTP 429 with Retry-After
  --hang        never answers     --cut       closes mid-body
  --garbage     200 with text that is not the JSON asked for
  --empty       200 with an empty message
  --truncate    finish_reason=length, text cut in half
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import random
import time

WORDS = (
    "the a plan you we could start with small steps because it helps people learn how "
    "water moves through soil and why cooking rice takes time when budget travel needs "
    "clear notes short answers long stories friendly expert simple detailed careful quick "
    "music garden engine history market poem theory recipe school doctor window river "
    "please thanks question answer maybe certainly however therefore finally instead also"
).split()


class Stats:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.started = time.time()
        self.requests = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.faults: dict[str, int] = {}
        self.bodies: dict[bytes, int] = {}
        self.prompt_chars = 0
        self.reused_chars = 0
        self.completion_words = 0
        self.prefixes: set[bytes] = set()
        self.busy_since: float | None = None
        self.busy_s = 0.0

    def enter(self) -> None:
        if self.in_flight == 0:
            self.busy_since = time.time()
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def leave(self) -> None:
        self.in_flight -= 1
        if self.in_flight == 0 and self.busy_since is not None:
            self.busy_s += time.time() - self.busy_since
            self.busy_since = None

    def view(self) -> dict:
        busy = self.busy_s + (
            (time.time() - self.busy_since) if self.busy_since else 0.0
        )
        return {
            "requests": self.requests,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "faults": self.faults,
            "distinct_bodies": len(self.bodies),
            "repeated_bodies": sum(n - 1 for n in self.bodies.values()),
            "prompt_chars": self.prompt_chars,
            "prefix_reuse": round(self.reused_chars / self.prompt_chars, 4)
            if self.prompt_chars
            else 0.0,
            "completion_words": self.completion_words,
            "busy_s": round(busy, 3),
            "requests_per_busy_s": round(self.requests / busy, 1) if busy else 0.0,
        }


def instance(schema: dict, rng: random.Random, root: dict, depth: int = 0):
    """A small value that satisfies the common parts of a JSON Schema."""
    if "$ref" in schema:
        node = root
        for part in schema["$ref"].lstrip("#/").split("/"):
            node = node[part]
        return instance(node, rng, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return instance(schema[key][0], rng, root, depth + 1)
    if "allOf" in schema:
        merged: dict = {}
        for part in schema["allOf"]:
            merged.update(part)
        return instance(merged, rng, root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        props = schema.get("properties", {})
        return {k: instance(v, rng, root, depth + 1) for k, v in props.items()}
    if kind == "array":
        n = max(int(schema.get("minItems", 1)), min(2, int(schema.get("maxItems", 2))))
        return [
            instance(schema.get("items", {"type": "string"}), rng, root, depth + 1)
            for _ in range(n)
        ]
    if kind in ("integer", "number"):
        lo = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        hi = schema.get("maximum", schema.get("exclusiveMaximum", lo + 10))
        value = rng.uniform(lo, hi)
        return round(value) if kind == "integer" else round(value, 3)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    text = words(rng, rng.randint(4, 18))
    if "minLength" in schema:
        while len(text) < int(schema["minLength"]):
            text += " " + words(rng, 8)
    if "maxLength" in schema:
        text = text[: int(schema["maxLength"])]
    return text


def words(rng: random.Random, n: int) -> str:
    text = " ".join(rng.choice(WORDS) for _ in range(n))
    return text[:1].upper() + text[1:] + "."


def choice_of(body: dict) -> list[str] | None:
    if body.get("guided_choice"):
        return list(body["guided_choice"])
    structured = body.get("structured_outputs") or {}
    if structured.get("choice"):
        return list(structured["choice"])
    return None


def schema_of(body: dict) -> dict | None:
    if body.get("guided_json"):
        guided = body["guided_json"]
        return json.loads(guided) if isinstance(guided, str) else guided
    structured = body.get("structured_outputs") or {}
    if structured.get("json"):
        return (
            structured["json"]
            if isinstance(structured["json"], dict)
            else json.loads(structured["json"])
        )
    fmt = body.get("response_format") or {}
    if fmt.get("type") == "json_schema":
        return fmt.get("json_schema", {}).get("schema", {})
    if fmt.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    for tool in body.get("tools") or []:
        return tool.get("function", {}).get("parameters", {})
    return None


class Stub:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.stats = Stats()

    def latency(self, rng: random.Random) -> float:
        a = self.args
        if a.latency_ms <= 0:
            return 0.0
        if a.sigma <= 0:
            return a.latency_ms / 1000
        return a.latency_ms / 1000 * math.exp(rng.gauss(-(a.sigma**2) / 2, a.sigma))

    def fault(self, rng: random.Random) -> str | None:
        draw = rng.random()
        for name in ("fail", "limit", "hang", "cut", "garbage", "empty", "truncate"):
            share = getattr(self.args, name)
            if draw < share:
                self.stats.faults[name] = self.stats.faults.get(name, 0) + 1
                return name
            draw -= share
        return None

    def measure_prompt(self, body: dict) -> int:
        """Counts the prompt's characters, and those under a message prefix seen before."""
        model = str(body.get("model", "")).encode()
        messages = body.get("messages") or [
            {"role": "user", "content": str(body.get("prompt", ""))}
        ]
        key, chars, reused, still = (
            hashlib.blake2b(model, digest_size=8).digest(),
            0,
            0,
            True,
        )
        for m in messages:
            text = json.dumps(m, sort_keys=True).encode()
            key = hashlib.blake2b(key + text, digest_size=8).digest()
            chars += len(text)
            if still and key in self.stats.prefixes:
                reused += len(text)
            else:
                still = False
                if len(self.stats.prefixes) < 2_000_000:
                    self.stats.prefixes.add(key)
        self.stats.prompt_chars += chars
        self.stats.reused_chars += reused
        return chars

    def text(self, body: dict, rng: random.Random) -> str:
        choices = choice_of(body)
        if choices:
            return rng.choice(choices)
        schema = schema_of(body)
        if schema is not None:
            return json.dumps(instance(schema, rng, schema))
        cap = body.get("max_completion_tokens") or body.get("max_tokens") or 10_000
        if cap <= 4:
            return rng.choice(["A", "B"])
        return words(
            rng,
            max(
                1, min(cap, rng.randint(self.args.words // 2, self.args.words * 3 // 2))
            ),
        )

    def answer(
        self, path: str, raw: bytes, body: dict, rng: random.Random, fault: str | None
    ) -> dict:
        chars = self.measure_prompt(body)
        chat = path.endswith("/chat/completions")
        choices, total = [], 0
        for i in range(int(body.get("n") or 1)):
            text = self.text(body, rng)
            finish = "stop"
            if fault == "garbage":
                text = "Sure! Here you go: {not json " + words(rng, 6)
            elif fault == "empty":
                text = ""
            elif fault == "truncate":
                text, finish = text[: len(text) // 2], "length"
            total += len(text.split())
            item: dict = {"index": i, "finish_reason": finish}
            if chat:
                item["message"] = {
                    "role": "assistant",
                    "content": text,
                    "refusal": None,
                }
            else:
                item["text"] = text
            if body.get("logprobs"):
                first = text.split()[0] if text.split() else ""
                p = rng.uniform(0.5, 0.99)
                other = {"A": "B", "B": "A"}.get(first, "The")
                top = [
                    {
                        "token": first,
                        "logprob": math.log(p),
                        "bytes": list(first.encode()),
                    },
                    {
                        "token": other,
                        "logprob": math.log(1 - p),
                        "bytes": list(other.encode()),
                    },
                ]
                item["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
            choices.append(item)
        self.stats.completion_words += total
        return {
            "id": "stub-" + hashlib.blake2b(raw, digest_size=6).hexdigest(),
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": body.get("model", "stub"),
            "choices": choices,
            "usage": {
                "prompt_tokens": chars // 4,
                "completion_tokens": total,
                "total_tokens": chars // 4 + total,
            },
        }


def http(
    status: str, payload: bytes, extra: str = "", kind: str = "application/json"
) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(payload)}\r\n{extra}\r\n"
    return head.encode() + payload


class Connection(asyncio.Protocol):
    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None
        self.need = -1
        self.head: tuple[str, str] | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            if self.head is None:
                end = self.buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                lines = bytes(self.buffer[:end]).decode("latin1").split("\r\n")
                method, path, _ = lines[0].split(" ", 2)
                headers = {
                    k.strip().lower(): v.strip()
                    for k, _, v in (line.partition(":") for line in lines[1:])
                }
                del self.buffer[: end + 4]
                self.head, self.need = (
                    (method, path.split("?")[0]),
                    int(headers.get("content-length", 0)),
                )
                if headers.get("expect") == "100-continue":
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if len(self.buffer) < self.need:
                return
            raw = bytes(self.buffer[: self.need])
            del self.buffer[: self.need]
            (method, path), self.head = self.head, None
            self.serve(method, path, raw)

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def serve(self, method: str, path: str, raw: bytes) -> None:
        stub, stats = self.stub, self.stub.stats
        if method == "GET":
            if path == "/stats":
                return self.write(http("200 OK", json.dumps(stats.view()).encode()))
            if path == "/v1/models":
                listing = {
                    "object": "list",
                    "data": [
                        {"id": stub.args.model, "object": "model", "owned_by": "stub"}
                    ],
                }
                return self.write(http("200 OK", json.dumps(listing).encode()))
            return self.write(
                http("200 OK" if path == "/health" else "404 Not Found", b"{}")
            )
        if path == "/reset":
            stats.reset()
            return self.write(http("200 OK", b"{}"))
        if not path.endswith("/completions"):
            return self.write(
                http("404 Not Found", b'{"error":{"message":"no such path"}}')
            )
        try:
            body = json.loads(raw)
        except ValueError:
            return self.write(
                http("400 Bad Request", b'{"error":{"message":"body is not JSON"}}')
            )
        if body.get("model") != stub.args.model:
            missing = {
                "error": {"message": f"no model {body.get('model')}", "code": 404}
            }
            return self.write(http("404 Not Found", json.dumps(missing).encode()))
        key = hashlib.blake2b(raw, digest_size=8).digest()
        seen = stats.bodies.get(key, 0)
        if len(stats.bodies) < 2_000_000:
            stats.bodies[key] = seen + 1
        # The text depends on the body alone; latency and faults also on the attempt.
        weather = random.Random(
            key + seen.to_bytes(4, "big") + stub.args.seed.to_bytes(4, "big")
        )
        stats.enter()
        loop = asyncio.get_running_loop()
        loop.call_later(
            stub.latency(weather),
            self.finish,
            path,
            raw,
            body,
            key,
            stub.fault(weather),
        )
        return None

    def finish(
        self, path: str, raw: bytes, body: dict, key: bytes, fault: str | None
    ) -> None:
        stub = self.stub
        if fault == "hang":
            return None  # never answers, and stays in flight
        stub.stats.leave()
        if fault == "fail":
            return self.write(
                http(
                    "500 Internal Server Error",
                    b'{"error":{"message":"stub fault","type":"server_error"}}',
                )
            )
        if fault == "limit":
            return self.write(
                http(
                    "429 Too Many Requests",
                    b'{"error":{"message":"rate limit","type":"rate_limit"}}',
                    "Retry-After: 1\r\n",
                )
            )
        payload = stub.answer(path, raw, body, random.Random(key), fault)
        if fault == "cut":
            data = http("200 OK", json.dumps(payload).encode())
            self.write(data[: len(data) // 2])
            if self.transport is not None:
                self.transport.close()
            return None
        if body.get("stream"):
            return self.stream(payload)
        self.write(http("200 OK", json.dumps(payload).encode()))
        return None

    def stream(self, payload: dict) -> None:
        lines = []
        for choice in payload["choices"]:
            text = choice.get("message", {}).get("content", choice.get("text", ""))
            for part in text.split(" "):
                delta = {
                    "index": choice["index"],
                    "delta": {"role": "assistant", "content": part + " "},
                    "finish_reason": None,
                }
                lines.append(
                    {**payload, "object": "chat.completion.chunk", "choices": [delta]}
                )
            last = {
                "index": choice["index"],
                "delta": {},
                "finish_reason": choice["finish_reason"],
            }
            lines.append(
                {**payload, "object": "chat.completion.chunk", "choices": [last]}
            )
        data = (
            "".join(f"data: {json.dumps(line)}\n\n" for line in lines)
            + "data: [DONE]\n\n"
        )
        self.write(http("200 OK", data.encode(), kind="text/event-stream"))


async def serve(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stub = Stub(args)
    server = await loop.create_server(
        lambda: Connection(stub), args.host, args.port, backlog=4096
    )
    print(
        f"openai_endpoint: listening on {args.host}:{server.sockets[0].getsockname()[1]}",
        flush=True,
    )
    async with server:
        await server.serve_forever()


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument(
        "--port",
        type=int,
        default=8081,
        help="0 picks a free one, printed on the first line",
    )
    p.add_argument("--model", default="stub")
    p.add_argument("--latency-ms", type=float, default=50.0, help="mean latency")
    p.add_argument(
        "--sigma", type=float, default=0.0, help="log-normal spread of the latency"
    )
    p.add_argument("--words", type=int, default=40, help="mean words in an answer")
    p.add_argument("--seed", type=int, default=0)
    for name in ("fail", "limit", "hang", "cut", "garbage", "empty", "truncate"):
        p.add_argument(f"--{name}", type=float, default=0.0, help="share of requests")
    args = p.parse_args()
    try:
        import uvloop

        runner = uvloop.run
    except ImportError:
        runner = asyncio.run
    with contextlib.suppress(KeyboardInterrupt):
        runner(serve(args))


if __name__ == "__main__":
    main()
