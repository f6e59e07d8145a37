"""Fine-tuning of a judge: examples in, a folder that vLLM serves out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgpo_core.config.data import ModelSettings
from sgpo_core.config.judge_training import JudgeTrainingConfig
from sgpo_core.judges.control_tokens import ControlTokens, controls_of
from sgpo_core.judges.prompts import parse
from sgpo_core.judges.scores import score
from sgpo_core.judges.tiny import lacks_pieces, save_start
from sgpo_core.judges.training_examples import LabeledItem
from sgpo_core.judges.training_samples import judge_samples, prompt_text
from sgpo_core.types import Judgment
from tasks.data import load_tokenizer, stop_ids
from tasks.engines.cluster import Engines, engines_for, keep_engines
from tasks.engines.generation import generate_groups, group_requests
from tasks.engines.sync import sync_engines
from tasks.stage import Metrics
from tasks.supervised.judge_exercises import Exercises, fitting
from tasks.supervised.loop import Course, Kept, train_until_good
from tasks.workers.rollout_worker import Sampling

_VERDICT_TOKENS = 8
_TEMPLATE = "{{ messages[0]['content'] }}"  # the prompt is one message, and nothing goes round it


def kept(config: JudgeTrainingConfig) -> Kept:
    """Where the judge lies, or will lie."""
    return Kept("judge-training", "judges", config)


def train_judge(config: JudgeTrainingConfig, base: str, exercises: Exercises, policy: str | None) -> dict[str, Any]:
    """Trains from the folder or hub id `base` until the gate is passed, and writes the judge, whole or not at all.
    `policy`: a folder, where the exercises need one. Raises RuntimeError when the gate stays shut."""
    result, model = kept(config), ModelSettings(max_length=config.max_length, dtype=config.dtype)
    try:
        with result.tracked("judge-training") as tracker, keep_engines():
            if lacks_pieces(load_tokenizer(base)):
                save_start(base, result.start, config.seed)
                base = str(result.start)
            test = exercises.test(policy)
            with engines_for(base, model, config.cluster) as engines:
                engines.on_all_ranks("setup", base, model, config.train, config.deepspeed, False)
                course = Training(config, engines, base).course(exercises, test)
                metrics = train_until_good(course, config.train, engines, tracker, "judge_training/loss", result.saved)
                return result.publish(engines, base, tracker, metrics, _with_template, "judge")
    finally:
        shutil.rmtree(result.start, ignore_errors=True)


class Training:
    """One judge on its way: what it is shown, and what it says."""

    def __init__(self, config: JudgeTrainingConfig, engines: Engines, base: str) -> None:
        self.config, self.engines, self.base = config, engines, base
        self.tokenizer = load_tokenizer(base)
        self.controls = ControlTokens(controls_of(self.tokenizer))

    def course(self, exercises: Exercises, test: Sequence[LabeledItem]) -> Course:
        """Trains on the exercises; the gate is the share of exact verdicts on `test`."""
        config, test, hostile = self.config, fitting(self.config, test, self._fits, 1), exercises.hostile()
        batches = exercises.batches(self._fits)

        def measured(steps: int) -> Metrics:
            tolerance = config.cluster.probe_tolerance(config.dtype)
            sync_engines(self.engines, steps, self._prompt(test[0]), tolerance)
            metrics = self._test(test)
            if hostile:
                metrics["judge_training/garbage_accuracy"] = self._test(hostile)["judge_training/accuracy"]
            return metrics

        return Course(
            title=f"judge {config.preset}",
            steps=config.steps,
            batch=lambda step: judge_samples(self.tokenizer, batches(step), config.reference, config.running_weight),
            test=measured,
            gate="judge_training/accuracy",
            threshold=config.gate_accuracy,
            more_steps=config.gate_steps,
            more_rounds=config.gate_rounds,
            advice="add steps (steps, gate_rounds), or examples like those that it is tested on",
        )

    def _prompt(self, example: LabeledItem) -> list[int]:
        text = prompt_text(example, self.config.reference, self.controls)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _fits(self, example: LabeledItem) -> bool:
        return len(self._prompt(example)) <= self.config.max_length - _VERDICT_TOKENS

    def _test(self, examples: Sequence[LabeledItem]) -> dict[str, float]:
        """How good the verdicts are that the judge now writes, unconstrained."""
        prompts = [self._prompt(e) for e in examples]
        sampling = Sampling(0.0, _VERDICT_TOKENS, stop_ids(self.base))
        groups = generate_groups(self.engines, self.tokenizer, group_requests(prompts, 1, lambda g, s: 0), sampling)
        texts = [response.text for [response] in groups]
        verdicts = [parse(text, len(e.item.steps)) for text, e in zip(texts, examples, strict=True)]
        labels = [-1 if e.first_error_step is None else e.first_error_step - 1 for e in examples]
        s = score([Judgment(v) for v in verdicts], labels, [""] * len(labels)).overall
        count = len(labels)
        shares = {"early": s.early, "late": s.late, "missed": s.missed, "false_alarm": s.false_alarms}
        exact = s.exact + s.correct * (s.accuracy_correct or 0.0)
        return {
            "judge_training/accuracy": exact / count,
            **{f"judge_training/{name}_frac": number / count for name, number in shares.items()},
            "judge_training/unreadable_frac": s.abstained_frac,
        }


def _with_template(folder: Path) -> None:
    """A judge is asked by chat messages, so that its tokenizer needs a template."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
