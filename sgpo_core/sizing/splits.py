"""A run on N GPUs before there is one: its pipeline by arithmetic, and every way to divide the GPUs among rollout,
training and judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from sgpo_core.config.run import RunConfig
from sgpo_core.sizing.hardware import Gpu
from sgpo_core.sizing.memory import engine_memory, kv_sequences
from sgpo_core.sizing.plan import Machine, checkpoint_bytes, gpus_wanted, needs
from sgpo_core.sizing.seconds import ASKED, COPY, PROMPT, engine_speed, phases, verdict_tokens
from sgpo_core.sizing.shapes import ModelShape
from sgpo_core.sizing.simulation import (
    Engine,
    Generated,
    Judge,
    Numbers,
    Pipeline,
    Timeline,
    Work,
    generation,
    simulate,
)

# Assumed, not measured: the standard deviation of the logarithm of a length, of responses and of verdicts; seconds in
# which the GPUs of an engine add up what they have computed, which they do twice a layer.
SPREAD, REDUCE = 0.8, 15e-6
# Share of a GPU's memory that an engine has beside a rank, as in conf/cluster/gpu1.yaml.
_SHARED = 0.4


@dataclass(frozen=True, slots=True)
class Prediction:
    """`plain_s`: seconds of the same iteration if nothing were judged."""

    config: RunConfig
    gpus: int
    line: Timeline
    plain_s: float

    @property
    def mode(self) -> str:
        """See `mode`."""
        return mode(self.config)

    @property
    def gpu_hours(self) -> float:
        """Of all iterations of the preset."""
        return self.gpus * self.config.iterations * self.line.iteration_s / 3600


def mode(config: RunConfig) -> str:
    """How rollout and training share time and GPUs: serial, one-step-off (async_level=1), or colocated."""
    if config.cluster.colocated:
        return "colocated"
    return "one-step-off" if config.async_level else "serial"


def lengths(rng: np.random.Generator, shape: tuple[int, ...], mean: float, most: int) -> Numbers:
    """Whole numbers from 1 to `most`, tokens: a lognormal distribution, cut off at `most`, and scaled so that their
    mean after the cut is `mean`. All are `most` where `mean` is not below it."""
    drawn = np.exp(SPREAD * rng.standard_normal(shape))
    low, high = 0.0, 1e3 * most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * drawn, most).mean() < mean else (low, middle)
    return np.clip(np.rint(high * drawn), 1, most).astype(np.int64)


def drawn_works(config: RunConfig, response_tokens: float, iterations: int) -> list[Work]:
    """Responses of so many iterations and of the one after them, by the run's seed. How many are judged, and how long
    a verdict is, is assumed as in `seconds`. Lengths are independent of each other and of the grade."""
    rng, credit = np.random.default_rng(config.seed), config.algorithm.credit.scope
    shape = (iterations + 1, config.sampling.problems, config.sampling.group_size)
    written = lengths(rng, shape, response_tokens, config.sampling.max_tokens)
    most = int(verdict_tokens(config.judge, response_tokens)[1])
    verdict = lengths(rng, shape, most / 2, most)
    decided = (*shape[:2], 1) if credit == "all_negative" else shape  # whole groups, or each response
    asked = np.broadcast_to(rng.random(decided) < ASKED[credit], shape)
    return [Work(*parts) for parts in zip(written, asked, verdict, strict=True)]


def estimated(
    config: RunConfig, policy: ModelShape, judge: ModelShape | None, gpu: Gpu, response_tokens: float
) -> Pipeline:
    """`judge`: of the model that engines of the run hold, None for one that costs nothing. A checkpoint is spread over
    the iterations between two. What is trained on are all responses."""
    cluster, sampling = config.cluster, config.sampling
    found = {phase.name: phase.seconds for phase in phases(config, policy, None, gpu, response_tokens)}
    judging = None
    if judge is not None:
        own, prompt = config.judge.engine, round(verdict_tokens(config.judge, response_tokens)[0])
        limit = own.gpu_memory_utilization * gpu.memory
        engine = _engine(judge, gpu, own.gpus, own.dtype, limit, own.max_num_seqs)
        judging = Judge(own.actors, engine, prompt, config.judge.votes)
    limit = cluster.gpu_memory_utilization * gpu.memory
    return Pipeline(
        engines=cluster.rollout_actors,
        engine=_engine(policy, gpu, cluster.rollout_gpus, config.model.dtype, limit, cluster.max_num_seqs),
        prompt=PROMPT,
        judge=judging,
        update=found["update"] / (sampling.problems * sampling.group_size * response_tokens),
        sync=found["sync"],
        other=checkpoint_bytes(config, policy) / COPY / config.checkpoint.every,
        async_level=config.async_level,
    )


def _engine(shape: ModelShape, gpu: Gpu, gpus: int, dtype: str, limit: float, slots: int) -> Engine:
    """`limit`: GiB of each of its GPUs that it may take."""
    speed, parts = engine_speed(shape, gpu, gpus, dtype), engine_memory(shape, dtype, gpus, limit, slots, 1)
    left = limit - sum(parts.values()) + parts["KV cache"]
    held = kv_sequences(shape, dtype, gpus, left, 1)
    step = speed.weights + (2 * shape.layers * REDUCE if gpus > 1 else 0.0)
    return Engine(slots, step, 0.0, speed.token, speed.product, speed.product, held)


def splits(
    config: RunConfig, policy: ModelShape, judge: ModelShape | None, gpu: Gpu, nodes: int, gpus: int
) -> Iterator[RunConfig]:
    """The settings of every way to divide nodes x gpus that fits into memory, in each of the modes that the settings
    allow. GPUs are handed out in eighths of all, or one by one; engines have 1, 2, 4 or 8 of them, all of one node,
    if these can share the heads of keys and values evenly."""
    count = nodes * gpus
    part, machine = max(1, count // 8), Machine(gpus, gpu)
    shares = range(part, count + 1, part)
    sizes = [size for size in (1, 2, 4, 8) if gpus % size == 0]
    whole = [size for size in sizes if policy.kv_heads % size == 0]
    for judging in shares if judge else (0,):
        for own in sizes if judge else (1,):
            if judging % own or (judge and judge.kv_heads % own):
                continue
            judged = _with_judge(config, judging // own, own) if judge else config
            for divided in _policy_splits(judged, count - judging, shares, whole, nodes):
                device = needs(divided, policy, judge, machine)
                if all(need.fits for need in device) and gpus_wanted(divided, judge) == count:
                    yield divided
                    if not divided.cluster.colocated and config.algorithm.resampling.strategy == "plain":
                        yield divided.model_copy(update={"async_level": 1})


def _policy_splits(
    config: RunConfig, count: int, shares: Sequence[int], sizes: Sequence[int], nodes: int
) -> Iterator[RunConfig]:
    """Of so many GPUs for engines and ranks."""

    def cluster(**changed: object) -> RunConfig:
        settings = config.cluster.model_copy(update={"trainer_gpus": 1, "colocated": False, **changed})
        return config.model_copy(update={"cluster": settings, "async_level": 0})

    sync_by = "broadcast" if nodes > 1 and config.cluster.sync_by == "auto" else config.cluster.sync_by
    for rollout in (share for share in shares if share < count):
        for size in (size for size in sizes if rollout % size == 0):
            actors = {"rollout_actors": rollout // size, "rollout_gpus": size}
            yield cluster(**actors, trainer_ranks=count - rollout, sync_by=sync_by)
    if count > 0:
        share = config.cluster.gpu_memory_utilization if config.cluster.colocated else _SHARED
        ranks = {"rollout_actors": count, "rollout_gpus": 1, "trainer_ranks": count, "gpu_memory_utilization": share}
        yield cluster(**ranks, colocated=True, sync_by="file")


def _with_judge(config: RunConfig, engines: int, gpus: int) -> RunConfig:
    own = config.judge.engine.model_copy(update={"actors": engines, "gpus": gpus})
    return config.model_copy(update={"judge": config.judge.model_copy(update={"engine": own})})


def predictor(
    works: Sequence[Work], pipeline_of: Callable[[RunConfig], Pipeline], gpus: int
) -> Callable[[RunConfig], Prediction]:
    """What predicts each of many settings on so many GPUs, from the same responses. Generation, which several settings
    have in common, is simulated once."""

    @cache
    def made(engines: int, engine: Engine, prompt: int) -> list[Generated]:
        return [generation(work, engines, engine, prompt) for work in works]

    def predict(config: RunConfig) -> Prediction:
        pipeline = pipeline_of(config)
        generated = made(pipeline.engines, pipeline.engine, pipeline.prompt)
        line = simulate(pipeline, works, generated)
        plain = simulate(replace(pipeline, judge=None), works, generated) if pipeline.judge else line
        return Prediction(config, gpus, line, plain.iteration_s)

    return predict


def best(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The fastest of each mode, the fastest first. Of those that are within 1 %, the first that was given."""
    found: dict[str, Prediction] = {}
    for prediction in predictions:
        known = found.get(prediction.mode)
        if known is None or prediction.line.iteration_s < 0.99 * known.line.iteration_s:
            found[prediction.mode] = prediction
    return sorted(found.values(), key=lambda prediction: prediction.line.iteration_s)
