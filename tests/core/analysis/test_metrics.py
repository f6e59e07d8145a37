"""Metrics of an iteration small enough to be worked out by hand, and the dictionary of metrics."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sgpo_core.analysis.metrics import METRICS, as_markdown, rollout_metrics
from sgpo_core.evaluation.scores import GradedResponse, score
from sgpo_core.types import Credit, Grade, Judgment, Outcome, Problem, Rollout, RolloutGroup, Verdict
from tests.records import group, ints, rollout

ROOT = Path(__file__).resolve().parents[3]


def response(outcome: Outcome, tokens: int, steps: int, credit: Credit, judgment: Judgment | None = None) -> Rollout:
    return rollout(
        token_ids=ints(*[1] * tokens),
        truncated=tokens == 10,
        grade=Grade(outcome),
        step_ends=tuple(range(1, steps + 1)),
        judgment=judgment,
        credit=credit,
    )


# Two groups of two. The first has nothing correct: one response is judged (RTS 0.6, sigma(10 * 0.1) = 0.7310586), the
# judge abstains on the other, so that one member counts and no advantage is left. The second is mixed and not judged.
VOTED = Judgment(Verdict(3), (Verdict(3), Verdict(3), Verdict(None)), 2 / 3, prompt_tokens=60, completion_tokens=10)
ABSTAINED = Verdict.abstain("timeout")
CACHED = Judgment(ABSTAINED, (ABSTAINED,), prompt_tokens=35, completion_tokens=5, cached=True)
FIRST = [
    response(Outcome.WRONG, 3, 4, Credit(0.7310586, rts=0.6), VOTED),
    response(Outcome.UNPARSABLE, 5, 1, Credit(0.0, excluded=True), CACHED),
]
SECOND = [
    response(Outcome.CORRECT, 2, 2, Credit(1.0, correct=True, advantage=0.7071)),
    response(Outcome.TIMEOUT, 10, 0, Credit(0.0, advantage=-0.7071)),
]
GROUPS = [group(0, FIRST), group(1, SECOND)]


def changed(change: Callable[[Rollout], Rollout]) -> list[RolloutGroup]:
    return [g.with_rollouts([change(r) for r in g.rollouts]) for g in GROUPS]


def test_every_number_of_a_small_iteration() -> None:
    assert rollout_metrics(GROUPS) == pytest.approx(
        {
            "group/all_negative_frac": 0.5,
            "group/all_positive_frac": 0.0,
            "group/mixed_frac": 0.5,
            "group/zero_signal_frac": 0.5,
            "reward/outcome_mean": 0.25,
            "reward/shaped_mean": 0.5770195,  # (0.7310586 + 1 + 0) / 3, the excluded one is not in it
            "reward/rts_mean": 0.6,
            "reward/truncated_share": 0.0,
            "judge/calls": 2,
            "judge/abstained_frac": 0.5,
            "judge/cached_frac": 0.5,
            "judge/vote_agreement": 2 / 3,  # a single vote is none
            "judge/tokens": 110,
            "grade/unparsable_frac": 0.25,
            "grade/malformed_frac": 1.0,
            "grade/malformed_empty_frac": 1.0,  # responses of this test have no text
            "grade/failed_frac": 0.25,
            "rollout/tokens": 20,
            "rollout/length_mean": 5,
            "rollout/truncated_frac": 0.25,
            "rollout/steps_mean": 1.75,  # 4 + 1 + 2 + 0 of 4
        },
        abs=1e-7,
    )


def test_who_is_paid_for_length() -> None:
    # Advantages 2, 2, 0, -1: two share the top, one of them cut off, the other padded; a group without signal and a
    # mixed one have no say there, but the mixed one has 1 of the 5 that is paid in all.
    def paid(
        advantage: float, truncated: bool = False, padded: bool = False, grade: Outcome = Outcome.WRONG
    ) -> Rollout:
        return replace(response(grade, 3, 4, Credit(0.5, 0.5, padded=padded, advantage=advantage)), truncated=truncated)

    groups = [
        group(0, [paid(2, truncated=True), paid(2, padded=True), paid(0, padded=True), paid(-1)]),
        group(1, [paid(0, truncated=True)]),
        group(2, [paid(1, grade=Outcome.CORRECT), paid(-1, truncated=True)]),
    ]
    metrics = rollout_metrics(groups)
    assert (metrics["reward/top_truncated_frac"], metrics["reward/top_padded_frac"]) == (0.5, 0.5)
    assert metrics["reward/truncated_share"] == 2 / 5


def test_answers_that_come_too_early() -> None:
    """Best responses of three steps: wrong in the answer alone, in the second step, and without a verdict."""

    def paid(advantage: float, verdict: Verdict | None) -> Rollout:
        judgment = verdict and Judgment(verdict, (verdict,))
        return response(Outcome.WRONG, 3, 3, Credit(0.5, 0.5, advantage=advantage), judgment)

    groups = [
        group(0, [paid(2, Verdict(3)), paid(-1, Verdict(2))]),
        group(1, [paid(1, Verdict(2)), paid(-1, Verdict(3))]),
        group(2, [paid(1, None), paid(-1, None)]),
        group(3, [paid(1, Verdict(3)), paid(1, Verdict(2)), paid(-2, Verdict(1))]),  # two share the top
    ]
    assert rollout_metrics(groups)["reward/top_answer_frac"] == (1 + 0 + 0 + 0.5) / 4


def test_length_beside_the_reference() -> None:
    # Well-formed responses of 2 and 4 steps beside a reference of 2: median of 1 and 2. Truncated, malformed and
    # those beside a reference of one step are left out.
    def written(steps: int, truncated: bool = False, answer: str = "Answer: \\boxed{1}") -> Rollout:
        text = "".join(f"{i}. x\n" for i in range(1, steps)) + answer
        return replace(response(Outcome.WRONG, 3, steps, Credit(0.0)), text=text, truncated=truncated)

    many = [written(2), written(4), written(9, truncated=True), written(9, answer="none")]
    two, one = Problem("p", "?", "7", "1. a\n2. b"), Problem("p", "?", "7", "1. a")
    assert rollout_metrics([group(0, many, two), group(1, [written(9)], one)])["rollout/length_ratio"] == 1.5
    assert "rollout/length_ratio" not in rollout_metrics([group(1, [written(9)], one)])
    metrics = rollout_metrics([group(0, many, two)])
    assert (metrics["grade/malformed_frac"], metrics["grade/malformed_no_answer_frac"]) == (0.25, 0.25)


def test_the_share_of_steps_that_could_be_checked() -> None:
    # 2 of 4 steps and, of a truncated one whose last step nobody saw, 1 of 2; the third says nothing of it, and the
    # fourth, of which no step is whole, has none.
    def judged(steps: int, checked: int | None, tokens: int = 3) -> Rollout:
        return response(Outcome.WRONG, tokens, steps, Credit(0.0), Judgment(Verdict(None), checked_steps=checked))

    metrics = rollout_metrics([group(0, [judged(4, 2), judged(3, 1, tokens=10), judged(9, None), judged(0, 0)])])
    assert metrics["judge/checked_frac"] == 3 / 6
    assert "judge/checked_frac" not in rollout_metrics(GROUPS)


def test_what_is_not_known_is_absent() -> None:
    unjudged = rollout_metrics(changed(lambda r: replace(r, judgment=None, credit=replace(r.credit, rts=None))))
    assert (unjudged["judge/calls"], unjudged["judge/abstained_frac"]) == (0, 0)
    assert "reward/rts_mean" not in unjudged and "judge/vote_agreement" not in unjudged
    excluded = rollout_metrics(changed(lambda r: replace(r, credit=replace(r.credit, excluded=True))))
    assert "reward/shaped_mean" not in excluded


def test_a_group_with_only_correct_responses() -> None:
    right, error = Grade(Outcome.CORRECT), Grade(Outcome.ERROR)
    groups = [
        group(0, [replace(r, grade=right) for r in FIRST]),
        group(1, [replace(SECOND[0], grade=error), SECOND[1]]),
    ]
    metrics = rollout_metrics(groups)
    shares = [metrics[f"group/{kind}_frac"] for kind in ("all_negative", "all_positive", "mixed")]
    assert shares == [0.5, 0.5, 0.0]
    assert metrics["grade/failed_frac"] == 0.5


def known(name: str) -> bool:
    return any(re.fullmatch(re.sub(r"<\w+>", r"[\\w.-]+", pattern), name) for pattern in METRICS)


def named(folder: str) -> set[str]:
    """What looks like a metric in the texts of a folder's code."""
    family = re.compile(rf"({'|'.join({name.partition('/')[0] for name in METRICS})})/[\w/.-]+")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / folder).rglob("*.py")]
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {value for value in constants if isinstance(value, str) and family.fullmatch(value)}


def test_every_metric_is_in_the_dictionary() -> None:
    responses = [[GradedResponse(Grade(Outcome.CORRECT, "1"), False, 1)]] * 2
    measured = {*rollout_metrics(GROUPS), *score(responses).metrics("m-500")}
    in_code = named("tasks")
    assert len(measured) > 20 and len(in_code) > 10
    assert {name for name in measured | in_code | named("flows") if not known(name)} == set()


def test_every_metric_is_explained() -> None:
    assert {
        name for name, metric in METRICS.items() if not (metric.unit and metric.meaning and metric.when_bad)
    } == set()


def test_every_line_of_the_dictionary_has_four_cells() -> None:
    lines = as_markdown().splitlines()
    assert len(lines) == len(METRICS) + 2
    assert [line for line in lines if len(re.findall(r"(?<!\\)\|", line)) != 5] == []  # an escaped one is a character


def test_the_documentation_holds_the_dictionary() -> None:
    assert as_markdown() in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_a_verdict_that_credit_cannot_use_counts_as_an_abstention() -> None:
    # The judge answered both times, but once found no wrong step in a wrong response, which is then excluded: 1 of 2.
    answered = replace(FIRST[1], judgment=Judgment(Verdict(None)))
    assert rollout_metrics([group(0, [FIRST[0], answered]), group(1, SECOND)])["judge/abstained_frac"] == 0.5
