"""Which responses are filtered out before advantages are computed.

A filter looks at correctness (the outcome) alone, never at shaped rewards: "std > 0" or "sum of rewards = 0" mean
something else once rewards are graded.
"""

from __future__ import annotations

from collections.abc import Sequence

from sgpo_core.config.algorithm import GroupFilter

Outcomes = Sequence[bool | None]  # of a group: correct, wrong, None where grading itself failed


def is_mixed(group: Outcomes) -> bool:
    """Whether a group has correct and wrong responses, the only groups that teach GRPO anything."""
    return True in group and False in group


def filtered_out(groups: Sequence[Outcomes], rule: GroupFilter, most_groups: int) -> list[list[bool]]:
    """For each response of each group whether it is filtered out of the update.

    `mixed` (DAPO, Reinforce-Rej) filters out groups that are all wrong or all correct, and of the others all after the
    first `most_groups`, so that several rounds of sampling make no larger batch; `correct` (RAFT) filters out every
    response that is not correct.
    """
    if rule == "correct":
        return [[not c for c in group] for group in groups]
    if rule == "none":
        return [[False] * len(group) for group in groups]
    result, kept = [], 0
    for group in groups:
        keep = is_mixed(group) and kept < most_groups
        kept += keep
        result.append([not keep] * len(group))
    return result
