"""Worked solutions of people, rewritten as responses: what a supervised start on real text learns to write."""

from __future__ import annotations

import re

from sgpo_core.data.format_gate import well_formed
from sgpo_core.grading.grader import extract_answer
from sgpo_core.types import Problem

_MARK = re.compile(r"<<[^<>\n]{0,200}>>")  # GSM8K's calculator marks: 48/2 = <<48/2=24>>24
_LAST_LINE = re.compile(r"\n*#### .*\Z")
_BOX = "The answer is \\boxed{ANSWER}."
_LAST_LINES = {"boxed": _BOX, "any": _BOX, "hashes": "#### ANSWER", "phrase": "The answer is ANSWER."}


def as_response(problem: Problem) -> str | None:
    """The problem's worked solution in the form that a policy is asked for: as it is where it gives its answer in the
    problem's `answer_form`, else with a last line that does; without GSM8K's marks. None where there is no worked
    solution, or where its form would not pass the format gate."""
    if not problem.reference:
        return None
    form = problem.answer_form
    text = _LAST_LINE.sub("", without_marks(problem.reference)).strip()
    if extract_answer(text, form) is None:
        text += "\n" + last_line(problem)
    return text if well_formed(text, form=form) else None


def without_marks(text: str) -> str:
    """Without GSM8K's calculator marks."""
    return _MARK.sub("", text)


def last_line(problem: Problem) -> str:
    """What gives a problem's answer in its `answer_form`."""
    return _LAST_LINES[problem.answer_form].replace("ANSWER", problem.answer)
