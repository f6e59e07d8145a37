"""iteration_135m: as `iteration`, in bfloat16, with random weights in the shape of SmolLM2-135M, on 4 problems x 8
responses of 150 tokens behind prompts of about 100. Responses of random weights are all wrong, so the algorithm is
NGRPO, which trains on them and asks no judge.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.figures import Figure
from bench.iteration import Case, against_trl, in_turn

CASE = Case("iteration_135m", "bfloat16", 1, 1.4, large=True)


def measure() -> Iterator[Figure]:
    yield against_trl(CASE, *in_turn(CASE))
