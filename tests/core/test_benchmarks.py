"""Protocols, their ids, and what is never compared; every benchmark of conf/eval."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from sgpo_core.chains import problems as chains
from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import BenchmarkSettings
from sgpo_core.config.evaluation import EvaluationConfig, load_evaluation
from sgpo_core.config.loading import presets
from sgpo_core.evaluation.protocol import Protocol, Result, protocol, require_same
from sgpo_core.evaluation.regression import compare, regressions
from sgpo_core.evaluation.scores import Response, score
from sgpo_core.types import Outcome

PROBLEMS = chains.make_problems(4, seed=0)
NAMED = {"aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench", "hmmt_feb25", "brumo25", "cmimc25"}
NAMED |= {"gpqa_diamond", "gaokao2023en", "gsm8k"}


def made(**changes: object) -> Protocol:
    return replace(protocol("x", BenchmarkSettings(), EvaluationConfig(), PROBLEMS), **changes)  # type: ignore[arg-type]


def result(shares: list[int], weights: str = "w", of: Protocol | None = None) -> Result:
    """Of 20 problems with that many correct of 4 responses."""
    groups = [
        [Response(Outcome.CORRECT if i < share else Outcome.WRONG, "1", False, 5) for i in range(4)] for share in shares
    ]
    per_problem = {f"p{i}": share / 4 for i, share in enumerate(shares)}
    return Result(weights, of or made(), score(groups), per_problem, 1.0)


def test_all_named_benchmarks_are_there() -> None:
    assert set(presets("eval")) >= NAMED
    for name in NAMED:
        [(only, benchmark)] = load_evaluation([f"eval={name}"]).eval.sets.items()
        assert (only, benchmark.k, benchmark.temperature, benchmark.top_p) == (name, 16, 0.6, 0.95)
        assert "\\boxed{}" in benchmark.prompt and "/" in benchmark.data.source


def test_nine_are_nine() -> None:
    sets = load_evaluation(["eval=nine"]).eval.sets
    assert len(sets) == 9
    assert sets.keys() >= {"aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench", "hmmt_feb25"}


@pytest.mark.parametrize(
    "change",
    [
        {"problems": "other"}, {"prompt": "{problem}"}, {"chat_template": "never"}, {"temperature": 1.0},
        {"top_p": 1.0}, {"max_tokens": 1}, {"k": 1}, {"seed": 1}, {"dtype": "bfloat16"}, {"benchmark": "y"},
        {"grader": "another"},
    ],
)  # fmt: skip
def test_whatever_decides_a_score_is_in_the_id(change: dict[str, object]) -> None:
    assert made(**change).id != made().id
    assert (made(**change).generation_id == made().generation_id) is ("grader" in change)
    with pytest.raises(ValueError, match=next(iter(change))):
        require_same(made(**change), made())


def test_the_problems_are_in_the_id_and_the_machine_is_not() -> None:
    settings, config = BenchmarkSettings(), EvaluationConfig()
    wide = config.model_copy(update={"cluster": config.cluster.model_copy(update={"rollout_actors": 8})})
    assert protocol("x", settings, wide, PROBLEMS) == protocol("x", settings, config, PROBLEMS)
    assert protocol("x", settings, config, PROBLEMS[:3]).id != protocol("x", settings, config, PROBLEMS).id


def test_a_prompt_without_its_problem_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"eval\.sets\.chains\.prompt"):
        load_evaluation(["eval.sets.chains.prompt=solve it"])


def test_a_record_reads_back_and_is_checked() -> None:
    record = json.loads(json.dumps(result([4, 0, 2]).as_json()))
    assert Result.from_json(record) == result([4, 0, 2])
    record["protocol"]["k"] = 99
    with pytest.raises(ValueError, match="protocol id"):
        Result.from_json(record)


def test_a_drop_is_found_and_names_its_problems() -> None:
    # 12 of 20 problems fall from 4 of 4 to 1 of 4, one rises: mean (12 * -3/4 + 1/2) / 20 = -17/40
    before, now = result([4] * 19 + [1]), result([1] * 12 + [4] * 7 + [3])
    found = compare("m@candidate", "the last night", now, before)
    assert found.difference.mean == pytest.approx(-17 / 40)
    assert found.lost == tuple(f"p{i}" for i in range(12))
    assert found.gained == ("p19",)
    slight = compare("m", "x", result([4, 1, 3]), result([4, 3, 4]))
    assert (slight.lower, slight.lost) == (("p1", "p2"), ("p1",))  # 3 of 4 -> 1, 4 -> 3
    assert regressions([found], level=0.01) == [found]
    assert regressions([compare("m", "x", before, now)], level=0.01) == []  # it became better


def test_the_same_twice_is_no_regression() -> None:
    same = compare("m", "the last night", result([4, 0, 2]), result([4, 0, 2]))
    assert (same.difference.mean, same.difference.p, same.lost) == (0, 1, ())
    assert regressions([same], level=0.01) == []
    assert regressions([], level=0.01) == []


def test_more_comparisons_need_more_evidence() -> None:
    # 7 problems down by a quarter: p = 2 / 2^7 = .0156, twice that for the smaller of two comparisons (Holm)
    before, now = result([4] * 7), result([3] * 7)
    one, same = compare("m", "x", now, before), compare("m", "y", now, now)
    assert one.difference.p == 2 / 2**7
    assert regressions([one], level=0.02) == [one]
    assert regressions([one, same], level=0.02) == []


def test_results_of_different_protocols_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"temperature 0\.6 -> 1\.0"):
        compare("m", "x", result([4], of=made(temperature=1.0)), result([4]))
    assert asdict(made())["temperature"] == 0.6
