"""judge-eval as a user runs it, and the gate that a run can demand."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.judge_eval import check
from sgpo_core.config.base import ConfigError
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.judge_eval import load_judge_eval
from sgpo_core.judges.base import Item, RandomJudge
from sgpo_core.judges.processbench import generated, write
from sgpo_core.judges.rule import rule
from sgpo_core.types import Judgment
from tests.helpers import run_module


def test_the_rule_judge_is_right_about_chains(session_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "solutions.jsonl"
    write(file, generated(30, seed=3))
    done = run_module("flows.judge_eval", "judge=rule", f"data.path={file}", home=session_home)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["f1"] == 1.0 and result["final_metrics"]["judge_eval/all/late"] == 0
    assert result["final_metrics"]["judge_eval/injections_gained"] == 0
    assert {"run_id", "mlflow_run_id", "run_dir"} <= set(result)
    assert "erroneous" in done.stderr, "people read a table"
    verdicts = pq.read_table(Path(result["run_dir"]) / "verdicts.parquet").to_pydict()
    assert verdicts["verdict"] == verdicts["first_error_step"] and len(verdicts["id"]) == 30
    with closing(sqlite3.connect(session_home / "prefect/prefect.db")) as database:
        [[page]] = database.execute("SELECT data FROM artifact WHERE key = ?", [result["run_id"]])
    assert f"# Judge rule on {file}" in page and "false alarms" in page and "verdicts.parquet" in page


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.path=missing.jsonl"], "data.path=missing.jsonl"),
        (["judge=llm", "judge.engine.gpus=0", "judge.model=./missing"], "judge.model=./missing"),
        (["judge=endpoint"], "judge.model"),
        (["judge=endpoint", "judge.model=x"], "SGPO_JUDGE_URL"),
        (["judge=llm"], "1 GPUs"),
        (["judge=rule", "judge.votes=3"], "judge.temperature"),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        check(load_judge_eval("default", overrides))


def test_the_command_says_it_in_one_line(session_home: Path) -> None:
    done = run_module("flows.judge_eval", "data.path=missing.jsonl", home=session_home)
    assert done.returncode == 2 and "data.path=missing.jsonl" in done.stderr.splitlines()[-1], done.stderr


def test_a_run_can_demand_a_good_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.judges.judge_eval import check_gate

    settings = JudgeSettings(name="random", min_f1=0.5)
    check_gate(settings, rule)
    with pytest.raises(ConfigError, match=r"judge\.min_f1=0\.5: the judge random reaches an F1 of 0\.[01]"):
        check_gate(settings, RandomJudge())
    check_gate(JudgeSettings(name="random"), RandomJudge())
    asked: list[str] = []

    def counting(items: Sequence[Item]) -> list[Judgment]:
        asked.extend(item.problem.id for item in items)
        return rule(items)

    check_gate(settings.model_copy(update={"gate_limit": 200}), counting)
    examples = [example.id for example in generated(300)]
    assert len(asked) == 200 and asked[0] == examples[0] and set(asked) & set(examples[-2:]), "evenly over all"
