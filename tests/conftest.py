"""What the tests share: the command line as a user calls it, and finished runs to look at."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SMALL = "local:smollm2-135m"
"The real model of the tests: fluent nonsense, but a real engine."


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    status: int
    out: str
    err: str


def simforge(*arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> Said:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "simforge", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600)
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
    done = simforge("generate", "psoup", "--personas", 4, "--out", out, "--model", SMALL, "--set", "judge.share=0.5")
    assert done.status == 0, done.err
    return out
