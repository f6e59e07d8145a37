"""Fine-tuning of a judge: examples in, a folder that vLLM serves out."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
from tqdm import tqdm

from sgpo_core import chains
from sgpo_core.config import ConfigError, ModelSettings, to_yaml
from sgpo_core.files import read_json, waiting_lock, whole_directory, write_json, write_text
from sgpo_core.judge import Judgement
from sgpo_core.judge_examples import Example, chains_example, chains_label, from_rollouts
from sgpo_core.judge_prompts import parse
from sgpo_core.judge_rows import judge_rows, prompt_text
from sgpo_core.judge_scores import score
from sgpo_core.judge_training import JudgeTrainingConfig
from sgpo_core.problems import named, request_seed
from sgpo_core.tiny_judge import lacks_pieces, save_start
from sgpo_core.training_rows import deal
from sgpo_core.weights import weights_hash
from tasks.checkpointing import export_policy
from tasks.cluster import Engines, engines_for, keep_engines, rollout_engines
from tasks.data import decode_all, encode_prompts, load_tokenizer, stop_ids
from tasks.rollout import sample, sync_engines
from tasks.services import home
from tasks.tracking import Tracker, new_attempt
from tasks.warm_start import MAX_LENGTH, cosine
from tasks.workers.rollout_worker import Request, Sampling

_STEPS_A_CALL = 50
_VERDICT_TOKENS = 8
_TEMPLATE = "{{ messages[0]['content'] }}"  # the prompt is one message, and nothing goes round it
log = logging.getLogger("sgpo.judge_training")

Batches = Callable[[int], list[Example]]  # step -> its examples


def cached(config: JudgeTrainingConfig) -> dict[str, Any] | None:
    """The result of the same settings, where it has been made."""
    report = folder(config) / "report.json"
    return read_json(report) if report.is_file() else None


@contextmanager
def locked(config: JudgeTrainingConfig) -> Iterator[None]:
    """Waits while another process makes the same judge."""
    with waiting_lock(folder(config).with_name(f".{config.key}.lock")):
        yield


def folder(config: JudgeTrainingConfig) -> Path:
    return home() / "judges" / config.key


def load_rollouts(config: JudgeTrainingConfig) -> tuple[Example, ...]:
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
            f"data.rollouts: {len(found.examples)} verdicts ({found.silent} responses without one), of which "
            f"data.held_out={config.data.held_out} leaves {len(train)} to train and {len(test)} to test on: name more "
            "files, or change data.held_out"
        )
    log.warning("%d verdicts; left out: %d without one, %d broken %s",
                len(found.examples), found.silent, len(found.bad), named(found.bad))  # fmt: skip
    return found.examples


def split(config: JudgeTrainingConfig, examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """(to train on, to test on), by problem: no response to a problem of the test is trained on."""

    def held_out(example: Example) -> bool:
        prompt = example.item.problem.prompt
        return random.Random(f"held out/{config.seed}/{prompt}").random() < config.data.held_out

    return [e for e in examples if not held_out(e)], [e for e in examples if held_out(e)]


def train_judge(
    config: JudgeTrainingConfig, base: str, policy: str | None, rollouts: Sequence[Example]
) -> dict[str, Any]:
    """Trains from the folder or hub id `base` until the gate is passed, and writes the judge, whole or not at all. The
    test is on responses of `policy` to problems of `chains`, or else on `rollouts` that are held out. Raises
    RuntimeError when the gate stays shut."""
    tags = {"algorithm": "judge-training", "preset": config.preset, "seed": str(config.seed)}
    settings = config.model_dump(mode="json")
    tracker = Tracker.open("judge-training", config.key, folder(config), new_attempt(), tags, settings)
    start = folder(config).with_name(f".{config.key}.start")
    try:
        if lacks_pieces(load_tokenizer(base)):
            save_start(base, start, config.seed)
            base = str(start)
        model = ModelSettings(max_length=config.max_length, dtype=config.dtype)
        with keep_engines():
            test = responses_of(config, policy) if policy else split(config, rollouts)[1][: config.gate_samples]
            with engines_for(base, model, config.cluster) as engines:
                engines.on_all_ranks("setup", base, model, config.train, config.deepspeed, False)
                training = Training(config, engines, base, tracker)
                metrics = training.until_good(training.batches(rollouts), test)
                result = _publish(config, engines, base, tracker, metrics)
        tracker.log_folder(folder(config), "judge")
        tracker.finish()
    except BaseException as error:
        tracker.fail(error)
        raise
    finally:
        shutil.rmtree(start, ignore_errors=True)
    return result


def responses_of(config: JudgeTrainingConfig, policy: str) -> list[Example]:
    """Responses of the policy to problems that nothing is trained on, labelled by the rule judge."""
    model = ModelSettings(max_length=MAX_LENGTH)
    limit = MAX_LENGTH - 32
    problems = chains.make_problems(config.gate_samples, seed=3, columns=config.data.columns)
    prompts = encode_prompts(policy, problems, model, limit)
    tokenizer = load_tokenizer(policy)
    requests = [
        Request(ids, request_seed(config.seed, "judge test", 0, problem.id, 0))
        for ids, problem in zip(prompts, problems, strict=True)
    ]
    with rollout_engines(policy, weights_hash(Path(policy)), model, config.cluster) as engines:
        completions = sample(engines, requests, Sampling(1.0, limit, stop_ids(tokenizer)), 1)
    texts = decode_all(tokenizer, [c.token_ids for c in completions])
    examples = [
        chains_label(problem, text, completion.truncated)
        for problem, text, completion in zip(problems, texts, completions, strict=True)
    ]
    return [example for example in examples if example.item.steps]


class Training:
    """One judge on its way."""

    def __init__(self, config: JudgeTrainingConfig, engines: Engines, base: str, tracker: Tracker) -> None:
        self.config, self.engines, self.tracker = config, engines, tracker
        self.tokenizer = load_tokenizer(base)
        self.done = 0

    def batches(self, rollouts: Sequence[Example]) -> Batches:
        """The examples of each step: fresh corrupted solutions, or rounds through the rollouts, each in an order of its
        own."""
        config, size = self.config, self.config.batch_size
        if not rollouts:
            return lambda step: self._chains(f"judge/{config.seed}/{step}", size, config.data.corruption)
        train = self._fitting(split(config, rollouts)[0], size)
        per_round = len(train) // size

        def batch(step: int) -> list[Example]:
            lap, place = divmod(step, per_round)
            order = random.Random(f"judge/{config.seed}/{lap}").sample(range(len(train)), len(train))
            return [train[i] for i in order[place * size : (place + 1) * size]]

        return batch

    def _chains(self, seed: str, count: int, corruption: Any) -> list[Example]:
        rng, data = random.Random(seed), self.config.data
        return [chains_example(rng, data.columns, data.carry_rate, corruption) for _ in range(count)]

    def _prompt(self, example: Example) -> list[int]:
        text = prompt_text(example, self.config.reference)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _fitting(self, examples: Sequence[Example], needed: int) -> list[Example]:
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

    def until_good(self, batches: Batches, test: Sequence[Example]) -> dict[str, float]:
        """Trains, tests, and trains on while the gate is shut; returns what the last test has shown."""
        config, test = self.config, self._fitting(test, 1)
        garbage = config.data.corruption.model_copy(update={"garbage_line": 1.0})
        hostile = [] if config.data.rollouts else self._chains(f"judge garbage/{config.seed}", 128, garbage)
        self._supervise(batches, [cosine(i, config.steps, config.train.warmup_steps) for i in range(config.steps)])
        for attempt in range(config.gate_rounds + 1):
            sync_engines(self.engines, self.done, self._prompt(test[0]), config.cluster.sync_tolerance)
            metrics = self._test(test)
            if hostile:
                metrics["judge_training/garbage_accuracy"] = self._test(hostile)["judge_training/accuracy"]
            self.tracker.log(self.done, metrics)
            if metrics["judge_training/accuracy"] >= config.gate_accuracy:
                return metrics
            if attempt < config.gate_rounds:
                self._supervise(batches, [0.3 * cosine(i, config.gate_steps, 0) for i in range(config.gate_steps)])
        raise RuntimeError(
            f"judge {config.preset}: after {self.done} steps {metrics['judge_training/accuracy']:.1%} of its verdicts "
            f"on {len(test)} responses are exact, gate_accuracy={config.gate_accuracy:.0%} is wanted: add steps "
            "(steps, gate_rounds), or examples like those that it is tested on"
        )

    def _supervise(self, batches: Batches, factors: Sequence[float]) -> None:
        """One step for each factor of the learning rate."""
        config, ranks = self.config, self.engines.trainers
        with tqdm(total=len(factors), desc=f"judge {config.preset}", unit="step", mininterval=1) as bar:
            for first in range(0, len(factors), _STEPS_A_CALL):
                steps = []
                for factor in factors[first : first + _STEPS_A_CALL]:
                    rows = judge_rows(self.tokenizer, batches(self.done), config.reference, config.running_weight)
                    steps.append((factor * config.train.lr, deal(rows, config.train.micro_batch_tokens, len(ranks))))
                    self.done += 1
                shares = [[(lr, dealt[rank]) for lr, dealt in steps] for rank in range(len(ranks))]
                losses = ray.get([t.supervised.remote(share) for t, share in zip(ranks, shares, strict=True)])
                loss = float(np.sum(losses, axis=0).mean())
                self.tracker.log(self.done, {"judge_training/loss": loss})
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                bar.update(len(steps))

    def _test(self, examples: Sequence[Example]) -> dict[str, float]:
        """How good the verdicts are that the judge now writes, unconstrained."""
        prompts = [self._prompt(e) for e in examples]
        sampling = Sampling(0.0, _VERDICT_TOKENS, stop_ids(self.tokenizer))
        completions = sample(self.engines, [Request(ids, 0) for ids in prompts], sampling, 1)
        texts = decode_all(self.tokenizer, [c.token_ids for c in completions])
        verdicts = [parse(text, len(e.item.steps)) for text, e in zip(texts, examples, strict=True)]
        labels = [-1 if e.first_error_step is None else e.first_error_step - 1 for e in examples]
        s = score([Judgement(v) for v in verdicts], labels, [""] * len(labels)).overall
        count = len(labels)
        shares = {"early": s.early, "late": s.late, "missed": s.missed, "false_alarm": s.false_alarms}
        exact = s.exact + s.correct * (s.accuracy_correct or 0.0)
        return {
            "judge_training/accuracy": exact / count,
            **{f"judge_training/{name}_frac": number / count for name, number in shares.items()},
            "judge_training/unreadable_frac": s.abstained_frac,
        }


def _publish(
    config: JudgeTrainingConfig, engines: Engines, base: str, tracker: Tracker, metrics: dict[str, float]
) -> dict[str, Any]:
    from transformers import PreTrainedTokenizerFast

    result = {
        "run_id": config.key,
        "mlflow_run_id": tracker.run_id,
        "run_dir": str(folder(config)),
        "final_metrics": metrics,
    }
    with whole_directory(folder(config)) as target:
        export_policy(engines, base, target)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(target)
        tokenizer.chat_template = _TEMPLATE
        tokenizer.save_pretrained(target)
        write_text(target / "settings.yaml", to_yaml(config))
        write_json(target / "report.json", result)
    return result
