"""A Ray cluster of several nodes on this machine, for tests; told what to do by lines on its
standard input.

    python tests/ray_cluster.py NODES      prints the address once it is up

`kill N` ends node N with all its processes, `raylet N` only its raylet, whose workers live on;
`add` starts one more.
"""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_timeout_ms": 500,
         "health_check_failure_threshold": 3}  # fmt: skip
"Death is noticed in about two seconds, not in thirteen."


def main(nodes: str) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "include_dashboard": False,
            "_system_config": QUICK,
        },
    )
    try:
        others = [cluster.add_node(num_cpus=1) for _ in range(int(nodes) - 1)]
        print(cluster.address, flush=True)
        for line in sys.stdin:
            word, _, number = line.strip().partition(" ")
            if word == "kill":
                cluster.remove_node(others[int(number)], allow_graceful=False)
            elif word == "raylet":
                others[int(number)].kill_raylet()
            elif word == "add":
                others.append(cluster.add_node(num_cpus=1))
            print("done", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
