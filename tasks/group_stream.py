"""Grading and judging in the background, group by group, while the engines still generate the other groups."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from sgpo_core.answers import AnswerGrader, Grade, Outcome
from sgpo_core.judge import Item, Judgement
from sgpo_core.types import Problem
from tasks.judges import Judging, Response


class GroupStream:
    """A group is graded when its last response is there, and judged when it is graded.

    Groups that wait while the judge is busy go to it together, in as large a batch as has gathered; `calls` such
    batches are under way at a time.
    """

    def __init__(self, grader: AnswerGrader, judging: Judging, calls: int) -> None:
        self._grader, self._judging = grader, judging
        self._graders, self._judges = ThreadPoolExecutor(1, "grade"), ThreadPoolExecutor(calls, "judge")
        self._lock = threading.Lock()
        self._waiting: dict[int, Item] = {}
        self._grades: list[Future[dict[int, Grade]]] = []
        self._judgements: list[Future[dict[int, Judgement]]] = []

    def add(self, problem: Problem, responses: Sequence[Response]) -> None:
        """A group whose last response is there."""
        self._grades.append(self._graders.submit(self._grade, problem, responses))

    def _grade(self, problem: Problem, responses: Sequence[Response]) -> dict[int, Grade]:
        grades = self._grader.grade([(problem.answer, response.text) for response in responses])
        if asked := self._judging.ask(problem, responses, [grade.outcome is Outcome.CORRECT for grade in grades]):
            with self._lock:
                self._waiting |= asked
            self._judgements.append(self._judges.submit(self._judge_waiting))
        return {response.row: grade for response, grade in zip(responses, grades, strict=True)}

    def _judge_waiting(self) -> dict[int, Judgement]:
        with self._lock:
            batch, self._waiting = self._waiting, {}
        if not batch:  # an earlier call took these along
            return {}
        return dict(zip(batch, self._judging(list(batch.values())), strict=True))

    def take_grades(self) -> dict[int, Grade]:
        """By row, of the groups added since it was last asked; waits for them."""
        done, self._grades = self._grades, []
        return {row: grade for future in done for row, grade in future.result().items()}

    def take_judgements(self) -> dict[int, Judgement]:
        """By row, of the groups whose grades have been taken; waits for them."""
        done, self._judgements = self._judgements, []
        return {row: judgement for future in done for row, judgement in future.result().items()}

    def close(self) -> None:
        """Drops what has not begun, and waits for what has."""
        for pool in (self._graders, self._judges):
            pool.shutdown(cancel_futures=True)
