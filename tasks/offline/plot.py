"""The picture of a data set of responses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from sgpo_core.offline.statistics import RTS_BINS, Statistics
from tasks.reports.plotting import BLUE, LIGHT_GREEN, OUTCOMES, plt, save, tidy


def draw_statistics(statistics: Statistics, path: Path) -> None:
    """Groups by outcome, RTS of the judged responses, and lengths."""
    figure, (groups, rts, lengths) = plt.subplots(1, 3, figsize=(12, 3.4))
    counts = [statistics.all_negative, statistics.mixed, statistics.all_positive]
    bars = groups.bar(list(OUTCOMES), counts, color=list(OUTCOMES.values()))
    groups.bar_label(bars, [f"{count:,}" for count in counts])
    groups.set(title=f"{statistics.groups:,} groups, {statistics.signal:,} with signal", ylabel="groups")
    tenths = np.arange(RTS_BINS) / RTS_BINS
    rts.bar(tenths, [statistics.rts[i] for i in range(RTS_BINS)], width=1 / RTS_BINS, align="edge", color=LIGHT_GREEN)
    title = f"{statistics.judged:,} judged, {statistics.abstained:,} abstained"
    rts.set(title=title, xlabel="RTS", ylabel="responses", xlim=(0, 1))
    _draw_lengths(lengths, statistics.lengths)
    tidy((groups, rts, lengths), grid=False)
    save(figure, path)


def _draw_lengths(axis: Any, lengths: Counter[int]) -> None:
    values, counts = list(lengths), list(lengths.values())
    low, high = min(values, default=0), max(values, default=0) + 1
    axis.hist(values, weights=counts, bins=np.linspace(low, high, min(40, high - low) + 1), color=BLUE)
    axis.set(title=f"{sum(counts):,} responses", xlabel="tokens", ylabel="responses")
