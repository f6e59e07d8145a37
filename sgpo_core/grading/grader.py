"""Final answers: found in a response, compared with the gold answer, graded.

    response ──extract_answer──▶ answer ──equal tokens, words, rational numbers──▶ Grade
                                    └─────everything else─────▶ a killable child process (child.py) ──▶ Grade

A response is hostile input: whatever it holds, the result is a `Grade`, never an exception.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from sgpo_core.config.data import AnswerForm
from sgpo_core.grading.answer_forms import canonical, decided, is_no_number, says_more, sides, skeleton
from sgpo_core.grading.final_answers import MAX_ANSWER_CHARACTERS, final_answers
from sgpo_core.grading.numerals import Numeral, numeral, same_number
from sgpo_core.types import Grade, Outcome, RolloutGroup

# Two results that were graded by different versions are not compared: raise it with every change of what comes out.
GRADER = f"boxed/5, math-verify {metadata.version('math-verify')}"
TAIL_CHARACTERS = 16_384  # of a response, in which its answer is looked for
START_DEADLINE_S = 60.0  # for a child to import its libraries, 1-2 s on an idle machine

_ROOT = str(Path(__file__).resolve().parents[2])
_NAME = re.compile(r"^[a-zA-Z]\s*=\s*")  # of the unknown: x=5 asks for a number
# 007, +7, 1,234 and its other forms 1{,}234  1,\!234  1\,234  1 234
_INTEGER = re.compile(r"[+-]?(?:[1-9]\d{0,2}(?:(?:,|\{,\}|,\\!|\\,| )\d{3})+|\d+)", re.ASCII)


def extract_answer(text: str, form: AnswerForm = "boxed") -> str | None:
    """The final answer that begins last (see `final_answers`) within the last 16,384 characters.

    None where there is none, or where it is blank, longer than 1,024 characters or not encodable as UTF-8 (lone
    surrogates), so that an answer can be stored anywhere. Takes time linear in those characters.
    """
    said = [found.text for found in final_answers(text[-TAIL_CHARACTERS:], form) if found.text is not None]
    answer = said[-1] if said else ""
    try:
        answer.encode()
    except UnicodeEncodeError:
        return None
    return answer if 0 < len(answer) <= MAX_ANSWER_CHARACTERS else None


def is_integer(answer: str) -> bool:
    """Whether an answer is a plain integer in one of the ways to write one (42, 042, 1,234, $42$)."""
    return _INTEGER.fullmatch(canonical(answer)) is not None


def _quick_outcome(gold: str, answer: str) -> Outcome | None:
    """The outcome for two canonical answers where strings alone decide it."""
    if not gold or len(gold) > MAX_ANSWER_CHARACTERS:
        return Outcome.ERROR
    if gold == answer or skeleton(gold) == skeleton(answer):
        return Outcome.CORRECT
    same = decided(gold, answer)
    if same is None and (expected := numeral(_NAME.sub("", gold))):
        same = _is_number(expected, answer)
    return None if same is None else Outcome.CORRECT if same else Outcome.WRONG


def _is_number(expected: Numeral, answer: str) -> bool | None:
    """Whether an answer says this number, at the end of a chain of equations if it is one (6 \\times 7 = 42); None
    where it does not end in a number that can be read here."""
    if says_more(answer):
        return False
    *before, last = map(numeral, sides(answer))
    if last is None:
        return False if is_no_number(answer, expected.whole) else None
    if expected.whole and last.divided:
        return False
    # One quantity in two units (540 cents = \\$5.40) is one answer, the last; two numbers without units are none.
    converted = [side for side in before if side and side.unit and last.unit and side.unit != last.unit]
    return same_number(expected, last) and all(
        side is None or side in converted or same_number(last, side) for side in before
    )


class _Child:
    """A comparing process, for the one thread that made it; only `kill` may be called from another."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sgpo_core.grading.child", str(os.getpid())],  # -P: nothing from the cwd
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": _ROOT, "LANG": "C.UTF-8"},  # no secrets
            start_new_session=True,  # Ctrl-C is for the parent
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout

    def starts(self) -> bool:
        """Whether the child became ready in time; if not, it has ended."""
        return bool(self._reply(START_DEADLINE_S).get("ready", False))

    def ask(self, gold: str, answer: str, deadline_s: float) -> Outcome | None:
        """The child's outcome; None where it is dead or dies. After TIMEOUT and None it has ended."""
        if self._process.returncode is not None:
            return None
        try:
            # Two bounded answers fit the pipe's buffer, and the child is waiting for them: this does not block.
            self._requests.write(json.dumps({"gold": gold, "answer": answer}).encode() + b"\n")
        except OSError:
            self.end()
            return None
        outcome = self._reply(deadline_s).get("outcome")
        return Outcome(outcome) if outcome else None

    def _reply(self, deadline_s: float) -> dict[str, Any]:
        """The next reply; the outcome TIMEOUT where none comes in time, {} where the child died: it has ended then."""
        give_up, line = time.monotonic() + deadline_s, b""
        readable = select.poll()
        readable.register(self._replies, select.POLLIN)
        while not line.endswith(b"\n"):
            in_time = readable.poll(max(0.0, give_up - time.monotonic()) * 1000)
            chunk = os.read(self._replies.fileno(), 4096) if in_time else b""
            if not chunk:
                self.end()
                return {} if in_time else {"outcome": Outcome.TIMEOUT}
            line += chunk
        reply: dict[str, Any] = json.loads(line)
        return reply

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Kills the process and gives back what it holds; harmless when repeated."""
        self._process.kill()
        self._process.wait()
        self._requests.close()
        self._replies.close()


class AnswerGrader:
    """Grades responses against gold answers; safe to call from any thread. A context manager: close it after use.

    At most `workers` comparisons run at a time, each for at most `deadline_s` seconds from the moment its child
    process has the request. Children start when first needed, stay for later calls, are replaced when they die, and
    are gone after `close()` or the death of this process.
    """

    def __init__(self, workers: int = 2, deadline_s: float = 5.0) -> None:
        if workers < 1 or deadline_s <= 0:
            raise ValueError(f"grading needs workers >= 1 and deadline_s > 0, not {workers} and {deadline_s}")
        self._deadline_s = deadline_s
        # The kernel kills a child when the *thread* that started it ends, so a child's thread has to stay: those of a
        # pool do, until its shutdown. Each owns the child under its identifier.
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="grading")
        self._children: dict[int, _Child] = {}
        self._lock = threading.Lock()
        self._closed = False

    def grade(self, items: Sequence[tuple[str, str]], form: AnswerForm = "boxed") -> list[Grade]:
        """Grades (gold answer, response text) pairs, in their order; `form` is that of the responses' final answers.
        RuntimeError after `close()`."""
        if self._closed:
            raise RuntimeError("this AnswerGrader is closed: make another")
        compared: dict[tuple[str, str], Future[Outcome]] = {}  # samples of one problem often share their answer
        graded: list[tuple[Outcome | Future[Outcome], str | None]] = []
        for gold, response in items:
            answer = extract_answer(response, form)
            if answer is None:
                graded.append((Outcome.UNPARSABLE, None))
                continue
            pair = canonical(gold), canonical(answer)
            outcome: Outcome | Future[Outcome] | None = _quick_outcome(*pair)
            if outcome is None:
                outcome = compared[pair] = compared.get(pair) or self._pool.submit(self._compare, *pair)
            graded.append((outcome, answer))
        return [Grade(o if isinstance(o, Outcome) else o.result(), answer) for o, answer in graded]

    def grade_group(self, group: RolloutGroup) -> RolloutGroup:
        """The group with a grade for each response; one that is there already stays."""
        new = [rollout for rollout in group.rollouts if rollout.grade is None]
        pairs = [(group.problem.answer, rollout.text) for rollout in new]
        grades = iter(self.grade(pairs, group.problem.answer_form))
        return group.with_rollouts([replace(r, grade=next(grades)) if r.grade is None else r for r in group.rollouts])

    def _compare(self, gold: str, answer: str) -> Outcome:
        child = self._children.get(threading.get_ident())
        outcome = child.ask(gold, answer, self._deadline_s) if child else None
        if outcome is None:  # no child yet, or it was killed while idle, which is not this answer's fault
            child = self._start_child()
            outcome = child.ask(gold, answer, self._deadline_s) if child else None
        return outcome or Outcome.ERROR

    def _start_child(self) -> _Child | None:
        with self._lock:
            if self._closed:
                return None
            try:
                child = self._children[threading.get_ident()] = _Child()
            except OSError:  # no memory or no process to be had
                return None
        return child if child.starts() else None

    def close(self) -> None:
        """Ends all children; a comparison still running in another thread ends as ERROR."""
        with self._lock:
            self._closed = True
            for child in self._children.values():
                child.kill()
        self._pool.shutdown()
        for child in self._children.values():
            child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
