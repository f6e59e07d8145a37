"""layers_time, layers_memory, layers_agreement: the trainer's forward and backward pass on a few layers of a real
model's width, in bfloat16, with gradient checkpointing: a group that shares its prompt against as many responses with a
prompt each; the peak of its memory against what `sgpo_core.sizing` computes; its log-probabilities against float32.

    python -m bench.layers

runs it alone, on the GPU where there is one, else on the CPU in a smaller size. It needs torch, transformers, pydantic.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from bench.figures import Figure, side_by_side
from sgpo_core.config.training import TrainSettings
from sgpo_core.rl.training_samples import MicroBatch, TrainingSample, collate, forward_sample
from sgpo_core.sizing.memory import activation_bytes
from sgpo_core.sizing.shapes import KNOWN, ModelShape
from tasks.workers.policy_model import PolicyModel

REPEATS = 5


@dataclass(frozen=True, slots=True)
class Size:
    """One group: `responses` of so many tokens behind a prompt of `prompt` tokens."""

    shape: ModelShape
    prompt: int
    responses: int
    tokens: int


GPU = Size(replace(KNOWN["Qwen/Qwen2.5-7B-Instruct"], layers=4), prompt=400, responses=8, tokens=1000)
CPU = Size(replace(KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"], layers=4, vocabulary=8192), 100, 8, 100)


def measure() -> Iterator[Figure]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = GPU if device.type == "cuda" else CPU
    model = model_of(size.shape, torch.bfloat16).to(device)
    samples = group(size)
    packed = collate(samples).to(device)
    apart = collate(group(size, one_prompt=False)).to(device)
    where = f"4 layers of width {size.shape.hidden}, a prompt of {size.prompt} tokens, {size.responses} responses of "
    where += f"{size.tokens}, {'GPU' if device.type == 'cuda' else 'CPU'}"

    def seconds(batch: MicroBatch) -> float:
        return step_seconds(model, batch, device)

    ours, peer = side_by_side(lambda: seconds(packed), lambda: seconds(apart), REPEATS)
    yield Figure("layers_time", ours, "s", (">=", 1.2), f"peer: a prompt for each response; {where}", peer, peer / ours)
    yield _agreement(model, packed, size, where)
    if device.type == "cuda":
        yield _memory(model, packed, size, where)


def model_of(shape: ModelShape, dtype: torch.dtype) -> PolicyModel:
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(Qwen2Config(**shape.config()), dtype=dtype)
    lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return PolicyModel(lm.train())


def group(size: Size, one_prompt: bool = True) -> list[TrainingSample]:
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, size.shape.vocabulary, (size.responses, size.prompt))
    answers = rng.integers(0, size.shape.vocabulary, (size.responses, size.tokens))
    return [forward_sample(prompts[0 if one_prompt else i], answer) for i, answer in enumerate(answers)]


def step_seconds(model: PolicyModel, batch: MicroBatch, device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    model.zero_grad(set_to_none=True)
    wait()
    began = time.perf_counter()
    model(batch, 1.0)[0].sum().backward()
    wait()
    return time.perf_counter() - began


def _agreement(model: PolicyModel, packed: MicroBatch, size: Size, where: str) -> Figure:
    """The same weights, computed in float32."""
    exact = model_of(size.shape, torch.float32).to(packed.input_ids.device)
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        difference = (model(packed, 1.0)[0] - exact(packed, 1.0)[0]).abs().mean()
    how = f"mean |log-probability in bfloat16 - in float32|; {where}"
    return Figure("layers_agreement", float(difference), "nats", ("<=", 0.05), how)


def _memory(model: PolicyModel, packed: MicroBatch, size: Size, where: str) -> Figure:
    """Above weights and gradients, which are there from a step before."""
    model(packed, 1.0)[0].sum().backward()
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model(packed, 1.0)[0].sum().backward()
    measured = float(torch.cuda.max_memory_allocated() - base)
    train = TrainSettings(micro_batch_tokens=packed.input_ids.numel(), gradient_checkpointing=True)
    computed = activation_bytes(size.shape, train, 2)
    how = f"peer: what sgpo_core.sizing computes, whose ratio should be .85 to 1.15; {where}"
    return Figure("layers_memory", measured / 2**30, "GiB", (">=", 0.85), how, computed / 2**30, computed / measured)


if __name__ == "__main__":
    for figure in measure():
        print(figure.line(), flush=True)
