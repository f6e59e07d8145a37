"""Ray, and the actors that engines are: how their processes start, and on which GPUs."""

from __future__ import annotations

import os
from typing import Any

import ray
from ray._private import ray_constants
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sgpo_core.config.base import ConfigError
from sgpo_core.config.training import ClusterSettings
from tasks.engines.guard import start_guard
from tasks.paths import REPOSITORY


def one_node() -> bool:
    """All is on this machine, in a Ray that this process started."""
    return "RAY_ADDRESS" not in os.environ


def start_ray() -> None:
    """Unless it is up: a cluster (RAY_ADDRESS), or one of this process's own."""
    start_guard()
    if not ray.is_initialized():
        if one_node():
            # Ray's own switch for desktop systems, by which all its processes listen on loopback alone. This process
            # read the variable when it imported Ray; the others will.
            os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
            ray_constants.ENABLE_RAY_CLUSTER = False
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),  # never a cluster that just happens to run here
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}},
        )


def shared_gpus(cluster: ClusterSettings) -> Any:
    """A GPU for each engine with its rank: by itself Ray might put two engines on one. Raises ConfigError where they
    are not free within a minute."""
    place = ray.util.placement_group([{"GPU": 1}] * cluster.rollout_actors, strategy="PACK")
    if not place.wait(60):
        ray.util.remove_placement_group(place)
        raise ConfigError(f"{cluster.rollout_actors} GPUs of the Ray cluster were not free within 60 s")
    return place


def remote_actor(worker: type, gpus: int, variables: dict[str, str], place: Any = None, index: int = 0) -> Any:
    """An actor class. `variables` are in its process's environment before anything is loaded. With a `place` of
    `shared_gpus`, it has half of what Ray counts as GPU `index` of it."""
    # num_cpus=0: trainers and engines take turns on the cores; their threads are limited by OMP_NUM_THREADS.
    environment = {"env_vars": {"PYTHONPATH": str(REPOSITORY), **variables}}
    if place is None:
        return ray.remote(worker).options(num_cpus=0, num_gpus=gpus, runtime_env=environment)
    there = PlacementGroupSchedulingStrategy(place, placement_group_bundle_index=index)
    return ray.remote(worker).options(num_cpus=0, num_gpus=0.5, runtime_env=environment, scheduling_strategy=there)
