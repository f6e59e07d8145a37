"""The pictures of a sweep's report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import EngFormatter

from sgpo_core.analysis.comparison import AXES, Comparison, RunRecord
from tasks.reports.plotting import OUTCOMES, color_of, plt, save, tidy

_LABELS = {"iteration": "iteration", "tokens": "sampled tokens (policy and judge)", "seconds": "seconds of iterations"}

_MEASURES = {
    "reward/outcome_mean": "outcome reward",
    "reward/shaped_mean": "shaped reward",
    "reward/rts_mean": "RTS",
    "group/all_negative_frac": "all-negative groups",
    "judge/calls": "judge calls",
    "judge/seconds": "judge seconds",
}

FILES = ("accuracy.png", "shares.png", "rewards.png")

Picture = tuple[str, str, Path]  # title, what it shows, file


def draw(records: Sequence[RunRecord], comparison: Comparison, folder: Path) -> list[Picture]:
    """All pictures; none where no run has finished."""
    if not records:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    arms = [row.arm for row in comparison.arms if row.runs]
    return [
        (
            "Accuracy against iterations, tokens and seconds",
            "Mean over runs, each run thin; the dotted line is the target.",
            _accuracy(records, arms, comparison, folder / "accuracy.png"),
        ),
        (
            "All-negative, mixed and all-positive groups",
            "Shares of the groups of each iteration, mean over runs, by outcome, before any filter.",
            _shares(records, arms, folder / "shares.png"),
        ),
        (
            "Rewards, all-negative groups and the judge, against iterations, tokens and seconds",
            "Mean over runs: rewards of training problems, RTS of judged responses, groups, and what the judge read.",
            _rewards(records, arms, folder / "rewards.png"),
        ),
    ]


def _accuracy(records: Sequence[RunRecord], arms: Sequence[str], comparison: Comparison, path: Path) -> Path:
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), sharey=True)
    for axis, name in zip(axes, AXES, strict=True):
        _lines(axis, records, arms, lambda r, n=name: r.against(comparison.metric, n))  # type: ignore[misc]
        axis.axhline(comparison.target, color="#999", linewidth=0.8, linestyle=":")
        axis.set(xlabel=_LABELS[name], ylim=(-0.02, 1.02))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0].set_ylabel(comparison.metric)
    _legend(figure, axes[0], arms)
    return save(figure, path)


def _rewards(records: Sequence[RunRecord], arms: Sequence[str], path: Path) -> Path:
    figure, axes = plt.subplots(len(_MEASURES), 3, figsize=(15, 2.9 * len(_MEASURES)), sharex="col", sharey="row")
    for row, (metric, label) in zip(axes, _MEASURES.items(), strict=True):
        for axis, name in zip(row, AXES, strict=True):
            _lines(axis, records, arms, lambda r, m=metric, n=name: r.against(m, n))  # type: ignore[misc]
        row[0].set_ylabel(label)
    for axis, name in zip(axes[-1], AXES, strict=True):
        axis.set_xlabel(_LABELS[name])
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    _legend(figure, axes[0][0], arms)
    return save(figure, path)


def _shares(records: Sequence[RunRecord], arms: Sequence[str], path: Path) -> Path:
    columns = min(6, len(arms))
    rows = -(-len(arms) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.5 * columns + 1.5, 2.1 * rows + 0.6), squeeze=False, sharex=True, sharey=True
    )
    for axis in axes.flat[len(arms) :]:
        axis.set_visible(False)
    for axis, arm in zip(axes.flat, arms, strict=False):
        members = [r for r in records if r.arm == arm]
        x: list[float] = []
        stacks = []
        for share in OUTCOMES:
            metric = f"group/{share.replace('-', '_')}_frac"
            x, mean = _mean([r.against(metric, "iteration") for r in members])
            stacks.append(mean)
        axis.stackplot(x, *stacks, colors=list(OUTCOMES.values()), labels=list(OUTCOMES))
        axis.set_title(arm, fontsize=9)
        axis.set(ylim=(0, 1), xlabel="iteration" if rows == 1 else None)
        axis.margins(x=0)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)


def _lines(
    axis: Any, records: Sequence[RunRecord], arms: Sequence[str], curve: Callable[[RunRecord], dict[float, float]]
) -> None:
    for number, arm in enumerate(arms):
        curves = [c for r in records if r.arm == arm and (c := curve(r))]
        if not curves:
            continue
        color = color_of(arm, number)
        for one in curves if len(curves) > 1 else []:
            axis.plot(list(one), list(one.values()), color=color, alpha=0.25, linewidth=0.7)
        axis.plot(*_mean(curves), color=color, linewidth=1.8, label=arm, linestyle=("-", "--")[number // 10 % 2])
    tidy([axis])


def _mean(curves: Sequence[dict[float, float]]) -> tuple[list[float], list[float]]:
    """The mean curve, over the x range that all have, at every x that any has."""
    low, high = max(min(c) for c in curves), min(max(c) for c in curves)
    x = sorted({float(v) for c in curves for v in c if low <= v <= high})
    values = [np.interp(x, sorted(c), [c[k] for k in sorted(c)]) for c in curves]
    return x, np.mean(values, axis=0).tolist()


def _legend(figure: Any, axis: Any, arms: Sequence[str]) -> None:
    handles, labels = axis.get_legend_handles_labels()
    columns = 1 if len(arms) <= 20 else 2
    figure.legend(handles, labels, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=columns)
