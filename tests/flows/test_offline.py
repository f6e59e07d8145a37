"""The offline flow on real engines: sampled or imported responses, judged once, train a policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from sgpo_core.config import offline as settings
from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import load_offline
from sgpo_core.offline.statistics import Statistics
from sgpo_core.storage.atomic import read_json
from tests.helpers import columns, run_module, start_from

SMALL = [
    "data.count=12",
    "sampling.problems=4",
    "sampling.group_size=4",
    "eval.every=2",
    "eval.sets.chains.data.count=4",
    "eval.sets.chains.k=2",
    "checkpoint.every=2",
]
ITERATIONS = 3  # 12 groups, 4 an iteration


def run(policy: str, *overrides: str) -> dict[str, Any]:
    from flows.offline import offline

    return offline("tiny", [*SMALL, *start_from(policy), *overrides])


@pytest.fixture(scope="module")
def result(policy: str) -> dict[str, Any]:
    return run(policy, "algorithm.credit.scope=all_incorrect")


def iterations(result: dict[str, Any]) -> list[dict[str, list[Any]]]:
    return [columns(path) for path in sorted(Path(result["run_dir"]).glob("iterations/*/rollouts.parquet"))]


def data_set(home: Path) -> Path:
    [folder] = (p.parent for p in home.glob("responses/*/imported") if p.parent.name.startswith("sampled-"))
    return folder


def test_every_response_is_trained_on_once_an_epoch(result: dict[str, Any]) -> None:
    tables = iterations(result)
    assert len(tables) == ITERATIONS
    seen = [(p, s) for table in tables for p, s in zip(table["problem_id"], table["sample"], strict=True)]
    assert len(seen) == len(set(seen)) == 12 * 4
    assert all(abs(sum(table["advantage"])) < 1e-6 for table in tables)  # means of groups are subtracted
    assert any(any(table["advantage"]) for table in tables) and result["final_metrics"]["policy/steps"] >= 0


def test_the_initial_policy_wrote_them_with_these_log_probabilities(result: dict[str, Any]) -> None:
    """Before its first step the trainer is the sampler: what was recorded is what it computes (float32)."""
    record = json.loads((Path(result["run_dir"]) / "iterations/000001/metrics.json").read_text())["metrics"]
    assert record["policy/steps"] > 0 and record["policy/sampler_logprob_diff"] < 1e-4
    assert "policy/mismatch_alarm" not in record  # off-policy later on, which is no fault


def test_result_policy_statistics_and_artifacts(result: dict[str, Any], session_home: Path) -> None:
    folder = Path(result["run_dir"])
    assert (folder / "policy/model.safetensors").is_file() and (folder / "policy/config.json").is_file()
    statistics = Statistics.from_json(read_json(folder / "responses/statistics.json"))
    assert (statistics.responses, statistics.groups) == (48, 12)
    assert statistics.judged == sum(s is not None for t in iterations(result) for s in t["verdict_status"])
    client = mlflow.MlflowClient(f"sqlite:///{session_home / 'mlflow.db'}")
    there = {a.path for a in client.list_artifacts(result["mlflow_run_id"], "responses")}
    assert there >= {"responses/statistics.txt", "responses/statistics.json", "responses/statistics.png"}
    points = client.get_metric_history(result["mlflow_run_id"], "eval/chains/avg_at_k")
    assert sorted(p.step for p in points) == [0, 2, 3]


def test_stages_are_made_once_for_many_trainings(policy: str, result: dict[str, Any], session_home: Path) -> None:
    folder = data_set(session_home)
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("*.arrow")}
    other = run(policy, "algorithm.credit.scope=all_incorrect", "seed=1", "algorithm.credit.beta=5")
    assert other["run_dir"] != result["run_dir"]
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.arrow")} == stamps
    assert iterations(other)[0]["problem_id"] != iterations(result)[0]["problem_id"]  # another order


def test_grpo_needs_no_verdicts_and_leaves_recorded_ones_alone(policy: str, result: dict[str, Any]) -> None:
    # Our own runs are a source as they are: here the judged rollouts of the run above.
    source = str(Path(result["run_dir"]) / "iterations")
    grpo = run(policy, "algorithm=grpo", f"responses.source={source}")
    for table in iterations(grpo):
        assert set(table["verdict_status"]) == {None} and table["shaped_reward"] == table["outcome_reward"]
        assert all(table["rollout_logprobs"])


def rows_of(result: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """The responses of a run, one object each, with some of their columns."""
    return [
        dict(zip(names, row, strict=True))
        for t in iterations(result)
        for row in zip(*(t[n] for n in names), strict=True)
    ]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"responses.source={path}"


TEXTS = ("problem_id", "prompt", "answer", "reference", "response", "truncated")


def test_recorded_grades_and_verdicts_stand(policy: str, result: dict[str, Any], tmp_path: Path) -> None:
    given = [row | {"grade": "wrong", "first_error_step": 1} for row in rows_of(result, *TEXTS)]
    done = run(policy, jsonl(tmp_path / "graded.jsonl", given))
    for table in iterations(done):
        assert set(table["grade"]) == {"wrong"} and set(table["first_error_step"]) == {1} and set(table["rts"]) == {0.0}


def test_missing_log_probabilities_are_the_initial_policys(policy: str, result: dict[str, Any], tmp_path: Path) -> None:
    sampled = rows_of(result, "problem_id", "response", "rollout_logprobs")
    recorded = {(row["problem_id"], row["response"]): row["rollout_logprobs"] for row in sampled}
    done = run(policy, jsonl(tmp_path / "texts.jsonl", rows_of(result, *TEXTS)), "algorithm=dr-grpo")
    for row in rows_of(done, "problem_id", "response", "rollout_logprobs"):
        assert np.allclose(row["rollout_logprobs"], recorded[row["problem_id"], row["response"]], atol=1e-4)


def test_broken_rows_stop_before_anything_is_written(policy: str, session_home: Path, tmp_path: Path) -> None:
    good = {"problem_id": "1", "prompt": "Compute 111111 + 222222.\n", "answer": "333333", "response": "1"}
    source = jsonl(tmp_path / "broken.jsonl", [good, good | {"response": ""}])
    with pytest.raises(ConfigError, match=r"broken\.jsonl, line 2: column 'response' is an empty response"):
        run(policy, source)
    assert not list(session_home.glob("responses/broken-*/imported*"))


def test_settings_are_checked_before_anything_starts(tmp_path: Path) -> None:
    done = run_module("flows.offline", "tiny", "responses.source=./none.parquet", home=tmp_path)
    assert done.returncode == 2 and "responses.source=./none.parquet" in done.stderr and "Traceback" not in done.stderr
    done = run_module("flows.offline", "tiny", "algorithm=dapo", home=tmp_path)
    assert done.returncode == 2 and "dapo is an online algorithm" in done.stderr
    done = run_module("flows.offline", "tiny", "--max-bad-rows", "7", "--show-config", home=tmp_path)
    assert done.returncode == 0 and "max_bad_rows: 7" in done.stdout


def test_an_offline_run_is_a_start_for_online_and_its_tokens_count(
    policy: str, result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.online import online

    scope = "algorithm.credit.scope=all_incorrect"
    small = [*SMALL, *start_from(policy), scope]
    monkeypatch.setattr(settings, "load_offline", lambda preset: load_offline(preset, small))  # else 20,000 responses
    done = online("tiny", ["iterations=1", "offline_start=tiny", *small])
    before = json.loads((Path(done["run_dir"]) / "iterations/000000/metrics.json").read_text())["metrics"]
    assert before["eval/chains/avg_at_k"] == result["final_metrics"]["eval/chains/avg_at_k"]
    written = sum(len(ids) for table in iterations(result) for ids in table["token_ids"])
    assert before["rollout/tokens"] == written and before["judge/tokens"] == 0.0
