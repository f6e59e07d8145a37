"""The failure budget of the judge."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sgpo_core.chains import problems as chains
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.storage.atomic import write_json
from sgpo_core.storage.run_dir import RunPaths
from tasks.judging import JudgeFailed, check_judge, warn_of_blind_judge


def run_with(folder: Path, shares: list[float]) -> Any:
    paths = RunPaths(folder)
    for iteration, share in enumerate(shares, 1):
        write_json(paths.metrics(iteration), {"metrics": {"judge/abstained_frac": share}})
    judge = JudgeSettings(max_abstained_frac=0.5, patience=3)
    return SimpleNamespace(paths=paths, config=SimpleNamespace(judge=judge))


@pytest.mark.parametrize("shares", [[1.0, 1.0], [1.0, 0.5, 1.0], [0.6, 0.6, 0.6, 0.0]])
def test_a_judge_may_fail_now_and_then(tmp_path: Path, shares: list[float]) -> None:
    check_judge(run_with(tmp_path, shares), len(shares))


def test_a_judge_that_fails_again_and_again_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(JudgeFailed, match=r"max_abstained_frac=50%.*judge\.patience.*rollouts\.parquet"):
        check_judge(run_with(tmp_path, [0.0, 0.6, 0.9, 0.7]), 4)


CHAINS, WORDS = [p.prompt for p in chains.make_problems(2, seed=0)], ["How many pens are left?"]


@pytest.mark.parametrize(
    ("name", "scope", "prompts", "warned"),
    [
        ("rule", "all_negative", WORDS, True),
        ("rule", "all_negative", CHAINS + WORDS, True),
        ("rule", "all_negative", CHAINS, False),  # exact
        ("rule", "none", WORDS, False),  # nobody asks it
        ("random", "all_negative", WORDS, False),
    ],
)
def test_a_judge_that_is_blind_to_the_data_is_warned_of(
    name: str, scope: Any, prompts: list[str], warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("tasks.judging.get_run_logger", lambda: SimpleNamespace(warning=said.append))
    warn_of_blind_judge(JudgeSettings(name=name), scope, "data.source=words.jsonl", prompts)
    assert len(said) == warned
    for part in ("judge.name=rule on data.source=words.jsonl", "judge/checked_frac", "judge=llm", "no_error_found"):
        assert all(part in line for line in said)
