"""Grading and judging in the background, group by group, while the engines still generate the other groups."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.judges.base import Item
from sgpo_core.types import Judgment, RolloutGroup
from tasks.judges.group_judge import GroupJudge, Key


@dataclass
class _Iteration:
    """What is under way of an iteration."""

    waiting: dict[Key, Item] = field(default_factory=dict)  # for the judge
    graded: list[Future[RolloutGroup]] = field(default_factory=list)
    judgments: list[Future[dict[Key, Judgment]]] = field(default_factory=list)


class GroupStream:
    """A group is graded when its last response is there, and judged when it is graded.

    Groups of an iteration that wait while the judge is busy go to it together, in as large a batch as has gathered;
    `calls` such batches are under way at a time.
    """

    def __init__(self, grader: AnswerGrader, judge: GroupJudge, calls: int) -> None:
        self._grader, self._judge = grader, judge
        self._graders, self._judges = ThreadPoolExecutor(1, "grade"), ThreadPoolExecutor(calls, "judge")
        self._lock = threading.Lock()
        self._iterations: defaultdict[int, _Iteration] = defaultdict(_Iteration)

    def add(self, iteration: int, group: RolloutGroup) -> None:
        """A group of this iteration whose last response is there."""
        work = self._iterations[iteration]
        work.graded.append(self._graders.submit(self._grade, work, group))

    def _grade(self, work: _Iteration, group: RolloutGroup) -> RolloutGroup:
        result = self._grader.grade_group(group)
        if asked := self._judge.items(result):
            with self._lock:
                work.waiting |= asked
            work.judgments.append(self._judges.submit(self._judge_waiting, work))
        return result

    def _judge_waiting(self, work: _Iteration) -> dict[Key, Judgment]:
        with self._lock:
            batch, work.waiting = work.waiting, {}
        if not batch:  # an earlier call took these along
            return {}
        return dict(zip(batch, self._judge(list(batch.values())), strict=True))

    def take_graded(self, iteration: int) -> dict[int, RolloutGroup]:
        """By number, this iteration's groups that were added since it was last asked, graded; waits for them."""
        work = self._iterations[iteration]
        done, work.graded = work.graded, []
        return {group.number: group for group in (future.result() for future in done)}

    def take_judgments(self, iteration: int) -> dict[Key, Judgment]:
        """Of this iteration's groups, whose grades have all been taken; waits for them."""
        done = self._iterations.pop(iteration, _Iteration()).judgments
        return {key: judgment for future in done for key, judgment in future.result().items()}

    def close(self) -> None:
        """Drops what has not begun, and waits for what has."""
        for pool in (self._graders, self._judges):
            pool.shutdown(cancel_futures=True)
