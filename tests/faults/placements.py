"""Which presets Ray places on which clusters: nodes on this machine that believe that they have GPUs.

python -m tests.faults.placements
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from sgpo_core.config.base import ConfigError
from sgpo_core.config.catalog import presets
from sgpo_core.config.run import RunConfig, load_run
from tasks.engines import placement
from tasks.engines.guard import start_guard
from tasks.engines.placement import release, reserved
from tasks.reports.text_table import text_table
from tasks.sizing import judge_shape
from tests.faults.nodes import TOKEN
from tests.faults.ray_nodes import ray_nodes

CLUSTERS = ((1, 8), (2, 8), (8, 8), (2, 4), (8, 1))  # nodes, GPUs of each
TAKEN = 5  # GPUs of each of two nodes, by others


@contextmanager
def cluster_of(nodes: int, gpus: int) -> Iterator[None]:
    """This process is in a Ray of such nodes."""
    with ray_nodes(nodes, num_gpus=gpus) as (cluster, _):
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def taken(gpus: int, nodes: int) -> Iterator[None]:
    """So many GPUs of each node are somebody else's."""
    group = ray.util.placement_group([{"GPU": gpus}] * nodes, strategy="STRICT_SPREAD")
    assert group.wait(30)
    yield
    ray.util.remove_placement_group(group)


def placed(config: RunConfig) -> str:
    """ "yes", or "no" where the run would be refused; all is given back."""
    judge = config.judge.engine if judge_shape(config) else None
    try:
        reserved(config.cluster, True, judge)
        return "yes"
    except ConfigError:
        return "no"
    finally:
        release()


def main() -> None:
    if "RAY_AUTH_TOKEN" not in os.environ:  # Ray has read it when it was imported
        os.execve(sys.executable, [sys.executable, "-m", "tests.faults.placements"], {**os.environ, **TOKEN})
    start_guard()
    placement._FREE_WITHIN_S = 3.0
    configs = {name: config for name in presets("online") if (config := load_run(name)).cluster.gpus}
    columns: dict[str, dict[str, Any]] = {}
    for nodes, gpus in CLUSTERS:
        with cluster_of(nodes, gpus):
            columns[f"{nodes} x {gpus}"] = {name: placed(config) for name, config in configs.items()}
            if (nodes, gpus) == (2, 8):
                with taken(TAKEN, nodes):
                    part = f"{nodes} x {gpus}, {gpus - TAKEN} free"
                    columns[part] = {name: placed(config) for name, config in configs.items()}
    print(text_table([["", *columns], *([name, *(c[name] for c in columns.values())] for name in configs)]))


if __name__ == "__main__":
    main()
