"""Offline batches: every chosen group once an epoch, in an order by seed, the same when asked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import GroupChoice
from sgpo_core.offline.batches import OfflineBatches, chosen_groups
from sgpo_core.offline.store import Groups, Responses, write_shard
from sgpo_core.storage.rollout_table import to_table
from sgpo_core.types import Grade, Outcome
from tests.records import WRONG, group, rollout

COLUMNS = ["group", "grade", "response"]
# Five groups over two shards: all-negative, mixed, all-positive, one with nothing gradable, wrong or not gradable.
GRADES = [[["wrong", "unparsable"], ["wrong", "correct", "correct"]], [["correct"], ["error"], ["wrong", "error"]]]


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    number = 0
    for shard, members in enumerate(GRADES):
        found = []
        for grades in members:
            found.append(group(number, [rollout(text=f"{number}/x", grade=Grade(Outcome(g))) for g in grades]))
            number += 1
        write_shard(tmp_path / "imported", shard, to_table(found, COLUMNS))
    return Groups(Responses(tmp_path / "imported"))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("all", [0, 1, 2, 3, 4]), ("positive", [1, 2]), ("negative", [0, 3, 4]), ("mixed", [1])],
)
def test_choices(choice: GroupChoice, expected: list[int], groups: Groups) -> None:
    assert chosen_groups(groups, choice) == expected


def test_a_choice_without_groups_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "imported", 0, to_table([group(0, [rollout(grade=WRONG)] * 2)], COLUMNS))
    with pytest.raises(ConfigError, match="groups=mixed: the data set has no such group"):
        chosen_groups(Groups(Responses(tmp_path / "imported")), "mixed")


def test_every_group_once_an_epoch_in_batches_as_equal_as_can_be(groups: Groups) -> None:
    batches = OfflineBatches(groups, list(range(5)), per_iteration=2, seed=1)
    assert batches.per_epoch == 3  # 5 groups of at most 2: 1 + 2 + 2, not 2 + 2 + 1 of which the last weighs double
    first, second = ([batches.groups_of(i) for i in iterations] for iterations in ((1, 2, 3), (4, 5, 6)))
    for epoch in (first, second):
        assert sorted(g for batch in epoch for g in batch) == [0, 1, 2, 3, 4]
        assert sorted(map(len, epoch)) == [1, 2, 2]
    assert first != second
    again = OfflineBatches(groups, list(range(5)), per_iteration=2, seed=1)
    assert [again.groups_of(i) for i in (6, 2, 4)] == [second[2], first[1], second[0]]  # whatever was asked before
    other = OfflineBatches(groups, list(range(5)), per_iteration=2, seed=2)
    assert [other.groups_of(i) for i in (1, 2, 3)] != first


def test_a_batch_has_its_groups_rows_over_shards(groups: Groups) -> None:
    batches = OfflineBatches(groups, list(range(5)), per_iteration=5, seed=0)
    table, order = batches.table(1).to_pydict(), batches.groups_of(1)
    sizes = [2, 3, 1, 1, 2]
    assert table["group"] == [i for i, g in enumerate(order) for _ in range(sizes[g])]
    assert [r.split("/")[0] for r in table["response"]] == [str(g) for g in order for _ in range(sizes[g])]
