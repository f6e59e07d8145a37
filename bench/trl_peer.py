"""The peer of `iteration`: TRL's GRPOTrainer on the CPU, `python -m bench.trl_peer FOLDER ITERATIONS SEED DTYPE STEPS`.

TRL generates with transformers here: its vLLM mode needs a GPU. It gets the same policy, the same problems in the same
order, as many completions of the same length, and the same exact-match reward. Where its defaults would only cost time
they are changed: no activation checkpointing, the whole batch in one pass, nothing logged or saved, no reference model.
In bfloat16 the weights themselves are that, which is its fastest (ours keeps float32 copies for the optimizer). Prints
one JSON object: seconds and sampled tokens of every iteration, which has STEPS optimizer steps.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from bench.workload import COLUMNS, GROUP_SIZE, GROUPS, LR, MAX_TOKENS
from sgpo_core.config.data import DataSettings
from sgpo_core.config.training import TrainSettings
from sgpo_core.data.problems import load_problems, problems_of_iteration
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


def train(folder: str, iterations: int, seed: int, dtype: str, steps: int) -> StepLog:
    """So many optimizer steps on every 16 x 8 completions."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    log = StepLog()

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            log.end_step()

    problems = load_problems(DataSettings(columns=COLUMNS))
    chosen = [p for i in range(1, iterations + 1) for p in problems_of_iteration(problems, GROUPS, seed, i)]
    ours = TrainSettings()
    with tempfile.TemporaryDirectory() as scratch:
        settings = GRPOConfig(
            output_dir=scratch,
            use_cpu=True,
            bf16=False,
            seed=seed,
            max_steps=iterations * steps,
            per_device_train_batch_size=GROUPS * GROUP_SIZE // steps,
            steps_per_generation=steps,
            num_generations=GROUP_SIZE,
            shuffle_dataset=False,
            max_completion_length=MAX_TOKENS,
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
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
            reward_funcs=log,
            args=settings,
            train_dataset=Dataset.from_list([{"prompt": p.prompt, "answer": p.answer} for p in chosen]),
            processing_class=load_tokenizer(folder),
            callbacks=[Clock()],
        )
        trainer.train()
    return log


def main() -> None:
    folder, iterations, seed, dtype, steps = (
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        int(sys.argv[5]),
    )
    os.nice(15)  # as Ray's workers are: else other work on the machine would hit them alone
    result = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what TRL prints is no result
    log = train(folder, iterations, seed, dtype, steps)
    seconds = [sum(log.seconds[i : i + steps]) for i in range(0, len(log.seconds), steps)]
    print(json.dumps({"seconds": seconds, "tokens": log.tokens}), file=result, flush=True)


if __name__ == "__main__":
    main()
