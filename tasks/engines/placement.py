"""On which nodes and GPUs engines and ranks run. What a run needs is reserved at once, as one placement group of Ray,
so that nothing waits for ever for a GPU that nobody gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sgpo_core.config.base import ConfigError
from sgpo_core.config.training import ClusterSettings
from tasks.paths import home

_PACKAGES = ("vllm", "torch", "transformers", "deepspeed")
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Seat:
    """Where an actor is put: on so many GPUs of a bundle of the group, or, without a group, anywhere."""

    gpus: float = 0.0
    group: Any = None
    bundle: int = 0


@dataclass(frozen=True, slots=True)
class Seats:
    """Of all rollout engines and trainer ranks. `group` is to be removed when they have ended."""

    rollouts: tuple[Seat, ...]
    ranks: tuple[Seat, ...]
    group: Any = None

    def release(self) -> None:
        if self.group is not None:
            ray.util.remove_placement_group(self.group)


def reserved(cluster: ClusterSettings, trainers: bool) -> Seats:
    """GPUs for all engines, and with `trainers` for all ranks: those of an engine are on one node, and all are on few
    nodes. Raises ConfigError where they are not there, or not free within a minute."""
    engines, ranks = cluster.rollout_actors, cluster.trainer_ranks if trainers else 0
    shared = cluster.colocated and trainers
    bundles = [cluster.rollout_gpus] * engines + [cluster.trainer_gpus] * (0 if shared else ranks)
    if not any(bundles):
        return Seats((Seat(),) * engines, (Seat(),) * ranks)
    what = f"{engines} rollout engines x {cluster.rollout_gpus}"
    if ranks and cluster.trainer_gpus and not shared:
        what += f" and {ranks} trainer ranks x {cluster.trainer_gpus}"
    group = _group([n for n in bundles if n], f"{what} GPUs (cluster.rollout_actors, .rollout_gpus, .trainer_ranks)")
    places = [sum(n > 0 for n in bundles[:i]) for i in range(len(bundles))]  # of each in the group
    seats = [Seat(n, group, place) if n else Seat() for n, place in zip(bundles, places, strict=True)]
    if shared:  # by itself Ray might put two engines on one GPU
        halves = tuple(Seat(0.5, group, i) for i in range(engines))
        return Seats(halves, halves, group)
    return Seats(tuple(seats[:engines]), tuple(seats[engines:]), group)


def _group(bundles: Sequence[int], what: str) -> Any:
    check_room(bundles, what)
    group = ray.util.placement_group([{"GPU": n} for n in bundles], strategy="PACK")
    if not group.wait(_PATIENCE_S):
        ray.util.remove_placement_group(group)
        raise ConfigError(f"{what} were not free within {_PATIENCE_S:.0f} s: {_told(_gpus())}")
    return group


def check_room(bundles: Sequence[int], what: str, free: bool = False) -> None:
    """Raises ConfigError where the nodes of Ray's cluster do not have such GPUs, or, with `free`, have given them
    away."""
    nodes = _gpus()
    if not fits(bundles, [there if free else total for there, total in nodes.values()]):
        raise ConfigError(f"Ray's nodes have no room for {what}, those of an engine on one node: {_told(nodes)}")


def fits(bundles: Sequence[int], nodes: Sequence[int]) -> bool:
    """Whether nodes with so many GPUs hold all bundles: the largest first, each where it leaves the least."""
    left = list(nodes)
    for wanted in sorted(bundles, reverse=True):
        room = [i for i, gpus in enumerate(left) if gpus >= wanted]
        if not room:
            return False
        left[min(room, key=left.__getitem__)] -= wanted
    return True


def _gpus() -> dict[str, tuple[int, int]]:
    """Free and all GPUs of each node, by its address and id."""
    free: Mapping[str, Mapping[str, float]] = available_resources_per_node()
    return {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})": (
            int(free.get(node["NodeID"], {}).get("GPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    }


def _told(nodes: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} has {free} of {total} GPUs free" for name, (free, total) in nodes.items())


def check_nodes(policy: Path) -> None:
    """Raises ConfigError where a node does not see this process's home, in which models, checkpoints and finished
    policies are files, or the folder `policy`, or has other versions of packages."""
    home().mkdir(parents=True, exist_ok=True)
    marker = home() / f".seen-{uuid4().hex}"
    marker.touch()
    try:
        blind = nodes_without(marker)
    finally:
        marker.unlink()
    if blind:
        raise ConfigError(
            f"SGPO_HOME={home()} is not shared: {', '.join(blind)} can't see what this process writes into it. It has "
            "to be a folder that all nodes share, under the same path"
        )
    if blind := nodes_without(policy):
        raise ConfigError(
            f"the model {policy} is not on {', '.join(blind)}: put it into a folder that all nodes share, under the "
            "same path (HF_HOME, for models of the hub)"
        )
    ours = _versions()
    differing = [
        f"{package} {theirs[package]} on {node}, {ours[package]} here"
        for node, theirs in _on_every_node(_versions).items()
        for package in _PACKAGES
        if theirs[package] != ours[package]
    ]
    if differing:
        raise ConfigError(f"nodes have other versions: {'; '.join(differing)}. Run make setup on each of them")


def nodes_without(path: Path) -> list[str]:
    """The nodes on which a file is not there."""
    return [node for node, seen in _on_every_node(_sees, str(path)).items() if not seen]


def _on_every_node(what: Any, *arguments: Any) -> dict[str, Any]:
    asked = {
        f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})": ray.remote(what)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(*arguments)
        for node in ray.nodes()
        if node["Alive"]
    }
    return dict(zip(asked, ray.get(list(asked.values()), timeout=_PATIENCE_S), strict=True))


def _sees(path: str) -> bool:
    return Path(path).exists()


def _versions() -> dict[str, str]:
    names = packages_distributions()  # vLLM's for the CPU has another name
    return {package: version(names[package][0]) if package in names else "missing" for package in _PACKAGES}
