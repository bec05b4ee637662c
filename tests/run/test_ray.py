"""Ray: workers, nodes and drivers that die, and what all workers share. Real Ray, several nodes
on one machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import StubEndpoint, simforge

from simforge.errors import UsageError
from simforge.models.budget import Budget, Price
from simforge.models.rate_limits import Bounds, GateState
from simforge.run.executors import sharing
from simforge.run.executors.base import WorkerPool
from simforge.run.shards import Status, Tally
from simforge.types import Usage

PEOPLE = 90
IN_FLIGHT = 16
"Dialogues in flight in one worker."
ENV = {"RAY_AUTH_MODE": "disabled"}


@dataclass
class Cluster:
    """A cluster in a process of its own."""

    address: str
    process: subprocess.Popen[str]

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Four nodes of one CPU each."""
    command = [sys.executable, str(Path(__file__).parents[1] / "ray_cluster.py"), "4"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **ENV},
        start_new_session=True,
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        yield Cluster(process.stdout.readline().strip(), process)
        process.stdin.close()
        process.wait(timeout=60)
    finally:
        process.stdout.close()  # type: ignore[union-attr]
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass
class Running:
    """A run under way."""

    process: subprocess.Popen[str]
    server: StubEndpoint

    def until(self, requests: int) -> None:
        """Wait until the endpoint was asked so often."""
        deadline = time.monotonic() + 120
        while self.server.stats()["distinct_bodies"] < requests:
            assert self.process.poll() is None and time.monotonic() < deadline, (
                "the run is over already"
            )
            time.sleep(0.02)

    def ended(self) -> str:
        """Its standard error, once it is over and well."""
        _, said = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, said
        return said


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts runs of `psoup` against an endpoint."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        server: StubEndpoint, out: str, *arguments: object, **env: str
    ) -> Running:
        words = [
            "generate",
            "psoup",
            *ALONE,
            "--personas",
            PEOPLE,
            "--model",
            server.model,
            "--concurrency",
            IN_FLIGHT,
        ]
        command = [
            sys.executable,
            "-m",
            "simforge",
            *map(str, [*words, "--out", tmp_path / out, *arguments]),
        ]
        started.append(
            subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                             env={**os.environ, **ENV, **env})
        )  # fmt: skip
        return Running(started[-1], server)

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


ALONE = ("--set", "judge.audience=1", "--set", "judge.controls=0")
"Judged by the person of the dialogue only, so that a dialogue has few calls in flight."
CALLS = 6
"Calls that a dialogue of `psoup` has in flight at most."


def repeated(server: StubEndpoint, workers: int, most: int = IN_FLIGHT * CALLS) -> str:
    """How often the endpoint was asked again after so many workers were killed, held against
    the most that each had in flight; in words, for `pytest -rP`."""
    stats = server.stats()
    said = (
        f"{workers} workers killed: {stats['repeated_bodies']} calls repeated, "
        f"{stats['max_in_flight']} at once"
    )
    assert stats["repeated_bodies"] <= workers * most, said
    print(said)
    return said


def same_bytes(one: Path, other: Path) -> bool:
    files = [sorted((folder / "data").rglob("*.parquet")) for folder in (one, other)]
    return [path.read_bytes() for path in files[0]] == [
        path.read_bytes() for path in files[1]
    ]


@pytest.fixture
def unbroken(endpoint, start, tmp_path) -> tuple[StubEndpoint, Path, int]:
    """An endpoint that has forgotten it, a run on it that nothing happened to, and how many
    calls that took."""
    server = endpoint(latency_ms=60)
    start(server, "unbroken").ended()
    calls = server.stats()["distinct_bodies"]
    server.reset()
    return server, tmp_path / "unbroken", calls


def workers_of(cluster_or_driver: int) -> list[int]:
    """Process ids of the Ray workers of a session, by the session of its first process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"RemoteWorker" in line and cluster_or_driver in ancestors(
                int(entry.name)
            ):
                found.append(int(entry.name))
    return found


def ancestors(pid: int) -> list[int]:
    found = [pid]
    while pid > 1:
        try:
            pid = int(
                (Path("/proc") / str(pid) / "stat")
                .read_text()
                .rpartition(")")[2]
                .split()[1]
            )
        except OSError:
            break
        found.append(pid)
    return found


def test_a_killed_worker_costs_only_its_calls_in_flight(start, unbroken, tmp_path):
    server, whole, calls = unbroken
    run = start(server, "r", "--executor", "ray", "--workers", 2)
    for goal in (0.3, 0.6, 0.9):
        run.until(int(goal * calls))
        os.kill(workers_of(run.process.pid)[0], signal.SIGKILL)
    assert "a worker was lost" in run.ended() and repeated(server, workers=3)
    assert same_bytes(tmp_path / "r", whole)


def test_a_killed_node_costs_only_its_calls_in_flight(
    cluster, start, unbroken, tmp_path
):
    server, whole, calls = unbroken
    run = start(server, "r", "--ray-address", cluster.address)
    for number, goal in enumerate((0.3, 0.6, 0.9)):
        run.until(int(goal * calls))
        cluster.tell(f"kill {number}")
    assert "a worker was lost" in run.ended() and repeated(server, workers=3)
    assert same_bytes(tmp_path / "r", whole)


def test_a_worker_whose_raylet_died_stops_before_its_shards_start_again(
    cluster, start, unbroken, tmp_path
):
    server, whole, calls = unbroken
    run = start(server, "r", "--ray-address", cluster.address, "--max-in-flight", 6)
    run.until(int(0.3 * calls))
    cluster.tell("raylet 0")
    assert "a worker was lost" in run.ended() and repeated(server, workers=1, most=6)
    assert same_bytes(tmp_path / "r", whole)


def test_the_workers_of_a_killed_driver_stop_and_the_same_command_goes_on(
    cluster, start, unbroken, tmp_path
):
    server, whole, calls = unbroken
    for goal in (0.3, 0.6, 0.9):
        run = start(server, "r", "--ray-address", cluster.address)
        run.until(int(goal * calls))
        run.process.kill()
        run.process.wait()
        deadline, seen = time.monotonic() + 60, -1
        while (now := server.stats()["requests"]) != seen:
            assert time.monotonic() < deadline, "workers go on without a driver"
            seen = now
            time.sleep(2)
    start(server, "r", "--ray-address", cluster.address).ended()
    assert repeated(
        server, workers=3 * 4, most=server.stats()["max_in_flight"] // 4 + 1
    )  # one for each start's check
    assert same_bytes(tmp_path / "r", whole)


def test_messages_that_come_twice_or_not_at_all_change_nothing(
    start, unbroken, tmp_path
):
    server, whole, _ = unbroken
    chaos = json.dumps(
        {
            "CoreWorkerService.grpc_client.PushTask": {
                "num_failures": 24,
                "req_failure_prob": 15,
                "resp_failure_prob": 15,
                "in_flight_failure_prob": 15,
            }
        }
    )
    run = start(
        server, "r", "--executor", "ray", "--workers", 2, RAY_testing_rpc_failure=chaos
    )
    run.ended()
    # where processors are scarce, a claim can expire; a task done twice would repeat them all
    assert repeated(server, workers=1)
    assert same_bytes(tmp_path / "r", whole)


def test_what_is_allowed_holds_for_all_workers_together(endpoint, tmp_path):
    server = endpoint(latency_ms=30)
    arguments = [
        "generate",
        "psoup",
        *ALONE,
        "--personas",
        60,
        "--model",
        server.model,
        "--executor",
        "ray",
        "--workers",
        2,
    ]
    done = simforge(*arguments, "--max-in-flight", 6, "--out", tmp_path / "r", env=ENV)
    assert done.status == 0, done.err
    assert 4 <= server.stats()["max_in_flight"] <= 6


def test_a_budget_holds_for_all_workers_together(endpoint, tmp_path):
    server = endpoint(latency_ms=20)
    (tmp_path / "prices.yaml").write_text('"openai:*": {prompt: 10, completion: 40}\n')
    command = [
        "generate",
        "psoup",
        *ALONE,
        "--personas",
        200,
        "--model",
        server.model,
        "--executor",
        "ray",
        "--workers",
        2,
    ]
    command += [
        "--concurrency",
        16,
        "--prices",
        tmp_path / "prices.yaml",
        "--out",
        tmp_path / "r",
    ]
    stopped = simforge(*command, "--budget", 2, env=ENV)
    assert (stopped.status, "the budget of 2 is reached" in stopped.err) == (4, True), (
        stopped.err
    )
    told = simforge("ledger", tmp_path / "r", "--prices", tmp_path / "prices.yaml").out
    spent = float(told.splitlines()[1].split()[-1])
    assert 1.8 <= spent <= 2, told
    assert simforge(*command, "--budget", 200, env=ENV).status == 0


def test_a_node_that_joins_gets_workers(cluster, endpoint, start):
    server = endpoint(latency_ms=300)
    run = start(
        server, "r", "--ray-address", cluster.address, "--set", "prompts.per_persona=8"
    )
    run.until(50)
    cluster.tell("add")
    assert "more workers on nodes that joined" in run.ended()


def test_a_node_with_a_ledger_folder_of_its_own_is_refused(tmp_path):
    """A worker that does not find the driver's word would write where nobody reads."""
    from simforge.run.executors.ray import RemoteWorker
    from simforge.run.shards import Job

    job = Job(setup=None, models={}, ledger=tmp_path, reuse=(), concurrency=1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"does not see .*--ledger a URL"):
        RemoteWorker(job, Bounds(), {}, ".driver-x")._check_ledger_is_shared()
    (tmp_path / ".driver-x").touch()
    RemoteWorker(job, Bounds(), {}, ".driver-x")._check_ledger_is_shared()


def test_a_ledger_at_a_url_serves_workers_resumes_and_reuse(endpoint, start, tmp_path):
    server = endpoint(latency_ms=5)
    place = f"local://{tmp_path}/store/run"
    start(server, "r", "--executor", "ray", "--workers", 2, "--ledger", place).ended()
    asked = server.stats()["distinct_bodies"]
    assert not list((tmp_path / "r/work/ledger").glob("*.jsonl")) and list(
        (tmp_path / "store/run").glob("*.jsonl")
    )
    start(server, "again", "--reuse", tmp_path / "r").ended()
    assert server.stats()["distinct_bodies"] == asked
    assert same_bytes(tmp_path / "r", tmp_path / "again")
    assert f"replies in {place}" in simforge("ledger", tmp_path / "r").out


def report(
    demand: int,
    limit: float,
    spent: float = 0,
    most: float = 40,
    reserved: float = 0,
    short: float = 0,
    may: float = 0,
) -> Status:
    gates = {"openai:m@u": {"u": GateState(limit, demand, most)}}
    return Status(Tally(), Usage(), spent, reserved, short, may, gates, ())


def test_limits_go_where_the_work_is_and_add_up():
    told = sharing.controls(
        1, {"busy": report(99, 50), "idle": report(0, 50)}, Bounds(80, 6000), None, {}
    )
    busy, idle = (told[name].shares["openai:m@u"]["u"] for name in ("busy", "idle"))
    assert (
        busy.factor == pytest.approx(99 / 50 * 100 / 100, abs=0.05)
        and idle.factor == 0.5
    )
    assert (busy.max_in_flight, idle.max_in_flight) == (
        40,
        1,
    )  # what the idle one gives up is not free before it says so
    free = {"busy": report(99, 50), "idle": report(0, 50, most=1)}
    grown = sharing.controls(1, free, Bounds(80), None, {})["busy"].shares[
        "openai:m@u"
    ]["u"]
    assert grown.max_in_flight == pytest.approx(79, abs=1)
    assert told["busy"].rates["openai:m@u"] + told["idle"].rates[
        "openai:m@u"
    ] == pytest.approx(100)


def test_two_models_at_one_url_have_shares_of_their_own():
    one = Status(
        Tally(),
        Usage(),
        0,
        0,
        0,
        0,
        {"a": {"u": GateState(16, 90, 40)}, "b": {"u": GateState(16, 0, 40)}},
        (),
    )
    two = Status(
        Tally(),
        Usage(),
        0,
        0,
        0,
        0,
        {"a": {"u": GateState(16, 0, 40)}, "b": {"u": GateState(16, 90, 40)}},
        (),
    )
    told = sharing.controls(1, {1: one, 2: two}, Bounds(), None, {})
    assert told[1].shares["a"]["u"].factor > 1 > told[1].shares["b"]["u"].factor
    assert told[2].shares["b"]["u"].factor > 1 > told[2].shares["a"]["u"].factor


def test_what_is_left_of_a_budget_is_dealt_out_and_never_more():
    purse = Budget(10.0, {"m": Price(prompt=1, completion=1)}, spent=2.0)
    reports = {1: report(1, 16, spent=3.0, reserved=0.1), 2: report(1, 16, spent=1.0)}
    budget = sharing.divide_budget(purse, reports, {}, spent_by_lost=2.0)
    assert (budget.spent, budget.by_worker, budget.exhausted) == (
        8.0,
        {1: 4.0, 2: 2.0},
        False,
    )
    stuck = {
        1: report(1, 16, spent=3.0, short=1.5),
        2: report(1, 16, spent=1.0, short=1.2),
        3: report(0, 16),
    }
    budget = sharing.divide_budget(purse, stuck, {}, spent_by_lost=2.0)
    assert (budget.by_worker, budget.exhausted) == ({1: 3.0, 2: 3.0, 3: 0.0}, False)
    assert sharing.divide_budget(purse, stuck, {}, spent_by_lost=3.0).exhausted


def test_what_a_silent_worker_was_told_is_given_to_no_other():
    purse = Budget(10.0, {"m": Price(prompt=1, completion=1)})
    silent = {
        1: report(1, 16, spent=4.0, may=5.0, reserved=0.1),
        2: report(1, 16, spent=1.0, may=3.0, reserved=0.1),
    }
    assert sharing.divide_budget(
        purse, silent, {2: 5.0}, spent_by_lost=0.0
    ).by_worker == {1: 5.0, 2: 3.5}
    heard = {**silent, 2: report(1, 16, spent=1.0, may=3.5, reserved=0.1)}
    assert sharing.divide_budget(
        purse, heard, {2: 3.5}, spent_by_lost=0.0
    ).by_worker == {1: 6.5, 2: 3.5}


def test_workers_take_no_shard_that_another_could_begin():
    """Four workers of one place each, four shards: one each, although the first is asked first
    for room each time."""

    async def played() -> list[int]:
        crew, taken = WorkerPool(iter(range(4))), [0] * 4  # type: ignore[arg-type]
        for number in range(4):
            free = asyncio.Event()
            free.set()

            async def play(
                shard: object, number: int = number, free: asyncio.Event = free
            ) -> object:
                taken[number] += 1
                free.clear()
                await asyncio.sleep(0.05)
                free.set()
                return shard

            crew.add(free.wait, play)  # type: ignore[arg-type]
        assert sorted([done async for done in crew.results()]) == [0, 1, 2, 3]  # type: ignore[type-var]
        return taken

    assert asyncio.run(played()) == [1, 1, 1, 1]


def test_a_worker_that_hangs_harms_no_other_and_its_calls_stop(
    start, unbroken, tmp_path
):
    """Stopped for longer than its claim holds: the others go on, and when it wakes it may go on
    as well."""
    server, whole, calls = unbroken
    run = start(server, "r", "--executor", "ray", "--workers", 2, "--max-in-flight", 6)
    run.until(int(0.2 * calls))
    hung = workers_of(run.process.pid)[0]
    os.kill(hung, signal.SIGSTOP)
    time.sleep(14)
    os.kill(hung, signal.SIGCONT)
    run.ended()
    # its calls in flight, once by the worker that took over and once by itself
    assert repeated(server, workers=1, most=2 * 6)
    assert same_bytes(tmp_path / "r", whole)


def test_a_killed_worker_does_not_use_up_the_budget(endpoint, tmp_path):
    server = endpoint(latency_ms=60)
    (tmp_path / "prices.yaml").write_text('"openai:*": {prompt: 10, completion: 40}\n')
    words = [
        "generate",
        "psoup",
        *ALONE,
        "--personas",
        "60",
        "--model",
        server.model,
        "--executor",
        "ray",
        "--workers",
        "1",
    ]
    words += [
        "--concurrency",
        "16",
        "--prices",
        str(tmp_path / "prices.yaml"),
        "--budget",
        "1000",
    ]
    command = [sys.executable, "-m", "simforge", *words, "--out", str(tmp_path / "r")]
    run = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **ENV}
    )
    Running(run, server).until(200)
    os.kill(workers_of(run.pid)[0], signal.SIGKILL)
    _, said = run.communicate(timeout=200)
    assert (run.returncode, "a worker was lost" in said) == (0, True), said


def test_a_run_that_is_told_to_end_says_how_to_go_on(start, endpoint):
    run = start(endpoint(latency_ms=60), "r", "--executor", "ray", "--workers", 1)
    run.until(100)
    run.process.terminate()
    _, said = run.process.communicate(timeout=60)
    assert (run.process.returncode, "To continue, run" in said) == (130, True), said


def test_a_runtime_environment_that_cannot_be_is_told(endpoint, tmp_path):
    (tmp_path / "env.yaml").write_text("working_dir: /nowhere/at/all\n")
    command = [
        "generate",
        "psoup",
        "--personas",
        4,
        "--model",
        endpoint(latency_ms=1).model,
        "--executor",
        "ray",
    ]
    done = simforge(
        *command,
        "--runtime-env",
        tmp_path / "env.yaml",
        "--out",
        tmp_path / "r",
        env=ENV,
    )
    assert (done.status, "Traceback" in done.err, "/nowhere" in done.err) == (
        2,
        False,
        True,
    ), done.err
