"""The pictures of a sweep's report, each wide, and narrow for a phone."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import EngFormatter, MaxNLocator

from sgpo_core.analysis.comparison import AXES, Comparison, RunRecord
from tasks.reports.plotting import OUTCOMES, color_of, plt, save, style_of, tidy

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
_WIDTH, _NARROW_WIDTH = 12.0, 4.4  # inches; shown on some 1,150 and 390 pixels, so that letters have 11 pixels or more


class Picture(NamedTuple):
    """`narrow`: the same for a narrow screen, with its parts below each other."""

    title: str
    text: str
    file: Path
    narrow: Path


def draw(records: Sequence[RunRecord], comparison: Comparison, folder: Path) -> list[Picture]:
    """All pictures; none where no run has finished."""
    if not records:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    arms = [row.arm for row in comparison.arms if row.runs]

    def picture(title: str, text: str, plot: Callable[[bool], Any], name: str) -> Picture:
        wide, narrow = folder / name, folder / name.replace(".png", "-narrow.png")
        return Picture(title, text, save(plot(False), wide), save(plot(True), narrow))

    return [
        picture(
            "Accuracy against iterations, tokens and seconds",
            "Mean over runs, each run thin; the dotted line is the target.",
            lambda narrow: _accuracy(records, arms, comparison, narrow),
            "accuracy.png",
        ),
        picture(
            "All-negative, mixed and all-positive groups",
            "Shares of the groups of each iteration, mean over runs, by outcome, before any filter.",
            lambda narrow: _shares(records, arms, narrow),
            "shares.png",
        ),
        picture(
            "Rewards, all-negative groups and the judge, against iterations, tokens and seconds",
            "Mean over runs: rewards of training problems, RTS of judged responses, groups, and what the judge read. "
            "On a narrow screen against iterations only.",
            lambda narrow: _rewards(records, arms, narrow),
            "rewards.png",
        ),
    ]


def _accuracy(records: Sequence[RunRecord], arms: Sequence[str], comparison: Comparison, narrow: bool) -> Any:
    shape, size = ((3, 1), (_NARROW_WIDTH, 8.4)) if narrow else ((1, 3), (_WIDTH, 3.8))
    figure, axes = plt.subplots(*shape, figsize=size, sharey=True)
    for axis, name in zip(axes, AXES, strict=True):
        _lines(axis, records, arms, lambda r, n=name: r.against(comparison.metric, n))  # type: ignore[misc]
        axis.axhline(comparison.target, color="#999", linewidth=0.8, linestyle=":")
        axis.set(ylim=(-0.02, 1.02))
        _name_axis(axis, name)
    for axis in axes if narrow else axes[:1]:
        axis.set_ylabel(comparison.metric)
    _legend(figure, axes[0], narrow)
    return figure


def _rewards(records: Sequence[RunRecord], arms: Sequence[str], narrow: bool) -> Any:
    against, width = (("iteration",), _NARROW_WIDTH) if narrow else (tuple(AXES), _WIDTH)
    size = (width, 2.3 * len(_MEASURES))
    figure, axes = plt.subplots(len(_MEASURES), len(against), figsize=size, squeeze=False, sharex="col", sharey="row")
    for row, (metric, label) in zip(axes, _MEASURES.items(), strict=True):
        for axis, name in zip(row, against, strict=True):
            _lines(axis, records, arms, lambda r, m=metric, n=name: r.against(m, n))  # type: ignore[misc]
        row[0].set_ylabel(label)
    for axis, name in zip(axes[-1], against, strict=True):
        _name_axis(axis, name)
    _legend(figure, axes[0][0], narrow)
    return figure


def _shares(records: Sequence[RunRecord], arms: Sequence[str], narrow: bool) -> Any:
    long = max(map(len, arms)) > 14  # names of settings, in lines above each other
    columns = min((1 if long else 2) if narrow else (3 if long else 6), len(arms))
    rows = -(-len(arms) // columns)
    width = _NARROW_WIDTH if narrow else (3.2 if long else 1.75) * columns + 1.5
    size = (width, (2.3 if long else 1.9) * rows + 0.6)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
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
        axis.set_title(textwrap.fill(arm, 28, break_long_words=False), fontsize=9)
        axis.set(ylim=(0, 1))
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        axis.margins(x=0)
    for axis in axes[-1]:
        axis.set_xlabel("iteration")
    _legend(figure, axes.flat[0], narrow)
    return figure


def _name_axis(axis: Any, name: str) -> None:
    axis.set_xlabel(_LABELS[name])
    if name == "iteration":
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))


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
        axis.plot(*_mean(curves), color=color, linewidth=1.8, label=arm, linestyle=style_of(number))
    tidy([axis])


def _mean(curves: Sequence[dict[float, float]]) -> tuple[list[float], list[float]]:
    """The mean curve, over the x range that all have, at every x that any has."""
    low, high = max(min(c) for c in curves), min(max(c) for c in curves)
    x = sorted({float(v) for c in curves for v in c if low <= v <= high})
    values = [np.interp(x, sorted(c), [c[k] for k in sorted(c)]) for c in curves]
    return x, np.mean(values, axis=0).tolist()


def _legend(figure: Any, axis: Any, narrow: bool) -> None:
    """Beside the picture, or above a narrow one."""
    handles, labels = axis.get_legend_handles_labels()
    if narrow:
        columns = 1 if max(map(len, labels), default=0) > 20 else 3 if len(labels) > 2 else 2
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": columns}
    else:
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "ncols": 1 if len(labels) <= 20 else 2}
    figure.legend(handles, labels, frameon=False, **place)
