"""The engines of a run: Ray actors that are started once and live for the whole flow.

Engines are kept per process and handed to every run that can share them (same architecture, same cluster), because
starting them is what costs: a whole comparison runs on one set.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

import ray
from prefect import get_run_logger
from prefect.logging import get_logger

from sgpo_core.config.base import ConfigError, fingerprint
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.training import ClusterSettings
from tasks.engines.actors import local_folder, one_node, ready_in, remote_actor, start_ray
from tasks.engines.faults import EngineLost, Restart, answers
from tasks.engines.guard import sync_folder
from tasks.engines.nodes import check_nodes, nodes_without, starting, wait_for_nodes
from tasks.engines.placement import Seat, Seats, check_seats, release, reserved
from tasks.workers import rollout_worker, trainer_worker
from tasks.workers.meeting import Meeting
from tasks.workers.vllm_process import vllm_environment
from tasks.workers.weight_transfer import BroadcastTransfer, FileTransfer, Transfer

T = TypeVar("T")


@dataclass
class Turns:
    """Who of those that share GPUs is awake."""

    at_work: Literal["engines", "ranks"] = "engines"


@dataclass(frozen=True)
class Engines:
    """Handles of the actors. Weights pass from trainer to rollout engines through files in `sync_dir`, or by
    `broadcast`, where there is one."""

    rollouts: tuple[Any, ...]
    trainers: tuple[Any, ...]
    sync_dir: Path
    broadcast: BroadcastTransfer | None = None
    deadline_s: float = 3600.0  # without an answer, until an actor counts as lost
    turns: Turns | None = None  # where one sleeps while the other works

    def on_all_ranks(self, method: str, *arguments: Any) -> list[Any]:
        """Calls a method of every rank at the same time and waits; index 0 is rank 0's result."""
        return self.on_each_rank(method, [arguments] * len(self.trainers))

    def on_each_rank(self, method: str, arguments: Sequence[Sequence[Any]]) -> list[Any]:
        """The same, with arguments of its own for each rank."""
        self.turn_of("ranks")
        return self.of_ranks(
            [getattr(rank, method).remote(*own) for rank, own in zip(self.trainers, arguments, strict=True)]
        )

    def turn_of(self, who: Literal["engines", "ranks"]) -> None:
        """Before these are asked to work: where both share GPUs and sleep, the others fall asleep, and these wake."""
        if self.turns is None or self.turns.at_work == who:
            return
        if who == "ranks":
            self.of_rollouts([rollout.sleep.remote() for rollout in self.rollouts])
            self.of_ranks([rank.wake.remote() for rank in self.trainers])
        else:
            self.of_ranks([rank.sleep.remote() for rank in self.trainers])
            self.of_rollouts([rollout.wake.remote() for rollout in self.rollouts])
        self.turns.at_work = who

    def of_ranks(self, pending: Sequence[Any]) -> list[Any]:
        """The results of a call to every rank. Raises EngineLost."""
        return self.of_both(pending, [])[0]

    def of_rollouts(self, pending: Sequence[Any]) -> list[Any]:
        """The results of a call to every rollout engine. Raises EngineLost."""
        return self.of_both([], pending)[1]

    def of_both(self, ranks: Sequence[Any], rollouts: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results of calls to every rank, one call after the other, and of a call to every rollout engine. Raises
        EngineLost."""
        asked = {call: f"trainer rank {i % len(self.trainers)}" for i, call in enumerate(ranks)}
        asked |= {call: f"rollout engine {i}" for i, call in enumerate(rollouts)}
        found = answers(asked, self.deadline_s)
        return found[: len(ranks)], found[len(ranks) :]

    @contextmanager
    def transfer(self, version: int) -> Iterator[Transfer]:
        """The way of weights to the engines; of a file nothing is left."""
        if self.broadcast is not None:
            yield self.broadcast
            return
        path = self.sync_dir / f"policy-{version}"
        try:
            yield FileTransfer(str(path))
        finally:
            path.unlink(missing_ok=True)


_live: dict[str, Engines] = {}
_others: dict[str, tuple[Any, ...]] = {}  # actors of judges
_starting = Lock()
_users = 0


@contextmanager
def engines_for(
    policy: str, model: ModelSettings, cluster: ClusterSettings, judge: JudgeSettings | None = None
) -> Iterator[Engines]:
    """Running engines that fit; they stay up until the outermost `keep_engines` or user is done. `judge`: one whose
    engines will be asked for, too, so that what it needs is looked at, and reserved, before any engine starts."""
    with keep_engines():
        yield _kept(_architecture(policy), policy, model, cluster, trainers=True, judge=judge)


@contextmanager
def rollout_engines(policy: str, weights: str, model: ModelSettings, cluster: ClusterSettings) -> Iterator[Engines]:
    """Rollout engines alone, which hold the weights in the folder `policy`, whose hash is `weights`, and keep them."""
    with keep_engines():
        yield _kept(weights, policy, model, cluster, trainers=False)


def _kept(
    holds: object,
    policy: str,
    model: ModelSettings,
    cluster: ClusterSettings,
    trainers: bool,
    judge: JudgeSettings | None = None,
) -> Engines:
    key = fingerprint([holds, trainers, model.dtype, model.max_length, cluster.model_dump(mode="json")])
    if key not in _live:
        stop_engines()  # two sets do not fit into the memory that one was sized for
        ranks = f" and trainer ranks ({cluster.trainer_ranks})" if trainers else ""
        with ready_in(f"rollout engines ({cluster.rollout_actors}){ranks}"):
            _live[key] = _start(policy, model, cluster, trainers, judge)
    return _live[key]


def _architecture(policy: str) -> object:
    """What engines are made of: shapes, not weights, which every run syncs."""
    config = Path(policy) / "config.json"
    if not config.is_file():
        return policy
    volatile = {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures"}
    return {name: value for name, value in json.loads(config.read_text()).items() if name not in volatile}


@contextmanager
def keep_engines() -> Iterator[None]:
    """Engines started inside stay up until the end of the block."""
    global _users
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if _users == 0:
            stop_engines()
            if ray.is_initialized():
                ray.shutdown()


def kept_actors(key: str, start: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """The actors that were started under this key, or now are; they stay up like the engines. Asked for inside of
    `keep_engines`, from any thread."""
    assert _users > 0, "nobody would stop them"
    with _starting:
        if key not in _others:
            start_ray()
            _others[key] = start()
        return _others[key]


def stop_engines() -> None:
    """Ends all that are kept; the next run starts its own. Also after a run that failed: nobody knows in what state its
    engines are."""
    actors = [actor for engines in _live.values() for actor in (*engines.rollouts, *engines.trainers)]
    if ray.is_initialized():  # or Ray would look for a cluster to end them in
        for actor in (*actors, *chain.from_iterable(_others.values())):
            ray.kill(actor)
        release()
    for engines in _live.values():
        shutil.rmtree(engines.sync_dir, ignore_errors=True)
    _live.clear()
    _others.clear()


def outlived(restarts: int, work: Callable[[list[Restart]], T]) -> T:
    """What `work` returns. When it loses an engine, all engines are ended and it is called again, which is to go on
    from where it was: at most `restarts` times, then EngineLost is raised. It is told of all that was lost before; the
    seconds until it goes on are for it to say."""
    before: list[Restart] = []
    while True:
        try:
            return work(before)
        except EngineLost as lost:
            before.append(Restart(str(lost), time.time()))
            stop_engines()
            if not restarts:
                raise
            restarts -= 1
            get_run_logger().warning(
                f"{lost}: the engines start anew, and the run goes on from its last checkpoint ({restarts} more times)"
            )
            if not one_node():
                wait_for_nodes()


def _start(
    policy: str, model: ModelSettings, cluster: ClusterSettings, trainers: bool, judge: JudgeSettings | None
) -> Engines:
    start_ray()
    if not one_node():
        check_nodes(Path(policy), *([Path(judge.model)] if judge else []))
    with starting(f"the engines of {policy}"):
        return _started(policy, model, cluster, trainers, reserved(cluster, trainers, judge.engine if judge else None))


def _started(policy: str, model: ModelSettings, cluster: ClusterSettings, trainers: bool, seats: Seats) -> Engines:
    rollouts: tuple[Any, ...] = ()
    ranks: tuple[Any, ...] = ()
    try:
        rollouts = _start_rollouts(policy, model, cluster, seats.rollouts)  # the actors start while the trainers do
        asked = {rollout.kv_sequences.remote(): f"rollout engine {i}" for i, rollout in enumerate(rollouts)}
        ranks = start_trainers(cluster, seats.ranks, beside=asked) if trainers else ()
        folder = sync_folder(cluster.sync_dir)
        broadcast = _broadcast(cluster, rollouts, ranks, folder) if trainers else None
        held = answers(asked, _start_deadline(cluster), check_seats)  # all have started
    except BaseException:
        for actor in (*rollouts, *ranks):
            ray.kill(actor)
        release()
        raise
    turns = Turns() if cluster.sleep and trainers else None
    engines = Engines(rollouts, ranks, folder, broadcast, cluster.deadline_s, turns)
    if advice := kv_advice(min(held), model, cluster):
        get_logger("engines").warning(advice)
    return engines


def kv_advice(sequences: float, model: ModelSettings, cluster: ClusterSettings) -> str:
    """What to say of a KV cache that holds so many sequences of full length; "" where all that are generated at a time
    fit."""
    if sequences >= cluster.max_num_seqs:
        return ""
    if cluster.rollout_gpus:
        help_ = "raise cluster.gpu_memory_utilization or .rollout_gpus"
    else:
        help_ = (
            f"cluster.kv_cache_mib={math.ceil(cluster.kv_cache_mib * cluster.max_num_seqs / sequences)} holds them all"
        )
    return (
        f"the KV cache of an engine holds {sequences:.0f} responses of model.max_length={model.max_length} tokens at a "
        f"time, not cluster.max_num_seqs={cluster.max_num_seqs}: the others wait when responses get long; {help_}"
    )


def _start_rollouts(
    policy: str, model: ModelSettings, cluster: ClusterSettings, seats: Sequence[Seat]
) -> tuple[Any, ...]:
    variables = vllm_environment(cluster.rollout_threads, local_folder())
    return tuple(
        remote_actor(rollout_worker.RolloutWorker, seat, variables).remote(policy, model, cluster) for seat in seats
    )


def start_trainers(
    cluster: ClusterSettings, seats: Sequence[Seat] = (), beside: Mapping[Any, str] | None = None
) -> tuple[Any, ...]:
    """DeepSpeed ranks, connected to each other, by default without GPUs; Ray must be up. `beside`: calls of others that
    start meanwhile (reference -> who was asked): one that fails is not waited for."""
    seats = seats or (Seat(),) * cluster.trainer_ranks
    share = 1 - cluster.gpu_memory_utilization if cluster.colocated and not cluster.sleep else 1.0
    variables = trainer_worker.trainer_environment(cluster.trainer_threads, cluster.trainer_gpus > 0, share)
    ranks = tuple(
        remote_actor(trainer_worker.TrainerWorker, seat, variables).remote(rank, len(seats))
        for rank, seat in enumerate(seats)
    )
    deadline = _start_deadline(cluster)
    if folder := local_folder():
        meeting = Meeting(len(ranks), file=str(folder / f"ranks-{uuid.uuid4().hex}"))
    else:
        [meeting] = answers({ranks[0].host_meeting.remote(len(ranks)): "trainer rank 0"}, deadline, check_seats)
    connecting = {rank.connect.remote(meeting): f"trainer rank {i}" for i, rank in enumerate(ranks)}
    answers({**connecting, **(beside or {})}, deadline, check_seats)
    return ranks


def _broadcast(
    cluster: ClusterSettings, rollouts: Sequence[Any], ranks: Sequence[Any], folder: Path
) -> BroadcastTransfer | None:
    """How weights are broadcast to these engines, None where they go through a file in `folder`. Raises ConfigError
    where engines would not see that file."""
    size, deadline = 1 + len(rollouts) * max(1, cluster.rollout_gpus), cluster.deadline_s
    if one_node():
        if cluster.sync_by != "broadcast":
            return None
        return BroadcastTransfer(Meeting(size, file=str(folder / f"broadcast-{uuid.uuid4().hex}")), deadline)
    named = {ranks[0].__ray_call__.remote(_node): "trainer rank 0"}
    named |= {rollout.__ray_call__.remote(_node): f"rollout engine {i}" for i, rollout in enumerate(rollouts)}
    where = {ray.get_runtime_context().get_node_id(), *answers(named, _start_deadline(cluster), check_seats)}
    alike = (cluster.rollout_gpus > 0) == (cluster.trainer_gpus > 0) and not cluster.colocated
    if cluster.sync_by == "broadcast" or (cluster.sync_by == "auto" and len(where) > 1 and alike):
        [meeting] = answers({ranks[0].host_meeting.remote(size, deadline): "trainer rank 0"}, deadline)
        get_logger("engines").info(f"weights are broadcast: the flow, its engines and ranks are on {len(where)} nodes")
        return BroadcastTransfer(meeting, deadline)
    if len(where) > 1 and (blind := nodes_without(folder)):
        raise ConfigError(
            f"weights go through a file in cluster.sync_dir={cluster.sync_dir}, which {', '.join(blind)} can't see: "
            "set it to a folder that all nodes share"
        )
    return None


def _start_deadline(cluster: ClusterSettings) -> float:
    """Seconds for what has to start first, and may have to be compiled: an hour, or what the user grants it at work."""
    return max(cluster.deadline_s, 3600.0)


def _node(actor: Any) -> str:
    return str(ray.get_runtime_context().get_node_id())
