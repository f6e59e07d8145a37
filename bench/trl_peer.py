"""The peer of `iteration`: TRL's GRPOTrainer on the CPU, `python -m bench.trl_peer FILE`, which holds its work.

TRL generates with transformers here: its vLLM mode needs a GPU. It gets the same policy, the same problems in the same
order, as many completions of the same length, and the same exact-match reward. Where its defaults would only cost time
they are changed: no activation checkpointing, the whole batch in one pass, nothing logged or saved, no reference model.
In bfloat16 the weights themselves are that, which is its fastest (ours keeps float32 copies for the optimizer). Prints
one JSON object: seconds and sampled tokens of every iteration.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.workload import GROUP_SIZE, LR
from sgpo_core.config.training import TrainSettings
from tasks.data import load_tokenizer


class StepLog:
    """Reward function and clock in one: what TRL asks it about is all that a step sampled."""

    __name__ = "exact_answer"  # TRL names rewards by this

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[float] = []
        self._began = time.perf_counter()

    def __call__(
        self, completions: Sequence[str], completion_ids: Sequence[Any], answer: Sequence[str], **_: Any
    ) -> list[float]:
        self.tokens.append(float(sum(len(ids) for ids in completion_ids)))
        return [float(f"\\boxed{{{a}}}" in text) for text, a in zip(completions, answer, strict=True)]

    def end_step(self) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._began)
        self._began = now


@dataclass(frozen=True)
class Work:
    """`groups` problems an iteration, in this order, so many optimizer steps on the completions of all."""

    policy: str
    problems: list[dict[str, str]]
    dtype: str
    groups: int
    max_tokens: int
    optimizer_steps: int
    seed: int


def train(work: Work) -> StepLog:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    log = StepLog()

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            log.end_step()

    ours = TrainSettings()
    with tempfile.TemporaryDirectory() as scratch:
        settings = GRPOConfig(
            output_dir=scratch,
            use_cpu=True,
            bf16=False,
            seed=work.seed,
            max_steps=len(work.problems) // work.groups * work.optimizer_steps,
            per_device_train_batch_size=work.groups * GROUP_SIZE // work.optimizer_steps,
            steps_per_generation=work.optimizer_steps,
            num_generations=GROUP_SIZE,
            shuffle_dataset=False,
            max_completion_length=work.max_tokens,
            temperature=1.0,
            loss_type="grpo",
            learning_rate=LR,
            adam_beta1=ours.betas[0],
            adam_beta2=ours.betas[1],
            max_grad_norm=ours.grad_clip,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(work.policy, dtype=work.dtype),
            reward_funcs=log,
            args=settings,
            train_dataset=Dataset.from_list(work.problems),
            processing_class=load_tokenizer(work.policy),
            callbacks=[Clock()],
        )
        trainer.train()
    return log


def main() -> None:
    work = Work(**json.loads(Path(sys.argv[1]).read_text()))
    os.nice(15)  # as Ray's workers are: else other work on the machine would hit them alone
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what TRL prints is no result
    log, steps = train(work), work.optimizer_steps
    seconds = [sum(log.seconds[i : i + steps]) for i in range(0, len(log.seconds), steps)]
    print(json.dumps({"seconds": seconds, "tokens": log.tokens}), file=result, flush=True)


if __name__ == "__main__":
    main()
