"""Importing responses: what is good is grouped, what is broken is named with file and row, nothing is half-written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import ColumnSettings, ResponsesSettings
from sgpo_core.offline import importer
from sgpo_core.offline.importer import Imported, import_responses
from sgpo_core.offline.store import Groups, Responses

EOS = 0


class Letters:
    """A tokenizer of one token a letter: a is 1, b is 2, ...; 0 ends. Other characters it can't spell."""

    eos, vocabulary, max_length = EOS, 27, 12

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(c) - 96 for c in text if "a" <= c <= "z"] for text in texts]

    prompts = encode

    def decode(self, token_ids: Sequence[Sequence[int]]) -> list[str]:
        return ["".join(chr(96 + i) for i in ids if i != EOS) for ids in token_ids]


def row(**changed: Any) -> dict[str, Any]:
    given = {"problem_id": "p", "prompt": "abc", "answer": "7", "response": "xyz"} | changed
    return {name: value for name, value in given.items() if value != "absent"}


GOOD = [row(), row(response="xy"), row(problem_id="q", prompt="de", answer=8)]
TOKENS = {"token_ids": [24, 25, 26, EOS], "rollout_logprobs": [-0.5, -0.25, -1.0, -0.125]}  # of "xyz"; exact in float32


def jsonl(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in rows) + "\n")
    return str(path)


def load(source: str, folder: Path, allowed: int = 0, **columns: str | None) -> tuple[Imported, dict[str, list[Any]]]:
    settings = ResponsesSettings(source=source, max_bad_rows=allowed, columns=ColumnSettings(**columns))
    imported = import_responses(settings, Letters(), folder / "shards", folder / "work")
    table = pa.concat_tables(Responses(folder / "shards"))
    return imported, table.to_pydict()


def test_rows_are_grouped_by_problem_and_tokenized(tmp_path: Path) -> None:
    rows = [GOOD[0], GOOD[2], row(response="xyz", **TOKENS), row(response="xx", truncated=True)]
    imported, table = load(jsonl(tmp_path / "a.jsonl", rows), tmp_path)
    assert imported == Imported(rows=4, responses=4, groups=2, too_long=0, bad_rows=0, bad_named=[])
    by_problem = sorted(zip(table["problem_id"], table["sample"], table["response"], table["token_ids"], strict=True))
    assert by_problem == [
        ("p", 0, "xyz", [24, 25, 26, EOS]),
        ("p", 1, "xyz", [24, 25, 26, EOS]),
        ("p", 2, "xx", [24, 24]),  # cut off: no end
        ("q", 0, "xyz", [24, 25, 26, EOS]),
    ]
    assert sorted(set(table["group"])) == [0, 1]
    assert dict(zip(table["prompt"], table["prompt_ids"], strict=True)) == {"abc": [1, 2, 3], "de": [4, 5]}
    assert [r for r in table["rollout_logprobs"] if r is not None] == [TOKENS["rollout_logprobs"]]
    assert dict(zip(table["problem_id"], table["answer"], strict=True)) == {"p": "7", "q": "8"}  # numbers are text


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ('{"problem_id": "p", "prom', "not JSON"),
        ("[1, 2]", "not an object"),
        (row(response="absent"), "no column 'response'"),
        (row(response=5), "column 'response' is 5, wanted: text"),
        (row(prompt=["abc"]), "column 'prompt' is"),
        (row(answer={"x": 1}), "column 'answer' is"),
        (row(answer=True), "column 'answer' is true, wanted: text or a number"),
        (row(truncated="no"), "column 'truncated' is"),
        (row(token_ids="xyz"), "column 'token_ids' is \"xyz\", wanted: a list of token ids"),
        (row(token_ids=[1.5]), "column 'token_ids' is [1.5]"),
        (row(token_ids=[2**40]), "column 'token_ids' is"),
        (row(grade="splendid"), "column 'grade' is \"splendid\", wanted: one of correct, wrong"),
        (row(first_error_step=0), "column 'first_error_step' is 0, wanted: a number from 1 on"),
        (row(first_error_step=2), "first_error_step=2 of a response of 1 steps (lines-"),
        (row(verdict_status="maybe"), "column 'verdict_status' is"),
        (row(id="r1"), "id 'r1' comes twice"),
        (row(response=""), "an empty response"),
        (row(response=" \n"), "an empty response"),
        (row(response=None), "column 'response' is empty"),
        (row(problem_id=None), "a response without its problem: column 'problem_id' is empty"),
        (row(prompt=None), "a response without its problem: column 'prompt' is empty"),
        (row(prompt=" "), "a response without its problem: column 'prompt' is empty"),
        (row(answer=""), "column 'answer' is empty"),
        (row(prompt="abd"), "problem 'p' has another prompt here than in its first row"),
        (row(answer="9"), "problem 'p' has another answer here"),
        (row(**TOKENS | {"rollout_logprobs": [-0.5, float("nan"), -1, -1]}), "holds NaN or infinity"),
        (row(**TOKENS | {"rollout_logprobs": [-0.5, -1e300, -1, -1]}), "holds NaN or infinity"),
        (row(**TOKENS | {"rollout_logprobs": [-0.5, 0.5, -1, -1]}), "holds log-probabilities above 0"),
        (row(**TOKENS | {"rollout_logprobs": [-0.5, -1]}), "differ in length: of another tokenizer?"),
        (row(rollout_logprobs=[-0.5, -1]), "but of what token ids?"),
        (row(**TOKENS | {"token_ids": [24, 25, 99, EOS]}), "of another tokenizer: this one has 27"),
        (row(**TOKENS | {"token_ids": [24, 25, -1, EOS]}), "of another tokenizer: this one has 27"),
        (row(**TOKENS | {"token_ids": [24, 25, 25, EOS]}), "of another tokenizer: they spell 'xyy'"),
        (row(token_ids=[24, None, 26]), "column 'token_ids' has gaps"),
        (row(token_ids=[]), "column 'token_ids' is an empty list"),
        (row(response="x y"), "the policy's tokenizer can't spell the response"),
        ('{"problem_id": "p", "prompt": "abc", "answer": "7", "response": "\\ud800"}', "is not valid Unicode"),
    ],
)
def test_a_broken_row_is_named_with_file_and_line(broken: Any, named: str, tmp_path: Path) -> None:
    rows = [row(id="r1"), "", GOOD[2], broken]  # the blank line counts as a line
    source = jsonl(tmp_path / "some.jsonl", rows)
    with pytest.raises(ConfigError) as refused:
        load(source, tmp_path / "a")
    assert f"{source}, line 4: " in str(refused.value) and named in str(refused.value)
    imported, table = load(source, tmp_path / "b", allowed=1)
    assert (imported.bad_rows, imported.responses) == (1, 2) and f"{source}, line 4: " in imported.bad_named[0]
    assert sorted(table["response"]) == ["xyz", "xyz"]


def test_a_cell_of_any_depth_is_named(tmp_path: Path) -> None:
    """Python writes JSON to a smaller depth than it reads: a few depths in between can be read and not shown."""
    deep = [json.dumps(row(response="@")).replace('"@"', "[" * depth + "]" * depth) for depth in range(700, 1000)]
    imported, _ = load(jsonl(tmp_path / "some.jsonl", [*GOOD, *deep]), tmp_path, allowed=300)
    assert (imported.bad_rows, imported.responses) == (300, 3)


def test_broken_rows_are_bounded_and_the_first_few_named(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "some.jsonl", [*GOOD, *[row(response="")] * 7])
    with pytest.raises(ConfigError, match=r"7 broken rows, 6 are allowed \(responses\.max_bad_rows\).*and 2 more"):
        load(source, tmp_path, allowed=6)
    assert load(source, tmp_path, allowed=7)[0].bad_rows == 7


def test_reference_and_domain_are_the_problems(tmp_path: Path) -> None:
    rows = [row(domain="algebra", reference="abc"), row(domain="number theory"), row(problem_id="q")]
    _, table = load(jsonl(tmp_path / "a.jsonl", rows), tmp_path)
    found = sorted(zip(table["problem_id"], table["domain"], table["reference"], strict=True), key=str)
    assert found == [("p", "algebra", "abc"), ("p", "algebra", "abc"), ("q", "", None)]


def test_an_empty_response_of_which_tokens_are_known_is_a_value(tmp_path: Path) -> None:
    _, table = load(jsonl(tmp_path / "a.jsonl", [row(response="", token_ids=[EOS])]), tmp_path)
    assert table["response"] == [""] and table["token_ids"] == [[EOS]]


def test_what_is_too_long_is_counted_and_is_no_fault(tmp_path: Path) -> None:
    # Prompt 3 tokens, response 8 and its end: 12 fit; one more does not.
    imported, table = load(jsonl(tmp_path / "a.jsonl", [row(response="x" * 8), row(response="x" * 9)]), tmp_path)
    assert (imported.too_long, imported.bad_rows, table["response"]) == (1, 0, ["x" * 8])


def parquet(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return str(path)


def test_parquet_and_jsonl_give_the_same(tmp_path: Path) -> None:
    rows = [
        row(**TOKENS, id=1, grade=True, first_error_step=None),
        row(**TOKENS, id=2, grade=False, first_error_step=1),
    ]
    same = [
        load(parquet(tmp_path / "a.parquet", rows), tmp_path / "p"),
        load(jsonl(tmp_path / "a.jsonl", rows), tmp_path),
    ]
    assert same[0] == same[1]
    assert same[0][1]["grade"] == ["correct", "wrong"] and same[0][1]["first_error_step"] == [None, 1]


def test_a_saved_hugging_face_data_set_with_a_column_mapping(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [
        {"question": "abc", "gold": "7", "output": "xyz", "extra": 1},
        {"question": "de", "gold": "8", "output": "x"},
    ]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "set"))
    names: dict[str, str | None] = {"prompt": "question", "answer": "gold", "response": "output", "problem_id": None}
    imported, table = load(str(tmp_path / "set"), tmp_path, **names)
    assert imported.groups == 2 and sorted(table["response"]) == ["x", "xyz"]
    with pytest.raises(ConfigError, match=r"no column 'completion'.*with responses\.columns\.response"):
        load(str(tmp_path / "set"), tmp_path, **names | {"response": "completion"})


def test_a_column_that_the_user_named_must_be_there(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", GOOD[:2])
    with pytest.raises(ConfigError, match="no column 'logp'"):
        load(source, tmp_path, logprobs="logp")


def test_a_parquet_column_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    source = parquet(tmp_path / "a.parquet", [row(response=5)])
    with pytest.raises(ConfigError, match=r"a\.parquet: column 'response' is int64 in row 1 and all others"):
        load(source, tmp_path)


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    source = Path(parquet(tmp_path / "a.parquet", GOOD[:2]))
    source.write_bytes(source.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"a\.parquet: not a whole Parquet file"):
        load(str(source), tmp_path)


def test_a_parquet_file_that_breaks_in_the_middle_is_named_with_the_row(tmp_path: Path) -> None:
    source = tmp_path / "a.parquet"
    many = pa.Table.from_pylist([row(response="x" * (i % 9)) | {"id": str(i)} for i in range(1, 9000) if i % 9])
    pq.write_table(many, source, row_group_size=4096, compression="zstd")
    whole, second = source.read_bytes(), pq.ParquetFile(source).metadata.row_group(1).column(0).data_page_offset
    source.write_bytes(whole[:second] + b"\xff" * 64 + whole[second + 64 :])
    with pytest.raises(ConfigError, match=r"a\.parquet: .*breaks after row 4096"):
        load(str(source), tmp_path)


def test_missing_and_empty_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        load(str(tmp_path / "none.jsonl"), tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"neither rollouts\.parquet nor"):
        load(str(tmp_path / "folder"), tmp_path)
    with pytest.raises(ConfigError, match="no usable response"):
        load(jsonl(tmp_path / "empty.jsonl", []), tmp_path)


def test_groups_do_not_depend_on_parts_or_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = [
        row(problem_id=f"p{n}", prompt="abc", response="x" * int(rng.integers(1, 8))) for n in rng.integers(0, 40, 400)
    ]
    source = jsonl(tmp_path / "a.jsonl", rows)
    _, whole = load(source, tmp_path / "one")
    monkeypatch.setattr(importer, "_PART_BYTES", 2000)
    monkeypatch.setattr(importer, "SHARD_ROWS", 30)
    imported, table = load(source, tmp_path / "many")
    responses = Responses(tmp_path / "many" / "shards")
    assert responses.shards > 10 and imported.responses == 400

    def members(columns: dict[str, list[Any]]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for problem, text in zip(columns["problem_id"], columns["response"], strict=True):
            found.setdefault(problem, []).append(text)
        return found

    expected: dict[str, list[str]] = {}
    for r in rows:
        expected.setdefault(r["problem_id"], []).append(r["response"])  # in the order of the file
    assert members(whole) == members(table) == expected
    assert table["group"] == sorted(table["group"]) and len(set(table["group"])) == len(expected) == imported.groups
    # A shard ends with the group that reaches 30 rows, and no group is cut.
    assert max(shard.num_rows for shard in responses) < 30 + max(map(len, expected.values())) < 60
    assert sum(len(set(shard.column("group").to_pylist())) for shard in responses) == len(expected)


def test_groups_are_found_with_their_outcomes(tmp_path: Path) -> None:
    rows = [
        row(grade="correct"), row(grade="wrong"), row(grade="error"),
        row(problem_id="q", grade="unparsable"), row(problem_id="q", grade="timeout"),
    ]  # fmt: skip
    load(jsonl(tmp_path / "a.jsonl", rows), tmp_path)
    groups = Groups(Responses(tmp_path / "shards"))
    first = groups.rows([0]).column("problem_id")[0].as_py()
    order = [0, 1] if first == "p" else [1, 0]
    assert [int(groups.correct[g]) for g in order] == [1, 0]
    assert [int(groups.wrong[g]) for g in order] == [1, 2]  # what could not be graded is neither
    both = groups.rows([order[1], order[0]])
    assert both.column("problem_id").to_pylist() == ["q", "q", "p", "p", "p"]
    assert both.column("group").to_pylist() == [0, 0, 1, 1, 1]
