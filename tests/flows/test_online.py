"""The online flow on real engines: what it keeps, records and refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from sgpo_core.analysis.metrics import METRICS
from sgpo_core.config.base import ConfigError
from sgpo_core.config.run import load_run
from sgpo_core.storage.rollout_table import SCHEMA
from tasks.engines import cluster
from tasks.paths import home
from tasks.preflight import check_resources
from tests.faults.syncs import found_out
from tests.helpers import SMALL, columns, run_module, start_from

AT_EVERY_ITERATION = [
    *(f"group/{n}_frac" for n in ("all_negative", "all_positive", "mixed", "zero_signal")),
    *("reward/outcome_mean", "reward/shaped_mean"),
    *(f"judge/{n}" for n in ("calls", "abstained_frac", "cached_frac", "seconds", "tokens")),
    *(f"rollout/{n}" for n in ("tokens", "length_mean", "truncated_frac", "steps_mean")),
    *(f"time/{n}_s" for n in ("generate", "grade", "judge", "credit", "update", "sync", "iteration")),
]


def run(policy: str, *overrides: str) -> dict[str, Any]:
    from flows.online import online

    return online("tiny", [*SMALL, *start_from(policy), *overrides])


@pytest.fixture(scope="module")
def result(policy: str) -> dict[str, Any]:
    return run(policy, "algorithm=sgpo", "seed=1")


def test_every_iteration_is_kept_and_recorded(result: dict[str, Any]) -> None:
    folder = Path(result["run_dir"])
    client = mlflow.MlflowClient(mlflow_uri(folder))
    for name in AT_EVERY_ITERATION:
        points = client.get_metric_history(result["mlflow_run_id"], name)
        assert sorted(p.step for p in points if p.step > 0) == [1, 2, 3, 4], name
    for name in ("avg_at_k", "pass_at_k", "maj_at_k"):
        points = client.get_metric_history(result["mlflow_run_id"], f"eval/chains/{name}")
        assert sorted(p.step for p in points) == [0, 2, 4]
    for iteration in (1, 2, 3, 4):
        table = pq.read_table(folder / f"iterations/{iteration:06d}/rollouts.parquet")
        assert table.num_rows == 16
        assert table.schema.equals(SCHEMA)
        asked_for = {name for name in SCHEMA.names if table[name].null_count < 16}
        assert {"token_ids", "grade", "step_ends", "advantage"} <= asked_for and "trainer_logprobs" not in asked_for
        assert set(table.column("policy_version").to_pylist()) == {iteration - 1}


def test_the_policy_has_a_card(result: dict[str, Any]) -> None:
    card = ModelCard.load(Path(result["run_dir"]) / "policy" / "README.md")
    score, error = (result["final_metrics"][f"eval/chains/{name}"] for name in ("avg_at_k", "avg_stderr"))
    assert f"| {score:.3f} ± {error:.3f} |" in card.text and result["mlflow_run_id"] in card.text
    assert f"| 4 | {score:.3f} ± {error:.3f} |" in card.text and "tokenizer=tokenizer" in card.text


def test_metrics_are_those_of_the_dictionary(result: dict[str, Any]) -> None:
    names = (re.sub(r"malformed_\w+_frac", "malformed_<reason>_frac", name) for name in result["final_metrics"])
    named = {name for name in names if not name.startswith(("eval/", "time/"))}
    assert len(named) > 20 and named <= set(METRICS)
    assert result["final_metrics"]["policy/sampler_logprob_diff"] < 1e-5


def test_mlflow_run_has_tags_config_versions_and_sample(result: dict[str, Any], tmp_path: Path) -> None:
    client = mlflow.MlflowClient(mlflow_uri(Path(result["run_dir"])))
    found = client.get_run(result["mlflow_run_id"])
    assert found.info.status == "FINISHED"
    assert {"algorithm": "sgpo", "judge": "rule", "seed": "1", "preset": "tiny"}.items() <= found.data.tags.items()
    assert found.data.tags["git_commit"] and "mlflow.parentRunId" not in found.data.tags
    told = found.data.tags["mlflow.note.content"]
    assert "The same run again: `python -m flows.online tiny " in told and "algorithm=sgpo seed=1`\n" in told
    assert found.inputs and [i.dataset.name for i in found.inputs.dataset_inputs] == ["chains", "chains"]
    settings = yaml.safe_load(
        Path(client.download_artifacts(found.info.run_id, "config.yaml", str(tmp_path))).read_text()
    )
    assert settings["algorithm"]["credit"]["beta"] == 10.0
    versions = json.loads(
        Path(client.download_artifacts(found.info.run_id, "environment.json", str(tmp_path))).read_text()
    )
    assert {"torch", "deepspeed", "ray", "prefect", "mlflow"} <= set(versions["packages"])
    sample = mlflow_table(client, found.info.run_id, tmp_path)
    assert {"prompt", "response", "rts", "advantage"} <= set(sample["columns"]) and len(sample["data"]) == 16


def test_checkpoints_are_pruned_and_the_policy_is_published(result: dict[str, Any]) -> None:
    folder = Path(result["run_dir"])
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["000002", "000004"]
    assert (folder / "policy/model.safetensors").read_bytes() == (
        folder / "checkpoints/000004/policy/model.safetensors"
    ).read_bytes()


def test_the_best_checkpoint_is_the_candidate(result: dict[str, Any]) -> None:
    folder = Path(result["run_dir"])
    client = mlflow.MlflowClient(mlflow_uri(folder))
    [version] = client.search_model_versions(f"name = 'sgpo-tiny' and run_id = '{result['mlflow_run_id']}'")
    assert version.tags["run"] == result["run_id"]
    accuracy = {
        iteration: json.loads((folder / f"iterations/{iteration:06d}/metrics.json").read_text())["metrics"][
            "eval/chains/avg_at_k"
        ]
        for iteration in (2, 4)
    }
    best = 2 if accuracy[2] > accuracy[4] else 4
    kept = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.source)) / "model"
    assert (kept / "model.safetensors").read_bytes() == (
        folder / f"checkpoints/{best:06d}/policy/model.safetensors"
    ).read_bytes()
    assert {"config.json", "tokenizer.json"} <= {file.name for file in kept.iterdir()}


def test_complete_run_is_not_run_again(policy: str, result: dict[str, Any]) -> None:
    stamp = (Path(result["run_dir"]) / "iterations/000001/rollouts.parquet").stat().st_mtime_ns
    assert run(policy, "algorithm=sgpo", "seed=1") == result
    assert (Path(result["run_dir"]) / "iterations/000001/rollouts.parquet").stat().st_mtime_ns == stamp


def test_grpo_makes_no_step_without_signal_and_judges_nothing(policy: str) -> None:
    # gamma, beta and the rest of credit are there for both; only the scope differs.
    grpo = run(policy, "algorithm=grpo", "data.seed=5", "data.count=4", "data.columns=6", "data.carry_rate=1.0")
    steps: dict[bool, list[float]] = {True: [], False: []}  # without any signal, with some
    for iteration in (1, 2, 3, 4):
        table = columns(Path(grpo["run_dir"]) / f"iterations/{iteration:06d}/rollouts.parquet")
        assert set(table["verdict_status"]) == {None} and table["shaped_reward"] == table["outcome_reward"]
        record = json.loads((Path(grpo["run_dir"]) / f"iterations/{iteration:06d}/metrics.json").read_text())["metrics"]
        steps[record["group/zero_signal_frac"] == 1.0].append(record["policy/steps"])
    assert steps[True] and set(steps[True]) == {0.0}, "no step where no group has a signal"
    assert 0.0 not in steps[False]


def test_masked_tokens_kl_and_token_units_run_through(policy: str) -> None:
    """mask_after_error spares the tokens from the first wrong step on, or those behind it, counted on the sampled
    tokens."""
    done = run(
        policy,
        "iterations=1",
        "algorithm.credit={scope: all_incorrect, rts_unit: tokens, mask_after_error: true}",
        "algorithm.loss.kl_coef=0.1",
        "train.epochs=2",
    )
    table = columns(Path(done["run_dir"]) / "iterations/000001/rollouts.parquet")
    masked = 0
    for i, mask in enumerate(table["token_credit"]):
        assert len(mask) == len(table["token_ids"][i])
        error = table["first_error_step"][i]
        if table["excluded"][i]:
            assert not any(mask)
        elif error is not None and (table["advantage"][i] > 0 or not all(mask)):
            # A step line is 9 or 10 tokens: "Step i: ", digit, " + ", digit, " + ", digit, " = ", 1-2 digits, newline.
            kept = int(sum(mask))
            assert mask == [1.0] * kept + [0.0] * (len(mask) - kept)
            masked += kept < len(mask)
            assert kept >= 9 * (error - (table["advantage"][i] > 0))
        else:
            assert all(mask)
    assert masked > 0
    assert done["final_metrics"]["policy/steps"] == 4.0  # 2 epochs x 2 mini-batches: with a KL term every group counts
    assert done["final_metrics"]["policy/kl"] >= 0


def test_a_loss_that_is_no_number_ends_the_run_and_names_its_problems(policy: str) -> None:
    """The first step makes weights of 1e35, and the second one's loss is computed from them."""
    with pytest.raises(
        FloatingPointError, match=r"^iteration 1, optimizer step 2 of 2: .* to the problems chains-[\d+]+, chains-"
    ):
        run(policy, "train.lr=1e35", "algorithm.credit.scope=all_incorrect", "experiment=exploding")
    [folder] = (home() / "exploding").glob("tiny-*")
    assert not list((folder / "checkpoints").glob("*")) and (folder / "iterations/000001/rollouts.parquet").is_file()


def test_truncated_and_empty_responses_are_values(policy: str) -> None:
    done = run(policy, "iterations=1", "sampling.max_tokens=1", "sampling.temperature=2.0")
    table = columns(Path(done["run_dir"]) / "iterations/000001/rollouts.parquet")
    assert set(table["grade"]) == {"unparsable"} and done["final_metrics"]["grade/unparsable_frac"] == 1.0
    assert set(table["rts"]) == {0.0}


def test_local_problem_file_with_a_broken_row(policy: str, tmp_path: Path) -> None:
    good = [{"id": str(i), "problem": f"Compute {100000 + i} + 200000.\n", "answer": 300000 + i} for i in range(4)]
    file = tmp_path / "problems.jsonl"
    file.write_text("\n".join([json.dumps(row) for row in good] + ['{"problem": "Compute']))
    with pytest.raises(ConfigError, match=r"line 5.*not JSON"):
        run(policy, "iterations=1", f"data.source={file}")
    done = run(policy, "iterations=1", f"data.source={file}", "data.max_bad_rows=1")
    assert done["final_metrics"]["rollout/tokens"] > 0


def test_bfloat16_passes_its_syncs(policy: str) -> None:
    """Engines and trainer in bfloat16, which work and sleep in turns; a probe's token may differ by a tenth of a nat,
    its mean does not."""
    in_turns = ("cluster.sleep=true", "deepspeed=zero2")
    done = run(policy, "model.dtype=bfloat16", *in_turns, "iterations=2", "algorithm.credit.scope=all_incorrect")
    for iteration in (0, 1, 2):
        record = json.loads((Path(done["run_dir"]) / f"iterations/{iteration:06d}/metrics.json").read_text())["metrics"]
        assert 1e-4 < record["policy/sync_probe_diff"] < 0.15
    (engines,) = cluster._live.values()
    assert engines.turns is not None
    steps = list(found_out(engines, list(range(3, 19)), 0.15))
    assert [name for name, said in steps if "does not hold the trainer's weights" in said] == [
        *("nothing_loaded", "left_out", "layers_swapped", "norm_of_before")
    ]
    assert len(steps) == 6 and all("nats over the probe" in said for _, said in (steps[0], steps[-1]))


def test_a_setting_that_is_not_there_stops_it_before_anything_starts(tmp_path: Path) -> None:
    done = run_module("flows.online", "tiny", "sampling.groupsize=3", home=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert "sampling.group_size" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("sgpo"))


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("tiny", ["model.warm_start=null", "model.path=./missing"], "model.path=./missing"),
        ("7b", [], "8 GPUs"),
    ],
)
def test_what_is_missing_is_named(preset: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_resources(load_run(preset, overrides))


def test_unreachable_mlflow_stops_before_anything_starts(tmp_path: Path) -> None:
    done = run_module("flows.online", "tiny", home=tmp_path, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 2 and "MLFLOW_TRACKING_URI=http://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_every_setting(tmp_path: Path) -> None:
    done = run_module("flows.online", "--help", home=tmp_path)
    assert done.returncode == 0 and "algorithm.credit.beta" in done.stdout


def mlflow_uri(run_dir: Path) -> str:
    return f"sqlite:///{run_dir.parent.parent / 'mlflow.db'}"


def mlflow_table(client: mlflow.MlflowClient, run_id: str, folder: Path) -> dict[str, Any]:
    return dict(json.loads(Path(client.download_artifacts(run_id, "rollouts_sample.json", str(folder))).read_text()))


def test_adapters_are_trained_synced_resumed_and_exported(policy: str) -> None:
    """Two iterations with adapters, whole and in two pieces."""
    with_adapters = ("model.lora.rank=4", "train.lr=1e-3", "checkpoint.every=1", "eval.every=2")
    whole = run(policy, *with_adapters, "iterations=2", "experiment=whole")
    run(policy, *with_adapters, "iterations=1", "experiment=pieces")
    pieces = run(policy, *with_adapters, "iterations=2", "experiment=pieces")
    folder, again = Path(whole["run_dir"]), Path(pieces["run_dir"])
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (folder / "policy" / file).read_bytes() == (again / "policy" / file).read_bytes()
    assert whole["final_metrics"]["policy/sync_probe_diff"] < 1e-4
    before, after = (load_file(path / "model.safetensors") for path in (Path(policy), folder / "policy"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(".self_attn." in name or ".mlp." in name for name in changed)
    state = load_file(folder / "checkpoints/000002/engine/optimizer-00000.safetensors")
    assert all(".lora_" in name for name in state)


def test_damaged_state_is_found_and_done_again(policy: str, result: dict[str, Any]) -> None:
    """The last test here: it damages what the others look at. One bit of the newest checkpoint's optimizer, and another
    iteration's table in place of the last one's: an iteration more ends as if nothing had been."""
    folder = Path(result["run_dir"])
    wanted = pq.read_table(folder / "iterations/000004/rollouts.parquet")
    state = max((folder / "checkpoints/000004/engine").rglob("*.safetensors"), key=lambda file: file.stat().st_size)
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    shutil.copy(folder / "iterations/000003/rollouts.parquet", folder / "iterations/000004/rollouts.parquet")
    longer = run(policy, "algorithm=sgpo", "seed=1", "iterations=5")
    assert longer["run_dir"] == str(folder) and longer["iterations"] == 5
    assert (folder / "checkpoints/.000004.damaged").is_dir()
    assert (folder / "iterations/000004/rollouts.parquet.damaged").is_file()
    assert pq.read_table(folder / "iterations/000004/rollouts.parquet").equals(wanted)


def test_fewer_iterations_than_it_has_are_refused(result: dict[str, Any], policy: str) -> None:
    written = Path(result["run_dir"]) / "result.json"
    aside = written.rename(written.with_suffix(".aside"))  # as if interrupted
    try:
        with pytest.raises(ConfigError, match=r"has a checkpoint of iteration \d, and iterations=3 are fewer: set"):
            run(policy, "algorithm=sgpo", "seed=1", "iterations=3")
    finally:
        aside.rename(written)
