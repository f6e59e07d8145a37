"""The child process in which `sgpo_core.grading.grader` has a maths library compare two answers.

    parent -> child    {"gold": "1/2", "answer": "0.5"}                           one JSON object a line
    child -> parent    {"ready": true} once, then {"outcome": "correct"} for each request

What it compares is hostile (a tower of powers computes for ever), so the parent keeps the time and kills it. It ends
by itself when its input ends or its parent dies. `math_verify` deviates from its defaults in three ways: no timeout of
its own (it needs signals), an answer is read whole or not at all (by default `5 (((` reads as 5), and `2**10` and
`50\\%` are read, which it would not read inside a box.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import resource
import signal
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from sgpo_core.types import Outcome

_EXTRA_BYTES = 2 << 30  # address space a comparison may take beyond that of the loaded libraries
_PR_SET_PDEATHSIG = 1
_PERCENTAGE = re.compile(r"([^$%]+?)\s*\\?%")
_INTERVAL = re.compile(r"(?:\\left)?\s*[\[(]")
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge|lt|gt)")
_SMALL, _TOLERANCE = 1e-3, 1e-6
_ARITHMETIC = re.compile(r"[\d.+\-*/^() ]+", re.ASCII)


def compare(gold: str, answer: str) -> Outcome:
    """Whether the answer means the same as the gold one; UNPARSABLE where no expression can be read from it."""
    from math_verify import verify  # after the process is tied to its parent: this takes a second or two

    expected, given = _read(gold), _read(answer)
    if not expected:
        return Outcome.ERROR
    if verify(expected, given, timeout_seconds=None):
        return Outcome.WRONG if _differ_in_size(expected[0], given[0]) else Outcome.CORRECT
    # It knows an interval in a gold inequality, not an inequality for a gold interval.
    if _INTERVAL.match(gold) and _INEQUALITY.search(answer) and verify(given, expected, timeout_seconds=None):
        return Outcome.CORRECT
    return Outcome.WRONG if _is_expression(given) else Outcome.UNPARSABLE


@lru_cache(maxsize=512)  # all samples of a problem share its gold answer, and reading is what takes the time
def _read(text: str) -> list[Any]:
    """What `math_verify` makes of the text: an expression, where it finds one, and the text as a string."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    if percentage := _PERCENTAGE.fullmatch(text):
        return list(parse(f"${percentage[1]}$%", [LatexExtractionConfig()], parsing_timeout=None))
    whole = LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)
    found: list[Any] = parse(f"\\boxed{{{text}}}", [whole], parsing_timeout=None)
    if not _is_expression(found) and _ARITHMETIC.fullmatch(text):
        plain: list[Any] = parse(text, [ExprExtractionConfig()], extraction_mode="first_match", parsing_timeout=None)
        return plain if plain and plain[-1] == text else found
    return found


def _differ_in_size(expected: Any, given: Any) -> bool:
    """Whether two numbers are so small that `math_verify`, which compares six places behind the point, can't tell
    them apart, though they differ by more than a millionth of themselves."""
    if not all(getattr(one, "is_number", False) and getattr(one, "is_commutative", False) for one in (expected, given)):
        return False
    one, other = (complex(number.evalf()) for number in (expected, given))
    largest = max(abs(one), abs(other))
    return largest < _SMALL and abs(one - other) > _TOLERANCE * largest


def _is_expression(found: list[Any]) -> bool:
    return any(not isinstance(one, str) for one in found)


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def _limit_memory() -> None:
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit, hard = has + _EXTRA_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answers one line of JSON with one, until standard input ends or the parent (first argument) dies."""
    _die_with_parent(int(sys.argv[1]))
    logging.disable()
    replies, nowhere = os.fdopen(os.dup(1), "w", buffering=1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a library prints can't get between the replies
    compare("1/2", "0.5")  # imports, compiles the grammar; a failed import shows its traceback
    os.dup2(nowhere, 2)
    _limit_memory()
    print(json.dumps({"ready": True}), file=replies)
    for line in sys.stdin.buffer:
        outcome = Outcome.ERROR
        with suppress(Exception):  # the library fails in unforeseeable ways; memory and recursion are among them
            outcome = compare(**json.loads(line))
        print(json.dumps({"outcome": outcome}), file=replies)


if __name__ == "__main__":
    main()
