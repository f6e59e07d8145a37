"""Settings of evaluations: every benchmark of conf/eval."""

from __future__ import annotations

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.catalog import presets
from sgpo_core.config.evaluation import load_evaluation

NAMED = {"aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench", "hmmt_feb25", "brumo25", "cmimc25"}
NAMED |= {"gpqa_diamond", "gaokao2023en", "gsm8k"}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_all_named_benchmarks_are_there(name: str) -> None:
    assert name in presets("eval")
    [(only, benchmark)] = load_evaluation([f"eval={name}"]).eval.sets.items()
    assert (only, benchmark.k, benchmark.temperature, benchmark.top_p) == (name, 16, 0.6, 0.95)
    assert "\\boxed{}" in benchmark.prompt and "/" in benchmark.data.source


def test_nine_are_nine() -> None:
    sets = load_evaluation(["eval=nine"]).eval.sets
    assert len(sets) == 9
    assert sets.keys() >= {"aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench", "hmmt_feb25"}


def test_a_prompt_without_its_problem_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"eval\.sets\.chains\.prompt"):
        load_evaluation(["eval.sets.chains.prompt=solve it"])
