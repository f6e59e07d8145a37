"""Tokenizer and problems, where text becomes token ids and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from datasets import Dataset

from sgpo_core.config.base import ConfigError, fingerprint
from sgpo_core.config.data import BenchmarkSettings, DataSettings, ModelSettings
from sgpo_core.config.run import RunConfig
from sgpo_core.data.problems import as_problem, load_problems, problems_of_iteration
from sgpo_core.types import Problem
from tasks.paths import home

Benchmarks = dict[str, Dataset]  # problems by name


@dataclass(frozen=True)
class ProblemSets:
    """What a run trains on, and what it is evaluated on, by name."""

    train: Dataset
    benchmarks: Benchmarks


def load_problem_sets(config: RunConfig) -> ProblemSets:
    """All problem sets of a run, before anything expensive starts. Raises ConfigError for one that can't be used."""
    sets = ProblemSets(open_problems(config.data), load_benchmarks(config.eval.sets))
    problems_of_iteration(sets.train, config.sampling.problems, config.seed, 1)  # are there enough?
    refuse_overlap(sets, f"data.source={config.data.source}")
    return sets


def refuse_overlap(sets: ProblemSets, source: str) -> None:
    """Raises ConfigError where a benchmark has problems that are trained on, which come from `source`: its score would
    say what the policy remembers. Case and blanks make no other problem."""
    trained = {_words(prompt) for prompt in sets.train["prompt"]}
    for name, problems in sets.benchmarks.items():
        shared = [prompt for prompt in problems["prompt"] if _words(prompt) in trained]
        if shared:
            raise ConfigError(
                f"{len(shared)} of the {len(problems)} problems of benchmark {name} are trained on ({source}), such as "
                f"{shared[0][:80]!r}: evaluate on others (eval=..., eval.sets), or leave them out of what is trained on"
            )


def _words(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


def load_benchmarks(sets: Mapping[str, BenchmarkSettings]) -> Benchmarks:
    """The problems of every benchmark, by name. Raises ConfigError for one that can't be used."""
    found = {}
    for name, benchmark in sets.items():
        try:
            found[name] = open_problems(benchmark.data)
        except ConfigError as error:
            raise ConfigError(f"eval.sets.{name}: {error}") from None
    return found


def open_problems(settings: DataSettings) -> Dataset:
    """The problems that the settings name; files of the user stand in for sets of the hub that can't be reached."""
    return load_problems(settings, copies())


def copies() -> Path:
    """Where files lie that stand in for data sets of the hub."""
    return home() / "datasets"


def drop_overlong_prompts(problems: Dataset, policy: str, model: ModelSettings, max_tokens: int) -> Dataset:
    """The problems whose prompts leave room for a response; `info.description` counts the others. Raises ConfigError
    when there is none."""
    tokenizer, limit = load_tokenizer(policy), model.max_length - max_tokens
    kept = [i for i, row in enumerate(problems) if len(encode_prompt(tokenizer, as_problem(row), model)) <= limit]
    if not kept:
        raise ConfigError(
            f"no prompt leaves room for a response of sampling.max_tokens={max_tokens} in model.max_length="
            f"{model.max_length}: raise that, or lower sampling.max_tokens"
        )
    if len(kept) == len(problems):
        return problems
    shorter = problems.select(kept)
    dropped = f"{len(problems) - len(kept)} problems left out: their prompts are over {limit} tokens"
    shorter.info.description = "; ".join(filter(None, [problems.info.description, dropped]))
    return shorter


class PolicyCodec:
    """A policy's tokenizer as responses that exist already need it (`offline.importer.Codec`)."""

    def __init__(self, policy: str, model: ModelSettings) -> None:
        self.tokenizer, self.model = load_tokenizer(policy), model
        self.eos: int = self.tokenizer.eos_token_id
        self.max_length = model.max_length
        # Of the embedding, which may have more rows than there are tokens: an untrained one is sampled, too.
        self.vocabulary: int = load_config(policy).get_text_config().vocab_size

    @property
    def key(self) -> str:
        """Names what the token ids depend on."""
        text = self.tokenizer.backend_tokenizer.to_str()
        return fingerprint([text, str(self.tokenizer.chat_template), self.model.model_dump(exclude={"path", "dtype"})])

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        if not self.model.chat_template:
            asked = self.encode([self.model.preamble + text + self.model.instruction for text in texts])
            return [_with_beginning(self.tokenizer, ids) for ids in asked]
        return [encode_prompt(self.tokenizer, Problem("", text, ""), self.model) for text in texts]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return list(self.tokenizer(list(texts), add_special_tokens=False)["input_ids"])

    def decode(self, token_ids: Sequence[Sequence[int]]) -> list[str]:
        # The tokenizer itself: what is round it looks at every single id, which is most of an import's time.
        return list(self.tokenizer.backend_tokenizer.decode_batch(token_ids, skip_special_tokens=True))


@lru_cache(maxsize=4)
def load_tokenizer(policy: str) -> Any:
    """The tokenizer of a policy as its tokenizer.json has it. (AutoTokenizer goes by the model's type: for any Qwen2
    it puts Qwen2's own pre-tokenizer in place, which drops pieces of the embedded vocabulary without a word.)"""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(policy)


def needs_own_tokenizer(policy: str | Path, text: str) -> bool:
    """Whether AutoTokenizer, which `pipeline` uses, can't read the tokenizer that lies there, or spells a text in
    another way than this one does."""
    from transformers import AutoTokenizer

    try:
        read = AutoTokenizer.from_pretrained(policy, trust_remote_code=False)
    except Exception:  # of transformers: a finished run does not fail for it
        return True
    return bool(read(text)["input_ids"] != load_tokenizer(str(policy))(text)["input_ids"])


def load_config(policy: str | Path) -> Any:
    """The configuration of a policy, with the defaults of its architecture. Code that comes with a model is not run."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(policy, trust_remote_code=False)


def encode_prompt(tokenizer: Any, problem: Problem, model: ModelSettings) -> list[int]:
    """Token ids of a problem as the policy gets it: with `model.instruction`, in the chat template if one is set."""
    text = model.preamble + problem.prompt + model.instruction
    if not model.chat_template:
        return _with_beginning(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])
    # The names of Qwen3, and of DeepSeek-V3.1 and Granite; a template ignores the one that it does not know.
    switch = {} if model.thinks is None else {"enable_thinking": model.thinks, "thinking": model.thinks}
    chat = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True, **switch)
    return list(ids["input_ids"])


def _with_beginning(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Token ids of a plain text, behind the token with which the tokenizer begins every text (Llama, Gemma), if there
    is one: such a model has seen no text without it."""
    first = tokenizer("")["input_ids"][:1]
    begins = first == [tokenizer.bos_token_id] and list(ids[:1]) != first
    return [*first, *ids] if begins else list(ids)


def encode_prompts(policy: str, problems: Sequence[Problem], model: ModelSettings, max_tokens: int) -> list[list[int]]:
    """Prompts of all problems. Raises ConfigError for one that leaves no room for a response."""
    tokenizer = load_tokenizer(policy)
    prompts = [encode_prompt(tokenizer, problem, model) for problem in problems]
    for problem, ids in zip(problems, prompts, strict=True):
        if len(ids) + max_tokens > model.max_length:
            raise ConfigError(
                f"problem {problem.id}: its prompt of {len(ids)} tokens and sampling.max_tokens={max_tokens} exceed "
                f"model.max_length={model.max_length}: raise that, or lower sampling.max_tokens"
            )
    return prompts


def decode(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Text without special tokens, exactly as the pieces spell it."""
    return str(tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def decode_all(tokenizer: Any, sequences: Sequence[Any]) -> list[str]:
    return list(tokenizer.batch_decode(sequences, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def stop_ids(policy: str) -> list[int]:
    """Tokens that end a response: the tokenizer's own, and those of generation_config.json in the policy's folder (chat
    models have several), without one those of its config.json."""
    files = [file for name in ("generation_config.json", "config.json") if (file := Path(policy) / name).is_file()]
    named = json.loads(files[0].read_text(encoding="utf-8")).get("eos_token_id") if files else None
    found = [load_tokenizer(policy).eos_token_id, *(named if isinstance(named, list) else [named])]
    return sorted({i for i in found if i is not None})
