"""Metrics of a table small enough to be worked out by hand, and the dictionary of metrics."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from sgpo_core.analysis.metrics import METRICS, as_markdown, rollout_metrics
from sgpo_core.evaluation.scores import Response, score
from sgpo_core.types import Outcome

ROOT = Path(__file__).resolve().parents[2]

# Two groups of two. The first has nothing correct: one response is judged (RTS 0.6, sigma(10 * 0.1) = 0.7310586), the
# judge abstains on the other, so that one member counts and no advantage is left. The second is mixed and not judged.
TABLE: dict[str, list[Any]] = {
    "group": [0, 0, 1, 1],
    "outcome_reward": [0.0, 0.0, 1.0, 0.0],
    "verdict_status": ["ok", "abstained", None, None],
    "verdict_votes": [[3, 3, 0], [-1], None, None],
    "verdict_tokens": [70, 40, None, None],
    "verdict_cached": [False, True, None, None],
    "rts": [0.6, None, None, None],
    "shaped_reward": [0.7310586, 0.0, 1.0, 0.0],
    "neutral": [False, True, False, False],
    "advantage": [0.0, 0.0, 0.7071, -0.7071],
    "grade": ["wrong", "unparsable", "correct", "timeout"],
    "token_ids": [[1] * 3, [1] * 5, [1] * 2, [1] * 10],
    "truncated": [False, False, False, True],
    "step_ends": [[1, 2, 3, 4], [5], [1, 2], []],
}


def test_every_number_of_a_small_table() -> None:
    assert rollout_metrics(TABLE) == pytest.approx(
        {
            "group/all_negative_frac": 0.5,
            "group/all_positive_frac": 0.0,
            "group/mixed_frac": 0.5,
            "group/zero_signal_frac": 0.5,
            "reward/outcome_mean": 0.25,
            "reward/shaped_mean": 0.5770195,  # (0.7310586 + 1 + 0) / 3, the neutral one left out
            "reward/rts_mean": 0.6,
            "judge/calls": 2,
            "judge/abstained_frac": 0.5,
            "judge/cached_frac": 0.5,
            "judge/vote_agreement": 2 / 3,  # a single vote is none
            "judge/tokens": 110,
            "grade/unparsable_frac": 0.25,
            "grade/failed_frac": 0.25,
            "rollout/tokens": 20,
            "rollout/length_mean": 5,
            "rollout/truncated_frac": 0.25,
            "rollout/steps_mean": 1.75,  # 4 + 1 + 2 + 0 of 4
        },
        abs=1e-7,
    )


def test_what_is_not_known_is_absent() -> None:
    judged = ("verdict_status", "verdict_votes", "verdict_tokens", "verdict_cached", "rts")
    unjudged = rollout_metrics(TABLE | {name: [None] * 4 for name in judged})
    assert (unjudged["judge/calls"], unjudged["judge/abstained_frac"]) == (0, 0)
    assert "reward/rts_mean" not in unjudged and "judge/vote_agreement" not in unjudged
    assert "reward/shaped_mean" not in rollout_metrics(TABLE | {"neutral": [True] * 4})


def test_a_group_with_only_correct_responses() -> None:
    changes = {"outcome_reward": [1.0, 1.0, 0.0, 0.0], "grade": ["correct", "correct", "error", "timeout"]}
    metrics = rollout_metrics(TABLE | changes)
    shares = [metrics[f"group/{kind}_frac"] for kind in ("all_negative", "all_positive", "mixed")]
    assert shares == [0.5, 0.5, 0.0]
    assert metrics["grade/failed_frac"] == 0.5


def known(name: str) -> bool:
    return any(re.fullmatch(re.sub(r"<\w+>", r"[\\w.-]+", pattern), name) for pattern in METRICS)


def test_every_metric_is_in_the_dictionary() -> None:
    responses = [[Response(Outcome.CORRECT, "1", False, 1)]] * 2
    assert all(known(name) for name in {*rollout_metrics(TABLE), *score(responses).metrics("m-500")})
    family = re.compile(rf"({'|'.join({name.partition('/')[0] for name in METRICS})})/[\w/.-]+")
    for path in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and family.fullmatch(node.value):
                assert known(node.value), f"{path.name}: {node.value}"


def test_every_metric_is_explained() -> None:
    for name, metric in METRICS.items():
        assert metric.unit, name
        assert metric.meaning, name
        assert metric.when_bad, name


def test_every_line_of_the_dictionary_has_four_cells() -> None:
    lines = as_markdown().splitlines()
    assert len(lines) == len(METRICS) + 2
    assert [line for line in lines if len(re.findall(r"(?<!\\)\|", line)) != 5] == []  # an escaped one is a character


def test_the_documentation_holds_the_dictionary() -> None:
    assert as_markdown() in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def test_a_verdict_that_credit_cannot_use_counts_as_an_abstention() -> None:
    # The judge answered both times, but once found no wrong step in a wrong response, which is then neutral: 1 of 2.
    assert rollout_metrics(TABLE | {"verdict_status": ["ok", "ok", None, None]})["judge/abstained_frac"] == 0.5
