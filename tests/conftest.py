"""What the tests share: the command line as a user calls it, and finished runs to look at."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simforge.cli.main import main

collect_ignore = (
    ["consumers", "browser"]
    if "SIMFORGE_VLLM_MODEL" in os.environ
    else ["served", "consumers", "browser"]
)
"Those need environments of their own: `tests/served/run` and `tests/consumers/run` make them."

SMALL = "local:smollm2-135m"
"The real model of the tests: fluent nonsense, but a real engine."


LONG = ("test_ray.py", "test_docs.py", "test_endpoint.py")
"Files that take longest. They start first, so that no process is left with one at the end."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the long files to the front."""
    items.sort(key=lambda item: (*LONG, item.path.name).index(item.path.name))


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the secret that signs runs out of the user's folders."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    status: int
    out: str
    err: str


STUBS = Path(__file__).parent / "stubs"


def simforge(
    *arguments: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    process: bool = False,
) -> Said:
    """Run a command of the command line, in this process where that can show the same.

    A process of its own is started for `process=True`, for Ray, for scripts that end their
    process, and where the clients of the Hub must read other settings.
    """
    words = [str(argument) for argument in arguments]
    apart = {"--executor", "--ray-address", "scripted:scripts:dies_midway"} & {*words}
    if process or apart or any(name.startswith("HF_") for name in env or {}):
        return _in_process_of_its_own(words, cwd, env)
    out, err = io.StringIO(), io.StringIO()
    saved, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    os.environ.update(env or {})
    try:
        with (
            contextlib.chdir(cwd or Path.cwd()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")
            try:
                status = main(words)
            except (
                SystemExit
            ) as ended:  # argparse ends the process for --help and wrong options
                status = int(ended.code or 0)
    finally:
        os.environ.clear()
        os.environ.update(saved)
        signal.signal(signal.SIGTERM, handler)
    return Said(status, out.getvalue(), err.getvalue())


def _in_process_of_its_own(
    words: list[str], cwd: Path | None, env: dict[str, str] | None
) -> Said:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
        ),
        **(env or {}),
    }
    done = subprocess.run(
        [sys.executable, "-m", "simforge", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=600,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def scripted_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quickstart run of 12 scripted people."""
    out = tmp_path_factory.mktemp("scripted") / "run"
    done = simforge("generate", "--personas", 12, "--out", out, "--model", "scripted:")
    assert done.status == 0, done.err
    return out


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the small real model: prompts of the shipped set, four people."""
    out = tmp_path_factory.mktemp("real") / "run"
    done = simforge(
        "generate",
        "psoup",
        "--personas",
        4,
        "--out",
        out,
        "--model",
        SMALL,
        "--set",
        "judge.share=0.5",
    )
    assert done.status == 0, done.err
    return out


@dataclass(frozen=True)
class StubHub:
    """A Hub of the tests' own, which the real clients talk to."""

    env: dict[str, str]
    "Environment under which a client finds it, with a cache of its own."

    def calm(self) -> None:
        """End the faults."""
        urllib.request.urlopen(
            self.env["HF_ENDPOINT"] + "/_stub/calm", timeout=10
        ).close()

    def upload(self, repo: str, files: dict[str, Path]) -> None:
        """Make a dataset of files, in a process of its own, since the client reads its settings
        when it is imported."""
        code = (
            "import sys; from huggingface_hub import HfApi; api = HfApi(); "
            "api.create_repo(sys.argv[1], repo_type='dataset', exist_ok=True); "
            "[api.upload_file(path_or_fileobj=p, path_in_repo=n, repo_id=sys.argv[1], "
            "repo_type='dataset') "
            "for n, p in zip(sys.argv[2::2], sys.argv[3::2])]"
        )
        named = [part for name, path in files.items() for part in (name, str(path))]
        environment = {**os.environ, **self.env}
        subprocess.run(
            [sys.executable, "-c", code, repo, *named],
            check=True,
            env=environment,
            capture_output=True,
        )


@pytest.fixture
def hub_with(tmp_path: Path) -> Iterator[Callable[..., StubHub]]:
    """Starts stub Hubs: `hub_with("--fail", "0.1")`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*flags: str) -> StubHub:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            sys.executable,
            str(STUBS / "hub.py"),
            "--port",
            str(port),
            "--token",
            "secret",
            *flags,
        ]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        return StubHub(
            {
                "HF_ENDPOINT": f"http://127.0.0.1:{port}",
                "HF_TOKEN": "secret",
                "HF_HUB_DISABLE_XET": "1",
                "HF_HOME": str(tmp_path / "hf"),
            }
        )

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture
def hub(hub_with: Callable[..., StubHub]) -> StubHub:
    """A stub Hub without faults."""
    return hub_with()


@dataclass
class StubEndpoint:
    """An OpenAI-compatible endpoint of the tests' own."""

    url: str
    process: subprocess.Popen[str]

    @property
    def model(self) -> str:
        """The reference of its model."""
        return f"openai:stub@{self.url}"

    def stats(self) -> dict[str, Any]:
        """What it was asked so far."""
        with urllib.request.urlopen(
            self.url.removesuffix("/v1") + "/stats", timeout=10
        ) as answer:
            return json.load(answer)

    def reset(self) -> None:
        """Count from nothing again."""
        urllib.request.urlopen(
            self.url.removesuffix("/v1") + "/reset", data=b"", timeout=10
        ).close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


@pytest.fixture
def endpoint() -> Iterator[Callable[..., StubEndpoint]]:
    """Starts stub endpoints: `endpoint(latency_ms=5, fail=0.1)`."""
    started: list[StubEndpoint] = []

    def start(port: int = 0, **settings: float | str) -> StubEndpoint:
        flags = [
            part
            for name, value in settings.items()
            for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        process = subprocess.Popen(
            [
                sys.executable,
                str(STUBS / "openai_endpoint.py"),
                "--port",
                str(port),
                *flags,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        address = process.stdout.readline().rpartition(" ")[2].strip()
        started.append(StubEndpoint(f"http://{address}/v1", process))
        return started[-1]

    yield start
    for one in started:
        one.stop()
        if one.process.stdout is not None:
            one.process.stdout.close()
