"""What an iteration ends with: its record, its line on the screen, and the run's result."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from prefect import get_run_logger

from sgpo_core.analysis.metrics import rollout_metrics
from sgpo_core.evaluation.protocol import protocol_in_training
from sgpo_core.sizing.utilization import idle_shares
from sgpo_core.storage import rollout_table
from sgpo_core.storage.atomic import read_json, write_json
from sgpo_core.storage.run_dir import RunPaths
from tasks.checkpointing import keep_policy, newest_policy, register_best
from tasks.data import needs_own_tokenizer
from tasks.flow_page import FlowPage
from tasks.reports.model_card import model_card
from tasks.reports.run_page import run_page
from tasks.run import Run
from tasks.services.environment import addresses
from tasks.stage import IterationMetrics, Metrics, stage

_SAMPLE_COLUMNS = ("prompt", "response", "answer", "grade", "first_error_step", "rts", "shaped_reward", "advantage")


class Progress:
    """Where a run stands: `done` iterations that its last checkpoint has seen, and the clock since then."""

    def __init__(self, run: Run, done: int) -> None:
        self.run, self.done, self.page = run, done, FlowPage(run.config.run_id)
        self.started = self.iteration_started = time.monotonic()
        self.page.bar(100.0 * done / run.iterations, f"resumes after iteration {done}" if done else "starts")
        for restart in run.restarts:
            restart.seconds = restart.seconds or time.time() - restart.noticed
        if run.restarts and done:
            self._show(done)

    def record(self, iteration: int, metrics: IterationMetrics) -> IterationMetrics:
        """Ends an iteration: metrics.json, MLflow, a line of the log. Returns the metrics that the next one begins
        with: how long this took."""
        now = time.monotonic()
        metrics += {"time/iteration_s": now - self.iteration_started}
        metrics += idle_shares(metrics)
        self.iteration_started = now
        following = IterationMetrics(record(self.run, iteration, metrics))
        stands = read_json(self.run.paths.metrics(iteration))["metrics"]
        line = progress_line(self.run, iteration, stands, self._left(iteration))
        get_run_logger().info(line)
        self.page.bar(100.0 * iteration / self.run.iterations, line)
        if iteration == 0 or self.run.evaluates(iteration):
            self._show(iteration)
        return following

    def _show(self, iteration: int) -> None:
        run = self.run
        evaluated = [i for i in range(iteration + 1) if i == 0 or run.evaluates(i)]
        metrics = {i: read_json(run.paths.metrics(i))["metrics"] for i in evaluated}
        mlflow = f"experiment `{run.config.experiment}`"
        lost = [(restart.noticed, restart.what, restart.seconds or 0.0) for restart in run.restarts]
        self.page.text(
            run_page(run.paths.root, run.iterations, metrics, mlflow, run.tracker.address(addresses()), lost)
        )

    def _left(self, iteration: int) -> str:
        """The forecast of the time left; "" before anything is known."""
        fresh = iteration - self.done
        if fresh <= 0:
            return ""
        seconds = (time.monotonic() - self.started) / fresh * (self.run.iterations - iteration)
        return f"left {timedelta(seconds=round(seconds))}"


@stage("record")
def record(run: Run, iteration: int, metrics: Metrics) -> None:
    """metrics.json and MLflow."""
    if iteration > 0:
        metrics = metrics | rollout_metrics(rollout_table.read(run.paths.rollouts(iteration)))
    run.tracker.record(run.paths.metrics(iteration), iteration, metrics)


def progress_line(run: Run, iteration: int, metrics: Metrics, left: str) -> str:
    """Iteration, all-negative fraction, reward, accuracy, seconds, time left."""
    total = run.iterations
    parts = [f"{run.config.algorithm.name} seed {run.config.seed}", f"iteration {iteration:>{len(str(total))}}/{total}"]
    if iteration > 0:
        parts += [
            f"all-negative {metrics['group/all_negative_frac']:.2f}",
            f"reward {metrics['reward/outcome_mean']:.3f}",
        ]
    parts += [f"{name.split('/')[1]} avg@k {value:.3f}" for name, value in metrics.items() if name.endswith("avg_at_k")]
    parts.append(f"{metrics['time/iteration_s']:.1f} s")
    return " | ".join([*parts, left] if left else parts)


def finish(run: Run) -> dict[str, Any]:
    """Keeps the policy with its model card and a sample of rollouts, and writes the result, after which the run
    counts as complete."""
    latest = latest_metrics(run.paths, run.iterations)
    keep_policy(run, _card(run, latest))
    run.tracker.deliver_waiting()
    register_best(run)
    sample = rollout_table.to_table(rollout_table.read(run.paths.rollouts(run.iterations)), _SAMPLE_COLUMNS)
    run.tracker.log_sample(sample.slice(0, 64).to_pydict(), "rollouts_sample.json")
    result = {
        "run_id": run.config.run_id,
        "mlflow_run_id": run.tracker.run_id,
        "run_dir": str(run.paths.root),
        "iterations": run.iterations,
        "final_metrics": latest,
    }
    run.tracker.finish()
    write_json(run.paths.result, result)  # last: from here on the run counts as complete
    return result


def _card(run: Run, latest: Metrics) -> str:
    evaluated = [i for i in range(run.iterations + 1) if i == 0 or run.evaluates(i)]
    metrics = {i: read_json(run.paths.metrics(i))["metrics"] for i in {1, *evaluated}}
    return model_card(
        run.config,
        run.iterations,
        metrics[1] | metrics[0],
        latest,
        run.tracker.run_id,
        protocol_in_training(run.config),
        {i: metrics[i] for i in evaluated},
        needs_own_tokenizer(newest_policy(run.paths), run.problems["prompt"][0]),
    )


def latest_metrics(paths: RunPaths, iterations: int) -> Metrics:
    """The latest value of every metric, up to that iteration."""
    latest: Metrics = {}
    for iteration in range(iterations + 1):
        latest |= read_json(paths.metrics(iteration))["metrics"]
    return latest
