"""Grading and judging in the background, group by group, while the engines still generate the other groups."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from sgpo_core.grading.grader import AnswerGrader
from sgpo_core.judges.base import Item
from sgpo_core.types import Judgment, RolloutGroup
from tasks.judges.group_judge import GroupJudge, Key


class GroupStream:
    """A group is graded when its last response is there, and judged when it is graded.

    Groups that wait while the judge is busy go to it together, in as large a batch as has gathered; `calls` such
    batches are under way at a time.
    """

    def __init__(self, grader: AnswerGrader, judge: GroupJudge, calls: int) -> None:
        self._grader, self._judge = grader, judge
        self._graders, self._judges = ThreadPoolExecutor(1, "grade"), ThreadPoolExecutor(calls, "judge")
        self._lock = threading.Lock()
        self._waiting: dict[Key, Item] = {}
        self._graded: list[Future[RolloutGroup]] = []
        self._judgments: list[Future[dict[Key, Judgment]]] = []

    def add(self, group: RolloutGroup) -> None:
        """A group whose last response is there."""
        self._graded.append(self._graders.submit(self._grade, group))

    def _grade(self, group: RolloutGroup) -> RolloutGroup:
        result = self._grader.grade_group(group)
        if asked := self._judge.items(result):
            with self._lock:
                self._waiting |= asked
            self._judgments.append(self._judges.submit(self._judge_waiting))
        return result

    def _judge_waiting(self) -> dict[Key, Judgment]:
        with self._lock:
            batch, self._waiting = self._waiting, {}
        if not batch:  # an earlier call took these along
            return {}
        return dict(zip(batch, self._judge(list(batch.values())), strict=True))

    def take_graded(self) -> dict[int, RolloutGroup]:
        """By number, the groups added since it was last asked, graded; waits for them."""
        done, self._graded = self._graded, []
        return {group.number: group for group in (future.result() for future in done)}

    def take_judgments(self) -> dict[Key, Judgment]:
        """Of the groups whose grades have been taken; waits for them."""
        done, self._judgments = self._judgments, []
        return {key: judgment for future in done for key, judgment in future.result().items()}

    def close(self) -> None:
        """Drops what has not begun, and waits for what has."""
        for pool in (self._graders, self._judges):
            pool.shutdown(cancel_futures=True)
