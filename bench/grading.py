"""grading: 10,000 answers of the kinds that benchmarks have, right and wrong, on two child processes.

They are 625 problems x 16. Every second problem has a plain integer and every eighth a fraction, which are decided
without the maths library; the rest goes there. No pair comes twice: samples that agree would be answered from memory.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator

from bench.figures import Figure
from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.types import Outcome

PROBLEMS, K = 625, 16
KINDS = ("integer", "integer", "integer", "integer", "fraction", "root", "tuple", "polynomial")


def measure() -> Iterator[Figure]:
    items = [pair(problem, sample) for problem in range(PROBLEMS) for sample in range(K)]
    with AnswerGrader(workers=2) as grader:
        # So that the children have started.
        grader.grade([("\\sqrt{8}", "\\boxed{2\\sqrt{2}}"), ("\\sqrt{12}", "\\boxed{2\\sqrt{3}}")])
        began = time.perf_counter()
        outcomes = Counter(grade.outcome for grade in grader.grade(items))
        seconds = time.perf_counter() - began
    lost = outcomes[Outcome.TIMEOUT] + outcomes[Outcome.ERROR]
    how = f"{len(items)} answers, {outcomes[Outcome.CORRECT]} correct, {lost} lost to timeouts and errors; 2 processes"
    yield Figure("grading", seconds if not lost else float("inf"), "s", ("<=", 60), how)


def pair(problem: int, sample: int) -> tuple[str, str]:
    """The problem's gold answer and a response, every third one wrong, each written in another way or off by more."""
    rng, off = random.Random(problem), sample if sample % 3 == 0 else 0
    a, b, c = problem + 2, rng.randint(2, 99), sample + 2
    match rng.choice(KINDS):
        case "fraction":
            gold, given = f"\\frac{{{a}}}{{{b}}}", f"{a * c + off}/{b * c}"
        case "root":
            gold, given = f"{b}\\sqrt{{{a}}}", f"\\frac{{\\sqrt{{{b * b * c * c * a + off}}}}}{{{c}}}"
        case "tuple":
            gold, given = f"({a},\\frac{{1}}{{{b}}})", f"\\left({a}, \\frac{{{c}}}{{{c * b + off}}}\\right)"
        case "polynomial":
            gold, given = f"(x+{a})^2", f"x^2+{2 * a - c}x+{c}x+{a * a + off}"
        case _:
            gold, given = str(a), f"{a + off:,}"
    return gold, f"So it is \\boxed{{{given}}}."
