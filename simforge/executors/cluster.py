"""The Ray cluster of a run: connected to once, by whoever needs it first, and left when the run is over.

Ray is imported when a run needs it, never before.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simforge import documents
from simforge.errors import UsageError

log = logging.getLogger("simforge")


@contextmanager
def connected(address: str | None, runtime_env: Path | None) -> Iterator[Any]:
    """Ray, connected to a cluster (`address`, else `RAY_ADDRESS`), or else started on this machine for the time of the
    block. Raises `UsageError` where there is no cluster, before anything else is done."""
    environment = _environment(runtime_env)
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # workers use this environment as it is
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    where = address or os.environ.get("RAY_ADDRESS")
    if not where:
        # Ray would write a token to the home folder, which later clusters without one then refuse.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default, which starves a model served on CPUs
    import ray

    if ray.is_initialized():
        yield ray
        return
    _reached(where)
    settings: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": environment or None,
    }
    stops = signal.getsignal(signal.SIGTERM)
    try:
        if where:
            ray.init(address=where, **settings)
        else:
            ray.init(address="local", include_dashboard=False, **settings)
    except ConnectionError as problem:
        raise UsageError(f"there is no Ray cluster at {where}: {str(problem).splitlines()[0]}") from None
    except (RuntimeError, TypeError, ValueError) as problem:
        raise UsageError(f"Ray cannot be used: {str(problem).splitlines()[0]}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stops)  # Ray puts its own there, which ends the run without a word
    try:
        yield ray
    finally:
        ray.shutdown()


def nodes(ray: Any) -> dict[str, dict[str, float]]:
    """The resources of each node that is alive, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _environment(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found: dict[str, Any] = documents.read(path.read_text(encoding="utf-8"), str(path)).value
        return found
    except OSError as problem:
        raise UsageError(f"--runtime-env {path} cannot be read: {problem.strerror or problem}.") from None


def _reached(where: str | None) -> None:
    """Refuse an address at which nobody listens: Ray itself tries for a while, and says so at length."""
    match = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", where or "")
    if match is not None:
        try:
            socket.create_connection((match[1], int(match[2])), timeout=5).close()
        except OSError as problem:
            raise UsageError(f"there is no Ray cluster at {where}: {problem}.") from None
