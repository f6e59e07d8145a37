"""What was kept for later and was damaged since is found when it is to be used, put aside, and made again."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import load_offline
from sgpo_core.config.run import load_run
from sgpo_core.config.warm_start import load_warm_start
from sgpo_core.offline.store import shard_path, write_shard
from sgpo_core.storage.atomic import write_json
from sgpo_core.storage.digests import seal
from sgpo_core.storage.run_dir import RunPaths
from sgpo_core.types import Problem
from tasks import checkpointing
from tasks.benchmarks import evaluate
from tasks.models.folders import model_folder
from tasks.offline import prepare
from tasks.supervised.loop import SavedState
from tasks.supervised.warm_start import kept
from tasks.tracking.policies import resolve
from tasks.workers.rollout_worker import Completion
from tests.small_models import save_small_model


def turn_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def said(caplog: pytest.LogCaptureFixture, *words: str) -> bool:
    return all(word in caplog.text for word in (*words, "is not what was written", "made again"))


def test_a_shard_of_a_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = tmp_path / "graded"

    def fill() -> list[int]:
        made: list[int] = []
        prepare._fill(stage, 3, lambda n: pa.table({"grade": [f"{made.append(n)} {n}"]}), "grading")
        return sorted(made)

    assert fill() == [0, 1, 2] and fill() == []
    before = shard_path(stage, 1).read_bytes()
    turn_a_bit(shard_path(stage, 1))
    assert fill() == [1] and shard_path(stage, 1).read_bytes() == before
    assert said(caplog, "000001.arrow") and (stage / ".000001.arrow.damaged").exists()
    assert fill() == []


def test_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    rows = [f'{{"problem_id": "p{i}", "prompt": "1 + {i}", "answer": "2", "response": "It is 2."}}' for i in range(9)]
    (tmp_path / "answers.jsonl").write_text("\n".join(rows))
    config = load_offline("tiny", [f"responses.source={tmp_path / 'answers.jsonl'}"])
    policy = str(save_small_model(tmp_path / "policy"))
    imported = prepare.import_source.fn(config, policy)
    shard = shard_path(imported, 0)
    before, inode = shard.read_bytes(), imported.stat().st_ino
    assert prepare.import_source.fn(config, policy).stat().st_ino == inode, "imported once"
    turn_a_bit(shard)
    assert prepare.import_source.fn(config, policy) == imported and shard.read_bytes() == before
    assert said(caplog, "000000.arrow") and (imported.parent / ".imported.damaged").is_dir()


def test_a_warm_start_or_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    result = kept(load_warm_start("tiny"))

    class Ranks:
        """They write weights as real ones do; everything else of a result is real."""

        def on_all_ranks(self, method: str, file: str) -> None:
            if method == "export":
                Path(file).write_bytes((policy / "model.safetensors").read_bytes())

    policy = save_small_model(tmp_path / "policy")
    tracker: Any = SimpleNamespace(run_id="1", finish=lambda: None)
    result.publish(Ranks(), str(policy), tracker, {"gate": 1.0})  # type: ignore[arg-type]
    assert result.result() is not None
    turn_a_bit(result.folder / "model.safetensors")
    assert result.result() is None, "as if it had never been made"
    assert said(caplog, "model.safetensors") and result.folder.with_name(f".{result.folder.name}.damaged").is_dir()


def test_the_state_of_an_interrupted_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded: list[str] = []

    class Ranks:
        def on_all_ranks(self, method: str, folder: str) -> None:
            if method == "load":
                loaded.append(folder)
            else:
                Path(folder).mkdir()
                (Path(folder) / "state.json").write_text("{}")
                (Path(folder) / "optimizer-00000.safetensors").write_bytes(bytes(1000))

    ranks: Any = Ranks()
    state = SavedState(tmp_path / "state")
    state.save(ranks, 7)
    assert state.load(ranks) == 7 and len(loaded) == 1
    turn_a_bit(state.folder / "engine/optimizer-00000.safetensors")
    assert state.load(ranks) == 0 and len(loaded) == 1
    assert said(caplog, "optimizer-00000.safetensors")


def test_generations_of_an_evaluation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    problems = [Problem(f"p{i}", "1 + 1?", "2") for i in range(3)]
    job = evaluate.Job.__new__(evaluate.Job)
    job.folder, job.problems = tmp_path, problems
    tokenizer = SimpleNamespace(batch_decode=lambda sequences, **_: ["\\boxed{2}" for _ in sequences])
    response = Completion(np.array([1, 2], np.int32), np.zeros(0, np.float32), False)
    for number in range(3):
        evaluate.write_part(job, [(number, [response])], [[0]] * 3, tokenizer)
    assert job.generated() == {0, 1, 2} and job.is_generated()
    turn_a_bit(job.parts()[1])
    assert job.generated() == {0, 2} and not job.is_generated()
    assert said(caplog, "000001.parquet") and [part.name for part in job.parts()] == [
        "000000.parquet",
        "000002.parquet",
    ]
    evaluate.write_part(job, [(1, [response])], [[0]] * 3, tokenizer)
    assert job.is_generated()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_policy_of_ours_wherever_it_was_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    policy = save_small_model(tmp_path / "sgpo/a-run/checkpoints/000002/policy")
    seal(policy)
    copy = shutil.copytree(policy, tmp_path / "copy")
    (copy / "README.md").write_text("A card is written later.")
    assert model_folder("model.path", str(copy)) == copy and resolve("a-run").folder == str(policy)
    turn_a_bit(copy / name)
    turn_a_bit(policy / name)
    with pytest.raises(ConfigError, match=rf"model\.path=.*{name} is not what was written .* remove digests\.json"):
        model_folder("model.path", str(copy))
    for policy_name in ("a-run", str(copy)):
        with pytest.raises(ConfigError, match=rf"POLICY={policy_name}: {name} is not what was written"):
            resolve(policy_name)


def test_a_damaged_checkpoint_is_not_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    paths, registered = RunPaths(tmp_path), list[Path]()
    for iteration, accuracy in ((2, 0.9), (4, 0.5)):
        seal(save_small_model(paths.checkpoint(iteration) / "policy"))
        write_json(paths.metrics(iteration), {"metrics": {"eval/chains/avg_at_k": accuracy}})
    config = load_run("tiny", [])
    run: Any = SimpleNamespace(paths=paths, config=config, tracker=SimpleNamespace(run_id="1"))
    monkeypatch.setattr(checkpointing, "get_run_logger", lambda: logging.getLogger("sgpo.test"))
    monkeypatch.setattr(checkpointing, "register", lambda model, folder, *_, **__: registered.append(folder))
    checkpointing.register_best(run)
    turn_a_bit(paths.checkpoint(2) / "policy/model.safetensors")
    checkpointing.register_best(run)
    assert registered == [paths.checkpoint(2) / "policy", paths.checkpoint(4) / "policy"]
    assert "000002: model.safetensors is not what was written" in caplog.text


def test_what_an_earlier_version_has_written_counts(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, pa.table({"grade": ["correct"]}))
    (tmp_path / ".000000.arrow.digests").unlink()
    turn_a_bit(shard_path(tmp_path, 0))
    assert prepare._missing(tmp_path, 1) == []
