"""Fine-tuning of a judge: examples in, a folder that vLLM serves out."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sgpo_core.chains import problems as chains
from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.judge_training import JudgeTrainingConfig
from sgpo_core.data.problems import named
from sgpo_core.judges.control_tokens import ControlTokens, controls_of
from sgpo_core.judges.prompts import parse
from sgpo_core.judges.scores import score
from sgpo_core.judges.tiny import lacks_pieces, save_start
from sgpo_core.judges.training_examples import LabeledItem, chains_example, chains_label, from_rollouts
from sgpo_core.judges.training_samples import judge_samples, prompt_text
from sgpo_core.storage.weights import weights_hash
from sgpo_core.types import Judgment
from tasks.data import load_tokenizer, stop_ids
from tasks.engines.cluster import Engines, engines_for, keep_engines, rollout_engines
from tasks.engines.generation import generate_groups, group_requests
from tasks.engines.sync import sync_engines
from tasks.stage import Metrics
from tasks.supervised.loop import Course, Kept, train_until_good
from tasks.supervised.warm_start import answer_each
from tasks.workers.rollout_worker import Sampling

_VERDICT_TOKENS = 8
_POLICY, _POLICY_TOKENS = ModelSettings(max_length=128), 96  # of `chains`; as conf/model/tiny.yaml, to share engines
_TEMPLATE = "{{ messages[0]['content'] }}"  # the prompt is one message, and nothing goes round it
log = logging.getLogger("sgpo.judge_training")

Batches = Callable[[int], list[LabeledItem]]  # step -> its examples


def kept(config: JudgeTrainingConfig) -> Kept:
    """Where the judge lies, or will lie."""
    return Kept("judge-training", "judges", config)


def load_rollouts(config: JudgeTrainingConfig) -> tuple[LabeledItem, ...]:
    """The examples to distil from; none where `chains` are asked for. Raises ConfigError, before anything starts, where
    there are too many broken rows or too few verdicts."""
    if not config.data.rollouts:
        return ()
    found = from_rollouts([Path(path) for path in config.data.rollouts])
    if len(found.bad) > config.data.max_bad_rows:
        raise ConfigError(
            f"data.rollouts: {len(found.bad)} broken rows, {config.data.max_bad_rows} are allowed "
            f"(data.max_bad_rows): {named(found.bad)}"
        )
    train, test = split(config, found.examples)
    if len(train) < config.batch_size or not test:
        raise ConfigError(
            f"data.rollouts: {len(found.examples)} verdicts ({found.unjudged} responses without one), of which "
            f"data.held_out={config.data.held_out} leaves {len(train)} to train and {len(test)} to test on: name more "
            "files, or change data.held_out"
        )
    log.warning("%d verdicts; left out: %d without one, %d broken %s",
                len(found.examples), found.unjudged, len(found.bad), named(found.bad))  # fmt: skip
    return found.examples


def split(config: JudgeTrainingConfig, examples: Sequence[LabeledItem]) -> tuple[list[LabeledItem], list[LabeledItem]]:
    """(to train on, to test on), by problem: no response to a problem of the test is trained on."""

    def held_out(example: LabeledItem) -> bool:
        prompt = example.item.problem.prompt
        return random.Random(f"held out/{config.seed}/{prompt}").random() < config.data.held_out

    return [e for e in examples if not held_out(e)], [e for e in examples if held_out(e)]


def train_judge(
    config: JudgeTrainingConfig, base: str, policy: str | None, rollouts: Sequence[LabeledItem]
) -> dict[str, Any]:
    """Trains from the folder or hub id `base` until the gate is passed, and writes the judge, whole or not at all. The
    test is on responses of `policy` to problems of `chains`, or else on `rollouts` that are held out. Raises
    RuntimeError when the gate stays shut."""
    result, model = kept(config), ModelSettings(max_length=config.max_length, dtype=config.dtype)
    try:
        with result.tracked("judge-training") as tracker, keep_engines():
            if lacks_pieces(load_tokenizer(base)):
                save_start(base, result.start, config.seed)
                base = str(result.start)
            test = responses_of(config, policy) if policy else split(config, rollouts)[1][: config.gate_samples]
            with engines_for(base, model, config.cluster) as engines:
                engines.on_all_ranks("setup", base, model, config.train, config.deepspeed, False)
                course = Training(config, engines, base).course(rollouts, test)
                metrics = train_until_good(course, config.train, engines, tracker, "judge_training/loss", result.saved)
                published = result.publish(engines, base, tracker, metrics, _with_template)
            tracker.log_folder(result.folder, "judge")
        return published
    finally:
        shutil.rmtree(result.start, ignore_errors=True)


def responses_of(config: JudgeTrainingConfig, policy: str) -> list[LabeledItem]:
    """Responses of the policy to problems that nothing is trained on, labeled by the rule judge."""
    problems = chains.make_problems(config.gate_samples, seed=3, columns=config.data.columns)
    with rollout_engines(policy, weights_hash(Path(policy)), _POLICY, config.cluster) as engines:
        responses = answer_each(engines, policy, _POLICY, problems, _POLICY_TOKENS, (config.seed, "judge test", 0))
    items = [
        chains_label(problem, response.text, response.completion.truncated)
        for problem, response in zip(problems, responses, strict=True)
    ]
    return [labeled for labeled in items if labeled.item.steps]


class Training:
    """One judge on its way: what it is trained and tested on."""

    def __init__(self, config: JudgeTrainingConfig, engines: Engines, base: str) -> None:
        self.config, self.engines, self.base = config, engines, base
        self.tokenizer = load_tokenizer(base)
        self.controls = ControlTokens(controls_of(self.tokenizer))

    def batches(self, rollouts: Sequence[LabeledItem]) -> Batches:
        """The examples of each step: fresh corrupted solutions, or rounds through the rollouts, each in an order of its
        own."""
        config, size = self.config, self.config.batch_size
        if not rollouts:
            return lambda step: self._chains(f"judge/{config.seed}/{step}", size, config.data.corruption)
        train = self._fitting(split(config, rollouts)[0], size)
        per_round = len(train) // size

        def batch(step: int) -> list[LabeledItem]:
            lap, place = divmod(step, per_round)
            order = random.Random(f"judge/{config.seed}/{lap}").sample(range(len(train)), len(train))
            return [train[i] for i in order[place * size : (place + 1) * size]]

        return batch

    def _chains(self, seed: str, count: int, corruption: Any) -> list[LabeledItem]:
        rng, data = random.Random(seed), self.config.data
        return [chains_example(rng, data.columns, data.carry_rate, corruption) for _ in range(count)]

    def _prompt(self, example: LabeledItem) -> list[int]:
        text = prompt_text(example, self.config.reference, self.controls)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _fitting(self, examples: Sequence[LabeledItem], needed: int) -> list[LabeledItem]:
        """Those that leave room for a verdict."""
        limit = self.config.max_length - _VERDICT_TOKENS
        kept = [e for e in examples if len(self._prompt(e)) <= limit]
        if len(kept) < needed:
            raise ConfigError(
                f"max_length={self.config.max_length}: {len(kept)} of {len(examples)} examples fit into it, at least "
                f"{needed} have to: raise it"
            )
        if len(kept) < len(examples):
            log.warning("%d of %d examples left out: over %d tokens", len(examples) - len(kept), len(examples), limit)
        return kept

    def course(self, rollouts: Sequence[LabeledItem], test: Sequence[LabeledItem]) -> Course:
        """Trains on corrupted solutions, or on `rollouts`; the gate is the share of exact verdicts on `test`."""
        config, test, batches = self.config, self._fitting(test, 1), self.batches(rollouts)
        garbage = config.data.corruption.model_copy(update={"garbage_line": 1.0})
        hostile = [] if config.data.rollouts else self._chains(f"judge garbage/{config.seed}", 128, garbage)

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
