"""Tokenizer and problems, where text becomes token ids and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sgpo_core.config import ConfigError, ModelSettings
from sgpo_core.types import Problem


@lru_cache(maxsize=4)
def load_tokenizer(policy: str) -> Any:
    """The tokenizer of a policy as its tokenizer.json has it. (AutoTokenizer goes by the model's type: for any Qwen2
    it puts Qwen2's own pre-tokenizer in place, which drops pieces of the embedded vocabulary without a word.)"""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(policy)


def encode_prompt(tokenizer: Any, problem: Problem, model: ModelSettings) -> list[int]:
    """Token ids of a problem as the policy gets it: with `model.instruction`, in the chat template if one is set."""
    text = problem.prompt + model.instruction
    if not model.chat_template:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return list(ids["input_ids"])


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


def stop_ids(tokenizer: Any) -> list[int]:
    return [tokenizer.eos_token_id]
