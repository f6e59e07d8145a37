"""A pipeline that is fitted to what a run has measured, to predict other settings by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from sgpo_core.config.run import RunConfig
from sgpo_core.sizing.simulation import Engine, Judge, Numbers, Pipeline, Work, generation, simulate


@dataclass(frozen=True, slots=True)
class Iteration:
    """What a run has recorded of one: its responses, and its metrics.json."""

    work: Work
    metrics: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Without the evaluation of the policy."""
        return self.metrics["time/iteration_s"] - self.metrics.get("time/evaluate_s", 0.0)


def fitted(config: RunConfig, iterations: Sequence[Iteration]) -> Pipeline:
    """`config`: the run's, with async_level=0, where no stage takes time from another. Prompts count as part of the
    steps. Whatever is not modeled is in `other`, so that these iterations take as long as they took."""
    works = [iteration.work for iteration in iterations]

    def total(*names: str) -> float:
        return sum(iteration.metrics.get(name, 0.0) for iteration in iterations for name in names)

    asked, trained = total("judge/calls"), sum(work.trained * work.tokens for work in works)
    pipeline = Pipeline(
        engines=config.cluster.rollout_actors,
        engine=_engine(config, works, [iteration.metrics["time/generate_s"] for iteration in iterations]),
        prompt=0,
        judge=Judge(1, None, seconds=total("judge/seconds") / asked) if asked else None,
        update=total("time/recompute_logprobs_s", "time/update_s") / trained if trained else 0.0,
        sync=total("time/sync_s") / len(works),
    )
    known = simulate(pipeline, [works[0], *works, works[-1]]).iteration_s  # the first does not count
    return replace(pipeline, other=max(0.0, fmean(iteration.seconds for iteration in iterations) - known))


def _engine(config: RunConfig, works: Sequence[Work], seconds: Sequence[float]) -> Engine:
    """Least squares of the seconds over the steps, and over the sequences that run in them. Where lengths vary little
    these can't be told apart: one more equation, which says that both take the same time, decides then."""
    engines, slots = config.cluster.rollout_actors, config.cluster.max_num_seqs
    counted = [Engine(slots, step=1.0), Engine(slots, sequence=1.0)]
    rows = np.array([[max(generation(work, engines, one, 0)[1]) for one in counted] for work in works])
    scale = rows.mean(axis=0)
    left = np.vstack([rows / scale, [1.0, -1.0]])
    right = np.array([*seconds, 0.0])
    each = np.linalg.lstsq(left, right, rcond=None)[0]
    if each.min() < 0:  # then one of them alone
        each = np.where(each < 0, 0.0, fmean(seconds))
    step, sequence = (each / scale).tolist()
    return Engine(slots, step=step, sequence=sequence)


def predicted(fit: Pipeline, run: RunConfig, other: RunConfig) -> Pipeline:
    """Of other settings than those of the `run` that `fit` was fitted to: more or fewer engines of the same kind, their
    slots, ranks (the update is shared evenly by them), the judge's engines, async_level, no judge."""
    judge = fit.judge if other.algorithm.credit.scope != "none" else None
    ratio = other.judge.engine.actors / run.judge.engine.actors
    return replace(
        fit,
        engines=other.cluster.rollout_actors,
        engine=replace(fit.engine, slots=other.cluster.max_num_seqs),
        judge=judge and replace(judge, seconds=judge.seconds / ratio),
        update=fit.update * run.cluster.trainer_ranks / other.cluster.trainer_ranks,
        async_level=other.async_level,
    )


def redrawn(run: Sequence[Work], config: RunConfig, iterations: int) -> list[Work]:
    """Iterations of these settings, and the one after them: lengths are drawn from those of the run, with its share of
    judged groups (credit.scope=all_negative) or responses."""
    trained = sum(work.trained * work.tokens for work in run) / sum(work.tokens for work in run)
    rng, scope = np.random.default_rng(config.seed), config.algorithm.credit.scope
    shape = (iterations + 1, config.sampling.problems, config.sampling.group_size)
    written = rng.choice(np.concatenate([work.written.ravel() for work in run]), shape)
    share = fmean(work.asked.mean() for work in run) if scope != "none" else 0.0
    decided = (*shape[:2], 1) if scope == "all_negative" else shape
    asked = np.broadcast_to(rng.random(decided) < share, shape)
    return [Work(*parts, trained) for parts in zip(written, asked, np.zeros(shape, int), strict=True)]


def evaluation_seconds(fit: Pipeline, lengths: Sequence[Numbers]) -> float:
    """Of the evaluations whose responses have these lengths, each array [problems, k]: what was not fitted."""
    works = [Work(found, np.zeros(found.shape, bool), found) for found in lengths]
    return sum(max(generation(work, fit.engines, fit.engine, 0)[1]) for work in works)
