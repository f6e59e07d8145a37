"""Models that are not the embedded policy: an iteration of the online flow with each, and the policy that it leaves."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file

from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import ClusterSettings, DeepSpeedSettings, TrainSettings
from tasks.data import load_tokenizer, stop_ids
from tasks.engines import cluster
from tasks.engines.cluster import Engines, kept_actors, start_trainers
from tasks.engines.guard import sync_folder
from tasks.engines.placement import Seat
from tasks.supervised.lessons import supervised_samples
from tests.helpers import columns, start_from
from tests.small_models import edit_json, save_small_model

CLUSTER, MODEL = ClusterSettings(rollout_actors=1, kv_cache_mib=16, max_num_seqs=16), ModelSettings()
MAX_TOKENS = 24
SMALL = [
    "sampling.problems=4",
    "sampling.group_size=4",
    f"sampling.max_tokens={MAX_TOKENS}",
    "eval.sets.chains.data.count=4",
    "eval.sets.chains.k=2",
    "model.chat_template=true",
    "algorithm=ngrpo",  # under which groups have a signal where all responses are wrong
    "checkpoint.model=''",
]
Run = Callable[..., tuple[dict[str, Any], Engines]]


class Workshop:
    """The engines of all models here, one after the other in the same processes: loading vLLM is what takes time."""

    def __init__(self) -> None:
        self.held: Path | None = None

    def hold(self, folder: Path) -> Engines:
        """Engines that were started with the model of a folder."""

        def start() -> tuple[Any, ...]:
            self.held = folder
            return *cluster._start_rollouts(str(folder), MODEL, CLUSTER, [Seat()]), *start_trainers(CLUSTER)

        def again(worker: Any) -> None:
            del worker.llm
            gc.collect()
            worker.__init__(str(folder), MODEL, CLUSTER)

        rollout, trainer = kept_actors("architectures", start)
        if self.held != folder:
            ray.get(rollout.__ray_call__.remote(again))
        self.held = folder
        return Engines((rollout,), (trainer,), sync_folder(CLUSTER.sync_dir))


@pytest.fixture(scope="module")
def workshop(engines: None) -> Workshop:
    return Workshop()


@pytest.fixture
def run(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run from the model of a folder, on engines that were started with it (or with that of `engines_from`): its
    result, and the engines as it leaves them."""
    from flows.offline import offline
    from flows.online import online

    def running(folder: Path, *overrides: str, engines_from: Path | None = None, recorded: bool = False) -> Any:
        held = workshop.hold(engines_from or folder)
        monkeypatch.setattr(cluster, "_kept", lambda *_, **__: held)
        flow = offline if recorded else online
        return flow("tiny", [*SMALL, *start_from(str(folder)), *overrides]), held

    return running


def logprobs(policy: Path, ids: list[int]) -> np.ndarray:
    """Of all tokens but the first, by transformers, as anybody loads a model."""
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(policy)(torch.tensor([ids])).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


@pytest.mark.parametrize(
    ("architecture", "dtype", "has_head"),
    [
        ("llama-tied", torch.float16, False),
        ("llama-untied", torch.bfloat16, True),
        ("qwen3", torch.float32, False),
        ("gemma2-uncapped", torch.float32, False),  # in vLLM without a head, tied or not
        ("gemma3", torch.float32, False),
        ("phi3", torch.float32, True),  # its fused layers are fused in transformers, too
    ],
)
def test_an_iteration_and_the_policy_that_it_leaves(
    run: Run, tmp_path: Path, architecture: str, dtype: torch.dtype, has_head: bool
) -> None:
    start = save_small_model(tmp_path, architecture, spare_rows=20, dtype=dtype)
    done, engines = run(start, "iterations=1")
    metrics = done["final_metrics"]
    assert metrics["policy/steps"] == 2.0 and metrics["policy/grad_norm"] > 0.1
    assert metrics["policy/sampler_logprob_diff"] < 1e-5 and metrics["policy/sync_probe_diff"] < 1e-5
    assert "eval/chains/avg_at_k" in metrics

    exported = Path(done["run_dir"]) / "policy"
    before, after = load_file(start / "model.safetensors"), load_file(exported / "model.safetensors")
    assert before.keys() == after.keys() and ("lm_head.weight" in after) is has_head
    assert [name for name in after if torch.equal(before[name].float(), after[name])] == [], "all were trained"
    ids = load_tokenizer(str(start)).encode("Compute 284471 + 936979.\nStep 1: 1 + 9 + 0 = 10\n")
    [trained] = engines.on_all_ranks("probe", ids)
    np.testing.assert_allclose(logprobs(exported, ids), trained, atol=2e-6)
    assert np.abs(logprobs(start, ids) - trained).max() > 1e-4, "the comparison sees two steps"


def test_rows_without_a_token_are_sampled_decoded_and_trained_on(run: Run, tmp_path: Path) -> None:
    """Qwen2.5 has such rows. An untrained model samples them as often as others."""
    start = save_small_model(tmp_path, spare_rows=200)
    done, _ = run(start, "algorithm=sgpo-masked", "algorithm.loss.kl_coef=0.1", "iterations=1")
    table = columns(Path(done["run_dir"]) / "iterations/000001/rollouts.parquet")
    tokenizer = load_tokenizer(str(start))
    beyond = [sum(i >= len(tokenizer) for i in ids) for ids in table["token_ids"]]
    assert sum(beyond) > 50 and done["final_metrics"]["policy/steps"] == 2.0
    spelt = [[i for i in ids if i < len(tokenizer)] for ids in table["token_ids"]]
    assert table["response"] == tokenizer.batch_decode(spelt, skip_special_tokens=True)


def test_rows_without_a_token_are_those_of_the_same_tokenizer_offline(run: Run, tmp_path: Path) -> None:
    start = save_small_model(tmp_path, spare_rows=200)
    done, _ = run(start, "data.count=8", "epochs=1", recorded=True)
    assert done["final_metrics"]["policy/steps"] > 0


def test_every_end_that_the_generation_config_names_is_one_and_no_other_run_s(run: Run, tmp_path: Path) -> None:
    """Both runs are on engines that were started with the first model."""
    several, one = (save_small_model(tmp_path / name) for name in ("several", "one"))
    ends = [2, *range(3, 40)]  # of 320 tokens, so that most responses of 24 tokens meet one of them
    edit_json(several / "generation_config.json", eos_token_id=ends)
    for folder, stops in ((several, ends), (one, [2])):
        done, _ = run(folder, "iterations=1", engines_from=several)
        table = columns(Path(done["run_dir"]) / "iterations/000001/rollouts.parquet")
        responses, cut = table["token_ids"], table["truncated"]
        assert cut == [ids[-1] not in stops for ids in responses]
        assert cut == [len(ids) == MAX_TOKENS and ids[-1] not in stops for ids in responses]
        assert not any(i in stops for ids in responses for i in ids[:-1]), "nothing goes on behind an end"
        assert (cut.count(False) > 12) if folder is several else (0 < cut.count(False) < 8)
        assert stop_ids(str(Path(done["run_dir"]) / "policy")) == stops


@pytest.mark.parametrize("architecture", ["llama-tied", "llama-untied"])
def test_sharded_weights_are_trained_the_same(workshop: Workshop, tmp_path: Path, architecture: str) -> None:
    # DeepSpeed leaves tensors of less than 100 000 numbers whole.
    start = str(save_small_model(tmp_path / "start", architecture, spare_rows=2000))
    engines = workshop.hold(workshop.held or tmp_path / "start")  # only the trainer matters
    rows = [([5, 6, 7], [8 + i, 9, 10, 2], [0.25] * 4) for i in range(2)]
    found = []
    for stage in (0, 3):
        sharding = DeepSpeedSettings(zero_stage=stage)
        engines.on_all_ranks("setup", start, MODEL, TrainSettings(lr=1e-3), sharding, False)
        losses = engines.on_all_ranks("supervised", [(1e-3, [supervised_samples(rows)])] * 3)[0]
        assert losses == sorted(losses, reverse=True)
        engines.on_all_ranks("export", str(tmp_path / f"{stage}.safetensors"))
        found.append(load_file(tmp_path / f"{stage}.safetensors"))
    assert found[0].keys() == found[1].keys()
    assert max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0]) < 1e-5
