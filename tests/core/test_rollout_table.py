"""rollouts.parquet: what is written is read, stage by stage, and groups are found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_core.storage import rollout_table

GENERATED: dict[str, list[Any]] = {
    "problem_id": ["a", "a"],
    "group": [0, 0],
    "sample": [0, 1],
    "reference": ["1. x", None],
    "prompt_ids": [[1, 2], [1, 2]],
    "token_ids": [[3, 4, 5], []],
    "rollout_logprobs": [[-0.5, -0.25, 0.0], []],  # exact in float32
    "response": ["x ½ 😀\n", ""],
    "truncated": [False, True],
    "policy_version": [7, 7],
    "seed": [2**31 - 1, 0],
}
JUDGED: dict[str, list[Any]] = {
    "first_error_step": [2, None],
    "verdict_status": ["ok", None],
    "step_ends": [[3, 6], []],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "iterations" / "000001" / "rollouts.parquet"


def test_what_is_written_is_read(path: Path) -> None:
    rollout_table.write(path, GENERATED)
    assert rollout_table.read(path) == GENERATED
    assert rollout_table.read(path, ["seed", "group"]) == {"seed": [2**31 - 1, 0], "group": [0, 0]}


def test_stages_add_their_columns(path: Path) -> None:
    rollout_table.write(path, GENERATED)
    rollout_table.add(path, JUDGED)
    assert rollout_table.read(path) == GENERATED | JUDGED
    rollout_table.add(path, {"first_error_step": [None, 1]})  # a stage that is done again
    assert rollout_table.read(path) == GENERATED | JUDGED | {"first_error_step": [None, 1]}


def test_columns_have_the_order_and_types_of_the_schema(path: Path) -> None:
    rollout_table.write(path, dict(reversed(GENERATED.items())))
    rollout_table.add(path, JUDGED)
    assert pq.read_schema(path) == pa.schema([f for f in rollout_table.SCHEMA if f.name in GENERATED | JUDGED])


def test_unknown_columns_are_refused(path: Path) -> None:
    with pytest.raises(AssertionError, match="colour"):
        rollout_table.write(path, GENERATED | {"colour": ["red", "blue"]})
    assert not path.exists()


def test_a_column_of_another_length_leaves_the_file_as_it_was(path: Path) -> None:
    rollout_table.write(path, GENERATED)
    with pytest.raises(pa.ArrowInvalid):
        rollout_table.add(path, {"rts": [0.5]})
    assert rollout_table.read(path) == GENERATED


@pytest.mark.parametrize(
    ("groups", "bounds"),
    [
        ([0, 0, 1, 1], [(0, 2), (2, 4)]),
        ([5], [(0, 1)]),
        ([0, 1, 2], [(0, 1), (1, 2), (2, 3)]),
        ([3, 3, 0], [(0, 2), (2, 3)]),
        ([], []),
    ],
)
def test_group_slices(groups: list[int], bounds: list[tuple[int, int]]) -> None:
    assert rollout_table.group_slices(groups) == [slice(a, b) for a, b in bounds]
