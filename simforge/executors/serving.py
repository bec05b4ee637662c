"""Models that a run serves itself: `vllm serve` processes on the cluster's accelerators.

Each replica is a Ray actor that the cluster places by the resources it declares; it starts vLLM's server on its node,
waits until that is healthy and gives its URL. From there the model is an endpoint like any other. The driver looks
after the replicas while the run goes on: a dead server is started again, on another node where its own is gone, and
the workers are told the new URL. A server does not outlive its run, however that ends: a small process beside it waits
at a pipe to the actor, and ends the server once that is closed.

Outside SimForge the same servers can be started by hand and named as `openai:NAME@URL,URL`.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from simforge.config import Server
from simforge.errors import ModelError, UsageError
from simforge.executors import Urls
from simforge.executors.cluster import nodes
from simforge.models import ModelSpec

log = logging.getLogger("simforge")

LOOK = 5.0
"Seconds between two looks at the replicas."
SILENT = 60.0
"Seconds without a look after which a replica stops: its driver is gone."
WORDS = 30
"Last lines of a server's log that are kept for an error."
STRIKES = 3
"Looks at which a server may be unhealthy before it is started again."

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
"""Starts a server, and a process apart that ends it with all its children once the pipe to the actor is closed. Apart,
since Ray kills the children of an actor that dies, and would kill the one that is to clean up after it."""


class Replica:
    """One `vllm serve` process and its log, inside an actor."""

    def __init__(self, model: str, server: Server) -> None:
        self._model, self._server = model, server
        self._process: subprocess.Popen[bytes] | None = None
        self._log: collections.deque[str] = collections.deque(maxlen=WORDS)
        self._url = ""
        self._looked = time.monotonic()
        threading.Thread(target=self._follow_driver, daemon=True).start()

    def start(self) -> str:
        """Start the server and wait until it is healthy; gives its base URL. Raises `ModelError` with the last lines of
        its log. Safe to repeat."""
        if self._process is not None and self._process.poll() is None and self._healthy():
            return self._url
        self.stop()
        host, port = _own_address(), _free_port()
        self._url = f"http://{host}:{port}/v1"
        command = [sys.executable, "-c", WATCHER, sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", self._model, "--served-model-name", self._model, "--host", host, "--port", str(port)]
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
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        deadline = time.monotonic() + self._server.startup
        while not self._healthy():
            if self._process.poll() is not None:
                time.sleep(0.5)  # for the rest of its log
                raise ModelError(f"vllm:{self._model} did not start. The end of its log:\n" + "\n".join(self._log))
            if time.monotonic() > deadline:
                self.stop()
                raise ModelError(
                    f"vllm:{self._model} was not ready within {self._server.startup:.0f} s (servers.startup). The end "
                    "of its log:\n" + "\n".join(self._log)
                )
            time.sleep(0.5)
        return self._url

    def attend(self) -> None:
        """Hear that the driver is there."""
        self._looked = time.monotonic()

    def healthy(self) -> bool:
        """Whether the server answers."""
        return self._process is not None and self._process.poll() is None and self._healthy()

    def stop(self) -> None:
        """End the server. Safe to repeat."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
            self._process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self._url.removesuffix("/v1") + "/health", timeout=10) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the log's end, and pass it on to Ray's logs."""
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            self._log.append(text)
            print(text, flush=True)

    def _follow_driver(self) -> None:
        while time.monotonic() - self._looked < SILENT:
            time.sleep(1)
        os._exit(1)  # the watcher ends the server


class Servers:
    """The replicas of a run's `vllm` models, started and looked after."""

    def __init__(self, ray: Any, wanted: Mapping[str, Server]) -> None:
        self._ray, self._wanted = ray, wanted
        self._actors: dict[tuple[str, int], Any] = {}
        self._urls: dict[tuple[str, int], str] = {}
        self._strikes: collections.Counter[tuple[str, int]] = collections.Counter()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._attend, self._look)]

    def start(self) -> None:
        """Start all replicas at once and wait for them. Raises `UsageError` where they cannot fit, `ModelError` where
        one does not start."""
        self._fit()
        places = [(name, number) for name, server in self._wanted.items() for number in range(server.replicas)]
        log.info("vllm: starting %d replica(s)", len(places))
        waiting = {place: self._hired(place).start.remote() for place in places}
        self._threads[0].start()
        for place, started in waiting.items():
            self._urls[place] = self._heard(place, started)
        self._threads[1].start()

    def urls(self) -> dict[str, tuple[str, ...]]:
        """Where each model is now; nowhere while all of its replicas are being started again."""
        known = dict(self._urls)
        return {name: tuple(url for (of, _), url in sorted(known.items()) if of == name) for name in self._wanted}

    def stop(self) -> None:
        """End all replicas."""
        self._over.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=2 * LOOK)
        stopping = [actor.stop.remote() for actor in self._actors.values()]
        if stopping:
            self._ray.wait(stopping, num_returns=len(stopping), timeout=15)
        for actor in self._actors.values():
            self._ray.kill(actor)

    def _hired(self, place: tuple[str, int]) -> Any:
        server = self._wanted[place[0]]
        actor = self._ray.remote(
            num_cpus=server.cpus,
            num_gpus=server.accelerators,
            resources=dict(server.resources) or None,
            max_concurrency=8,
        )(Replica)
        self._actors[place] = actor.remote(place[0].removeprefix("vllm:"), server)
        return self._actors[place]

    def _heard(self, place: tuple[str, int], started: Any) -> str:
        server = self._wanted[place[0]]
        try:
            return str(self._ray.get(started, timeout=server.startup + 60))
        except self._ray.exceptions.RayTaskError as problem:
            raise (problem.cause if isinstance(problem.cause, ModelError) else problem) from None
        except self._ray.exceptions.GetTimeoutError:
            raise ModelError(
                f"{place[0]}: no node took replica {place[1] + 1} of {server.replicas} within {server.startup:.0f} s. "
                "See `ray status` for what is in use."
            ) from None
        except self._ray.exceptions.RayActorError as problem:
            raise ModelError(f"{place[0]}: a replica's process ended: {str(problem).splitlines()[0]}") from None

    def _fit(self) -> None:
        """Raise `UsageError` where a replica asks for more than any node has; what scales up is not known here."""
        there = nodes(self._ray)
        for name, server in self._wanted.items():
            asked = {"GPU": server.accelerators, "CPU": float(server.cpus), **server.resources}
            fits = any(all(has.get(kind, 0) >= much for kind, much in asked.items()) for has in there.values())
            if not fits and not server.autoscaled:
                said = ", ".join(f"{much:g} {kind}" for kind, much in asked.items() if much)
                most = {kind: max(has.get(kind, 0.0) for has in there.values()) for kind in asked}
                raise UsageError(
                    f"{name}: a replica asks for {said} on one node, and the most that a node of this cluster has is "
                    f"{', '.join(f'{much:g} {kind}' for kind, much in most.items())}. Set servers.*.gpus (0 runs on "
                    "CPUs), cpus or resources, or servers.*.autoscaled=true where nodes are started on demand."
                )

    def _attend(self) -> None:
        """Let every replica know that its driver is there, whatever else is waited for."""
        while not self._over.wait(LOOK):
            for actor in list(self._actors.values()):
                with contextlib.suppress(Exception):  # one that is lost is seen by whoever looks at it
                    actor.attend.remote()

    def _look(self) -> None:
        """Look at the replicas now and then; start again what is dead, each in its own time."""
        while not self._over.wait(LOOK):
            for place in list(self._urls):
                if not self._well(place):
                    log.warning("vllm: replica %d of %s does not answer; it is started again", place[1] + 1, place[0])
                    del self._urls[place]
                    threading.Thread(target=self._again, args=(place,), daemon=True).start()

    def _well(self, place: tuple[str, int]) -> bool:
        """Whether a replica answers, or has not failed to often enough."""
        errors = self._ray.exceptions
        try:
            well = bool(self._ray.get(self._actors[place].healthy.remote(), timeout=30))
        except (errors.GetTimeoutError, errors.ActorUnavailableError):
            well = False
        except errors.RayError:
            return False
        self._strikes[place] = 0 if well else self._strikes[place] + 1
        return self._strikes[place] < STRIKES

    def _again(self, place: tuple[str, int]) -> None:
        """Start a replica again, where its actor is or in another, until it is there or the run is over."""
        while not self._over.is_set():
            try:
                self._urls[place] = self._heard(place, self._actors[place].start.remote())
                self._strikes[place] = 0
                return
            except Exception as problem:
                log.warning("vllm: replica %d of %s: %s", place[1] + 1, place[0], str(problem).splitlines()[0])
                with contextlib.suppress(Exception):
                    self._ray.kill(self._actors[place])
                self._hired(place)
                self._over.wait(LOOK)


@contextlib.contextmanager
def serving(ray: Any, wanted: Mapping[str, Server]) -> Iterator[Servers]:
    """Serve `vllm` models, by reference, for the time of the block."""
    started = Servers(ray, wanted)
    try:
        started.start()
        yield started
    finally:
        started.stop()


def placed(specs: Mapping[Any, ModelSpec], urls: Urls) -> dict[Any, ModelSpec]:
    """The specs with the URLs of those that are served."""
    where = urls()
    return {role: replace(spec, urls=where.get(spec.reference, spec.urls)) for role, spec in specs.items()}


def _own_address() -> str:
    """The address of this node, as the cluster knows it."""
    import ray

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
