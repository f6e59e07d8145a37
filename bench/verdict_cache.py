"""cached_verdicts: 10,000 verdicts that are known, as a run gets them: keys, the cache, judgments. Beside it, a bare
SELECT of the same rows from the same file.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from bench.figures import Figure, rounded, side_by_side
from sgpo_core.chains import problems as chains
from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item
from sgpo_core.judges.rule import rule
from sgpo_core.types import Judgment
from tasks.judges.verdict_cache import CachedJudge, VerdictCache
from tasks.paths import home

COUNT = 10_000


def measure() -> Iterator[Figure]:
    path = Path(home()) / "verdicts.db"
    items = responses(COUNT)
    with closing(VerdictCache(path)) as cache:
        CachedJudge(voting, cache, "bench")(items)

    def ours() -> float:
        began = time.monotonic()
        with closing(VerdictCache(path)) as cache:
            judgments = CachedJudge(unexpected, cache, "bench")(items)
        assert all(judgment.cached for judgment in judgments)
        return time.monotonic() - began

    def peer() -> float:
        began = time.monotonic()
        with closing(sqlite3.connect(path)) as connection:
            assert len(connection.execute("SELECT * FROM verdicts").fetchall()) == COUNT
        return time.monotonic() - began

    seconds, bare = side_by_side(ours, peer, repeats=7)
    yield Figure(
        figure="cached_verdicts",
        value=seconds,
        unit="s",
        goal=("<=", 1),
        how=f"{COUNT} verdicts of {len(items[0].steps)} steps and 3 votes; bare SELECT of the rows {rounded(bare)} s, "
        f"ratio {rounded(bare / seconds)}; file {path.stat().st_size >> 10} KiB",
    )


def responses(count: int) -> list[Item]:
    """Different ones, to different problems, with slips."""
    rng = random.Random(0)
    return [
        Item(problem, tuple(segment(chains.solve(*chains.operands(problem.prompt) or (0, 0), rng, 0.5).text)))
        for problem in chains.make_problems(count, seed=0)
    ]


def voting(items: Sequence[Item]) -> list[Judgment]:
    return [replace(given, votes=(given.verdict,) * 3, agreement=1.0) for given in rule(items)]


def unexpected(items: Sequence[Item]) -> list[Judgment]:
    raise AssertionError(f"{len(items)} verdicts are not in the cache")
