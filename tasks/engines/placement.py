"""On which nodes and GPUs engines and ranks run. What a run needs is reserved at once, as one placement group of Ray,
so that nothing waits for ever for a GPU that nobody gives back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from sgpo_core.config.base import ConfigError
from sgpo_core.config.training import ClusterSettings
from tasks.engines.faults import first_of
from tasks.paths import REPOSITORY, home

_PACKAGES = ("vllm", "torch", "transformers", "deepspeed")
_FREE_WITHIN_S, _ANSWER_WITHIN_S = 60.0, 120.0


@dataclass(frozen=True, slots=True)
class Seat:
    """Where an actor is put: on so many GPUs of a bundle of the group, on a node (its id), or anywhere."""

    gpus: float = 0.0
    group: Any = None
    bundle: int = 0
    node: str = ""

    @property
    def strategy(self) -> Any:
        """As Ray takes it."""
        if self.group is not None:
            return PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=self.bundle)
        return NodeAffinitySchedulingStrategy(self.node, soft=False) if self.node else "DEFAULT"


@dataclass(frozen=True, slots=True)
class Seats:
    """Of all rollout engines and trainer ranks."""

    rollouts: tuple[Seat, ...]
    ranks: tuple[Seat, ...]


_groups: list[Any] = []  # that are reserved


def reserved(cluster: ClusterSettings, trainers: bool) -> Seats:
    """GPUs for all engines, and with `trainers` for all ranks, until `release`: those of an engine are on one node, and
    all are on few nodes. Raises ConfigError where they are not there, or not free within a minute."""
    engines, ranks = cluster.rollout_actors, cluster.trainer_ranks if trainers else 0
    for_engines = f"{engines} rollout engines x {cluster.rollout_gpus} GPUs (cluster.rollout_actors, .rollout_gpus)"
    for_ranks = f"{ranks} trainer ranks x {cluster.trainer_gpus} GPUs (cluster.trainer_ranks, .trainer_gpus)"
    if cluster.colocated and trainers:  # by themselves two engines might come to one GPU
        halves = tuple(Seat(0.5, seat.group, seat.bundle) for seat in seats([1] * engines, for_engines))
        return Seats(halves, halves)
    wanted = [for_engines] * (cluster.rollout_gpus > 0) + [for_ranks] * (ranks * cluster.trainer_gpus > 0)
    found = seats([cluster.rollout_gpus] * engines + [cluster.trainer_gpus] * ranks, " and ".join(wanted))
    return Seats(found[:engines], found[engines:])


def seats(gpus: Sequence[int], what: str) -> tuple[Seat, ...]:
    """One for each number of GPUs, reserved until `release`; those without GPUs take turns with the nodes. Raises
    ConfigError, in which `what` stands for them."""
    bundles, nodes = [n for n in gpus if n], cycle(sorted(node["NodeID"] for node in _nodes().values()))
    if not bundles:
        return tuple(Seat(node=next(nodes)) for _ in gpus)
    if not fits(bundles, [total for _, total in _gpus().values()]):
        raise ConfigError(f"Ray's nodes have no room for {what}, those of an engine on one node: {_told(_gpus())}")
    group = ray.util.placement_group([{"GPU": n} for n in bundles], strategy="PACK")
    _groups.append(group)
    if not first_of([group.ready()], _FREE_WITHIN_S)[0]:
        release([Seat(0, group)])
        raise ConfigError(f"{what} were not free within {_FREE_WITHIN_S:.0f} s: {_told(_gpus())}")
    places = iter(range(len(bundles)))
    return tuple(Seat(n, group, next(places)) if n else Seat(node=next(nodes)) for n in gpus)


def release(held: Sequence[Seat] | None = None) -> None:
    """Gives these GPUs back, by default all, and ends the actors on them."""
    theirs = None if held is None else {seat.group.id for seat in held if seat.group is not None}
    for group in [group for group in _groups if theirs is None or group.id in theirs]:
        _groups.remove(group)
        ray.util.remove_placement_group(group)


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
    """Free and all GPUs of each node."""
    free: Mapping[str, Mapping[str, float]] = available_resources_per_node()
    return {
        name: (int(free.get(node["NodeID"], {}).get("GPU", 0)), int(node["Resources"].get("GPU", 0)))
        for name, node in _nodes().items()
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
    check_model(policy)
    ours = _versions()
    differing = [
        f"{package} {theirs[package]} on {node}, {ours[package]} here"
        for node, theirs in _on_every_node(_versions).items()
        for package in _PACKAGES
        if theirs[package] != ours[package]
    ]
    if differing:
        raise ConfigError(f"nodes have other versions: {'; '.join(differing)}. Run make setup on each of them")


def check_model(folder: Path) -> None:
    """Raises ConfigError where a node does not see this folder, from which engines on any of them may load."""
    if blind := nodes_without(folder):
        raise ConfigError(
            f"the model {folder} is not on {', '.join(blind)}: put it into a folder that all nodes share, under the "
            "same path (HF_HOME, for models of the hub)"
        )


def wait_for_nodes() -> None:
    """After a loss: until every node that Ray takes for alive answers, or for two minutes. Until Ray sees that one has
    died, which may take it half a minute, engines would be put there."""
    until = time.monotonic() + _ANSWER_WITHIN_S
    while time.monotonic() < until:
        try:
            _on_every_node(_sees, "/")
            return
        except ConfigError:
            time.sleep(1)


def nodes_without(path: Path) -> list[str]:
    """The nodes on which a file or a folder is not there."""
    return [node for node, seen in _on_every_node(_sees, str(path)).items() if not seen]


def _on_every_node(what: Any, *arguments: Any) -> dict[str, Any]:
    """Raises ConfigError that names a node which does not answer."""
    asked = {
        name: ray.remote(what)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(*arguments)
        for name, node in _nodes().items()
    }
    answers, until = {}, time.monotonic() + _ANSWER_WITHIN_S
    for name, reference in asked.items():
        first_of([reference], max(0.0, until - time.monotonic()))
        try:
            answers[name] = ray.get(reference, timeout=0)
        except ray.exceptions.RayError as error:
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ConfigError(
                f"{name} can't run this repository's code ({last}): it has to be there under {REPOSITORY}, set up"
            ) from error
    return answers


def _nodes() -> dict[str, dict[str, Any]]:
    """Those that are alive, by address and id."""
    return {f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})": node for node in ray.nodes() if node["Alive"]}


def _sees(path: str) -> bool:
    return Path(path).exists()


def _versions() -> dict[str, str]:
    names = packages_distributions()  # vLLM's for the CPU has another name
    return {package: version(names[package][0]) if package in names else "missing" for package in _PACKAGES}
