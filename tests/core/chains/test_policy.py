"""The tokenizer of the small policy: it spells every problem and every solution."""

from __future__ import annotations

import random

from sgpo_core.chains import problems as chains
from sgpo_core.chains.policy import build_tokenizer
from sgpo_core.types import Problem


def test_tokenizer_spells_every_prompt_and_trace(tiny_sets: tuple[list[Problem], list[Problem]]) -> None:
    tokenizer = build_tokenizer()
    problems = [p for problems in tiny_sets for p in problems]
    rng = random.Random(0)
    slipped = [chains.solve(*chains.operands(p.prompt), rng, 0.6, 0.2).text for p in problems[:200]]
    for texts, low, high in (
        # "Compute ", 6 digits, " + ", 6 digits, ".\n"
        ([p.prompt for p in problems], 15, 15),
        # 6 times "Step i: " digit " + " digit " + " digit " = " sum "\n", the sum of 1 or 2 digits; then the answer's
        # opening, 6 or 7 digits, "}": 6 * 9 + 8 to 6 * 10 + 9
        ([p.reference for p in problems] + slipped, 62, 69),
    ):
        ids = tokenizer(texts)["input_ids"]
        assert not any(tokenizer.pad_token_id in row or tokenizer.eos_token_id in row for row in ids)
        assert tokenizer.batch_decode(ids) == texts
        assert low <= min(map(len, ids)) <= max(map(len, ids)) == high
    assert len(tokenizer(chains.solve(284471, 936979).text)["input_ids"]) == 69


def test_tokenizer_of_twelve_columns() -> None:
    tokenizer = build_tokenizer(12)
    text = chains.solve(999_999_999_999, 111_111_111_111).text  # "Step 12: " is one piece, not "Step 1" and a digit
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == 12 * 10 + 1 + 13 + 1
    assert tokenizer.decode(ids) == text
    assert len(tokenizer) == len(chains.vocabulary(12)) == 2 + 10 + 12 + 7
