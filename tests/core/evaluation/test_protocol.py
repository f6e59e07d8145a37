"""Protocols: what is in their ids, and records that hold one."""

from __future__ import annotations

import json

import pytest

from sgpo_core.config.data import BenchmarkSettings
from sgpo_core.config.evaluation import EvaluationConfig
from sgpo_core.evaluation.protocol import Result, protocol, require_same
from tests.core.evaluation.results import PROBLEMS, made, result


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


def test_a_record_reads_back_and_is_checked() -> None:
    record = json.loads(json.dumps(result([4, 0, 2]).as_json()))
    assert Result.from_json(record) == result([4, 0, 2])
    record["protocol"]["k"] = 99
    with pytest.raises(ValueError, match="protocol id"):
        Result.from_json(record)
