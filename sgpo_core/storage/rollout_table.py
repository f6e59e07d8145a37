"""rollouts.parquet: everything one iteration saw, one row a response.

It is the audit trail, the resume point, the offline data set and the source of colored traces. A stage reads all
records, adds its own, and writes the file anew, whole or not at all. The names of the columns stand here once, with the
place of each in the records of `sgpo_core/types.py`; their types follow from the annotations there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import reduce
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_core.storage.atomic import write_atomically
from sgpo_core.storage.digests import is_as_written, note
from sgpo_core.types import (
    Credit,
    FloatArray,
    Grade,
    IntArray,
    Judgment,
    Outcome,
    Problem,
    Rollout,
    RolloutGroup,
    TokenLogprobs,
    Verdict,
    VerdictStatus,
)


class _Row(NamedTuple):
    """One response beside its group."""

    group: RolloutGroup
    rollout: Rollout


GENERATED = {
    "problem_id": "group.problem.id",
    "domain": "group.problem.domain",
    "group": "group.number",
    "sample": "rollout.sample",
    "prompt": "group.problem.prompt",
    "answer": "group.problem.answer",
    "reference": "group.problem.reference",
    "answer_form": "group.problem.answer_form",
    "prompt_ids": "group.prompt_ids",
    "token_ids": "rollout.token_ids",
    "rollout_logprobs": "rollout.rollout_logprobs",
    "response": "rollout.text",
    "truncated": "rollout.truncated",
    "policy_version": "rollout.policy_version",
    "seed": "rollout.seed",
}
GRADED = {
    "grade": "rollout.grade.outcome",
    "extracted_answer": "rollout.grade.extracted",
    "outcome_reward": "rollout.grade.reward",
}
JUDGED = {
    "step_ends": "rollout.step_ends",
    "first_error_step": "rollout.judgment.verdict.first_error_step",
    "verdict_status": "rollout.judgment.verdict.status",
    "verdict_reason": "rollout.judgment.verdict.reason",
    "verdict_votes": "rollout.judgment.votes",  # first wrong step, 0 none found, -1 abstained; empty: no vote
    "verdict_prompt_tokens": "rollout.judgment.prompt_tokens",
    "verdict_completion_tokens": "rollout.judgment.completion_tokens",
    "verdict_cached": "rollout.judgment.cached",
    "verdict_checked_steps": "rollout.judgment.checked_steps",
}
RECOMPUTED = {
    "trainer_logprobs": "rollout.recomputed.logprobs",
    "trainer_entropies": "rollout.recomputed.entropies",
}
CREDITED = {
    "rts": "rollout.credit.rts",
    "padded": "rollout.credit.padded",
    "shaped_reward": "rollout.credit.shaped_reward",
    "excluded": "rollout.credit.excluded",
    "filtered": "rollout.credit.filtered",
    "advantage": "rollout.credit.advantage",
    "token_credit": "rollout.credit.token_credit",
}
PLACES = GENERATED | GRADED | JUDGED | RECOMPUTED | CREDITED

_ARROW = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    IntArray: pa.list_(pa.int32()),
    FloatArray: pa.list_(pa.float32()),
    tuple[int, ...]: pa.list_(pa.int32()),
    tuple[Verdict, ...]: pa.list_(pa.int32()),
}


def _annotation(place: str) -> Any:
    """The annotation of a field or property; `None` as an alternative is dropped, for every column may be null."""

    def inner(record: Any, name: str) -> Any:
        member = record.__dict__.get(name)
        hints = get_type_hints(member.fget) if isinstance(member, property) else get_type_hints(record)
        found = hints["return"] if isinstance(member, property) else hints[name]
        if get_origin(found) in (Union, UnionType):
            [found] = [choice for choice in get_args(found) if choice is not type(None)]
        return found

    return reduce(inner, place.split("."), _Row)


def _arrow_type(place: str) -> pa.DataType:
    found = _annotation(place)
    of_words = get_origin(found) is Literal or (isinstance(found, type) and issubclass(found, StrEnum))
    return pa.string() if of_words else _ARROW[found]


SCHEMA = pa.schema([(name, _arrow_type(place)) for name, place in PLACES.items()])


def write(path: Path, groups: Sequence[RolloutGroup]) -> None:
    """All records of whole groups."""
    table = to_table(groups)

    def put(aside: Path) -> None:
        pq.write_table(table, aside, compression="zstd")
        note(path, aside)

    write_atomically(path, put)


def read(path: Path, columns: Iterable[str] | None = None) -> list[RolloutGroup]:
    """The groups, in order. With `columns` the rest of their records is left empty, and not read. Raises OSError for a
    file that is not as it was written."""
    if not is_as_written(path):
        raise OSError(f"{path} is damaged, it is not what was written: put it back, or start over (fresh)")
    return from_table(pq.read_table(path, columns=list(columns) if columns else None))


def to_table(groups: Sequence[RolloutGroup], columns: Iterable[str] = PLACES) -> pa.Table:
    """Columns of all rollouts; null where a record is not there yet."""
    rows = [_Row(group, rollout) for group in groups for rollout in group.rollouts]
    names = list(columns)
    arrays = [_array([_at(row, PLACES[name]) for row in rows], SCHEMA.field(name).type) for name in names]
    return pa.table(arrays, schema=pa.schema([SCHEMA.field(name) for name in names]))


def _at(row: _Row, place: str) -> Any:
    value: Any = row
    for name in place.split("."):
        if value is None:
            return None
        value = getattr(value, name)
    if isinstance(value, tuple) and value and isinstance(value[0], Verdict):
        return [vote_number(vote) for vote in value]
    return value


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """An array of numpy arrays is built from one flat one: element by element it takes ten times as long."""
    if not (pa.types.is_list(kind) and values and all(isinstance(v, np.ndarray) for v in values)):
        return pa.array(values, kind)
    offsets = np.concatenate([[0], np.cumsum([len(v) for v in values])]).astype(np.int32)
    flat = pa.array(np.concatenate(values).astype(kind.value_type.to_pandas_dtype(), copy=False))
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def vote_number(verdict: Verdict) -> int:
    """A vote as tables keep it: the first wrong step, 0 for none found, -1 for an abstention."""
    return -1 if verdict.abstained else verdict.first_error_step or 0


def _vote(number: int) -> Verdict:
    return Verdict.abstain("") if number < 0 else Verdict(number or None)


def from_table(table: pa.Table) -> list[RolloutGroup]:
    """The groups of a table that may lack columns; rows of one group are neighbors."""
    values = {name: _values(table.column(name)) for name in table.column_names if name in PLACES}
    numbers = values.get("group", [0] * table.num_rows)
    members = groupby(range(table.num_rows), lambda i: numbers[i])
    return [_group([_Cells(values, i) for i in rows]) for _, rows in members]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python values; a list of numbers as a numpy array, a view of the column."""
    if not pa.types.is_list(column.type):
        return list(column.to_pylist())
    found: list[Any] = []
    for chunk in column.chunks:
        flat, offsets = chunk.values.to_numpy(zero_copy_only=False), chunk.offsets.to_numpy()
        missing = chunk.is_null().to_numpy(zero_copy_only=False)
        found += [None if gone else flat[a:b] for gone, a, b in zip(missing, offsets[:-1], offsets[1:], strict=True)]
    return found


class _Cells(NamedTuple):
    """One row of a table, by column."""

    values: dict[str, list[Any]]
    row: int

    def get(self, name: str, default: Any = None) -> Any:
        """The cell; the default where it is null, or the column is not there."""
        value = self.values[name][self.row] if name in self.values else None
        return default if value is None else value


def _group(rows: Sequence[_Cells]) -> RolloutGroup:
    get = rows[0].get
    problem = Problem(
        id=get("problem_id", ""),
        prompt=get("prompt", ""),
        answer=get("answer", ""),
        reference=get("reference"),
        domain=get("domain", ""),
        answer_form=get("answer_form", "boxed"),
    )
    prompt_ids = get("prompt_ids", np.zeros(0, np.int32))
    return RolloutGroup(get("group", 0), problem, prompt_ids, tuple(_rollout(cells) for cells in rows))


def _rollout(cells: _Cells) -> Rollout:
    get = cells.get
    outcome, step_ends, logprobs = get("grade"), get("step_ends"), get("trainer_logprobs")
    grade = Grade(Outcome(outcome), get("extracted_answer")) if outcome else None
    return Rollout(
        sample=get("sample", 0),
        text=get("response", ""),
        truncated=get("truncated", False),
        token_ids=get("token_ids", np.zeros(0, np.int32)),
        rollout_logprobs=get("rollout_logprobs", np.zeros(0, np.float32)),
        policy_version=get("policy_version", 0),
        seed=get("seed", 0),
        grade=grade,
        step_ends=None if step_ends is None else tuple(step_ends.tolist()),
        judgment=_judgment(cells),
        recomputed=None if logprobs is None else TokenLogprobs(logprobs, get("trainer_entropies")),
        credit=_credit(cells, grade),
    )


def _judgment(cells: _Cells) -> Judgment | None:
    """A data set may bring a first wrong step along without a status."""
    get = cells.get
    step, status = get("first_error_step"), get("verdict_status")
    if step is None and status is None:
        return None
    return Judgment(
        Verdict(step, VerdictStatus(status or VerdictStatus.OK), get("verdict_reason", "")),
        tuple(_vote(int(number)) for number in get("verdict_votes", ())),
        prompt_tokens=get("verdict_prompt_tokens", 0),
        completion_tokens=get("verdict_completion_tokens", 0),
        cached=get("verdict_cached", False),
        checked_steps=get("verdict_checked_steps"),
    )


def _credit(cells: _Cells, grade: Grade | None) -> Credit | None:
    get = cells.get
    if (reward := get("shaped_reward")) is None:
        return None
    return Credit(
        reward,
        rts=get("rts"),
        padded=get("padded", False),
        excluded=get("excluded", False),
        correct=grade is not None and grade.correct,
        filtered=get("filtered", False),
        advantage=get("advantage", 0.0),
        token_credit=get("token_credit"),
    )
