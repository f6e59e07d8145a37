"""Memory by arithmetic against torch's own account of fake tensors, and against sums derived by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM, Qwen2Config

from sgpo_core.config.data import LoraSettings, ModelSettings
from sgpo_core.config.training import DeepSpeedSettings, TrainSettings
from sgpo_core.rl.packing import Layout, Responses, Shared
from sgpo_core.rl.training_samples import MicroBatch, collate, forward_sample
from sgpo_core.sizing.memory import GIB, activation_bytes, engine_memory, kv_sequences, trainer_memory
from sgpo_core.sizing.shapes import KNOWN, ModelShape
from tasks.workers.policy_model import PolicyModel

SEVEN = KNOWN["Qwen/Qwen2.5-7B-Instruct"]
BF16 = ModelSettings(dtype="bfloat16")


def fake_peak(shape: ModelShape, lengths: Sequence[int], checkpointing: bool) -> tuple[int, float]:
    """Tokens of a group of responses of these lengths behind a prompt of 200, and the most that the trainer's forward
    and backward pass hold of it beside the weights, bytes; every parameter's gradient leaves at once."""
    config = Qwen2Config(**shape.config(), max_position_embeddings=32768)
    ids = np.random.default_rng(0).integers(0, 1000, 200 + sum(lengths))
    batch = collate([forward_sample(ids[:200], part) for part in np.split(ids[200:], np.cumsum(lengths)[:-1])])
    with FakeTensorMode() as mode:
        lm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        if checkpointing:
            lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model = PolicyModel(lm.train())
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        tracker = MemTracker()
        tracker.track_external(model)
        with tracker:
            model(faked(batch, mode), 1.0)[0].sum().backward()
    parts = [sizes for device in tracker.get_tracker_snapshot("peak").values() for sizes in device.items()]
    of = {str(kind).rpartition(".")[2]: size for kind, size in parts}
    return batch.input_ids.numel(), float(of["Total"] - of["PARAM"])


def faked(batch: MicroBatch, mode: FakeTensorMode) -> MicroBatch:
    def fake(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return mode.from_tensor(value)
        if isinstance(value, tuple):
            return tuple(fake(part) for part in value)
        if isinstance(value, Layout | Shared | Responses | MicroBatch):
            return replace(value, **{name: fake(getattr(value, name)) for name in value.__slots__})
        return value

    return fake(batch)


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", [800] * 4),
        ("Qwen/Qwen2.5-7B-Instruct", [800] * 4),
        ("Qwen/Qwen2.5-7B-Instruct", [3000] + [300] * 7),
        ("Qwen/Qwen2.5-14B-Instruct", [800] * 4),
        ("Qwen/Qwen2.5-32B-Instruct", [800] * 4),
    ],
)
def test_activations_are_those_of_torchs_account(name: str, lengths: list[int], checkpointing: bool) -> None:
    """Widths of real models, with fewer layers: they are all alike. Within 15 %, also where one response is much longer
    than the others."""
    shape = replace(KNOWN[name], layers=6)
    tokens, peak = fake_peak(shape, lengths, checkpointing)
    train = TrainSettings(micro_batch_tokens=tokens, gradient_checkpointing=checkpointing)
    assert activation_bytes(shape, train, 2) == pytest.approx(peak, rel=0.15)


def test_a_rank_of_four_with_everything_sharded() -> None:
    """N parameters in bfloat16, ZeRO-3 over 4 ranks: N / 4 of 2 bytes of weights, 4 of gradients, 12 of optimizer; 10^9
    parameters gathered, and a bucket of 5 x 10^8 gradients in bfloat16 and float32."""
    parts = trainer_memory(SEVEN, BF16, TrainSettings(), DeepSpeedSettings(zero_stage=3), 4)
    quarter = SEVEN.parameters / 4 / GIB
    assert parts["weights"] == pytest.approx(2 * quarter)
    assert parts["gradients"] == pytest.approx(4 * quarter)
    assert parts["optimizer"] == pytest.approx(12 * quarter)
    assert parts["gathered weights"] == pytest.approx(2e9 / GIB)
    assert parts["gradients on their way"] == pytest.approx(6 * 5e8 / GIB)


def test_less_is_sharded_at_lower_stages() -> None:
    n = SEVEN.parameters / GIB
    parts = [trainer_memory(SEVEN, BF16, TrainSettings(), DeepSpeedSettings(zero_stage=s), 2) for s in (0, 1, 2)]  # type: ignore[arg-type]
    found = [tuple(round(p[name] / n, 6) for name in ("weights", "gradients", "optimizer")) for p in parts]
    assert found == [(2, 4, 6), (2, 4, 6), (2, 2, 6)], "in bfloat16 stage 0 runs as stage 1"
    alone = trainer_memory(SEVEN, ModelSettings(), TrainSettings(), DeepSpeedSettings(), 1)
    assert [round(alone[name] / n, 6) for name in ("weights", "gradients", "optimizer")] == [4, 4, 8]
    assert "gradients on their way" not in alone


def test_a_reference_is_whole_in_every_rank() -> None:
    parts = trainer_memory(SEVEN, BF16, TrainSettings(), DeepSpeedSettings(zero_stage=3), 4, with_reference=True)
    assert parts["KL reference"] == pytest.approx(2 * SEVEN.parameters / GIB)


def test_beside_adapters_the_model_has_neither_gradients_nor_optimizer() -> None:
    """Of rank 32, beside the seven linear layers of each of 28: queries and output 3584 + 3584, keys and values
    3584 + 512, three of 3584 + 18944: 28 x 32 x (2 x 7168 + 2 x 4096 + 3 x 22528) = 80,740,352."""
    assert SEVEN.trained(32) == 80_740_352 and SEVEN.trained(0) == SEVEN.parameters
    model = ModelSettings(dtype="bfloat16", lora=LoraSettings(rank=32))
    parts = trainer_memory(SEVEN, model, TrainSettings(), DeepSpeedSettings(), 1)
    adapters = 80_740_352 / GIB
    assert parts["weights"] == pytest.approx(2 * SEVEN.parameters / GIB)
    found = [parts[name] / adapters for name in ("adapters", "gradients", "optimizer")]
    assert found == pytest.approx([2, 4, 12])
    whole = trainer_memory(SEVEN, BF16, TrainSettings(), DeepSpeedSettings(), 1)
    assert parts["activations"] <= whole["activations"]


def test_an_offloaded_optimizer_is_not_on_the_device() -> None:
    sharding = DeepSpeedSettings(zero_stage=3, offload_optimizer=True)
    parts = trainer_memory(SEVEN, BF16, TrainSettings(), sharding, 4)
    assert not {"gradients", "optimizer"} & parts.keys()


def test_an_engines_cache_takes_what_is_left() -> None:
    """70 GiB, of which weights take 7.62 x 10^9 x 2 bytes = 14.19 GiB and a forward pass 2."""
    parts = engine_memory(SEVEN, "bfloat16", 1, 70.0, 10_000, 4096)
    assert parts["weights"] == pytest.approx(14.19, abs=0.01) and sum(parts.values()) == pytest.approx(70.0)
    # 4,096 tokens of 57,344 bytes are .21875 GiB: 53.81 / .21875 = 246
    assert kv_sequences(SEVEN, "bfloat16", 1, parts["KV cache"], 4096) == pytest.approx(246, abs=0.5)
    few = engine_memory(SEVEN, "bfloat16", 2, 70.0, 16, 4096)
    assert few["KV cache"] == pytest.approx(16 * 0.21875 / 2), "16 sequences, over 2 GPUs"
    assert engine_memory(SEVEN, "bfloat16", 1, 10.0, 16, 4096)["KV cache"] < 0, "the weights alone are too much"
