"""One way to plot: no display, one look, one color for each thing, files that appear whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

if "MPLBACKEND" not in os.environ:  # a notebook sets it, and shows its own pictures by it
    matplotlib.use("Agg")
from matplotlib import pyplot as plt

from sgpo_core.storage.atomic import write_atomically

GREEN, RED, YELLOW = "#0b6e4f", "#c1440e", "#e9c46a"
LIGHT_GREEN, BLUE, GRAY = "#52b788", "#577590", "#8d99ae"
# The algorithms that most pictures are about look the same everywhere.
ALGORITHMS = {"sgpo": GREEN, "grpo": RED, "sgpo-masked": LIGHT_GREEN}
# Others: color-blind readers, too, can tell these and the ones above apart (tests/tasks/test_sweep_report.py).
OTHERS = ("#6a3d9a", "#e69f00", "#000000", "#1e90ff", "#cc79a7")
_STYLES = ("-", "--", "-.", ":")
OUTCOMES = {"all-negative": RED, "mixed": YELLOW, "all-positive": GREEN}  # groups


def color_of(name: str, number: int = 0) -> str:
    """The color of an algorithm, or of the `number`-th thing that is compared."""
    return ALGORITHMS.get(name) or OTHERS[number % len(OTHERS)]


def style_of(number: int) -> str:
    """The line of the `number`-th thing: another one when the colors begin again."""
    return _STYLES[number // len(OTHERS) % len(_STYLES)]


def tidy(axes: Iterable[Any], grid: bool = True) -> None:
    """The look of all axes."""
    for axis in axes:
        axis.title.set_size(10.5)
        if grid:
            axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path) -> Path:
    """The figure as PNG, closed; whatever hangs over its edge (a legend beside it) is on the picture."""
    figure.tight_layout()
    write_atomically(path, lambda p: figure.savefig(p, dpi=130, format="png", bbox_inches="tight"))
    plt.close(figure)
    return path
