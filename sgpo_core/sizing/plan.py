"""What a run on GPUs needs, put together: each kind of device, the host, the disk; and whether it is there."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

from sgpo_core.config.run import TrainingConfig
from sgpo_core.sizing.hardware import Gpu
from sgpo_core.sizing.memory import (
    ASLEEP,
    CONTEXT,
    GIB,
    WIDTH,
    Parts,
    engine_memory,
    kv_sequences,
    optimizer_bytes,
    resting_bytes,
    trainer_memory,
)
from sgpo_core.sizing.seconds import verdict_tokens
from sgpo_core.sizing.shapes import ModelShape

_FILE = 5e9 / GIB  # of a model's files on the hub, the largest
_NODE = 8  # GPUs that an engine may be split over
_PROCESS = 2.5  # GiB of host memory of a process with torch, vLLM or DeepSpeed and CUDA; assumed


@dataclass(frozen=True, slots=True)
class Need:
    """`what` takes `parts` (GiB), `there` are so many GiB of it (None: unknown). `fix`: what to change where they are
    too few. `note`: what else is worth knowing."""

    what: str
    parts: Parts
    there: float | None
    fix: str = ""
    note: str = ""

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return (self.there is None or self.total <= self.there) and all(size >= 0 for size in self.parts.values())


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node has: GPUs and their kind; GiB of memory, of shared memory and of free disk (None: unknown)."""

    gpus: int
    gpu: Gpu
    memory: float | None = None
    shared_memory: float | None = None
    disk: float | None = None


def needs(config: TrainingConfig, policy: ModelShape, judge: ModelShape | None, machine: Machine) -> list[Need]:
    """Of a run on one node. `judge`: of the model that engines of the run hold, if they do; `machine.gpu` is what
    every engine and every rank runs on that has GPUs. Those on the CPU count as processes alone."""
    found = []
    if config.cluster.rollout_gpus:
        found.append(_rollout(config, policy, machine.gpu))
    if config.cluster.trainer_gpus:
        found.append(_trainer(config, policy, machine.gpu))
    if judge is not None and config.judge.engine.gpus:
        found.append(_judge(config, judge, machine.gpu))
    return [
        *found,
        _host(config, policy, judge, machine),
        *([] if config.cluster.sync_by == "broadcast" else [_shared(config, policy, machine)]),
        _disk(config, policy, machine),
    ]


def indivisible(config: TrainingConfig, policy: ModelShape, judge: ModelShape | None) -> list[str]:
    """A sentence for each model that vLLM can't split over as many GPUs as its engine has."""
    engines = [("cluster.rollout_gpus", "the policy", policy, config.cluster.rollout_gpus)]
    if judge is not None:
        engines.append(("judge.engine.gpus", "the judge's model", judge, config.judge.engine.gpus))
    return [
        f"{setting}={gpus}: {named} has {shape.heads} attention heads, {shape.kv_heads} key-value heads and "
        f"{shape.intermediate} rows of its feed-forward layers, which can't be split over {gpus} GPUs: choose "
        + " or ".join(str(n) for n in range(1, _NODE + 1) if shape.splits_over(n))
        for setting, named, shape, gpus in engines
        if gpus and not shape.splits_over(gpus)
    ]


def judge_context(config: TrainingConfig, judge: ModelShape | None) -> list[str]:
    """A sentence where the judge's engines on GPUs can't read a response as long as responses may be: it would abstain.
    The tokens are `seconds.verdict_tokens`, estimated."""
    if judge is None or not config.judge.engine.gpus:
        return []
    prompt, most = verdict_tokens(config.judge, config.sampling.max_tokens)
    if prompt + most <= config.judge.engine.max_length:
        return []
    return [
        f"judge.engine.max_length={config.judge.engine.max_length}: the judge would abstain from long responses. A "
        f"response of sampling.max_tokens={config.sampling.max_tokens} makes a prompt of about {prompt:,.0f} tokens, "
        f"and the judge may write {most:,.0f}: set it to {prompt + most:.0f} or more (judge.critique_tokens, "
        "judge.thinking_tokens: what it may write)"
    ]


def free_gib(config: TrainingConfig, policy: ModelShape, judge: ModelShape | None, gpu: Gpu) -> float:
    """How much of a GPU has to be free for whatever runs on it. vLLM wants its whole share at once."""
    cluster, judges = config.cluster, config.judge.engine
    engine = cluster.gpu_memory_utilization * gpu.memory if cluster.rollout_gpus else 0.0
    judging = judges.gpu_memory_utilization * gpu.memory if judge and judges.gpus else 0.0
    trainer = _trainer(config, policy, gpu).total if cluster.trainer_gpus else 0.0
    if cluster.sleep:  # the other is asleep
        return max(engine + CONTEXT, trainer + ASLEEP, judging)
    return max(engine + trainer if cluster.colocated else max(engine, trainer), judging)


def gpus_wanted(config: TrainingConfig, judge: ModelShape | None) -> int:
    """Of engines, ranks, and the judge's engines where `judge` is held by some."""
    judges = config.judge.engine.actors * config.judge.engine.gpus if judge else 0
    return config.cluster.gpus + judges


def _rollout(config: TrainingConfig, shape: ModelShape, gpu: Gpu) -> Need:
    cluster, model = config.cluster, config.model
    need = _engine(
        f"rollout engine ({_times(cluster.rollout_actors, cluster.rollout_gpus)})",
        *(shape, model.dtype, cluster.rollout_gpus, gpu, cluster.gpu_memory_utilization),
        *(cluster.max_num_seqs, model.max_length, "cluster.rollout_gpus", "cluster.max_num_seqs"),
    )
    share, most = cluster.gpu_memory_utilization, 1 - CONTEXT / gpu.memory
    if cluster.sleep and share > most:  # an engine takes its whole share, whatever it needs
        parts = {"the engine's share": share * gpu.memory, "a rank that sleeps": CONTEXT}
        fix = f"cluster.gpu_memory_utilization={int(100 * most) / 100:g}"
        return replace(need, parts=parts, there=gpu.memory, fix=fix)
    return need


def _judge(config: TrainingConfig, shape: ModelShape, gpu: Gpu) -> Need:
    engine = config.judge.engine
    return _engine(
        f"judge engine ({_times(engine.actors, engine.gpus)})",
        *(shape, engine.dtype, engine.gpus, gpu, engine.gpu_memory_utilization),
        *(engine.max_num_seqs, engine.max_length, "judge.engine.gpus", "judge.engine.max_num_seqs"),
    )


def _engine(
    what: str,
    shape: ModelShape,
    dtype: str,
    gpus: int,
    gpu: Gpu,
    share: float,
    sequences: int,
    length: int,
    gpus_setting: str,
    sequences_setting: str,
) -> Need:
    limit = share * gpu.memory
    parts = engine_memory(shape, dtype, gpus, limit, sequences, length)
    held = kv_sequences(shape, dtype, gpus, max(0.0, limit - sum(parts.values()) + parts["KV cache"]), length)
    note = f"the KV cache holds {int(held):,} sequences of {length:,} tokens; {sequences_setting}={sequences}"
    if held < sequences:
        note += ", the others wait when sequences get long"
    if held < 1:
        parts = {**parts, "KV cache": length * shape.kv_bytes(WIDTH[dtype]) / gpus / GIB}
    more = next((n for n in range(gpus + 1, _NODE + 1) if shape.splits_over(n)), None)
    fix = f"{gpus_setting}={more}: more GPUs for each engine" if more else "GPUs with more memory, or a smaller model"
    return Need(what, parts, limit, fix, note)


def _trainer(config: TrainingConfig, shape: ModelShape, gpu: Gpu) -> Need:
    ranks, cluster = config.cluster.trainer_ranks, config.cluster
    there = gpu.memory
    if cluster.colocated:
        there -= ASLEEP if cluster.sleep else cluster.gpu_memory_utilization * gpu.memory

    def parts(tokens: int) -> Parts:
        train = config.train.model_copy(update={"micro_batch_tokens": tokens})
        found = trainer_memory(
            shape, config.model, train, config.deepspeed, ranks, config.algorithm.loss.needs_reference
        )
        return {**found, "CUDA": CONTEXT}

    def fits(tokens: int) -> bool:
        return sum(parts(tokens).values()) <= there

    need = Need(f"trainer rank ({ranks})", parts(config.train.micro_batch_tokens), there)
    smaller = [n for n in _halves(config.train.micro_batch_tokens) if n >= config.model.max_length and fits(n)]
    if smaller:
        fix = f"train.micro_batch_tokens={smaller[0]}"
    elif not config.train.gradient_checkpointing:
        fix = "train.gradient_checkpointing=true"
    elif config.deepspeed.zero_stage < 3 and ranks > 1:
        fix = "deepspeed=zero3"
    elif not config.deepspeed.offload_optimizer:
        fix = "deepspeed=zero3_offload"
    else:
        fix = f"cluster.trainer_ranks={2 * ranks}, or a smaller model"
    longest = 1024 * bisect_left(range(1, 1025), True, key=lambda n: not fits(1024 * n))  # more tokens take more
    return replace(need, fix=fix, note=f"up to train.micro_batch_tokens={longest} fit" if longest else "")


def _halves(tokens: int) -> list[int]:
    return [tokens // 2**k for k in range(1, tokens.bit_length())]


def _host(config: TrainingConfig, shape: ModelShape, judge: ModelShape | None, machine: Machine) -> Need:
    cluster = config.cluster
    weights = WIDTH[config.model.dtype] * shape.parameters / GIB
    judges = config.judge.engine.actors if judge else 0
    # Under ZeRO-3 a rank reads one file after the other and keeps its share.
    loaded = min(weights, _FILE) if config.deepspeed.zero_stage == 3 else weights
    parts = {
        "weights in every rank, while they are loaded": cluster.trainer_ranks * loaded,
        "weights that rank 0 exports": weights,
        "processes": _PROCESS * (1 + cluster.rollout_actors + cluster.trainer_ranks + judges),
    }
    if config.deepspeed.offload_optimizer:
        # Twice the gradients in float32: as they are reduced, and as the optimizer takes them.
        trained = shape.trained(config.model.lora.rank)
        parts["optimizer"] = (optimizer_bytes(trained, config.model) + 8 * trained) / GIB
    if cluster.sleep and cluster.gpus:  # while they change places both are there
        state = (
            resting_bytes(
                shape, config.model, config.deepspeed, cluster.trainer_ranks, config.algorithm.loss.needs_reference
            )
            / GIB
        )
        parts["engines and ranks that sleep"] = cluster.rollout_actors * weights + cluster.trainer_ranks * state
    return Need("host memory", parts, machine.memory, "a node with more memory, or fewer ranks: cluster.trainer_ranks")


def _shared(config: TrainingConfig, shape: ModelShape, machine: Machine) -> Need:
    sync = WIDTH[config.model.dtype] * shape.parameters / GIB
    where = config.cluster.sync_dir
    fix = "cluster.sync_dir=...: a folder with more room (in a container: --shm-size)"
    return Need(f"folder {where}", {"weights on their way": sync}, machine.shared_memory, fix)


def checkpoint_bytes(config: TrainingConfig, shape: ModelShape) -> float:
    """Of one checkpoint: of each trained parameter the weight and AdamW's two moments in float32, and the policy."""
    return 12.0 * shape.trained(config.model.lora.rank) + WIDTH[config.model.dtype] * shape.parameters


def _disk(config: TrainingConfig, shape: ModelShape, machine: Machine) -> Need:
    one, kept = checkpoint_bytes(config, shape) / GIB, config.checkpoint.keep
    parts = {
        f"{kept} newest checkpoints": kept * one,
        "the best one": one,
        "the one that is being written": one,
        "the finished policy": WIDTH[config.model.dtype] * shape.parameters / GIB,
    }
    fix = "SGPO_HOME names a folder on a larger disk" + (", or checkpoint.keep=1" if kept > 1 else "")
    return Need("disk", parts, machine.disk, fix, f"{one:,.0f} GiB a checkpoint")


def _times(actors: int, gpus: int) -> str:
    return f"{actors} of {gpus} GPU{'s' * (gpus > 1)}"
