"""What a comparison shows: a table and a picture, both made from the runs' own records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgpo_core.analysis.curves import Curve, over_seeds, read_curve
from tasks.reports.plotting import color_of, plt, save, tidy
from tasks.reports.text_table import text_table
from tasks.reports.traces import iterations_with_rollouts, write_traces

ACCURACY, ALL_NEGATIVE = "eval/chains/avg_at_k", "group/all_negative_frac"


@dataclass(frozen=True)
class FinishedRun:
    """A run of a comparison: where it lies, and what was compared."""

    setting: str
    algorithm: str
    seed: int
    run_dir: Path

    def curve(self, metric: str) -> Curve:
        return read_curve(self.run_dir, self.algorithm, self.seed, metric)


def finished_runs(setting: str, result: Mapping[str, Any]) -> list[FinishedRun]:
    """The runs of a sweep, from what its flow handed back."""
    named = {name.rpartition("/s"): Path(run_dir) for name, run_dir in result["runs"].items()}
    return [FinishedRun(setting, arm, int(seed), run_dir) for (arm, _, seed), run_dir in named.items()]


def color_one(runs: Sequence[FinishedRun]) -> Path:
    """The responses of the first SGPO run, or of the first at all, in colors along its way; the index of the pages."""
    run_dir = min(runs, key=lambda run: run.algorithm != "sgpo").run_dir
    there = iterations_with_rollouts(run_dir)
    return write_traces(run_dir, there[:: max(1, len(there) // 3)], run_dir / "traces")


def comparison_table(runs: Sequence[FinishedRun], iterations: Sequence[int]) -> str:
    """Accuracy and all-negative fraction at the given iterations, mean ± std over seeds, as text."""
    head = [f"it {i}" for i in iterations]
    rows = [["setting", "method", "seeds", *(f"accuracy {h}" for h in head), *(f"all-neg. {h}" for h in head)]]
    for (setting, algorithm), members in _grouped(runs).items():
        cells = [setting, algorithm.upper(), str(len(members))]
        for metric in (ACCURACY, ALL_NEGATIVE):
            statistics = over_seeds([run.curve(metric) for run in members])
            cells += [
                f"{statistics[i][0]:.3f} ± {statistics[i][1]:.3f}" if i in statistics else "-" for i in iterations
            ]
        rows.append(cells)
    return text_table(rows)


def draw_comparison(runs: Sequence[FinishedRun], path: Path, title: str) -> None:
    """Accuracy (left) and all-negative groups (right), a row a setting; mean over seeds, its std as a band, each run
    thin."""
    settings = list(dict.fromkeys(run.setting for run in runs))
    figure, axes = plt.subplots(len(settings), 2, figsize=(10, 3.4 * len(settings)), squeeze=False, sharex=True)
    for row, setting in enumerate(settings):
        for column, (metric, label) in enumerate(
            [(ACCURACY, "accuracy on held-out problems (avg@4)"), (ALL_NEGATIVE, "all-negative groups (share)")]
        ):
            _draw(axes[row][column], [r for r in runs if r.setting == setting], metric)
            axes[row][column].set(title=f"{setting}: {label}", ylim=(-0.02, 1.04))
        axes[row][0].legend(frameon=False, loc="upper left")
    for axis in axes[-1]:
        axis.set_xlabel("iteration")
    tidy(axes.flat)
    figure.suptitle(title)
    save(figure, path)


def _draw(axis: Any, runs: Sequence[FinishedRun], metric: str) -> None:
    for (_, algorithm), members in _grouped(runs).items():
        curves, color = [run.curve(metric) for run in members], color_of(algorithm)
        for curve in curves:
            axis.plot(*zip(*curve.values.items(), strict=True), color=color, alpha=0.3, linewidth=0.8)
        statistics = over_seeds(curves)
        x = list(statistics)
        mean, std = ([statistics[i][part] for i in x] for part in (0, 1))
        plural = "s" if len(members) > 1 else ""
        axis.plot(x, mean, color=color, linewidth=2, label=f"{algorithm.upper()} ({len(members)} seed{plural})")
        if len(members) > 1:
            low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
            axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _grouped(runs: Sequence[FinishedRun]) -> Mapping[tuple[str, str], list[FinishedRun]]:
    groups: dict[tuple[str, str], list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault((run.setting, run.algorithm), []).append(run)
    return groups
