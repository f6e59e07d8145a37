"""The DeepSpeed ranks: results don't depend on micro-batches, ranks or ZeRO stage, and survive saving and loading."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file

from sgpo_core.chains.policy import save_random_policy
from sgpo_core.config.algorithm import LossSettings
from sgpo_core.config.data import LoraSettings, ModelSettings
from sgpo_core.config.training import ClusterSettings, DeepSpeedSettings, TrainSettings
from sgpo_core.config.warm_start import load_warm_start
from sgpo_core.rl.losses import policy_loss
from sgpo_core.rl.training_samples import TrainingSample, collate, policy_samples
from sgpo_core.types import Credit, Problem, Rollout, RolloutGroup
from tasks.engines.cluster import Engines, kept_actors, start_trainers
from tasks.training import check_finite, token_logprobs, train_on, with_old_logprobs
from tasks.workers import optimizer_state
from tasks.workers.deepspeed_config import deepspeed_config
from tasks.workers.meeting import Meeting
from tasks.workers.policy_model import PolicyModel, load_policy
from tasks.workers.trainer_worker import RankStats, trainer_environment
from tasks.workers.weight_sync import Part, digest
from tasks.workers.weight_transfer import BroadcastTransfer
from tests.small_models import save_small_model

MODEL = ModelSettings(max_length=64)
LOSS = LossSettings(kl_coef=0.01)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("policy")
    save_random_policy(load_warm_start("tiny", ["hidden_size=64", "heads=2"]), folder)
    return str(folder)


@pytest.fixture(scope="module")
def ranks(engines: None) -> Iterator[dict[int, Engines]]:
    """Trainers of one, two and four ranks, side by side."""

    def started(n: int) -> tuple[Any, ...]:
        clusters = ClusterSettings(trainer_ranks=n, trainer_threads=1)
        return kept_actors(f"{n} ranks of this test", lambda: start_trainers(clusters))

    sets = {n: started(n) for n in (1, 2, 4)}
    yield {n: Engines((), trainers, Path()) for n, trainers in sets.items()}
    for actor in itertools.chain.from_iterable(sets.values()):
        ray.kill(actor)


def samples(count: int, seed: int, old_logprobs: Literal["sampler", "trainer"] = "sampler") -> list[TrainingSample]:
    """Responses of very different lengths, so that two ranks get unequal numbers of micro-batches."""
    rng = random.Random(seed)
    lengths = [rng.choice([3, 5, 40]) for _ in range(count)]
    # Every second one answers the prompt of the one before it.
    own = [[rng.randrange(2, 20) for _ in range(4)] for _ in lengths]
    prompts = [own[i - i % 2] for i in range(count)]
    tokens = [[rng.randrange(2, 20) for _ in range(n)] for n in lengths]
    logprobs = [[-rng.uniform(2.5, 3.5) for _ in range(n)] for n in lengths]
    advantages = [rng.uniform(-2, 2) for _ in lengths]
    shares = [[float(rng.random() > 0.1) for _ in range(n)] for n in lengths]
    members = []
    for prompt, ids, old, advantage, share in zip(prompts, tokens, logprobs, advantages, shares, strict=True):
        credit = Credit(0.0, advantage=advantage, token_credit=np.asarray(share, np.float32))
        response = Rollout(0, "", False, np.asarray(ids, np.int32), np.asarray(old, np.float32), credit=credit)
        group = RolloutGroup(0, Problem("", "", ""), np.asarray(prompt, np.int32), (response,))
        members.append((group, response))
    return policy_samples(members, LossSettings(mean="sequence", old_logprobs=old_logprobs), max_length=40)


def train(engines: Engines, start: str, tmp_path: Path, budget: int, stage: int, clip: float = 1.0) -> dict[str, Any]:
    """Two optimizer steps from the initial policy; the weights and the stats."""
    settings = TrainSettings(lr=1e-3, grad_clip=clip)
    engines.on_all_ranks("setup", start, MODEL, settings, DeepSpeedSettings(zero_stage=stage), True)
    stats = train_on(engines, [samples(5, 1), samples(8, 2)], budget, LOSS, temperature=0.9)
    path = tmp_path / f"{len(engines.trainers)}-{budget}-{stage}-{clip}.safetensors"
    engines.on_all_ranks("export", str(path))
    return {"weights": load_file(path), "stats": stats}


def difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    return max(float((a["weights"][k] - b["weights"][k]).abs().max()) for k in a["weights"])


def one_by_one(lm: Any, samples: Sequence[TrainingSample], temperature: float) -> torch.Tensor:
    """Log-probabilities of all response tokens, with neither padding nor packing."""
    found = []
    for sample in samples:
        ids = torch.from_numpy(sample.input_ids.astype(np.int64))
        logits = lm(ids[None], use_cache=False).logits[0, sample.prompt_length - 1 : -1] / temperature
        found.append(torch.log_softmax(logits, -1).gather(-1, ids[sample.prompt_length :, None])[:, 0])
    return torch.cat(found)


def test_a_rank_that_shares_its_gpu_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    shared = trainer_environment(8, on_gpu=True, share=0.6)["PYTORCH_CUDA_ALLOC_CONF"]
    assert shared == "expandable_segments:True,per_process_memory_fraction:0.6"
    assert "PYTORCH_CUDA_ALLOC_CONF" not in trainer_environment(8, on_gpu=True)  # the user's own stands


def test_one_rank_equals_a_plain_torch_loop(ranks: dict[int, Engines], start: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    policy, reference = (AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32) for _ in range(2))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)
    norms = []
    for step in (samples(5, 1), samples(8, 2)):
        batch = collate(step)
        logprobs = one_by_one(policy, step, 0.9)
        with torch.no_grad():
            reference_logprobs = one_by_one(reference, step, 0.9)
        terms = policy_loss(
            logprobs,
            batch.sampler_logprobs,
            batch.advantages,
            batch.weights,
            kl_coef=0.01,
            reference_logprobs=reference_logprobs,
        )
        optimizer.zero_grad()
        terms.loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)))
        optimizer.step()
    ours = train(ranks[1], start, tmp_path, budget=10_000, stage=0)
    plain = dict(policy.named_parameters())
    # Adam makes steps of lr of the smallest gradients, too, whose rounding differs: a hundredth of a step.
    assert max(float((ours["weights"][k] - plain[k].detach()).abs().max()) for k in ours["weights"]) < 1e-5
    assert [s.grad_norm for s in ours["stats"]] == pytest.approx(norms, rel=1e-4)


def test_split_ranks_and_zero_stage_change_nothing(ranks: dict[int, Engines], start: str, tmp_path: Path) -> None:
    whole = train(ranks[1], start, tmp_path, budget=10_000, stage=0)
    variants = {
        "micro-batches": train(ranks[1], start, tmp_path, budget=50, stage=0),
        **{
            f"2 ranks, ZeRO {stage}": train(ranks[2], start, tmp_path, budget=50, stage=stage) for stage in (0, 1, 2, 3)
        },
    }
    for name, variant in variants.items():
        assert difference(whole, variant) < 1e-5, name
        for ours, theirs in zip(variant["stats"], whole["stats"], strict=True):
            assert ours.loss == pytest.approx(theirs.loss, abs=1e-6), name
            assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-3), name
            assert (ours.tokens, ours.clipped) == (theirs.tokens, theirs.clipped), name


@pytest.mark.parametrize(("world", "stage"), [(1, 0), (2, 3)])
def test_old_log_probabilities_are_the_trainer_s_from_before_the_update(
    ranks: dict[int, Engines], start: str, tmp_path: Path, world: int, stage: int
) -> None:
    """Three steps, the last with the first one's responses again, against those whose old log-probabilities were all
    computed before the first step by a plain forward pass."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    loss = LossSettings(old_logprobs="trainer", tis_cap=1.05)
    steps = [samples(5, 1, "trainer"), samples(8, 2, "trainer"), samples(5, 1, "trainer")]
    with torch.no_grad():
        known = [[replace(s, old_logprobs=one_by_one(lm, [s], 0.9).numpy()) for s in step] for step in steps]
    found = []
    for given in (known, steps):
        settings = TrainSettings(lr=1e-3)
        ranks[world].on_all_ranks("setup", start, MODEL, settings, DeepSpeedSettings(zero_stage=stage), False)
        given = with_old_logprobs(ranks[world], given, 50, 0.9)
        stats = train_on(ranks[world], given, 50, loss, temperature=0.9)
        path = tmp_path / f"{len(found)}.safetensors"
        ranks[world].on_all_ranks("export", str(path))
        found.append({"weights": load_file(path), "stats": stats})
    assert difference(*found) < 1e-5
    for ours, expected in zip(*(result["stats"] for result in found), strict=True):
        assert ours.loss == pytest.approx(expected.loss, abs=1e-6)
        assert ours.logprob_difference == pytest.approx(expected.logprob_difference, rel=1e-4)
    assert found[0]["stats"][1].clipped == found[1]["stats"][1].clipped


def test_importance_weights_by_hand(ranks: dict[int, Engines], start: str) -> None:
    """In the first step every ratio is 1, so that its loss is -sum of weight x advantage x truncated importance."""
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    step, cap = samples(8, 2, "trainer"), 1.05
    with torch.no_grad():
        trainer = one_by_one(lm, step, 1.0).double()
    batch = collate(step)
    importance = torch.exp(trainer - batch.sampler_logprobs.double()).clamp(max=cap)
    assert 0 < (importance == cap).sum() < len(importance)
    expected = -(batch.weights.double() * batch.advantages.double() * importance).sum()
    ranks[1].on_all_ranks("setup", start, MODEL, TrainSettings(lr=1e-3), DeepSpeedSettings(zero_stage=0), False)
    loss = LossSettings(old_logprobs="trainer", tis_cap=cap)
    (stats,) = train_on(ranks[1], [step], 50, loss, temperature=1.0)
    assert stats.loss == pytest.approx(float(expected), rel=1e-5)
    assert stats.clipped == 0


def loaded_whole(_: Any, folder: str, model: ModelSettings) -> dict[str, bool]:
    """Runs in a rank: whether each parameter is held whole, right after loading."""
    from transformers.integrations import HfDeepSpeedConfig

    settings, sharding = TrainSettings(), DeepSpeedSettings(zero_stage=3)
    config = HfDeepSpeedConfig(deepspeed_config(model, settings, sharding))
    lm = load_policy(folder, model.dtype, False)
    del config
    return {name: p.numel() > 0 for name, p in lm.named_parameters()}


@pytest.mark.parametrize("architecture", ["llama-tied", "llama-untied"])
def test_under_zero_3_a_model_is_loaded_in_shards(ranks: dict[int, Engines], tmp_path: Path, architecture: str) -> None:
    save_small_model(tmp_path, architecture)
    engines, model = ranks[2], ModelSettings(max_length=64)
    whole = ray.get([rank.__ray_call__.remote(loaded_whole, str(tmp_path), model) for rank in engines.trainers])
    assert all(not any(found.values()) for found in whole), whole
    engines.on_all_ranks("setup", str(tmp_path), model, TrainSettings(), DeepSpeedSettings(zero_stage=3), False)
    engines.on_all_ranks("export", str(tmp_path / "out.safetensors"))
    before, after = load_file(tmp_path / "model.safetensors"), load_file(tmp_path / "out.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def state(worker: Any) -> dict[str, torch.Tensor]:
    """Runs in a rank: weights and AdamW's moments of every trained parameter, float32, whole."""
    return optimizer_state.whole_state(worker.engine)


def states(engines: Engines) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = ray.get([rank.__ray_call__.remote(state) for rank in engines.trainers])[0]
    return found


def test_weights_in_shards_are_broadcast_one_by_one(
    ranks: dict[int, Engines], start: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # the receiver is this process
    transfer = BroadcastTransfer(Meeting(2, file=str(tmp_path / "meeting")), 60.0)
    weights = load_file(Path(start) / "model.safetensors")
    layout = {name: (Part(name),) for name in weights}
    ranks[2].on_all_ranks("setup", start, MODEL, TrainSettings(), DeepSpeedSettings(zero_stage=3), False)
    sending = [rank.send_weights.remote(transfer, [layout]) for rank in ranks[2].trainers]
    received = dict(transfer.receive(1, torch.device("cpu")))
    assert {name: digest(tensor) for name, tensor in received.items()} == {n: digest(t) for n, t in weights.items()}
    assert ranks[2].of_ranks(sending) == [({name: digest(tensor) for name, tensor in weights.items()},), ()]


@pytest.mark.parametrize(("world", "stage", "spare_memory"), [(1, 0, False), (2, 3, False), (2, 3, True)])
def test_in_bfloat16_gradients_are_added_up_in_float32(
    ranks: dict[int, Engines], start: str, world: int, stage: int, spare_memory: bool
) -> None:
    """Of 600 responses in micro-batches of 50 tokens, against one float32 batch in plain torch: a relative error of the
    whole gradient of 0.64 %, by the rounding of products. Added up in bfloat16 it is 1.0 % (ZeRO-2 and -3) or 1.2 %
    (ZeRO-1)."""
    from transformers import AutoModelForCausalLM

    step = samples(600, 1)
    lm = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    batch = collate(step)
    terms = policy_loss(one_by_one(lm, step, 1.0), batch.sampler_logprobs, batch.advantages, batch.weights)
    terms.loss.backward()
    exact = {f"exp_avg/{name}": p.grad for name, p in lm.named_parameters()}

    model, settings = (
        ModelSettings(max_length=64, dtype="bfloat16"),
        TrainSettings(lr=1e-9, grad_clip=0, betas=(0.5, 0.9), gradient_checkpointing=spare_memory),
    )
    engines = ranks[world]
    sharding = DeepSpeedSettings(zero_stage=stage, offload_optimizer=spare_memory)  # type: ignore[arg-type]
    engines.on_all_ranks("setup", start, model, settings, sharding, False)
    (stats,) = train_on(engines, [step], 50, LossSettings(), temperature=1.0)
    moments = states(engines)
    squares = [((moments[name] / 0.5 - exact[name]) ** 2).sum() for name in exact]
    norm = torch.stack([g.pow(2).sum() for g in exact.values()]).sum().sqrt()
    assert float(torch.stack(squares).sum().sqrt() / norm) < 0.008
    assert stats.grad_norm == pytest.approx(float(norm), rel=0.01)


@pytest.mark.parametrize(
    ("world", "stage", "dtype", "adapters", "offload"),
    [
        (1, 0, "float32", 0, False),
        (2, 1, "float32", 0, False),
        (2, 2, "bfloat16", 4, False),
        (2, 2, "bfloat16", 0, True),
    ],
)
def test_a_rank_that_has_slept_goes_on_as_if_it_had_not(
    ranks: dict[int, Engines], start: str, world: int, stage: int, dtype: str, adapters: int, offload: bool
) -> None:
    lora = LoraSettings(rank=adapters) if adapters else LoraSettings()
    model, train = ModelSettings(max_length=64, dtype=dtype, lora=lora), TrainSettings(lr=1e-3)  # type: ignore[arg-type]
    sharding, engines = DeepSpeedSettings(zero_stage=stage, offload_optimizer=offload), ranks[world]  # type: ignore[arg-type]

    def moved_away(rank: Any) -> bool:
        return "lp_params" in {state.value for state in rank.engine.optimizer.offloaded_states}

    def trained(sleeps: bool) -> tuple[list[RankStats], dict[str, torch.Tensor]]:
        engines.on_all_ranks("setup", start, model, train, sharding, True)
        stats = []
        for seed in (1, 2):
            stats += train_on(engines, [samples(6, seed)], 60, LOSS, 1.0)
            if sleeps:
                engines.on_all_ranks("sleep")
                if stage:  # on the CPU nothing moves, but DeepSpeed notes what has
                    assert all(ray.get([rank.__ray_call__.remote(moved_away) for rank in engines.trainers]))
                engines.on_all_ranks("sleep")
                engines.on_all_ranks("wake")
        return stats, states(engines)

    (stats, expected), (found_stats, found) = trained(False), trained(True)
    assert found_stats == stats and found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("world", "stage", "dtype"), [(1, 0, "float32"), (2, 3, "bfloat16")])
def test_a_loss_that_is_no_number_is_named(
    ranks: dict[int, Engines], start: str, world: int, stage: int, dtype: str
) -> None:
    model, sharding = ModelSettings(max_length=64, dtype=dtype), DeepSpeedSettings(zero_stage=stage)  # type: ignore[arg-type]
    engines, whole = ranks[world], samples(4, 1)
    engines.on_all_ranks("setup", start, model, TrainSettings(), sharding, False)
    broken = replace(whole[0], advantages=np.full_like(whole[0].advantages, np.nan))
    stats = train_on(engines, [whole, [broken, *whole[1:]]], 50, LossSettings(), temperature=1.0)
    of_steps = [["a"], [f"p{i}" for i in range(9)]]
    said = r"^iteration 7, optimizer step 2 of 2: .* in x/rollouts\.parquet; .* problems p0, .*, p7 and 1 more\. Lower"
    with pytest.raises(FloatingPointError, match=said):
        check_finite(stats, of_steps, "iteration 7", Path("x/rollouts.parquet"))
    check_finite(stats[:1], of_steps[:1], "iteration 7", Path("x"))


Layout = tuple[int, int, bool]  # ranks, ZeRO stage, optimizer in host memory


@pytest.mark.parametrize(
    ("dtype", "saved", "loaded"),
    [
        ("float32", (1, 0, False), [(1, 0, False), (2, 1, False), (4, 3, False)]),
        ("float32", (2, 3, False), [(2, 3, False), (1, 0, False), (4, 2, False)]),
        ("bfloat16", (2, 3, False), [(2, 3, False), (1, 0, False), (4, 1, False), (4, 3, False)]),
        ("bfloat16", (2, 3, True), [(2, 3, True), (1, 0, False)]),
    ],
)
def test_saved_in_one_layout_it_goes_on_in_any(
    ranks: dict[int, Engines], start: str, tmp_path: Path, dtype: str, saved: Layout, loaded: list[Layout]
) -> None:
    """In the same layout to the bit; in another, and with the optimizer in host memory, the state is the same to the
    bit, and the next step to rounding."""
    model, settings, folder = ModelSettings(max_length=64, dtype=dtype), TrainSettings(lr=1e-3), tmp_path / "state"  # type: ignore[arg-type]

    def set_up(layout: Layout) -> Engines:
        engines = ranks[layout[0]]
        sharding = DeepSpeedSettings(zero_stage=layout[1], offload_optimizer=layout[2])  # type: ignore[arg-type]
        engines.on_all_ranks("setup", start, model, settings, sharding, False)
        return engines

    def after_another_step(engines: Engines) -> tuple[float, dict[str, torch.Tensor]]:
        (stats,) = train_on(engines, [samples(6, 3)], 60, LossSettings(), 1.0)
        return stats.loss, states(engines)

    engines = set_up(saved)
    train_on(engines, [samples(6, 1), samples(6, 2)], 60, LossSettings(), 1.0)
    engines.on_all_ranks("save", str(folder))
    expected = states(engines)
    assert any(float(tensor.abs().max()) > 0 for name, tensor in expected.items() if name.startswith("exp_avg_sq/"))
    loss, further = after_another_step(engines)
    for layout in loaded:
        engines = set_up(layout)
        engines.on_all_ranks("load", str(folder))
        found = states(engines)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected), layout
        next_loss, found = after_another_step(engines)
        assert next_loss == pytest.approx(loss, abs=1e-6 if dtype == "float32" else 2e-3), layout
        for name, tensor in further.items():
            if layout == saved and layout[2]:  # DeepSpeed's Adam computes powers of betas in another way after a start
                assert float((found[name] - tensor).abs().max()) < 1e-6, name  # a thousandth of a step
            elif layout == saved:
                assert torch.equal(found[name], tensor), name
            elif dtype == "float32" and name.startswith("weight/"):
                assert float((found[name] - tensor).abs().max()) < 1e-5, (layout, name)


@pytest.mark.parametrize(("world", "stage"), [(1, 0), (2, 3)])
def test_adapters_learn_as_in_a_plain_peft_loop(
    ranks: dict[int, Engines], start: str, tmp_path: Path, world: int, stage: int
) -> None:
    """Merged weights after two steps, against peft's own model and its own way to merge; and the adapters alone, which
    peft reads."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = ModelSettings(path=start, max_length=64, lora=LoraSettings(rank=4, alpha=8))
    train, steps = TrainSettings(lr=1e-2, grad_clip=0), [samples(5, 1), samples(8, 2)]
    engines = ranks[world]
    engines.on_all_ranks("setup", start, model, train, DeepSpeedSettings(zero_stage=stage), False)  # type: ignore[arg-type]
    engines.on_all_ranks("export_adapter", str(tmp_path / "before"))
    train_on(engines, steps, 50, LossSettings(), temperature=1.0)
    engines.on_all_ranks("export", str(tmp_path / "model.safetensors"))
    engines.on_all_ranks("export_adapter", str(tmp_path / "adapter"))
    ours = load_file(tmp_path / "model.safetensors")

    def plain() -> Any:
        return AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)

    peft = PeftModel.from_pretrained(plain(), str(tmp_path / "before"), is_trainable=True)
    optimizer = torch.optim.AdamW(
        [p for p in peft.parameters() if p.requires_grad], lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0
    )
    for step in steps:
        batch = collate(step)
        terms = policy_loss(one_by_one(peft, step, 1.0), batch.sampler_logprobs, batch.advantages, batch.weights)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
    theirs = dict(peft.merge_and_unload().named_parameters())
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name].detach()).abs().max()) for name in ours) < 1e-5
    alone = dict(PeftModel.from_pretrained(plain(), str(tmp_path / "adapter")).merge_and_unload().named_parameters())
    assert all(torch.allclose(ours[name], alone[name], atol=1e-6) for name in ours)
    one, initial = "model.layers.0.mlp.up_proj.weight", load_file(f"{start}/model.safetensors")
    assert float((ours[one] - initial[one]).abs().max()) > 1e-3


def test_the_state_of_another_model_is_refused(ranks: dict[int, Engines], start: str, tmp_path: Path) -> None:
    save_small_model(tmp_path / "other", "llama-tied")
    arguments = MODEL, TrainSettings(), DeepSpeedSettings(), False
    ranks[1].on_all_ranks("setup", str(tmp_path / "other"), *arguments)
    ranks[1].on_all_ranks("save", str(tmp_path / "state"))
    ranks[1].on_all_ranks("setup", start, *arguments)
    with pytest.raises(ray.exceptions.RayTaskError, match="holds the state of another model"):
        ranks[1].on_all_ranks("load", str(tmp_path / "state"))


@pytest.mark.parametrize(("world", "budget"), [(1, 10_000), (2, 50)])
def test_scores_are_the_model_s_own_in_the_order_of_the_samples(
    ranks: dict[int, Engines], start: str, world: int, budget: int
) -> None:
    from transformers import AutoModelForCausalLM

    ranks[world].on_all_ranks("setup", start, MODEL, TrainSettings(), DeepSpeedSettings(zero_stage=world - 1), False)
    asked = samples(9, 4)
    scores = token_logprobs(ranks[world], asked, budget, temperature=0.8)
    model = PolicyModel(AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32))
    for sample, found in zip(asked, scores, strict=True):
        expected = model(collate([sample]), 0.8)
        np.testing.assert_allclose(found.logprobs, expected[0].detach().numpy(), atol=2e-6)
        np.testing.assert_allclose(found.entropies, expected[1].numpy(), atol=2e-6)


def test_a_response_does_not_see_the_others(start: str) -> None:
    from transformers import AutoModelForCausalLM

    model = PolicyModel(AutoModelForCausalLM.from_pretrained(start, dtype=torch.float64))
    together = model(collate(samples(6, 3)))[0]
    alone: Sequence[Any] = [model(collate([row]))[0] for row in samples(6, 3)]
    np.testing.assert_allclose(together.detach().numpy(), torch.cat(list(alone)).detach().numpy(), atol=2e-6)
