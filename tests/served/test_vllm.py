"""The real vLLM on CPUs: served by a run on Ray, looked after, and gone when the run is over."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from conftest import simforge

from simforge.models import contract, endpoint, providers
from simforge.models.endpoint import Endpoint
from simforge.recipe.schema import ServerSettings
from simforge.run.executors import cluster, serving
from simforge.types import ChatRequest, Message, Sampling

MODEL = os.environ.get("SIMFORGE_VLLM_MODEL", "")
ARGUMENTS = {
    "dtype": "bfloat16",
    "max-model-len": 2048,
    "enforce-eager": True,
    "max-num-batched-tokens": 8192,
}
"""The last one, since on CPUs vLLM 0.32 dies of prompts that are read in parts where requests
have seeds."""

ONE_CORE = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
"Of a replica, which would take all cores otherwise."


def served(replicas: int, **more: object) -> str:
    """The option that serves the model on CPUs, each replica on one of its own."""
    server = {
        "replicas": replicas,
        "gpus": 0,
        "cpus": 0.4,
        "arguments": ARGUMENTS,
        "environment": ONE_CORE,
        **more,
    }
    return f"servers={json.dumps({'vllm:*': server})}"


def servers() -> list[int]:
    """Process ids of vLLM's servers on this machine that serve the test's model."""
    found = subprocess.run(
        ["pgrep", "-f", f"^[^ ]*python.* -m vllm.*{MODEL}"],
        capture_output=True,
        text=True,
    ).stdout
    return [int(pid) for pid in found.split()]


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@pytest.fixture
def spec() -> Iterator[contract.ModelSpec]:
    """The model, served by one replica and looked at as a run looks at it."""
    name = f"vllm:{MODEL}"
    with (
        cluster.connected(None, None) as ray,
        serving.serving(
            ray, {name: ServerSettings(gpus=0, cpus=0.4, arguments=ARGUMENTS)}
        ) as there,
    ):
        yield endpoint.check(
            replace(providers.resolve(name), urls=there.urls()[name]),
            needs_choices=True,
        )


def asked(spec: contract.ModelSpec, *requests: ChatRequest) -> list:
    async def ask() -> list:
        client = await Endpoint.open(spec)
        try:
            return await asyncio.gather(
                *(client.chat(one) for one in requests), return_exceptions=True
            )
        finally:
            await client.close()

    return asyncio.run(ask())


def request(text: str, **more: object) -> ChatRequest:
    return ChatRequest(
        "m", (Message("user", text),), Sampling(max_tokens=40), seed=1, **more
    )


def test_choices_and_schemas_hold_and_what_is_too_long_fails_alone(spec):
    assert spec.constrains
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
    }
    chosen, shaped, long, several, *others = asked(
        spec,
        request("First or second?", choices=("1", "2", "tie")),
        request("A number.", schema=json.dumps(schema)),
        request("word " * 4000),
        request("Tell me something.", n=3),
        *(request("word " * 400 + str(number)) for number in range(4)),
    )
    assert chosen.text in ("1", "2", "tie") and sum(
        chosen.choice_probabilities.values()
    ) == pytest.approx(1)
    assert min(chosen.choice_probabilities.values()) < max(
        chosen.choice_probabilities.values()
    )
    assert isinstance(json.loads(shaped.text)["n"], int)
    assert "answered 400" in str(long) and "2048" in str(long)
    assert len({said.text for said in several.said}) == 3 and several.prompt_tokens < 60
    assert all(one.prompt_tokens > 400 for one in others)


def test_a_run_is_served_by_two_replicas_survives_one_dying_and_leaves_none(tmp_path):
    command = [
        sys.executable,
        "-m",
        "simforge",
        "generate",
        "psoup",
        "--personas",
        "16",
        "--model",
        f"vllm:{MODEL}",
    ]
    command += [
        "--set",
        served(2),
        "--set",
        "judge=null",
        "--out",
        str(tmp_path / "r"),
        "--executor",
        "ray",
    ]
    command += ["--workers", "1", "--concurrency", "16"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    ledger = tmp_path / "r/work/ledger"
    while not any(path.stat().st_size > 20_000 for path in ledger.glob("*.jsonl")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    before = servers()
    os.kill(before[0], signal.SIGKILL)
    _, said = run.communicate(timeout=560)
    assert run.returncode == 0, said
    assert gone(before) and not servers()
    pairs = pl.read_parquet(tmp_path / "r/data/candidates/*.parquet")
    assert pairs.height == 16 * 3 * 6 and pairs["model"].unique().to_list() == [
        f"vllm:{MODEL}"
    ]
    dialogues = pl.read_parquet(tmp_path / "r/data/dialogues/*.parquet")
    assert dialogues.filter(ending="model_error").is_empty()


def test_the_servers_of_a_killed_driver_end(tmp_path):
    command = [
        sys.executable,
        "-m",
        "simforge",
        "generate",
        "psoup",
        "--personas",
        "4",
        "--model",
        f"vllm:{MODEL}",
    ]
    command += ["--set", served(1), "--out", str(tmp_path / "r")]
    run = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not servers():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(3)
    started = servers()
    run.kill()
    run.wait()
    assert started and gone(started)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--set", served(1, arguments={"max-model-len": 10**9})],
            "did not start. The end of its log",
        ),
        (["--set", "servers={}"], "a replica asks for 1 GPU"),
    ],
)
def test_a_server_that_cannot_be_is_told_with_its_own_words(tmp_path, arguments, said):
    done = simforge(
        "generate",
        "psoup",
        "--personas",
        2,
        "--model",
        f"vllm:{MODEL}",
        "--out",
        tmp_path / "r",
        *arguments,
    )
    assert (done.status, said in done.err, "Traceback" in done.err.splitlines()[0]) == (
        2,
        True,
        False,
    ), done.err
    assert not (tmp_path / "r").exists()
