"""From examples to what the trainer is given: the prompt `marker-v1`, and the verdict behind it.

    Response:\\nStep 1: 1 + 9 + 0 = 10\\nStep 2: 7 + 7 + 0 = 14\\n ... First wrong step: 2<eos>
                  none none none none   none   none none 2    2 2 ...                2 <eos>

With `running_weight` the judge is also asked, after each token of the response, for the verdict so far (in place of the
next token), wherever it is known: up to the first wrong character, and from there on. One verdict a response is too
little for a small model to learn from; see docs/judge-training.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sgpo_core.judges.control_tokens import ControlTokens, controls_of
from sgpo_core.judges.prompts import MARKER, NONE, PROMPTS, RESPONSE
from sgpo_core.judges.training_examples import LabeledItem
from sgpo_core.rl.training_samples import TrainingSample


def judge_samples(
    tokenizer: Any, examples: Sequence[LabeledItem], reference: bool, running_weight: float
) -> list[TrainingSample]:
    """The rows of one optimizer step; all their weights sum to 1. Verdicts weigh the same for every response, and the
    verdicts so far together `running_weight` times as much."""
    controls = ControlTokens(controls_of(tokenizer))
    texts = [prompt_text(example, reference, controls) for example in examples]
    running_share, total = running_weight / (1 + running_weight), 1 / len(examples)
    return [_row(tokenizer, example, text, running_share, total) for example, text in zip(examples, texts, strict=True)]


def prompt_text(example: LabeledItem, reference: bool, controls: ControlTokens) -> str:
    """The one message of the template; `controls` are those of the judge's tokenizer."""
    [message] = PROMPTS["marker-v1"].messages(example.item, reference, 0, controls)
    return message.content


def verdict_text(first_error_step: int | None) -> str:
    """As in `judge_prompts.choices`."""
    return NONE if first_error_step is None else str(first_error_step)


def _row(tokenizer: Any, example: LabeledItem, text: str, running_share: float, total: float) -> TrainingSample:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    prompt, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    verdict = [*_ids(tokenizer, verdict_text(example.first_error_step)), tokenizer.eos_token_id]
    running = list(_running(tokenizer, example, text, ends)) if running_share else []
    first = min((position for position, _ in running), default=len(prompt) - 1) + 1
    ids = np.asarray([*prompt, *verdict], np.int32)
    targets, weights = ids[first:].copy(), np.zeros(len(ids) - first, np.float32)
    for position, target in running:  # said by the token at `position`, in place of the one after it
        targets[position + 1 - first] = target
        weights[position + 1 - first] = total * running_share / len(running)
    weights[-len(verdict) :] = total * (1 - running_share if running else 1) / len(verdict)
    nothing = np.zeros(0, np.float32)
    return TrainingSample(ids, weights, nothing, nothing, targets=targets)


def _running(tokenizer: Any, example: LabeledItem, text: str, ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(token, first token of the verdict so far) for the response's tokens of which it is known. `ends`: where each
    token ends, characters."""
    start, end = text.rindex(RESPONSE) + len(RESPONSE), len(text) - len(MARKER)
    none, wrong = (_ids(tokenizer, verdict_text(v))[0] for v in (None, example.first_error_step))
    right_up_to, wrong_from = _error_span(example, text[start:end])
    for position, token_end in enumerate(ends):
        if start < token_end <= end:
            if token_end - start <= right_up_to:
                yield position, none
            elif token_end - start >= wrong_from:
                yield position, wrong


def _error_span(example: LabeledItem, body: str) -> tuple[int, int]:
    """(characters of the response that are right, characters with which it is known to be wrong)."""
    step = example.first_error_step
    if step is None:
        return len(body), len(body) + 1
    lines = body.splitlines(keepends=True)
    before = sum(map(len, lines[: step - 1]))
    if example.wrong_from is None:
        return before, before + len(lines[step - 1])
    return before + example.wrong_from, before + example.wrong_from + 1


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
