"""Models that a run serves itself: `vllm serve` processes on the cluster's accelerators.

Each replica is a Ray actor that the cluster places by its declared resources. It starts a vLLM
server on its node, waits until the server is healthy and returns its URL. From then on, the
model is an endpoint like any other. The driver monitors the replicas during the run: a dead
server is restarted, on another node if its own is gone, and the workers receive the new URL. A
server never outlives its run, however the run ends: a small watcher process beside it holds a
pipe to the actor, and ends the server when the pipe is closed.

Outside SimForge, the same servers can be started by hand and used as `openai:NAME@URL,URL`.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from simforge.errors import ModelError, UsageError
from simforge.install import isolated_python
from simforge.models.contract import ModelSpec
from simforge.recipe.schema import ServerSettings
from simforge.run.executors.base import CurrentUrls
from simforge.run.executors.cluster import nodes

log = logging.getLogger("simforge")


CHECK_SECONDS = 5.0
"Seconds between two checks of the replicas."


DRIVER_TIMEOUT = 60.0
"Seconds without a keep-alive after which a replica stops, because its driver is gone."


LOG_LINES = 30
"Last lines of a server's log that are kept for an error message."


MAX_FAILED_CHECKS = 3
"Failed checks in a row after which a server is restarted."


WATCHER = """
import os, subprocess, sys
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
between = os.fork()
if between == 0:
    os.setsid()
    if os.fork() == 0:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        sys.stdin.buffer.read()
        try:
            os.killpg(server.pid, 9)
        except ProcessLookupError:
            pass
    os._exit(0)
os.waitpid(between, 0)
sys.exit(server.wait())
"""
"""Starts a server, and a separate process that ends it with all its children when the pipe to
the actor is closed. It is separate because Ray kills the children of an actor that dies, and
would also kill the one that has to clean up after it."""


class Replica:
    """One `vllm serve` process and its log, inside an actor."""

    def __init__(self, model: str, server: ServerSettings) -> None:
        self._model, self._server = model, server
        self._process: subprocess.Popen[bytes] | None = None
        self._log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self._url = ""
        self._last_keep_alive = time.monotonic()
        threading.Thread(target=self._watch_driver, daemon=True).start()

    def start(self) -> str:
        """Start the server and wait until it is healthy; returns its base URL. Raises
        `ModelError` with the last lines of its log. Safe to repeat."""
        if (
            self._process is not None
            and self._process.poll() is None
            and self._server_answers()
        ):
            return self._url
        self.stop()
        host, port = _node_address(), _free_port()
        self._url = f"http://{host}:{port}/v1"
        command = isolated_python("-c", WATCHER)
        command += isolated_python("-m", "vllm.entrypoints.openai.api_server")
        command += [
            "--model",
            self._model,
            "--served-model-name",
            self._model,
            "--host",
            host,
            "--port",
            str(port),
        ]
        if self._server.tensor_parallel > 1:
            command += ["--tensor-parallel-size", str(self._server.tensor_parallel)]
        command += self._server.flags
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self._server.environment},
        )
        threading.Thread(
            target=self._read_log, args=(self._process,), daemon=True
        ).start()
        deadline = time.monotonic() + self._server.startup_seconds
        while not self._server_answers():
            if self._process.poll() is not None:
                time.sleep(0.5)  # for the rest of its log
                raise ModelError(
                    f"vllm:{self._model} did not start. The end of its log:\n"
                    + "\n".join(self._log)
                )
            if time.monotonic() > deadline:
                self.stop()
                raise ModelError(
                    f"vllm:{self._model} was not ready within "
                    f"{self._server.startup_seconds:.0f} s (servers.startup_seconds). The end "
                    "of its log:\n" + "\n".join(self._log)
                )
            time.sleep(0.5)
        return self._url

    def keep_alive(self) -> None:
        """Receive a sign of life from the driver."""
        self._last_keep_alive = time.monotonic()

    def healthy(self) -> bool:
        """Return whether the server answers."""
        return (
            self._process is not None
            and self._process.poll() is None
            and self._server_answers()
        )

    def stop(self) -> None:
        """End the server. Safe to repeat."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
            self._process = None

    def _server_answers(self) -> bool:
        try:
            with urllib.request.urlopen(
                self._url.removesuffix("/v1") + "/health", timeout=10
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the last lines of the log, and pass all lines on to Ray's logs."""
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            self._log.append(text)
            print(text, flush=True)

    def _watch_driver(self) -> None:
        while time.monotonic() - self._last_keep_alive < DRIVER_TIMEOUT:
            time.sleep(1)
        os._exit(1)  # the watcher ends the server


class Servers:
    """The replicas of a run's `vllm` models, which it starts and monitors."""

    def __init__(self, ray: Any, servers: Mapping[str, ServerSettings]) -> None:
        self._ray, self._servers = ray, servers
        self._actors: dict[tuple[str, int], Any] = {}
        self._urls: dict[tuple[str, int], str] = {}
        self._failed_checks: collections.Counter[tuple[str, int]] = (
            collections.Counter()
        )
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._keep_alive, self._check_replicas)
        ]

    def start(self) -> None:
        """Start all replicas at once and wait for them. Raises `UsageError` if no node has the
        resources for one, `ModelError` if one does not start."""
        self._check_resources()
        replicas = [
            (name, number)
            for name, server in self._servers.items()
            for number in range(server.replicas)
        ]
        log.info("vllm: starting %d replica(s)", len(replicas))
        pending = {
            replica: self._create_actor(replica).start.remote() for replica in replicas
        }
        self._threads[0].start()
        for replica, pending_url in pending.items():
            self._urls[replica] = self._wait_for_url(replica, pending_url)
        self._threads[1].start()

    def urls(self) -> dict[str, tuple[str, ...]]:
        """Return the current URLs of each model; none while all of its replicas are being
        restarted."""
        current = dict(self._urls)
        return {
            name: tuple(
                url for (model, _), url in sorted(current.items()) if model == name
            )
            for name in self._servers
        }

    def stop(self) -> None:
        """End all replicas."""
        self._stopped.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=2 * CHECK_SECONDS)
        stopping = [actor.stop.remote() for actor in self._actors.values()]
        if stopping:
            self._ray.wait(stopping, num_returns=len(stopping), timeout=15)
        for actor in self._actors.values():
            self._ray.kill(actor)

    def _create_actor(self, replica: tuple[str, int]) -> Any:
        server = self._servers[replica[0]]
        actor = self._ray.remote(
            num_cpus=server.cpus,
            num_gpus=server.accelerators,
            resources=dict(server.resources) or None,
            max_concurrency=8,
        )(Replica)
        self._actors[replica] = actor.remote(replica[0].removeprefix("vllm:"), server)
        return self._actors[replica]

    def _wait_for_url(self, replica: tuple[str, int], pending_url: Any) -> str:
        server = self._servers[replica[0]]
        try:
            return str(self._ray.get(pending_url, timeout=server.startup_seconds + 60))
        except self._ray.exceptions.RayTaskError as problem:
            raise (
                problem.cause if isinstance(problem.cause, ModelError) else problem
            ) from None
        except self._ray.exceptions.GetTimeoutError:
            raise ModelError(
                f"{replica[0]}: no node took replica {replica[1] + 1} of "
                f"{server.replicas} within {server.startup_seconds:.0f} s. See `ray "
                "status` for what is in use."
            ) from None
        except self._ray.exceptions.RayActorError as problem:
            raise ModelError(
                f"{replica[0]}: a replica's process ended: {str(problem).splitlines()[0]}"
            ) from None

    def _check_resources(self) -> None:
        """Raise `UsageError` if a replica needs more than any node has. Nodes added by
        autoscaling are not known here."""
        node_resources = nodes(self._ray)
        for name, server in self._servers.items():
            requested = {
                "GPU": server.accelerators,
                "CPU": float(server.cpus),
                **server.resources,
            }
            fits = any(
                all(
                    resources.get(kind, 0) >= amount
                    for kind, amount in requested.items()
                )
                for resources in node_resources.values()
            )
            if not fits and not server.autoscaled:
                request = ", ".join(
                    f"{amount:g} {kind}" for kind, amount in requested.items() if amount
                )
                largest = {
                    kind: max(
                        resources.get(kind, 0.0)
                        for resources in node_resources.values()
                    )
                    for kind in requested
                }
                listed = ", ".join(
                    f"{amount:g} {kind}" for kind, amount in largest.items()
                )
                raise UsageError(
                    f"{name}: a replica asks for {request} on one node, and the most "
                    "that a node of this cluster has is "
                    f"{listed}. Set servers.*.gpus (0 runs on CPUs), cpus or resources, or "
                    "servers.*.autoscaled=true where nodes are started on demand."
                )

    def _keep_alive(self) -> None:
        """Send every replica keep-alives from the driver, even while other work waits."""
        while not self._stopped.wait(CHECK_SECONDS):
            for actor in list(self._actors.values()):
                with contextlib.suppress(
                    Exception
                ):  # a lost replica is found by the health check
                    actor.keep_alive.remote()

    def _check_replicas(self) -> None:
        """Check the replicas regularly; restart each dead one in a thread of its own."""
        while not self._stopped.wait(CHECK_SECONDS):
            for replica in list(self._urls):
                if not self._is_healthy(replica):
                    log.warning(
                        "vllm: replica %d of %s does not answer; it is restarted",
                        replica[1] + 1,
                        replica[0],
                    )
                    del self._urls[replica]
                    threading.Thread(
                        target=self._restart, args=(replica,), daemon=True
                    ).start()

    def _is_healthy(self, replica: tuple[str, int]) -> bool:
        """Return whether a replica answers, or has failed fewer than `MAX_FAILED_CHECKS` times
        in a row."""
        errors = self._ray.exceptions
        try:
            healthy = bool(
                self._ray.get(self._actors[replica].healthy.remote(), timeout=30)
            )
        except (errors.GetTimeoutError, errors.ActorUnavailableError):
            healthy = False
        except errors.RayError:
            return False
        self._failed_checks[replica] = (
            0 if healthy else self._failed_checks[replica] + 1
        )
        return self._failed_checks[replica] < MAX_FAILED_CHECKS

    def _restart(self, replica: tuple[str, int]) -> None:
        """Restart a replica, in its actor or in a new one, until it runs or the run is over."""
        while not self._stopped.is_set():
            try:
                self._urls[replica] = self._wait_for_url(
                    replica, self._actors[replica].start.remote()
                )
                self._failed_checks[replica] = 0
                return
            except Exception as problem:
                log.warning(
                    "vllm: replica %d of %s: %s",
                    replica[1] + 1,
                    replica[0],
                    str(problem).splitlines()[0],
                )
                with contextlib.suppress(Exception):
                    self._ray.kill(self._actors[replica])
                self._create_actor(replica)
                self._stopped.wait(CHECK_SECONDS)


@contextlib.contextmanager
def serving(ray: Any, servers: Mapping[str, ServerSettings]) -> Iterator[Servers]:
    """Serve `vllm` models, by reference, for the duration of the block."""
    running = Servers(ray, servers)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def with_urls(
    specs: Mapping[Any, ModelSpec], urls: CurrentUrls
) -> dict[Any, ModelSpec]:
    """Return the specs, with the current URLs of served models."""
    served_urls = urls()
    return {
        role: replace(spec, urls=served_urls.get(spec.reference, spec.urls))
        for role, spec in specs.items()
    }


def _node_address() -> str:
    """Return the address of this node within the cluster."""
    import ray

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])
