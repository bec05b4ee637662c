"""The Ray cluster of a run: connected once, on first use, and disconnected when the run is
over.

Ray is imported only when a run needs it.
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

from simforge.catalog import documents
from simforge.errors import UsageError
from simforge.types import JsonObject

log = logging.getLogger("simforge")


@contextmanager
def connected(address: str | None, runtime_env: Path | None) -> Iterator[Any]:
    """Connect to a Ray cluster (`address`, else `RAY_ADDRESS`), or start Ray on this machine if
    neither is set, for the duration of the block. Raises `UsageError` if there is no cluster,
    before anything else is done."""
    environment = _load_runtime_env(runtime_env)
    os.environ.setdefault(
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0"
    )  # workers use this environment as it is
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    target = address or os.environ.get("RAY_ADDRESS")
    if not target:
        # Ray would write a token to the home folder; later clusters without a token then refuse it.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault(
            "RAY_worker_niceness", "0"
        )  # 15 by default, which starves a model served on CPUs
    import ray

    if ray.is_initialized():
        yield ray
        return
    _check_reachable(target)
    settings: JsonObject = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": environment or None,
    }
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    previous_handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        if target:
            ray.init(address=target, **settings)
        else:
            ray.init(address="local", include_dashboard=False, **settings)
    except ConnectionError as problem:
        raise UsageError(
            f"there is no Ray cluster at {target}: {str(problem).splitlines()[0]}"
        ) from None
    except (RuntimeError, TypeError, ValueError) as problem:
        raise UsageError(
            f"Ray cannot be used: {str(problem).splitlines()[0]}"
        ) from None
    if threading.current_thread() is threading.main_thread():
        # Ray installs its own handlers, which end the run silently
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()


def nodes(ray: Any) -> dict[str, dict[str, float]]:
    """Return the resources of each node that is alive, by node id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _load_runtime_env(path: Path | None) -> JsonObject:
    if path is None:
        return {}
    try:
        environment: JsonObject = documents.read(
            path.read_text(encoding="utf-8"), str(path)
        ).value
        return environment
    except OSError as problem:
        raise UsageError(
            f"--runtime-env {path} cannot be read: {problem.strerror or problem}."
        ) from None


def _check_reachable(address: str | None) -> None:
    """Raise `UsageError` if nothing listens at an address. Ray itself retries for a while, with
    a long message."""
    match = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address or "")
    if match is not None:
        try:
            socket.create_connection((match[1], int(match[2])), timeout=5).close()
        except OSError as problem:
            raise UsageError(
                f"there is no Ray cluster at {address}: {problem}."
            ) from None
