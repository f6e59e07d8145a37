"""A data set of responses on disk: shards of whole groups, and beside them, stage by stage, the columns added.

<data set>/imported/000000.arrow  problem_id domain group sample prompt answer reference answer_form prompt_ids
                                  token_ids rollout_logprobs response truncated, and grade and verdict where recorded
           graded-<key>/          grade extracted_answer outcome_reward
           judged-<judge>/        step_ends first_error_step verdict_...
           logprobs-<policy>/       rollout_logprobs          (those that were not recorded are the initial policy's)

Row i of a shard is row i of it in every stage; a column of a later stage stands for an earlier one of its name. The
files are Arrow, mapped into memory: what is not touched is not read, and a group is found at once in a set of any size.
Beside each is its digest, by which damage is found before a training begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sgpo_core.storage.atomic import write_atomically
from sgpo_core.storage.digests import note
from sgpo_core.storage.rollout_table import SCHEMA
from sgpo_core.types import Outcome


def write_shard(stage: Path, number: int, table: pa.Table) -> None:
    """A stage's columns of one shard, whole or not at all, with their digest."""

    def write(path: Path) -> None:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table.combine_chunks())
        note(shard_path(stage, number), path)

    write_atomically(shard_path(stage, number), write)


def shard_path(stage: Path, number: int) -> Path:
    """Where shard `number` of a stage lies."""
    return stage / f"{number:06d}.arrow"


class Responses:
    """The shards of a data set with the columns of the given stages, the first of which is the import."""

    def __init__(self, *stages: Path) -> None:
        self.stages = stages
        self.shards = len(list(stages[0].glob("*.arrow")))
        self._tables: list[pa.Table | None] = [None] * self.shards

    def table(self, number: int) -> pa.Table:
        """One shard, mapped."""
        table = self._tables[number]
        if table is None:
            columns: dict[str, pa.ChunkedArray] = {}
            for stage in self.stages:
                with pa.memory_map(str(shard_path(stage, number))) as file:
                    part = pa.ipc.open_file(file).read_all()
                columns |= {name: part.column(name) for name in part.column_names}
            table = self._tables[number] = pa.table({n: columns[n] for n in SCHEMA.names if n in columns})
        return table

    def __iter__(self) -> Iterator[pa.Table]:
        return (self.table(number) for number in range(self.shards))


class Groups:
    """Where each group of a data set is, and what it is made of: arrays over groups.

    `shard`, `start`, `stop` int64: its rows; `correct`, `wrong` int64: its responses of known outcome.
    """

    def __init__(self, responses: Responses) -> None:
        self.responses = responses
        parts = [self._of_shard(number, table) for number, table in enumerate(responses)]
        self.shard, self.start, self.stop, self.correct, self.wrong = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )

    @staticmethod
    def _of_shard(number: int, table: pa.Table) -> tuple[np.ndarray, ...]:
        group = table.column("group").to_numpy()
        start = np.flatnonzero(np.diff(group, prepend=-1))
        grade = pc.fill_null(table.column("grade"), Outcome.ERROR.value)  # not graded yet: not known
        correct = pc.equal(grade, Outcome.CORRECT.value).to_numpy()
        wrong = ~correct & pc.not_equal(grade, Outcome.ERROR.value).to_numpy()
        stop = np.append(start[1:], len(group))
        counts = (np.add.reduceat(outcome.astype(np.int64), start) for outcome in (correct, wrong))
        return np.full(len(start), number), start, stop, *counts

    def __len__(self) -> int:
        return len(self.shard)

    def rows(self, chosen: Sequence[int]) -> pa.Table:
        """The responses of these groups, in this order, numbered anew from 0 in column `group`."""
        parts = []
        for number, group in enumerate(chosen):
            start, stop = int(self.start[group]), int(self.stop[group])
            part = self.responses.table(int(self.shard[group])).slice(start, stop - start)
            own = pa.array(np.full(stop - start, number, np.int32))
            parts.append(part.set_column(part.schema.get_field_index("group"), "group", own))
        return pa.concat_tables(parts)
