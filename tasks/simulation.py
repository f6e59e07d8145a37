"""Simulated iterations as a page: of a preset on GPUs by arithmetic, or of settings by what a run has measured."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import read_settings
from sgpo_core.config.run import RunConfig
from sgpo_core.sizing.hardware import Gpu
from sgpo_core.sizing.measured import Iteration, evaluation_seconds, fitted, predicted, redrawn
from sgpo_core.sizing.plan import gpus_wanted
from sgpo_core.sizing.seconds import ASKED, MFU
from sgpo_core.sizing.shapes import ModelShape
from sgpo_core.sizing.simulation import Numbers, Pipeline, Work, simulate
from sgpo_core.sizing.splits import SPREAD, Prediction, best, drawn_works, estimated, predictor, splits
from sgpo_core.storage import rollout_table
from sgpo_core.storage.atomic import read_json
from sgpo_core.storage.run_dir import RunPaths
from tasks.reports.plotting import BLUE, GRAY, GREEN, RED, plt, save, tidy
from tasks.reports.text_table import text_table
from tasks.sizing import judge_shape, policy_to_size

ITERATIONS = 10  # that are simulated
# What a run's seconds and lengths hold for; of other values it says nothing.
_SAME = (
    *("model.path", "sampling.max_tokens", "judge.name", "judge.model", "cluster.colocated"),
    *("cluster.rollout_gpus", "cluster.rollout_threads", "cluster.trainer_gpus", "cluster.trainer_threads"),
)
_COLORS = {"rollout": GREEN, "judge": RED, "trainer": BLUE, "sync": GRAY}


def estimates_page(
    config: RunConfig, gpu: Gpu, gpus: int, nodes: Sequence[int], response_tokens: float
) -> tuple[str, list[Prediction]]:
    """The best splits for each number of nodes of `gpus` GPUs each, as text; and those of the first number. Raises
    ConfigError where there is nothing to compute from, or nothing fits."""
    policy = policy_to_size(config)
    judge = judge_shape(config) if config.judge.engine.gpus else None
    works = drawn_works(config, response_tokens, ITERATIONS)

    def pipeline(settings: RunConfig, judge: ModelShape | None) -> Pipeline:
        return estimated(settings, policy, judge, gpu, response_tokens)

    lines: list[str] = []
    first: list[Prediction] = []
    for count in nodes:
        predict = predictor(works, lambda settings: pipeline(settings, judge), count * gpus)
        grpo = predictor(works, lambda settings: pipeline(settings, None), count * gpus)
        found = best([predict(settings) for settings in splits(config, policy, judge, gpu, count, gpus)])
        if not found:
            raise ConfigError(f"{count * gpus} x {gpu.name}: no split fits; flows.preflight says what is too large")
        plain = best([grpo(settings) for settings in splits(config, policy, None, gpu, count, gpus)]) if judge else []
        given = [predict(config)] if gpus_wanted(config, judge) == count * gpus else []
        machine = f"{count} x {gpus}" if count > 1 else f"{gpus}"
        lines += [f"{machine} x {gpu.name}", _splits_table(found, given, plain, judge is not None), ""]
        first = first or found
    asked = ASKED[config.algorithm.credit.scope]
    return "\n".join([*lines, _assumed(config, response_tokens, asked)]), first


def _splits_table(
    found: Sequence[Prediction], given: Sequence[Prediction], plain: Sequence[Prediction], judged: bool
) -> str:
    head = ["", "rollout", "training", "judge", "s", "engines wait", "ranks wait", "judge waits"]
    beside = {prediction.mode: prediction.line.iteration_s for prediction in plain}
    rows = [[*head, "tokens/s", "GPU-h", "+judging", "vs GRPO"]]
    for name, prediction in [*((p.mode, p) for p in found), *((f"as set: {p.mode}", p) for p in given)]:
        cluster, judge, line = prediction.config.cluster, prediction.config.judge.engine, prediction.line
        seconds, grpo = line.iteration_s, beside.get(prediction.mode)
        rows.append(
            [
                name,
                f"{cluster.rollout_actors} x {cluster.rollout_gpus}",
                str(cluster.trainer_ranks),
                f"{judge.actors} x {judge.gpus}" if judged else "-",
                f"{seconds:,.0f}",
                f"{line.idle('rollout', cluster.rollout_actors):.0%}",
                f"{line.idle('trainer', 1):.0%}",
                f"{line.idle('judge', judge.actors):.0%}" if judged else "-",
                f"{line.tokens_s:,.0f}",
                f"{prediction.gpu_hours:,.0f}",
                f"{seconds / prediction.plain_s - 1:+.0%}" if judged else "-",
                f"{seconds / grpo - 1:+.0%}" if judged and grpo else "-",
            ]
        )
    return text_table(rows, right=True)


def _assumed(config: RunConfig, response_tokens: float, asked: float) -> str:
    responses = config.sampling.problems * config.sampling.group_size
    return (
        "rollout, judge: engines x GPUs; training: ranks. s: of an iteration, without evaluations; the next three are "
        f"shares of it. GPU-h: GPU-hours of {config.iterations} iterations. +judging: how much longer an iteration "
        "takes than on the same GPUs if nothing is judged. vs GRPO: than that of GRPO, which has all of these GPUs, in "
        "the same mode, by its best split.\n\n"
        f"Simulated, not measured: {ITERATIONS} iterations of {responses:,} responses of {response_tokens:,.0f} tokens "
        f"on average (--response-tokens), lognormal with a spread of {SPREAD:g} (so are verdicts), {asked:.0%} of them "
        f"judged; training at {MFU:.0%} of the GPU's peak. Ranks exchange weights and gradients in no time, and all "
        "responses are trained on, under GRPO too. Compare settings by it, and do not plan by it."
    )


def run_page(config: RunConfig, folder: Path) -> str:
    """What the run in `folder` has measured, how well that predicts what was not fitted, and what it predicts of
    `config`. Raises ConfigError for a folder that this can't be read from."""
    run, iterations, evaluations = _recorded(folder)
    if others := [name for name in _SAME if attrgetter(name)(run) != attrgetter(name)(config)]:
        raise ConfigError(f"{folder} has another {', '.join(others)}: of that it can't tell how long it takes")
    fit, works = fitted(run, iterations), [iteration.work for iteration in iterations]
    if config.algorithm.credit.scope != "none" and fit.judge is None:
        raise ConfigError(f"{folder} judged nothing: give a run that did, or algorithm=grpo")
    if config.async_level and not run.cluster.gpus:
        raise ConfigError(
            "async_level=1 can't be predicted from a run on the CPU: engines and ranks there share the cores, and a "
            "simulation gives each its own"
        )
    pipeline = predicted(fit, run, config)
    line = simulate(pipeline, redrawn(works, config, ITERATIONS))
    engine, count, trained = fit.engine, len(iterations), sum(work.trained for work in works) / len(works)
    rows = [["", "predicted, s", "measured, s", ""], *_checks(run, iterations, evaluations)]
    return (
        f"Fitted to {count} iterations of {folder.name}: a step of an engine takes {1000 * engine.step:.2f} ms and "
        f"{1000 * engine.sequence:.3f} ms for each sequence, the update {1e6 * fit.update:.1f} us a token "
        f"({trained:.0%} of the tokens were trained on), the sync {fit.sync:.2f} s, the rest {fit.other:.2f} s.\n\n"
        f"Not fitted, but predicted:\n\n{text_table(rows, right=True)}\n\n"
        f"These settings: {line.iteration_s:.2f} s an iteration, {line.tokens_s:,.0f} tokens a second; rollout engines "
        f"wait {line.idle('rollout', pipeline.engines):.0%} of the time, ranks {line.idle('trainer', 1):.0%}."
    )


def _checks(
    run: RunConfig, iterations: Sequence[Iteration], evaluations: Sequence[tuple[Numbers, float]]
) -> list[list[str]]:
    """Evaluations, which are of other problems and other numbers of responses, by the iterations; the second half of
    the run by the first."""
    half = len(iterations) // 2
    late = iterations[half:]
    line = simulate(fitted(run, iterations[:half]), [late[0].work, *(i.work for i in late), late[-1].work])
    pairs = {
        f"iterations {half + 1} to {len(iterations)}": (line.ends[-1] - line.ends[0], sum(i.seconds for i in late))
    }
    if evaluations:
        lengths, seconds = zip(*evaluations, strict=True)
        pairs[f"{len(evaluations)} evaluations"] = (evaluation_seconds(fitted(run, iterations), lengths), sum(seconds))
    return [[name, f"{a:.2f}", f"{b:.2f}", f"{a / b - 1:+.1%}"] for name, (a, b) in pairs.items()]


def _recorded(folder: Path) -> tuple[RunConfig, list[Iteration], list[tuple[Numbers, float]]]:
    """The run's settings, its iterations, and the lengths and seconds of its evaluations."""
    paths = RunPaths(folder)
    config = read_settings(paths.config) if paths.config.is_file() else None
    if not isinstance(config, RunConfig):
        raise ConfigError(f"--run {folder}: not the folder of an online run")
    if config.async_level:
        raise ConfigError(f"--run {folder}: its stages ran side by side (async_level=1); give one with async_level=0")
    iterations: list[Iteration] = []
    evaluations: list[tuple[Numbers, float]] = []
    while paths.metrics(number := len(iterations) + 1).exists() and paths.rollouts(number).exists():
        metrics = read_json(paths.metrics(number))["metrics"]
        trained = 1 - metrics["group/zero_signal_frac"]
        iterations.append(Iteration(_work(paths.rollouts(number), trained), metrics))
        for name, benchmark in config.eval.sets.items():
            if len(config.eval.sets) == 1 and (file := paths.evaluation(number, name)).exists():
                tokens = pq.read_table(file, columns=["tokens"])["tokens"].to_numpy()
                evaluations.append((tokens.reshape(-1, benchmark.k), metrics["time/evaluate_s"]))
    if len(iterations) < 4:
        raise ConfigError(f"--run {folder}: {len(iterations)} iterations with responses and metrics; 4 are needed")
    return config, iterations, evaluations


def _work(rollouts: Path, trained: float) -> Work:
    groups = [group.rollouts for group in rollout_table.read(rollouts, ["group", "token_ids", "verdict_status"])]
    written = np.array([[len(rollout.token_ids) for rollout in group] for group in groups])
    asked = np.array([[rollout.judgment is not None for rollout in group] for group in groups])
    return Work(written, asked, np.zeros(written.shape, int), trained)


def draw_timelines(path: Path, predictions: Sequence[Prediction]) -> Path:
    """Who works and who waits, over two iterations of each prediction; a row for each engine."""
    figure, axes = plt.subplots(len(predictions), 1, figsize=(10, 2.4 * len(predictions)), squeeze=False)
    for axis, prediction in zip(axes[:, 0], predictions, strict=True):
        line = prediction.line
        rows = sorted(
            {(span.kind, span.number) for span in line.spans}, key=lambda row: ([*_COLORS].index(row[0]), row)
        )
        for span in line.spans:
            place = rows.index((span.kind, span.number))
            axis.broken_barh([(span.begin, span.end - span.begin)], (place - 0.4, 0.8), color=_COLORS[span.kind])
        names = [f"{kind} {number}" if kind in ("rollout", "judge") else kind for kind, number in rows]
        axis.set(yticks=range(len(rows)), yticklabels=names, xlim=(line.ends[0], line.ends[2]))
        axis.set_title(
            f"{prediction.mode}: {line.iteration_s:,.0f} s an iteration on {prediction.gpus} GPUs", loc="left"
        )
        axis.invert_yaxis()
    axes[-1, 0].set_xlabel("s")
    tidy(axes[:, 0], grid=False)
    return save(figure, path)
