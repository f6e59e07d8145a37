"""Prints what is computed that a trainer rank takes for an update of a model of SmolLM2-135M's shape on the CPU, and
what it takes after each of so many set-ups: numbers of bytes. A process of its own, for the most that it has had counts
from its beginning.

    python -m tests.peak_memory DTYPE SETUPS
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from dataclasses import replace
from typing import Literal

import numpy as np
import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sgpo_core.config.algorithm import LossSettings
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import DeepSpeedSettings, TrainSettings
from sgpo_core.rl.training_samples import TrainingSample, forward_sample
from sgpo_core.sizing.memory import GIB, trainer_memory
from sgpo_core.sizing.shapes import KNOWN, ModelShape
from tasks.workers.meeting import Meeting
from tasks.workers.trainer_worker import TrainerWorker

SHAPE = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]


def save_model(shape: ModelShape, dtype: torch.dtype, folder: str) -> None:
    LlamaForCausalLM(LlamaConfig(**shape.config())).to(dtype).save_pretrained(folder)


def micro_batch(tokens: int) -> list[TrainingSample]:
    """Four responses to one prompt of 100 tokens."""
    rng = np.random.default_rng(0)
    prompt, length = rng.integers(0, 1000, 100), (tokens - 100) // 4
    samples = [forward_sample(prompt, rng.integers(0, 1000, length)) for _ in range(4)]
    weights, advantages = np.full(length, 0.25 / length, np.float32), np.ones(length, np.float32)
    return [replace(s, weights=weights, advantages=advantages, sampler_logprobs=-10 * advantages) for s in samples]


def main(dtype: Literal["float32", "bfloat16"], setups: int) -> None:
    folder, process, peak = tempfile.mkdtemp(), psutil.Process(), 0
    save_model(SHAPE, getattr(torch, dtype), folder)
    model, train = ModelSettings(dtype=dtype), TrainSettings(gradient_checkpointing=True, micro_batch_tokens=2048)
    rank = TrainerWorker(0, 1)
    rank.connect(Meeting(1, file=f"{folder}/ranks"))

    def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.002)

    before = process.memory_info().rss
    threading.Thread(target=watch, daemon=True).start()
    peaks = []
    for _ in range(setups):
        peak = 0
        rank.setup(folder, model, train, DeepSpeedSettings(), with_reference=False)
        rank.update([[micro_batch(2048)]], LossSettings(), 1.0)
        peaks.append(peak - before)
    computed = sum(trainer_memory(SHAPE, model, train, DeepSpeedSettings(), 1, step_copies=2).values())
    print(computed * GIB, *peaks)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))  # type: ignore[arg-type]
