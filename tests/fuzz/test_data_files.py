"""Files of problems, responses and judged solutions, whatever is in them: every row is used or counted and named, and
what is refused is refused by the project's own error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import DataSettings
from sgpo_core.config.offline import ResponsesSettings
from sgpo_core.data.problems import as_problem, load_problems
from sgpo_core.judges import processbench
from sgpo_core.offline.importer import import_responses
from sgpo_core.offline.store import Responses
from tests.fuzz.hostile import answers, any_text, encodable, texts, values

_gold = st.sampled_from(["2", "A", "(B)", "()", "AB", "x\n#### 5", "5\n#### "])
PROBLEM = {"problem": st.just("1 + 1?"), "answer": _gold}
RESPONSE = {"problem_id": st.just("p"), "prompt": st.just("abc"), "answer": st.just("7"), "response": st.just("xyz")}
SOLUTION = {
    **{"id": st.uuids().map(str), "problem": st.just("1 + 1?"), "steps": st.just(["a", "b"])},
    **{"final_answer_correct": st.just(True), "label": st.sampled_from([-1, 0, 1, 2])},
}
_more_of_problems = ("reference", "domain", "id", "a", "b")
_more_of_responses = ("truncated", "token_ids", "rollout_logprobs", "grade", "first_error_step", "verdict_status", "id")
_more_of_solutions = ("generator", "reference")
_cells = st.one_of(
    values,
    answers,
    texts,
    st.sampled_from(["7", "xyz", "ok", "correct"]),
    st.just("@nested"),
    st.lists(st.integers(-1, 30) | st.floats(), max_size=5),
)


def _rows(good: dict[str, st.SearchStrategy[Any]], more: Sequence[str]) -> st.SearchStrategy[Any]:
    """Good rows in which a cell or two are of any kind, or missing, and what is no such row."""
    names = st.sampled_from([*good, *more])
    changed = st.builds(lambda row, changes: row | changes, st.fixed_dictionaries(good), _changes(names, 2))
    cut = st.builds(lambda row, name: {k: v for k, v in row.items() if k != name}, changed, names)
    return st.one_of(*[changed] * 9, cut, values, _changes(names | any_text, 8))


def _changes(names: st.SearchStrategy[str], most: int) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(names, _cells, max_size=most)


def _line(row: Any, depth: int) -> bytes:
    return json.dumps(row).replace('"@nested"', "[" * depth + "]" * depth).encode()


def _files(rows: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """JSONL, with lines that are none."""
    line = st.builds(_line, rows, st.sampled_from([5, 100, 100_000]) | st.integers(800, 1000))
    other = st.binary(max_size=12) | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.lists(st.one_of(*[line] * 7, other), max_size=6).map(b"\n".join)


_KINDS = (
    *(pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.list_(pa.string()), pa.list_(pa.int64()), pa.binary()),
    *(pa.list_(pa.float32()), pa.null(), pa.timestamp("us"), pa.decimal128(10, 2), pa.large_string(), pa.date32()),
    *(pa.dictionary(pa.int32(), pa.string()), pa.struct([("x", pa.int64())]), pa.list_(pa.list_(pa.int8()))),
)


_words = st.sampled_from(["", " ", "2", "A", "abc", "x\n#### ", "\x00", "ok", "correct", "1" * 5000])
_numbers = st.sampled_from([0, 1, -1, 2, 100])


def _cell(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_list(kind):
        return st.lists(_cell(kind.value_type), max_size=3)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({"x": _numbers})
    if pa.types.is_floating(kind):
        return st.sampled_from([0.0, 1.0, -0.5, float("nan"), float("inf")])
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return st.booleans() if pa.types.is_boolean(kind) else st.none()
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
    return _words if texts else st.binary(max_size=4) if pa.types.is_binary(kind) else _numbers


@st.composite
def _tables(draw: st.DrawFn, good: dict[str, st.SearchStrategy[Any]], more: Sequence[str]) -> pa.Table:
    """Good columns, of which some are of any type, with gaps, or missing."""
    rows = draw(st.integers(0, 4))
    kinds = draw(st.dictionaries(st.sampled_from([*good, *more]), st.sampled_from(_KINDS), max_size=4))
    missing = draw(st.sampled_from([None, None, None, *good]))
    columns = {name: pa.array([draw(cell) for _ in range(rows)]) for name, cell in good.items() if name != missing}
    for name, kind in kinds.items():
        columns[name] = pa.array([draw(st.none() | _cell(kind)) for _ in range(rows)], kind)
    return pa.table(columns)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


def _write(path: Path, content: bytes | pa.Table) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    pq.write_table(content, path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def _is_refusal(error: ConfigError, *named: str) -> bool:
    return any(name in str(error) for name in named) and encodable(str(error)) and len(str(error)) < 5000


_allowed = st.sampled_from([0, 10, 10, 10])
_problem_settings = st.sampled_from(
    [
        {},
        {"answer_type": "choice"},
        {"answer_type": "integer"},
        {"reference_column": "reference", "domain_column": "domain", "max_reference_steps": 1},
        {"choice_columns": ["a", "b"], "domain_column": "domain"},
    ]
)


@given(_files(_rows(PROBLEM, _more_of_problems)) | _tables(PROBLEM, _more_of_problems), _problem_settings, _allowed)
def test_problems(folder: Path, content: bytes | pa.Table, settings: dict[str, Any], allowed: int) -> None:
    path = _write(folder / "problems.jsonl", content)
    try:
        dataset = load_problems(DataSettings(source=str(path), max_bad_rows=allowed, **settings))
    except ConfigError as error:
        assert _is_refusal(error, "data.source=")
        return
    problems = [as_problem(row) for row in dataset]
    assert problems and len({problem.id for problem in problems}) == len(problems)
    assert all(problem.prompt.strip() and problem.answer.strip() for problem in problems)
    if settings.get("answer_type") == "choice" or settings.get("choice_columns"):
        assert {problem.answer.strip("()") for problem in problems} <= set("ABCDEFGHIJ")
    assert encodable(dataset.info.description) and len(dataset.info.description) < 5000


class Letters:
    """A tokenizer of one token a letter: a is 1, b is 2, ...; 0 ends."""

    eos, vocabulary, max_length = 0, 27, 12

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(c) - 96 for c in text if "a" <= c <= "z"] for text in texts]

    prompts = encode

    def decode(self, token_ids: Sequence[Sequence[int]]) -> list[str]:
        return ["".join(chr(96 + i) for i in ids if i) for ids in token_ids]


@given(_files(_rows(RESPONSE, _more_of_responses)) | _tables(RESPONSE, _more_of_responses), _allowed)
def test_responses(folder: Path, content: bytes | pa.Table, allowed: int) -> None:
    path = _write(folder / "responses.jsonl", content)
    shards, work = folder / "shards", folder / "work"
    for left in (shards, work):
        shutil.rmtree(left, ignore_errors=True)
    settings = ResponsesSettings(source=str(path), max_bad_rows=allowed)
    try:
        imported = import_responses(settings, Letters(), shards, work)
    except ConfigError as error:
        assert _is_refusal(error, "responses.", str(path))
        return
    assert imported.rows == imported.responses + imported.too_long + imported.bad_rows
    assert imported.bad_rows <= allowed and len(imported.bad_named) == min(imported.bad_rows, 5)
    assert sum(table.num_rows for table in Responses(shards)) == imported.responses


@given(
    _files(_rows(SOLUTION, _more_of_solutions)) | _tables(SOLUTION, _more_of_solutions),
    st.sampled_from([".jsonl", ".jsonl", ".json"]),
    _allowed,
)
def test_judged_solutions(folder: Path, content: bytes | pa.Table, ending: str, allowed: int) -> None:
    path = _write(folder / f"solutions{ending}", content)
    try:
        examples = processbench.load(str(path), allowed)
    except ConfigError as error:
        assert _is_refusal(error, "data.path=")
        return
    for example in examples:
        steps = example.item().steps
        assert "".join(step.text for step in steps) and -1 <= example.label < len(steps)
