"""One measured figure, and how two ways of doing the same work are timed side by side."""

from __future__ import annotations

import json
import operator
import statistics
from collections.abc import Callable
from dataclasses import dataclass

Timing = Callable[[], float]  # does the work once and returns its seconds

_COMPARE = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured. The goal (e.g. `>= 0.90`) is for the ratio where there is a peer, else for the value.

    A ratio says how we do against the peer: above 1 we are faster.
    """

    figure: str
    value: float
    unit: str
    goal: tuple[str, float]
    how: str
    peer: float | None = None
    ratio: float | None = None

    @property
    def met(self) -> bool:
        sign, limit = self.goal
        return bool(_COMPARE[sign](self.value if self.ratio is None else self.ratio, limit))

    def line(self) -> str:
        """One JSON object; numbers to four digits, which is more than a shared machine tells."""
        sign, limit = self.goal
        return json.dumps(
            {
                "figure": self.figure,
                "value": rounded(self.value),
                "unit": self.unit,
                "peer": rounded(self.peer),
                "ratio": rounded(self.ratio),
                "goal": f"{sign} {limit:g}",
                "met": self.met,
                "how": self.how,
            }
        )


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def side_by_side(ours: Timing, peer: Timing, repeats: int) -> tuple[float, float]:
    """Median seconds of both, after two runs each that are not counted. They take turns (A B, B A, A B, ...), so that
    whatever else the machine does hits both alike."""
    for warm_up in (ours, peer) * 2:
        warm_up()
    seconds: dict[Timing, list[float]] = {ours: [], peer: []}
    for repeat in range(repeats):
        for turn in (ours, peer) if repeat % 2 == 0 else (peer, ours):
            seconds[turn].append(turn())
    return statistics.median(seconds[ours]), statistics.median(seconds[peer])
