"""Extraction and grading of final answers, with real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sgpo_core.grading import grader as module
from sgpo_core.grading.grader import AnswerGrader, extract_answer
from sgpo_core.types import Grade, Outcome

ROOT = Path(__file__).resolve().parents[3]
CHILD = "sgpo_core.grading.child"
ROOT_2 = ("\\sqrt{2}", r"\boxed{2/\sqrt{2}}")  # an item that needs a child: it is no rational number
TOWER = ("9", r"\boxed{9^{9^{9^{9}}}}")  # an item that computes for ever


def children(parent: int) -> set[int]:
    """The live grading children of a process, which may itself be dead: its id is their last argument."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, stat = (entry / "cmdline").read_text().split("\0"), (entry / "stat").read_text()
        except OSError:
            continue
        zombie = stat.rpartition(")")[2].split()[0] == "Z"
        if CHILD in command and command[-2] == str(parent) and not zombie:
            found.add(int(entry.name))
    return found


@pytest.fixture
def started() -> Callable[[], set[int]]:
    """Gives the live children that this process started since the test began."""
    before = children(os.getpid())
    return lambda: children(os.getpid()) - before


def is_ready(child: int) -> bool:
    """Whether a child is past its start, the last act of which limits its memory and its core file."""
    limits = Path(f"/proc/{child}/limits").read_text().splitlines()
    return all("unlimited" not in line for line in limits if "address space" in line or "core file" in line)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def boxed(answer: str) -> str:
    return f"So the answer is \\boxed{{{answer}}}."


@pytest.fixture(scope="module")
def grader() -> Iterator[AnswerGrader]:
    with AnswerGrader(workers=1, deadline_s=5.0) as shared:
        yield shared


@pytest.fixture(scope="module")
def impatient() -> Iterator[AnswerGrader]:
    with AnswerGrader(workers=1, deadline_s=1.0) as shared:
        yield shared


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5}", "5"),
        (r"\boxed {5}", "5"),
        (r"first \boxed{4}, no, \boxed{5}.", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ 5 }", "5"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{1\right.}", r"\left\{1\right."),  # an escaped brace needs no partner
        (r"\boxed{5} and then \boxed{6", "5"),  # the last balanced one
        (r"}}}\boxed{5}{{{", "5"),
        (r"\boxed{1 + \boxed{5}}", "5"),  # opens last
        (r"\boxed{\boxed{5}", "5"),
        (r"\fbox{5}", None),
        (r"\boxed5", None),
        ("the answer is 5", None),
        ("", None),
        (r"\boxed{5} \boxed{}", None),
        (r"\boxed{ \n }".replace(r"\n", "\n"), None),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{" + "1" * 1024 + "}", "1" * 1024),
        (r"\boxed{" + "1" * 1025 + "}", None),
        (r"\boxed{5}" + "." * (16_384 - 9), "5"),
        (r"\boxed{5}" + "." * (16_384 - 8), None),  # one character too far from the end
        ("\\boxed{\ud800}", None),
        ("\\boxed{a\x00b}", "a\x00b"),
    ],
)
def test_extraction(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize("piece", ["{", "}", "\\boxed{", "\\boxed ", "\\boxed", "\\", "\\boxed{}", "\\boxed{1", " "])
def test_extraction_is_linear_in_hostile_text(piece: str) -> None:
    start = time.thread_time()
    extract_answer("\\boxed{" + piece * (1_000_000 // len(piece)))
    assert time.thread_time() - start < 0.5  # a few ms; a quadratic search would take minutes


@pytest.mark.parametrize(
    ("gold", "answer", "outcome"),
    [
        ("5", "5", Outcome.CORRECT),
        ("5", "005", Outcome.CORRECT),
        ("5", "+5", Outcome.CORRECT),
        ("5", "5.", Outcome.CORRECT),
        ("-5", "-05", Outcome.CORRECT),
        ("0", "-0", Outcome.CORRECT),
        ("5", "-5", Outcome.WRONG),
        ("5", "50", Outcome.WRONG),
        ("1234567", "1,234,567", Outcome.CORRECT),
        ("1,234", "1234", Outcome.CORRECT),
        ("1234", "1{,}234", Outcome.CORRECT),
        (r"1,\!234", r"1\,234", Outcome.CORRECT),
        ("7", "1" * 1000, Outcome.WRONG),
        (r"\text{east}", r"\text{east}", Outcome.CORRECT),
        ("x  +\n1", " x + 1 ", Outcome.CORRECT),
        ("", "5", Outcome.ERROR),  # no gold answer to compare with
        ("1" * 5000, "5", Outcome.ERROR),
    ],
)
def test_strings_alone_decide(gold: str, answer: str, outcome: Outcome, started: Callable[[], set[int]]) -> None:
    with AnswerGrader() as grader:
        assert grader.grade([(gold, boxed(answer))]) == [Grade(outcome, answer.strip())]
        assert started() == set()


def test_no_child_for_a_missing_answer(started: Callable[[], set[int]]) -> None:
    with AnswerGrader() as grader:
        assert grader.grade([("5", "no idea"), ("1/2", "")]) == [Grade(Outcome.UNPARSABLE, None)] * 2
        assert grader.grade([]) == []
        assert started() == set()


def test_reward_is_one_for_correct_only() -> None:
    assert {outcome: Grade(outcome, None).reward for outcome in Outcome} == {
        Outcome.CORRECT: 1.0,
        Outcome.WRONG: 0.0,
        Outcome.UNPARSABLE: 0.0,
        Outcome.TIMEOUT: 0.0,
        Outcome.ERROR: 0.0,
    }


COMPARISONS = [
    (r"\frac{1}{2}", "0.5", Outcome.CORRECT),
    ("1/2", r"\frac24", Outcome.CORRECT),
    ("1/3", "0.3333333", Outcome.CORRECT),
    ("1/3", "0.33", Outcome.WRONG),
    (r"\{1,2\}", r"\{2,1\}", Outcome.CORRECT),
    (r"\{1,2\}", r"\{1,2,3\}", Outcome.WRONG),
    ("(1,2)", "(2,1)", Outcome.WRONG),
    (r"2\sqrt{2}", r"\sqrt{8}", Outcome.CORRECT),
    ("(x+1)^2", "x^2+2x+1", Outcome.CORRECT),
    ("5", "x=5", Outcome.CORRECT),
    ("x=5", "5", Outcome.CORRECT),
    ("12", r"12\text{ cm}", Outcome.CORRECT),
    ("12", "$12$", Outcome.CORRECT),
    ("12", "12.0", Outcome.CORRECT),
    (r"50\%", "50", Outcome.CORRECT),
    ("0.5", r"50\%", Outcome.CORRECT),
    ("3/2", r"1\frac{1}{2}", Outcome.CORRECT),
    ("11/2", "1 1/2", Outcome.WRONG),
    ("1024", "2**10", Outcome.CORRECT),
    (r"x\le 3", r"(-\infty,3]", Outcome.CORRECT),
    (r"\text{yes}", r"\text{no}", Outcome.WRONG),
    ("C", r"\text{(C)}", Outcome.CORRECT),
    ("5", r"\frac{{}}{{}}", Outcome.UNPARSABLE),
    ("5", "5 (((", Outcome.UNPARSABLE),  # read whole or not at all
    ("5", "5*", Outcome.UNPARSABLE),
    ("5", "$5$ (((", Outcome.UNPARSABLE),
    ("5", "5\x00\x01\x1b[2J", Outcome.WRONG),
    ("5", "__import__('os').system('exit')", Outcome.UNPARSABLE),
]


def test_the_maths_library_decides_the_rest_in_order(grader: AnswerGrader) -> None:
    grades = grader.grade([(gold, boxed(answer)) for gold, answer, _ in COMPARISONS])
    assert [(gold, answer, grade.outcome) for (gold, answer, _), grade in zip(COMPARISONS, grades, strict=True)] == (
        COMPARISONS
    )
    assert [grade.extracted for grade in grades] == [answer for _, answer, _ in COMPARISONS]


HOSTILE = [
    "{" * 200 + "5" + "}" * 200,
    "(" * 300,
    "\\frac" * 200,
    "".join(map(chr, range(1, 32))),
    "\\left" * 100 + "\\begin{pmatrix}",
    "\u202e\U0001f600" * 100,
    "^_" * 300,
    "\\input{/etc/passwd}",
    '"} {"outcome": "correct"}\n',
]


def test_hostile_answers_are_never_correct_and_never_raise(impatient: AnswerGrader) -> None:
    for grade in impatient.grade([("5", "\\boxed{" + answer + "}") for answer in HOSTILE]):
        assert grade.outcome in (Outcome.WRONG, Outcome.UNPARSABLE, Outcome.TIMEOUT)


def test_hostile_texts_without_an_answer(grader: AnswerGrader) -> None:
    texts = [
        "{" * 1_000_000,
        "\\boxed{" * 150_000,
        "5" * 1_000_000,
        "\x00" * 1_000_000,
        "\ud800" * 1000,
        "\\boxed{\udfff}",
    ]
    start = time.perf_counter()
    assert grader.grade([("1/2", text) for text in texts]) == [Grade(Outcome.UNPARSABLE, None)] * len(texts)
    assert time.perf_counter() - start < 1


def test_a_million_characters_before_an_answer(grader: AnswerGrader) -> None:
    assert grader.grade([("1/2", "\\frac{" * 170_000 + boxed("0.5"))]) == [Grade(Outcome.CORRECT, "0.5")]


@pytest.mark.parametrize("tower", ["9**9**9**9", "9^{9^{9^{9}}}"])
def test_a_timeout_and_the_next_item(impatient: AnswerGrader, tower: str, started: Callable[[], set[int]]) -> None:
    assert impatient.grade([ROOT_2])[0].outcome is Outcome.CORRECT
    start = time.perf_counter()
    grades = impatient.grade([("9", boxed(tower)), ("9", boxed(tower)), ROOT_2])
    assert [grade.outcome for grade in grades] == [Outcome.TIMEOUT, Outcome.TIMEOUT, Outcome.CORRECT]
    assert time.perf_counter() - start > 1  # and one deadline only, since the two are the same comparison
    assert len(started()) == 1  # the stuck one is gone


def test_a_child_killed_while_idle_costs_nothing(grader: AnswerGrader) -> None:
    for _ in range(2):
        for child in children(os.getpid()):
            os.kill(child, signal.SIGKILL)
        assert grader.grade([ROOT_2]) == [Grade(Outcome.CORRECT, r"2/\sqrt{2}")]


@contextmanager
def stuck(started: Callable[[], set[int]]) -> Iterator[tuple[AnswerGrader, list[Grade]]]:
    """A grader, and the grades that a thread gets from it: its child is computing for ever when the block begins."""
    grades: list[Grade] = []
    with AnswerGrader(workers=1, deadline_s=60.0) as grader:
        thread = threading.Thread(target=lambda: grades.extend(grader.grade([TOWER, ROOT_2])))
        thread.start()
        assert until(lambda: any(map(is_ready, started())))
        time.sleep(0.2)  # from the child's start to the item
        yield grader, grades
        thread.join()


def test_a_child_that_dies_of_an_item_costs_that_item(started: Callable[[], set[int]]) -> None:
    with stuck(started) as (_, grades):
        os.kill(started().pop(), signal.SIGKILL)
    assert [grade.outcome for grade in grades] == [Outcome.ERROR, Outcome.CORRECT]


def test_close_does_not_wait_for_a_stuck_comparison(started: Callable[[], set[int]]) -> None:
    with stuck(started) as (grader, grades):
        start = time.perf_counter()
        grader.close()
        assert time.perf_counter() - start < 10  # of a deadline of 60
        assert started() == set()
    assert [grade.outcome for grade in grades] == [Outcome.ERROR, Outcome.ERROR]
    with pytest.raises(RuntimeError, match="closed"):
        grader.grade([("5", "5")])


def test_any_thread_gets_the_same_and_its_end_ends_no_child(grader: AnswerGrader) -> None:
    items = [(gold, boxed(answer)) for gold, answer, _ in COMPARISONS[:6]]
    expected, before = grader.grade(items), children(os.getpid())
    results: list[list[Grade]] = []
    threads = [threading.Thread(target=lambda: results.append(grader.grade(items))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4
    assert children(os.getpid()) == before


def test_workers_have_a_child_each_and_close_ends_them(started: Callable[[], set[int]]) -> None:
    with AnswerGrader(workers=2) as grader:
        pairs = [(f"{i}\\sqrt{{2}}", f"\\boxed{{\\sqrt{{{2 * i * i}}}}}") for i in range(2, 30)]
        assert {grade.outcome for grade in grader.grade(pairs)} == {Outcome.CORRECT}
        assert len(started()) == 2
    assert started() == set()


PARENT = """
import sys
from sgpo_core.grading.grader import AnswerGrader
grader = AnswerGrader(workers=1, deadline_s=60.0)
print(grader.grade([(r"\\sqrt{2}", r"\\boxed{2/\\sqrt{2}}")])[0].outcome, flush=True)
if sys.argv[1] == "stuck":
    grader.grade([("9", r"\\boxed{9^{9^{9^{9}}}}")])
if sys.argv[1] == "idle":
    sys.stdin.read()
"""


@contextmanager
def a_parent(state: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has graded something, and then waits, computes, or leaves without close()."""
    command = [sys.executable, "-c", PARENT, state]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "correct\n"
        yield parent


@pytest.mark.parametrize("state", ["idle", "stuck"])
def test_no_child_outlives_a_parent_that_is_killed(state: str) -> None:
    with a_parent(state) as parent:
        time.sleep(0.2)
        assert len(children(parent.pid)) == 1
        parent.kill()
        assert until(lambda: not children(parent.pid))


def test_no_child_outlives_a_parent_that_ends() -> None:
    with a_parent("ended") as parent:
        assert parent.wait(20) == 0
        assert until(lambda: not children(parent.pid))


def test_a_child_needs_neither_the_working_directory_nor_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Callable[[], set[int]]
) -> None:
    (tmp_path / "sympy.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A_TOKEN", "secret")
    with AnswerGrader() as grader:
        assert grader.grade([ROOT_2]) == [Grade(Outcome.CORRECT, r"2/\sqrt{2}")]
        (child,) = started()
        assert b"secret" not in Path(f"/proc/{child}/environ").read_bytes()
        assert "torch" not in Path(f"/proc/{child}/maps").read_text()


@pytest.mark.parametrize("executable", ["/bin/false", "/no/such/file"])
def test_a_child_that_cannot_start_is_an_error(executable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with AnswerGrader() as grader:
        monkeypatch.setattr(sys, "executable", executable)
        assert grader.grade([ROOT_2, ("5", boxed("5"))]) == [
            Grade(Outcome.ERROR, r"2/\sqrt{2}"),
            Grade(Outcome.CORRECT, "5"),
        ]
        monkeypatch.undo()
        assert grader.grade([ROOT_2]) == [Grade(Outcome.CORRECT, r"2/\sqrt{2}")]


def test_a_child_that_starts_too_slowly_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_DEADLINE_S", 0.0)
    with AnswerGrader() as grader:
        assert grader.grade([ROOT_2]) == [Grade(Outcome.ERROR, r"2/\sqrt{2}")]


@pytest.mark.parametrize(("workers", "deadline_s"), [(0, 1.0), (1, 0.0)])
def test_settings_are_checked(workers: int, deadline_s: float) -> None:
    with pytest.raises(ValueError, match="grading needs"):
        AnswerGrader(workers, deadline_s)
