"""A judge as a run's groups meet it: which responses it is asked about, what it reads of them, what is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item, Judge
from sgpo_core.rl.credit import Scope, must_judge
from sgpo_core.types import Judgment, Problem, Rollout, RolloutGroup, Verdict

Key = tuple[int, int]  # a response: number of its group, number in it
# Responses that a judge is asked about in one call. Its verdicts are kept when the call ends, and an engine that does
# not end one within an hour counts as lost. QwQ-32B on two A100 takes 7 s a verdict (by preflight).
_AT_ONCE = 128


class GroupJudge:
    """What of a response goes to the judge, and to which judge. May be called from several threads."""

    def __init__(self, judge: Judge, scope: Scope) -> None:
        self._judge, self._scope = judge, scope
        self._lock, self._busy_s = threading.Lock(), 0.0
        self._calls, self._since = 0, 0.0  # under way; when the clock was last looked at

    def items(self, group: RolloutGroup) -> dict[Key, Item]:
        """Of a graded group the responses that credit asks about, each as the judge reads it."""
        wanted = must_judge([rollout.correct for rollout in group.rollouts], self._scope)
        asked = [(i, rollout) for i, (rollout, want) in enumerate(zip(group.rollouts, wanted, strict=True)) if want]
        return {(group.number, i): judged_item(group.problem, rollout) for i, rollout in asked}

    def __call__(self, items: Sequence[Item]) -> list[Judgment]:
        """Nothing to read is not an abstention: such a response has RTS 0, and nobody has to be asked."""
        written = [item for item in items if item.steps]
        with self._at_work():
            parts = [written[begin : begin + _AT_ONCE] for begin in range(0, len(written), _AT_ONCE)]
            answers = iter([judgment for part in parts for judgment in self._judge(part)])
        return [next(answers) if item.steps else Judgment(Verdict(None)) for item in items]

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, calls: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._busy_s += now - self._since if self._calls else 0.0
            self._calls, self._since = self._calls + calls, now

    def take_seconds(self) -> float:
        """In which the judge was at work, on one call or several, since it was last asked."""
        self._count(0)
        with self._lock:
            busy, self._busy_s = self._busy_s, 0.0
        return busy

    def complete(self, groups: Sequence[RolloutGroup], known: Mapping[Key, Judgment]) -> list[RolloutGroup]:
        """The graded groups with their steps and judgments. Responses that have to be judged and are not `known` are
        judged now; those that credit does not ask about have none."""
        items = {key: item for group in groups for key, item in self.items(group).items()}
        missing = {key: item for key, item in items.items() if key not in known}
        found = {**known, **dict(zip(missing, self(list(missing.values())), strict=True))}

        def judged(key: Key, rollout: Rollout) -> Rollout:
            ends = tuple(step.end for step in segment(rollout.text))
            return replace(rollout, step_ends=ends, judgment=found[key] if key in items else None)

        return [g.with_rollouts([judged((g.number, i), r) for i, r in enumerate(g.rollouts)]) for g in groups]


def judged_item(problem: Problem, rollout: Rollout) -> Item:
    """What the judge reads of a response: its whole steps, which of a truncated one are all but the last."""
    steps = segment(rollout.text)
    return Item(problem, tuple(steps[:-1] if rollout.truncated else steps))
