"""The rule judge: exact where arithmetic decides, and blind elsewhere. No model, no cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from sgpo_core.chains import problems as chains
from sgpo_core.data.segmentation import final_part
from sgpo_core.judges.base import Item
from sgpo_core.judges.equations import equations
from sgpo_core.types import Judgment, Problem, Step, Verdict

VERSION = "equations-v1"  # another one judges recorded responses anew
_SOON = 200  # characters in which a slip is taken back: two or three sentences
_DOUBT = re.compile(  # as it opens a sentence or a clause
    r"""(?:[.!?,;:\n(…—-])\s*(?:(?:but|so|and|oh),?\ )?(?:
        no[,.!:] | (?:wait|actually|hm+|hold\ on|oops|correction|sorry)\b
        | (?:let\ me|let's|i\ should)\ (?:re-?|double[-\ ]?)check\b | let\ me\ (?:redo|recompute|recalculate|correct)\b
        | (?:that|this)(?:\ is|['’]s)\ (?:not\ right|wrong|incorrect|not\ correct)\b | i\ made\ a\ mistake\b )""",
    re.IGNORECASE | re.VERBOSE,
)
_CHAIN_STEP = re.compile(r"Step (\d{1,4}): (\d) \+ (\d) \+ (\d) = (\d{1,2})")
_CHAIN_ANSWER = re.compile(r"Answer: \\boxed\{(\d{1,20})\}")


def rule(items: Sequence[Item]) -> list[Judgment]:
    """As a `Judge`. A judgment says how many steps could be checked: on `chains` all; elsewhere those with at least one
    equation that was read."""
    return [_judgment(item.problem, item.steps) for item in items]


def rule_judge(problem: Problem, steps: Sequence[Step], reference: str | None = None) -> Verdict:
    """Compares a `chains` response with the one right trace; elsewhere checks every equation between plain numbers that
    can be read (`equations`).

    Outside of `chains` it sees wrong arithmetic only, not wrong reasoning: there it finds no error in most wrong
    responses, which credit counts as an abstention. A wrong equation in a thinking section (`<think>` ... `</think>`)
    is no error where the text takes it back right after. Model text is parsed, never evaluated.
    """
    return _judgment(problem, steps).verdict


def _judgment(problem: Problem, steps: Sequence[Step]) -> Judgment:
    if not steps:
        return Judgment(Verdict.abstain("empty response"), checked_steps=0)
    operands = chains.operands(problem.prompt)
    if operands is not None:
        expected, checked = chains.solve(*operands).lines, len(steps)
        wrong = [i for i, step in enumerate(steps) if i >= len(expected) or not _same_line(step.text, expected[i])]
    else:
        read = [equations(step.text) for step in steps]
        checked = sum(map(bool, read))
        wrong = [i for i, found in enumerate(read) if any(not e.holds for e in found)]
        wrong = _standing(steps, {i: next(e.end for e in read[i] if not e.holds) for i in wrong})
    return Judgment(Verdict(wrong[0] + 1 if wrong else None), checked_steps=checked)


def _standing(steps: Sequence[Step], slips: dict[int, int]) -> list[int]:
    """Of the wrong steps those that are not taken back: in a thinking section that doubts them soon behind the place
    where their first wrong equation ends. `slips`: index of a step -> that place in its text."""
    text = "".join(step.text for step in steps)
    final, starts = final_part(text), [0, *accumulate(len(step.text) for step in steps)]
    ends = {i: starts[i] + end for i, end in slips.items()}
    return [i for i, e in ends.items() if e > final or not _DOUBT.search(text, e, min(e + _SOON, final))]


def is_exact(prompt: str) -> bool:
    """Whether the rule judge knows the right solution step by step, as it does for `chains`."""
    return chains.operands(prompt) is not None


def _same_line(written: str, expected: str) -> bool:
    pattern = _CHAIN_STEP if expected.startswith("Step") else _CHAIN_ANSWER
    mine, right = pattern.fullmatch(written.strip()), pattern.fullmatch(expected.strip())
    return mine is not None and right is not None and mine.groups() == right.groups()
