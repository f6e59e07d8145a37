"""rollouts.parquet: its columns follow from the records, and what is written is read."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_core.storage import rollout_table
from sgpo_core.storage.digests import note
from sgpo_core.storage.rollout_table import PLACES, SCHEMA, from_table, to_table
from sgpo_core.types import (
    Credit,
    Grade,
    Judgment,
    Outcome,
    Problem,
    Rollout,
    RolloutGroup,
    TokenLogprobs,
    Verdict,
    VerdictStatus,
)
from tests.records import floats, group, ints, rollout

TEXT, FLAG, WHOLE, REAL = pa.string(), pa.bool_(), pa.int64(), pa.float64()
WHOLES, REALS = pa.list_(pa.int32()), pa.list_(pa.float32())
GENERATED = {
    **{"problem_id": TEXT, "domain": TEXT, "group": WHOLE, "sample": WHOLE, "prompt": TEXT, "answer": TEXT},
    **{"reference": TEXT, "answer_form": TEXT, "prompt_ids": WHOLES, "token_ids": WHOLES, "rollout_logprobs": REALS},
    **{"response": TEXT, "truncated": FLAG, "policy_version": WHOLE, "seed": WHOLE},
}
GRADED = {"grade": TEXT, "extracted_answer": TEXT, "outcome_reward": REAL}
JUDGED = {
    **{"step_ends": WHOLES, "first_error_step": WHOLE, "verdict_status": TEXT, "verdict_reason": TEXT},
    **{"verdict_votes": WHOLES, "verdict_prompt_tokens": WHOLE, "verdict_completion_tokens": WHOLE},
    **{"verdict_cached": FLAG, "verdict_checked_steps": WHOLE},
}
RECOMPUTED = {"trainer_logprobs": REALS, "trainer_entropies": REALS}
CREDITED = {
    **{"rts": REAL, "padded": FLAG, "shaped_reward": REAL, "excluded": FLAG, "filtered": FLAG, "advantage": REAL},
    **{"token_credit": REALS},
}

PROBLEM = Problem("a", "What is ½ + ½?", "1", reference="1. x\n", domain="sums")
VOTES = (Verdict(2), Verdict(2), Verdict(None), Verdict.abstain(""))
JUDGEMENT = Judgment(Verdict(2), VOTES, prompt_tokens=70, completion_tokens=40, cached=True, checked_steps=1)
FULL = Rollout(
    sample=3,
    text="x ½ 😀\n",
    truncated=True,
    token_ids=ints(3, 4, 2**31 - 1),
    rollout_logprobs=floats(-0.5, -0.25, 0.0),
    policy_version=7,
    seed=2**31 - 1,
    grade=Grade(Outcome.WRONG, "7"),
    step_ends=(3, 6),
    judgment=JUDGEMENT,
    recomputed=TokenLogprobs(floats(-0.75, -0.125, -1.0), floats(0.5, 1.5, 2.0)),
    credit=Credit(0.25, rts=0.5, padded=True, excluded=True, advantage=-0.1, token_credit=floats(1.0, 0.5, 0.0)),
)
BARE = rollout(4)


def plain(value: Any) -> Any:
    """Of a record all its values, arrays with their type: arrays have no truth of being equal."""
    if isinstance(value, np.ndarray):
        return value.dtype.name, value.tolist()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "iterations" / "000001" / "rollouts.parquet"


def survives(path: Path, *groups: RolloutGroup) -> bool:
    rollout_table.write(path, groups)
    return plain(rollout_table.read(path)) == plain(list(groups))


def test_the_columns_of_every_stage_and_their_types() -> None:
    stages = (GENERATED, GRADED, JUDGED, RECOMPUTED, CREDITED)
    assert pa.schema([column for stage in stages for column in stage.items()]) == SCHEMA
    tables = ("GENERATED", "GRADED", "JUDGED", "RECOMPUTED", "CREDITED")
    assert [[*getattr(rollout_table, name)] for name in tables] == [[*stage] for stage in stages]


def test_every_field_of_the_records_has_a_column_but_for_what_is_known_without() -> None:
    places = {
        "group": RolloutGroup,
        "group.problem": Problem,
        "rollout": Rollout,
        "rollout.grade": Grade,
        "rollout.judgment": Judgment,
        "rollout.judgment.verdict": Verdict,
        "rollout.recomputed": TokenLogprobs,
        "rollout.credit": Credit,
    }
    records = {*places, "group.rollouts"}
    in_records = {f"{place}.{field.name}" for place, record in places.items() for field in fields(record)} - records
    # Agreement follows from the votes, a failure to reply is not kept, correct and reward are what the grade says.
    unkept = {"rollout.judgment.agreement", "rollout.judgment.transient", "rollout.credit.correct"}
    assert in_records - set(PLACES.values()) == unkept
    assert set(PLACES.values()) - in_records == {"rollout.grade.reward"}


def test_a_file_has_the_columns_of_the_schema_in_its_order(path: Path) -> None:
    rollout_table.write(path, [group(0, [FULL, BARE], PROBLEM)])
    assert pq.read_schema(path) == SCHEMA


@pytest.mark.parametrize(
    "response",
    [
        FULL,
        BARE,
        replace(FULL, credit=None),
        replace(FULL, credit=None, recomputed=None),
        replace(FULL, credit=None, recomputed=None, judgment=None),
        replace(FULL, credit=None, recomputed=None, judgment=None, step_ends=None, grade=None),
        replace(FULL, grade=Grade(Outcome.UNPARSABLE)),
        replace(FULL, grade=Grade(Outcome.ERROR, "x")),
        replace(
            FULL, grade=Grade(Outcome.CORRECT, "1"), credit=Credit(1.0, correct=True, token_credit=floats(1, 1, 1))
        ),
        replace(FULL, credit=Credit(0.5, filtered=True, token_credit=floats(0, 0, 0))),
        replace(FULL, credit=Credit(0.5)),  # no RTS, and no share of its tokens
        replace(FULL, credit=Credit(0.0, token_credit=floats())),
        replace(FULL, judgment=Judgment(Verdict(None))),
        replace(FULL, judgment=Judgment(Verdict.abstain("timeout"), (Verdict.abstain(""),))),
        replace(FULL, step_ends=()),
        replace(FULL, text="", token_ids=ints(), rollout_logprobs=floats(), recomputed=None, credit=None),
    ],
)
def test_what_is_written_is_read_beside_others(response: Rollout, path: Path) -> None:
    """Alone; and beside a response with all records and one with none, whose columns are then partly null."""
    assert survives(path, group(5, [response], PROBLEM, 1, 2))
    assert survives(path, group(5, [FULL, response, BARE], PROBLEM, 1, 2))
    assert survives(path, group(5, [BARE, response], PROBLEM), group(0, [FULL, FULL], Problem("b", "?", "2"), 9))


def test_no_groups_at_all(path: Path) -> None:
    assert survives(path)
    assert pq.read_schema(path) == SCHEMA


def test_a_stage_that_is_done_again_replaces_its_records(path: Path) -> None:
    rollout_table.write(path, [group(0, [FULL, BARE], PROBLEM)])
    again = replace(FULL, judgment=Judgment(Verdict(1)), credit=None)
    assert survives(path, group(0, [again, BARE], PROBLEM))


def test_what_cannot_be_written_leaves_the_file_as_it_was(path: Path) -> None:
    rollout_table.write(path, [group(0, [FULL], PROBLEM)])
    with pytest.raises(pa.ArrowTypeError):
        rollout_table.write(path, [group(0, [replace(FULL, text=7)], PROBLEM)])
    assert plain(rollout_table.read(path)) == plain([group(0, [FULL], PROBLEM)])
    assert {file.name for file in path.parent.iterdir()} == {path.name, f".{path.name}.digests"}


def table(**columns: Sequence[Any]) -> pa.Table:
    """Columns of the schema, in its types."""
    return pa.table(dict(columns), schema=pa.schema([SCHEMA.field(name) for name in columns]))


def test_only_the_columns_that_are_asked_for_are_read(path: Path) -> None:
    rollout_table.write(path, [group(3, [FULL, BARE], PROBLEM, 1, 2)])
    [found] = rollout_table.read(path, ["group", "response", "grade"])
    # `extracted_answer` was not asked for; what is not there has the value of a record that nobody filled in
    texts = [rollout(0, text=FULL.text, grade=Grade(Outcome.WRONG)), rollout(0)]
    assert plain(found) == plain(group(3, texts, Problem("", "", "")))
    assert plain(rollout_table.read(path, [])) == plain(rollout_table.read(path))


def test_a_table_that_lacks_columns() -> None:
    [found] = from_table(table(response=["x", None], token_ids=[[1, 2], None]))
    assert (found.number, found.problem, plain(found.prompt_ids)) == (0, Problem("", "", ""), ("int32", []))
    assert plain(found.rollouts[0]) == plain(rollout(text="x", token_ids=ints(1, 2)))
    assert plain(found.rollouts[1]) == plain(rollout())


def test_columns_that_no_record_has_are_ignored() -> None:
    given = to_table([group(0, [FULL], PROBLEM)])
    wider = given.append_column("color", pa.array(["red"])).append_column("neutral", pa.array([True]))
    assert plain(from_table(wider)) == plain(from_table(given)) == plain([group(0, [FULL], PROBLEM)])


def test_columns_of_a_table() -> None:
    groups = [group(3, [FULL, BARE], PROBLEM), group(1, [BARE])]
    found = to_table(groups, ["outcome_reward", "group", "verdict_votes", "advantage"])
    assert found.schema == pa.schema(
        [("outcome_reward", REAL), ("group", WHOLE), ("verdict_votes", WHOLES), ("advantage", REAL)]
    )
    assert found.to_pydict() == {
        "outcome_reward": [0.0, None, None],
        "group": [3, 3, 1],
        "verdict_votes": [[2, 2, 0, -1], None, None],
        "advantage": [-0.1, None, None],
    }
    right = replace(FULL, grade=Grade(Outcome.CORRECT))
    assert to_table([group(0, [right])], ["outcome_reward"]).to_pydict() == {"outcome_reward": [1.0]}
    with pytest.raises(KeyError, match="color"):
        to_table(groups, ["color"])


@pytest.mark.parametrize(
    ("vote", "number"), [(Verdict(3), 3), (Verdict(1), 1), (Verdict(None), 0), (Verdict.abstain("timeout"), -1)]
)
def test_votes_are_numbers(vote: Verdict, number: int) -> None:
    assert rollout_table.vote_number(vote) == number
    judged = replace(FULL, judgment=Judgment(Verdict(3), (vote, vote)))
    written = to_table([group(0, [judged])], ["verdict_status", "verdict_votes"])
    assert written.column("verdict_votes").to_pylist() == [[number, number]]
    [[found]] = [g.rollouts for g in from_table(written)]
    assert found.judgment is not None
    assert [(v.first_error_step, v.status) for v in found.judgment.votes] == [(vote.first_error_step, vote.status)] * 2


@pytest.mark.parametrize(
    ("numbers", "sizes"),
    [
        ([0, 0, 1, 1], [(0, 2), (1, 2)]),
        ([5], [(5, 1)]),
        ([0, 1, 2], [(0, 1), (1, 1), (2, 1)]),
        ([3, 3, 0], [(3, 2), (0, 1)]),
        ([], []),
    ],
)
def test_a_group_for_each_value_of_group(numbers: list[int], sizes: list[tuple[int, int]]) -> None:
    groups = from_table(table(group=numbers, sample=[*range(len(numbers))]))
    assert [(g.number, len(g.rollouts)) for g in groups] == sizes
    assert [r.sample for g in groups for r in g.rollouts] == [*range(len(numbers))]


def test_a_first_wrong_step_without_a_status_is_a_verdict() -> None:
    [found] = from_table(table(first_error_step=[2, None, None], verdict_status=[None, None, "ok"]))
    assert [r.judgment for r in found.rollouts] == [Judgment(Verdict(2)), None, Judgment(Verdict(None))]
    [alone] = from_table(table(first_error_step=[2, None]))
    assert [r.judgment and r.judgment.verdict.status for r in alone.rollouts] == [VerdictStatus.OK, None]


def test_a_part_of_a_table_and_several_parts_together() -> None:
    """Arrays are views of columns, which begin anywhere and may be in pieces."""
    groups = [group(g, [replace(FULL, sample=g, token_ids=ints(*range(g + 1))), BARE], PROBLEM, g) for g in range(4)]
    whole = to_table(groups)
    assert plain(from_table(whole.slice(2, 4))) == plain(groups[1:3])
    assert plain(from_table(pa.concat_tables([whole.slice(6, 2), whole.slice(2, 2)]))) == plain([groups[3], groups[1]])


def test_a_bit_that_has_turned_changes_nothing_silently(tmp_path: Path) -> None:
    """Each of 300 bits, turned by itself."""
    path, rng = tmp_path / "rollouts.parquet", random.Random(0)
    groups = [
        group(number, [rollout(sample, text="x " * 30, token_ids=ints(*range(30))) for sample in range(4)])
        for number in range(4)
    ]
    rollout_table.write(path, groups)
    content = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="is damaged"):
            rollout_table.read(path)
    path.write_bytes(content)
    assert len(rollout_table.read(path)) == 4


def test_a_table_of_before_is_known_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written without a note; a crash behind the first note leaves it."""
    path.parent.mkdir(parents=True)
    pq.write_table(to_table([group(0, [BARE], PROBLEM)]), path)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(rollout_table, "note", lambda *files: (note(*files), crash()))
        rollout_table.write(path, [group(1, [BARE], PROBLEM)])
    assert rollout_table.read(path)[0].number == 0


@pytest.mark.parametrize("crash", ["before the new one is there", "after it"])
def test_whichever_table_a_crash_leaves_is_known(path: Path, crash: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the note of the new digest and the new table's name, or right behind it; and twice in a row."""
    rollout_table.write(path, [group(0, [BARE], PROBLEM)])
    replaced = os.replace

    def crashing(source: str, target: str) -> None:
        if Path(target) != path:
            replaced(source, target)
            return
        if crash == "after it":
            replaced(source, target)
        raise KeyboardInterrupt

    for number in (1, 2):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(os, "replace", crashing)
            rollout_table.write(path, [group(number, [BARE], PROBLEM)])
        assert rollout_table.read(path)[0].number == (number if crash == "after it" else 0)
