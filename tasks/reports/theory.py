"""What the exact dynamics (`sgpo_core.analysis.theory`) say, as tables and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from sgpo_core.analysis.theory import Array, Rule, all_negative_fraction, even_start, learn, rules, speed_up, steps_to
from tasks.reports.plotting import GRAY, GREEN, LIGHT_GREEN, RED, plt, save, tidy
from tasks.reports.text_table import text_table

EVEN = [[p] * steps for steps, p in [(2, 0.2), (2, 0.1), (2, 0.05), (2, 0.02), (2, 0.01), (3, 0.1), (6, 0.3), (6, 0.2)]]
NO_HELP = [[0.5] * 2, [0.7] * 6, [0.5] * 6, *([0.99] * 5 + [last] for last in (0.1, 0.01, 0.001)), [0.001] + [0.99] * 5]
HARD = [0.2] * 6
MAX_STEPS = 100_000
_COLORS = {"GRPO": RED, "SGPO": GREEN, "SGPO masked": LIGHT_GREEN, "SGPO all_incorrect": GRAY}
_SHADES = {2: "#94c9a9", 3: "#3a9d78", 6: GREEN}
_TICKS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.997, 0.999)


def tables(group_size: int) -> str:
    """Updates to P >= 0.9: where steps are equally hard, then where SGPO helps little or not at all."""
    return (
        f"Updates of step size 0.5 until P >= 0.9, groups of {group_size}; speed-up = GRPO / SGPO\n\n"
        f"{steps_table(EVEN, group_size)}\n\n"
        f"Mild problems, and problems in which one step alone is hard:\n\n{steps_table(NO_HELP, group_size)}"
    )


def steps_table(starts: Sequence[Sequence[float]], group_size: int) -> str:
    """A row for each start (p of every step), a column for each rule of `theory.rules`."""
    compared = rules(group_size)
    rows = [["p at the start", "all-negative", *compared, "speed-up"]]
    for p in starts:
        steps = [steps_to(p, rule, max_steps=MAX_STEPS) for rule in compared.values()]
        grpo, sgpo = steps[:2]
        rows.append(
            [
                start_label(p),
                f"{all_negative_fraction(p, group_size):.4f}",
                *(f"{n:,}" if n is not None else f"> {MAX_STEPS:,}" for n in steps),
                f"{grpo / sgpo:.2f}" if grpo and sgpo else "-",
            ]
        )
    return text_table(rows, right=True)


def start_label(p: Sequence[float]) -> str:
    """[0.99, 0.99, 0.1] as "2 x 0.99, 1 x 0.1"."""
    return ", ".join(f"{len(list(same))} x {value:g}" for value, same in groupby(p))


def draw_theory(path: Path, group_size: int) -> None:
    """Speed-up against the share of all-negative groups at the start (left), success over updates of one hard problem
    (right)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
    _draw_phase(left, group_size)
    _draw_learning(right, group_size)
    tidy((left, right))
    for axis in (left, right):
        axis.minorticks_off()
        axis.legend(frameon=False, loc="upper left", fontsize=9)
    save(figure, path)


def _draw_phase(axis: Any, group_size: int) -> None:
    rule = Rule(group_size)
    odds = np.linspace(-2.5, 7.5, 41)  # log odds of an all-negative group
    shares = 1.0 / (1.0 + np.exp(-odds))
    for steps, color in _SHADES.items():
        ratios = [speed_up(even_start(steps, share, group_size), rule, MAX_STEPS) for share in shares]
        axis.plot(odds, _numbers(ratios), color=color, linewidth=2, label=f"{steps} steps, equally hard")
    ratios = [speed_up(late_bottleneck(share, group_size), rule, MAX_STEPS) for share in shares[::4]]
    axis.plot(
        odds[::4], _numbers(ratios), color="#555555", linewidth=1.5, linestyle="--", label="6 steps, only the last hard"
    )
    axis.set_yscale("log")
    axis.set_yticks([1, 2, 5, 10, 20, 50], ["1×", "2×", "5×", "10×", "20×", "50×"])
    ticks = np.array(_TICKS)
    axis.set_xticks(np.log(ticks / (1 - ticks)), [f"{tick:g}" for tick in ticks])
    axis.set(
        title="How much sooner SGPO reaches 90 % success",
        xlabel=f"all-negative groups of {group_size} at the start (share, by its log odds)",
        ylabel="updates of GRPO / updates of SGPO",
        ylim=(0.9, None),
    )


def late_bottleneck(all_negative: float, group_size: int, steps: int = 6, easy: float = 0.99) -> Array:
    """p [K] with that share of all-negative groups, all steps but the last being easy."""
    success = float(np.prod(even_start(steps, all_negative, group_size)))
    return np.array([easy] * (steps - 1) + [min(success / easy ** (steps - 1), easy)])


def _draw_learning(axis: Any, group_size: int) -> None:
    compared = rules(group_size)
    count = round(1.5 * (steps_to(HARD, compared["GRPO"], max_steps=MAX_STEPS) or MAX_STEPS))
    for name, rule in compared.items():
        success = [float(np.prod(p)) for p in islice(learn(HARD, rule), count + 1)]
        style = {"linewidth": 2} if name in ("GRPO", "SGPO") else {"linewidth": 1.2, "linestyle": "--"}
        axis.plot(range(1, count + 1), success[1:], color=_COLORS[name], label=name, **style)
    all_negative = all_negative_fraction(HARD, group_size)
    axis.set_xscale("log")
    axis.set_xticks([1, 10, 100, 1000, 10_000], ["1", "10", "100", "1,000", "10,000"])
    axis.set(
        title=f"{len(HARD)} steps of p = {HARD[0]:g}: {100 * all_negative:.2f} % all-negative groups at the start",
        xlabel="updates",
        ylabel="success probability P",
        ylim=(-0.02, 1.04),
    )


def _numbers(ratios: Sequence[float | None]) -> list[float]:
    return [float("nan") if ratio is None else ratio for ratio in ratios]
