"""A sweep on real engines: paired runs, one failure that sinks nothing, a report from MLflow alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

from sgpo_core.config.base import ConfigError
from sgpo_core.config.sweep import load_sweep
from tasks.failures import PartlyFailed
from tasks.stage import Metrics
from tests.helpers import SMALL, columns, run_module, start_from

GRID = ["grid.algorithm=[grpo,sgpo]", "seeds=[0,1]", "experiment=sweep-test", "attempts=1"]


def overrides(policy: str, name: str, *more: str) -> list[str]:
    runs = [*SMALL, *start_from(policy), "iterations=2", *more]
    return [*GRID, f"name={name}", "overrides=[" + ",".join(f'"{o}"' for o in runs) + "]"]


def sweep(policy: str, name: str, *more: str) -> dict[str, Any]:
    from flows.sweep import sweep

    return sweep("grpo-vs-sgpo-tiny", overrides(policy, name, *more))


@pytest.fixture(scope="module")
def result(policy: str) -> dict[str, Any]:
    return sweep(policy, "whole")


def test_runs_are_paired_and_reported(result: dict[str, Any]) -> None:
    from tasks.sweeps.tracking import sweep_records

    run_ids = {Path(folder).name for folder in result["runs"].values()}
    assert set(result["runs"]) == {"grpo/s0", "sgpo/s0", "grpo/s1", "sgpo/s1"} and not result["failed"]
    records = {(r.arm, r.seed): r for r in sweep_records("whole", run_ids, ["eval/chains/avg_at_k"])}
    assert len(records) == 4 and all(r.finished for r in records.values())
    for seed in (0, 1):
        first = [Path(result["runs"][f"{arm}/s{seed}"]) / "iterations/000001" for arm in ("grpo", "sgpo")]
        tables = [columns(p / "rollouts.parquet") for p in first]
        for column in ("problem_id", "seed", "token_ids"):  # the same problems, seeds and first policy
            assert tables[0][column] == tables[1][column]
    html = Path(result["report"]).read_text()
    assert "missing" not in html.split("</style>")[1] and html.count("base64,") == 6  # each picture wide and narrow


def test_prefect_finds_the_runs_by_sweep_algorithm_and_seed(result: dict[str, Any]) -> None:
    with get_client(sync_client=True) as client:

        def tagged(*tags: str) -> set[str]:
            wanted = FlowRunFilter(tags=FlowRunFilterTags(all_=list(tags)))
            return {run.name for run in client.read_flow_runs(flow_run_filter=wanted)}

        assert tagged("sweep=whole") == {Path(folder).name for folder in result["runs"].values()}
        assert tagged("sweep=whole", "algorithm=sgpo", "arm=sgpo", "seed=1") == {Path(result["runs"]["sgpo/s1"]).name}


def test_the_report_comes_from_mlflow_alone(result: dict[str, Any], session_home: Path, tmp_path: Path) -> None:
    made = run_module("flows.report", "--sweep", "whole", "--out", str(tmp_path), home=session_home)
    assert made.returncode == 0, made.stderr
    assert "sgpo" in made.stdout and (tmp_path / "report.html").stat().st_size > 50_000
    assert (tmp_path / "summary.csv").read_text() == (Path(result["report"]).parent / "summary.csv").read_text()


def test_a_run_that_fails_sinks_nothing_and_the_same_sweep_runs_just_it(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import online as module

    def broken(run: Any, iteration: int) -> Metrics:
        if run.config.seed == 1 and run.config.algorithm.name == "sgpo" and iteration == 2:
            raise RuntimeError("the judge's disk is on fire")
        return real(run, iteration)

    real = module.judge
    with monkeypatch.context() as patch:
        patch.setattr(module, "judge", broken)
        with pytest.raises(
            PartlyFailed, match=r"1 of 4 runs failed \(sgpo/s1: the judge's disk is on fire\)"
        ) as failed:
            sweep(policy, "broken")
    first = failed.value.result
    assert first["failed"] == {"sgpo/s1": "the judge's disk is on fire"} and len(first["runs"]) == 3
    assert "sgpo, seed 1: failed" in Path(first["report"]).read_text()
    stamps = {name: (Path(f) / "result.json").stat().st_mtime_ns for name, f in first["runs"].items()}
    second = sweep(policy, "broken")
    assert not second["failed"] and len(second["runs"]) == 4
    assert {name: (Path(second["runs"][name]) / "result.json").stat().st_mtime_ns for name in stamps} == stamps
    assert "missing" not in Path(second["report"]).read_text().split("</style>")[1]


def test_several_processes_share_the_runs(policy: str, result: dict[str, Any], session_home: Path) -> None:
    narrow = ["cluster.rollout_actors=1", "cluster.trainer_threads=1"]
    command = ["flows.sweep", "grpo-vs-sgpo-tiny", *overrides(policy, "shared", *narrow)]
    refused = run_module(*command, "parallel=1000", home=session_home)
    assert refused.returncode == 2 and "parallel=1000" in refused.stderr.splitlines()[-1]
    done = run_module(*command, "parallel=2", home=session_home, timeout=600)
    assert done.returncode == 0, done.stderr
    shared = json.loads(done.stdout.splitlines()[-1])
    assert set(shared["runs"]) == set(result["runs"]) and not shared["failed"]
    logs = [path.read_text() for path in (session_home / "sweep-test" / "processes-shared").glob("*.log")]
    assert len(logs) == 2
    for folder in shared["runs"].values():
        took = [log for log in logs if f"'{Path(folder).name}'" in log and "iteration 2/2" in log]
        assert took, "the parent ran it itself"
    for name in shared["runs"]:  # the first policy is the same, whoever samples from it
        tables = [columns(Path(r["runs"][name]) / "iterations/000001/rollouts.parquet") for r in (shared, result)]
        assert tables[0]["token_ids"] == tables[1]["token_ids"]
    assert "missing" not in Path(shared["report"]).read_text().split("</style>")[1]


def test_runs_of_other_settings_under_the_same_tag_are_not_mixed_in(policy: str, result: dict[str, Any]) -> None:
    other = sweep(policy, "whole", "sampling.temperature=0.9")
    assert not set(other["runs"].values()) & set(result["runs"].values())
    from tasks.sweeps.report import METRICS
    from tasks.sweeps.tracking import sweep_records

    run_ids = {Path(folder).name for folder in other["runs"].values()}
    assert {r.run_id for r in sweep_records("whole", run_ids, METRICS)} == run_ids
    assert {r.settings["sampling.temperature"] for r in sweep_records("whole", run_ids, [])} == {0.9}


def test_an_unknown_sweep_is_named(session_home: Path) -> None:
    done = run_module("flows.report", "--sweep", "nobody", home=session_home)
    assert done.returncode == 2 and "'nobody'" in done.stderr.splitlines()[-1]


def test_an_unknown_key_stops_it_before_anything_runs(policy: str, session_home: Path) -> None:
    with pytest.raises(ConfigError, match="rolout"):
        sweep(policy, "never", "cluster.rolout_actors=1")
    done = run_module("flows.sweep", "grpo-vs-sgpo-tiny", 'overrides=["iteration=3"]', home=session_home)
    assert done.returncode == 2 and "iteration" in done.stderr.splitlines()[-1]
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("preset", "overrides", "missing"),
    [
        ("judges-tiny", ["grid.judge=[rule,endpoint]", 'overrides=["judge.model=judge"]'], "SGPO_JUDGE_URL"),
        ("offline-grpo-vs-sgpo-tiny", ['overrides=["responses.source=nowhere.parquet"]'], "nowhere.parquet"),
        ("grpo-vs-sgpo-tiny", ["parallel=1000"], "parallel=1000"),
    ],
)
def test_what_any_run_lacks_stops_it_before_anything_runs(preset: str, overrides: list[str], missing: str) -> None:
    from flows.sweep import check

    with pytest.raises(ConfigError, match=missing):
        check(load_sweep(preset, overrides))
