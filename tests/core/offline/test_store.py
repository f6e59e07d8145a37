"""A data set of responses on disk: its stages, and that a shard is mapped and not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sgpo_core.offline.store import Responses, write_shard
from sgpo_core.storage.rollout_table import SCHEMA


def columns(values: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Columns that the rollout table knows, in its types; an import may lack what a record always has."""
    return pa.table(dict(values), schema=pa.schema([SCHEMA.field(name) for name in values]))


def test_later_stages_add_columns_and_stand_for_earlier_ones(tmp_path: Path) -> None:
    imported, recomputed = tmp_path / "imported", tmp_path / "logprobs"
    write_shard(imported, 0, columns({"group": [0, 0], "rollout_logprobs": [[-0.5], None]}))
    write_shard(recomputed, 0, columns({"rollout_logprobs": [[-0.5], [-0.25]], "rts": [None, 0.5]}))
    table = Responses(imported, recomputed).table(0)
    assert table.to_pydict() == {"group": [0, 0], "rollout_logprobs": [[-0.5], [-0.25]], "rts": [None, 0.5]}


def test_shards_are_mapped_not_read(tmp_path: Path) -> None:
    many = columns({"group": np.arange(200_000)})
    write_shard(tmp_path / "imported", 0, many)
    before = pa.total_allocated_bytes()
    table = Responses(tmp_path / "imported").table(0)
    assert table.num_rows == 200_000 and pa.total_allocated_bytes() - before < 100_000  # of 1,600,000
