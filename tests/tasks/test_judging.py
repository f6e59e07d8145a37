"""The failure budget of the judge."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sgpo_core.config.judge import JudgeSettings
from sgpo_core.storage.atomic import write_json
from sgpo_core.storage.run_dir import RunPaths
from tasks.judging import JudgeFailed, check_judge


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
