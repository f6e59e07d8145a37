"""What a judge reads, and the two controls, which need no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item, NoisyJudge, RandomJudge
from sgpo_core.types import Judgment, Problem, Verdict


def item(name: str, steps: int = 4) -> Item:
    text = "".join(f"Step {i}: {name}\n" for i in range(1, steps + 1))
    return Item(Problem(name, "?", ""), tuple(segment(text)))


ITEMS = [item(f"p{i}") for i in range(5000)]


def test_an_item_joins_its_steps() -> None:
    assert item("x", 2).text == "Step 1: x\nStep 2: x\n"


def test_a_random_judge_names_every_verdict_as_often() -> None:
    found = Counter(j.verdict.first_error_step for j in RandomJudge(0)(ITEMS))
    assert set(found) == {None, 1, 2, 3, 4}
    for count in found.values():
        assert count / 5000 == pytest.approx(0.2, abs=0.025)  # 4.4 standard deviations of sqrt(.2 * .8 / 5000)


def test_a_random_judge_depends_on_the_response_and_the_seed_alone() -> None:
    assert RandomJudge(0)(ITEMS) == [RandomJudge(0)([one])[0] for one in ITEMS]
    assert RandomJudge(0)(ITEMS) != RandomJudge(1)(ITEMS)
    assert RandomJudge(0)([item("p1", 1)])[0].verdict.first_error_step in (None, 1)


def two(items: Sequence[Item]) -> list[Judgment]:
    """Always step 2, by 3 votes to 1."""
    votes = (Verdict(2), Verdict(2), Verdict(2), Verdict(1))
    return [Judgment(Verdict(2), votes, 0.75, prompt_tokens=7, completion_tokens=5) for _ in items]


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_noise_replaces_its_share_of_verdicts(noise: float) -> None:
    judgments = NoisyJudge(two, noise)(ITEMS)
    changed = sum(j.verdict != Verdict(2) for j in judgments)
    # One of five random verdicts is the judge's own: 0.8 * noise of all differ.
    assert changed / 5000 == pytest.approx(0.8 * noise, abs=0.025)  # over 4 of sqrt(.24 * .76 / 5000)
    assert {(j.agreement, j.prompt_tokens, j.completion_tokens) for j in judgments} == {(0.75, 7, 5)}


def test_no_noise_and_nothing_but_noise() -> None:
    assert NoisyJudge(two, 0.0)(ITEMS) == two(ITEMS)
    found = Counter(j.verdict.first_error_step for j in NoisyJudge(two, 1.0)(ITEMS))
    assert set(found) == {None, 1, 2, 3, 4}


def test_noise_depends_on_the_response_and_the_seed_alone() -> None:
    some = ITEMS[:300]
    assert NoisyJudge(two, 0.3)(some) == [NoisyJudge(two, 0.3)([one])[0] for one in some]
    assert NoisyJudge(two, 0.3, seed=0)(some) != NoisyJudge(two, 0.3, seed=1)(some)
    # What is hit at a low share of noise is hit at a higher one.
    low, high = (NoisyJudge(two, noise)(some) for noise in (0.1, 0.3))
    assert all(b == a for a, b in zip(low, high, strict=True) if a.verdict != Verdict(2))


def test_an_abstention_stays() -> None:
    def unable(items: Sequence[Item]) -> list[Judgment]:
        return [Judgment(Verdict.abstain("timeout")) for _ in items]

    assert NoisyJudge(unable, 1.0)(ITEMS) == unable(ITEMS)
