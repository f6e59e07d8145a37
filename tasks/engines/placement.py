"""On which nodes and GPUs engines and ranks run. What a run needs is reserved at once, as one placement group of Ray:
two runs on one cluster never have a part each and wait for the other's."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from typing import Any

import ray
from prefect.logging import get_logger
from ray._private.state import available_resources_per_node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import JudgeEngineSettings
from sgpo_core.config.training import ClusterSettings
from tasks.engines.faults import EngineLost
from tasks.engines.nodes import alive_nodes

_FREE_WITHIN_S, _SAID_AFTER_S, _PIECE_S = 60.0, 3.0, 0.2


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
class Part:
    """Of a run: actors that are alike."""

    what: str
    count: int
    gpus: int  # of each
    settings: str  # that decide it

    def __str__(self) -> str:
        return f"{self.count} {self.what} x {self.gpus} GPUs ({self.settings})"


@dataclass(frozen=True, slots=True)
class Seats:
    """Of all rollout engines and trainer ranks."""

    rollouts: tuple[Seat, ...]
    ranks: tuple[Seat, ...]


_groups: list[Any] = []  # that are reserved
_numbers = count()
_aside: dict[Part, tuple[Seat, ...]] = {}  # of judges that have not started yet


def reserved(cluster: ClusterSettings, trainers: bool, judge: JudgeEngineSettings | None = None) -> Seats:
    """GPUs for all engines, with `trainers` for all ranks, and for the engines of a `judge`, which `judge_seats` then
    gives, until `release`: those of an engine are on one node, and all are on few nodes. Raises ConfigError where they
    are not there, or not free within a minute."""
    both = cluster.colocated and trainers  # by themselves two engines might come to one GPU
    settings = "cluster.rollout_actors, .rollout_gpus"
    parts = [Part("rollout engines", cluster.rollout_actors, 1 if both else cluster.rollout_gpus, settings)]
    if trainers and not both:
        settings = "cluster.trainer_ranks, .trainer_gpus"
        parts.append(Part("trainer ranks", cluster.trainer_ranks, cluster.trainer_gpus, settings))
    judges = [_judge_part(judge)] if judge is not None else []
    engines, *others = _seats([*parts, *judges])
    if judges:
        _aside[judges[0]] = others.pop()
    if both:
        halves = tuple(Seat(0.5, seat.group, seat.bundle) for seat in engines)
        return Seats(halves, halves)
    return Seats(engines, *others or [()])


def judge_seats(judge: JudgeEngineSettings) -> tuple[Seat, ...]:
    """For its engines: those that were reserved with the policy's, or others. Raises ConfigError like `reserved`."""
    part = _judge_part(judge)
    return _aside.pop(part, ()) or _seats([part])[0]


def leave_seats(judge: JudgeEngineSettings, seats: tuple[Seat, ...]) -> None:
    """For the next engines of such a judge: its own did not start."""
    _aside[_judge_part(judge)] = seats


def _judge_part(judge: JudgeEngineSettings) -> Part:
    return Part("judge engines", judge.actors, judge.gpus, "judge.engine.actors, .gpus")


def release() -> None:
    """Gives all GPUs back, and ends the actors on them."""
    _aside.clear()
    while _groups:
        ray.util.remove_placement_group(_groups.pop())


def check_seats() -> None:
    """Raises EngineLost where a node that has some of the reserved GPUs has left: an actor that was to start there
    would be waited for until others are free."""
    if any(_state(group) != "CREATED" for group in _groups):
        raise EngineLost(f"a node with reserved GPUs has left the cluster, on which are now {_told()}")


def _seats(parts: Sequence[Part]) -> list[tuple[Seat, ...]]:
    """Of each part, reserved at once; those without GPUs take turns with the nodes."""
    nodes = cycle(sorted(node["NodeID"] for node in alive_nodes().values()))
    bundles = [part.gpus for part in parts for _ in range(part.count) if part.gpus]
    group, places = _group(bundles, " and ".join(str(part) for part in parts if part.gpus)), count()
    return [
        tuple(Seat(part.gpus, group, next(places)) if part.gpus else Seat(node=next(nodes)) for _ in range(part.count))
        for part in parts
    ]


def _group(bundles: Sequence[int], what: str) -> Any:
    """A placement group of so many GPUs, which are free; None without bundles."""
    if not bundles:
        return None
    _check_room(bundles, what)
    name = f"process {os.getpid()} on {socket.gethostname()} #{next(_numbers)}"
    group = ray.util.placement_group([{"GPU": n} for n in bundles], strategy="PACK", name=name)
    _groups.append(group)
    began, said = time.monotonic(), False
    try:
        while _state(group) != "CREATED":
            waited = time.monotonic() - began
            if waited > _FREE_WITHIN_S:
                raise ConfigError(f"{what} were not free within {_FREE_WITHIN_S:.0f} s: {_told()}")
            if not said and waited > _SAID_AFTER_S:
                get_logger("engines").warning(f"waiting up to {_FREE_WITHIN_S:.0f} s for {what}: {_told()}")
                said = True
            time.sleep(_PIECE_S)
            _check_room(bundles, what)  # a node may leave meanwhile
    except BaseException:
        _groups.remove(group)
        ray.util.remove_placement_group(group)
        raise
    return group


def _state(group: Any) -> str:
    return str(ray.util.placement_group_table(group).get("state", "REMOVED"))


def _check_room(bundles: Sequence[int], what: str) -> None:
    """Raises ConfigError where the nodes would not have room even if all their GPUs were free."""
    if not fits(bundles, [int(node["Resources"].get("GPU", 0)) for node in alive_nodes().values()]):
        raise ConfigError(f"Ray's nodes have no room for {what}, those of an engine on one node: {_told()}")


def fits(bundles: Sequence[int], nodes: Sequence[int]) -> bool:
    """Whether nodes with so many GPUs hold all bundles: the largest first, each where it leaves the least."""
    left = list(nodes)
    for wanted in sorted(bundles, reverse=True):
        room = [i for i, gpus in enumerate(left) if gpus >= wanted]
        if not room:
            return False
        left[min(room, key=left.__getitem__)] -= wanted
    return True


def _told() -> str:
    """Free and all GPUs of each node, and who has reserved the others."""
    free: Mapping[str, Mapping[str, float]] = available_resources_per_node()
    holders = _holders()
    told = []
    for name, node in alive_nodes().items():
        there, total = int(free.get(node["NodeID"], {}).get("GPU", 0)), int(node["Resources"].get("GPU", 0))
        others = ", ".join(f"{who} has {gpus}" for who, gpus in sorted(holders.get(node["NodeID"], {}).items()))
        told.append(f"{name} has {there} of {total} GPUs free" + (f" ({others})" if others else ""))
    return ", ".join(told)


def _holders() -> dict[str, Counter[str]]:
    """Node (its id) -> who has reserved how many of its GPUs, by placement groups."""
    found: dict[str, Counter[str]] = {}
    for group in ray.util.placement_group_table().values():
        if group["state"] == "CREATED":
            who = group["name"].partition(" #")[0] or "a placement group without a name"
            for bundle, node in group["bundles_to_node_id"].items():
                found.setdefault(node, Counter())[who] += int(group["bundles"][bundle].get("GPU", 0))
    return found
