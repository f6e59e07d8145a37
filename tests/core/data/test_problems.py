"""Problem sets: what is read, what is refused and how it is named, and in which order problems come."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import DataSettings
from sgpo_core.data.problems import as_problem, load_problems, problems_of_iteration, request_seed
from sgpo_core.types import Problem

GOOD = {"problem": "1 + 1?", "answer": "2"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def jsonl(folder: Path, *rows: Any) -> Path:
    """A file of rows; a string is a line as it is."""
    path = folder / "set.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def load(path: Path, **settings: Any) -> list[Problem]:
    return [as_problem(row) for row in load_problems(DataSettings(source=str(path), **settings))]


def test_rows_become_problems(tmp_path: Path) -> None:
    rows = {"id": "a", "q": "½ + ½?", "a": "1", "s": "1. …"}, "", {"id": 7, "q": "3?", "a": "3", "s": ""}
    path = jsonl(tmp_path, *rows)
    assert load(path, problem_column="q", answer_column="a", reference_column="s") == [
        Problem("a", "½ + ½?", "1", "1. …"),
        Problem("7", "3?", "3", None),
    ]


def test_a_row_without_id_is_named_by_its_line(tmp_path: Path) -> None:
    assert [p.id for p in load(jsonl(tmp_path, GOOD, "", GOOD))] == ["set-1", "set-3"]


def test_an_id_of_zero_is_an_id(tmp_path: Path) -> None:
    assert [p.id for p in load(jsonl(tmp_path, {**GOOD, "id": 0}, {**GOOD, "id": 1}))] == ["0", "1"]


@pytest.mark.parametrize(("value", "text"), [(42, "42"), (-0.5, "-0.5"), (0, "0"), ("042", "042")])
def test_a_number_as_answer(tmp_path: Path, value: object, text: str) -> None:
    assert load(jsonl(tmp_path, {**GOOD, "answer": value})) == [Problem("set-1", "1 + 1?", text, None)]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{'problem': 1}", "not JSON"),
        ('{"problem": "x", "answer"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("7", "not an object"),
        ('["problem", "answer"]', "not an object"),
        ({"problem": "x"}, "no column 'answer' (it has problem)"),
        ({"question": "x", "answer": "1"}, "no column 'problem' (it has question, answer)"),
        ({"problem": "x", "answer": ""}, "column 'answer' is empty"),
        ({"problem": "x", "answer": " \n"}, "column 'answer' is empty"),
        ({"problem": "x", "answer": None}, "column 'answer' is empty"),
        ({"problem": "x", "answer": [1]}, "column 'answer' is empty or neither text nor a number"),
        ({"problem": "", "answer": "1"}, "column 'problem' is empty"),
        ({**GOOD, "id": "a"}, "id 'a' comes twice"),
        ('{"problem": "\\ud800", "answer": "1"}', "problem"),  # half a character: can't be stored
        ('{"a\\ud800\\u001b[2J": 1}', "no column 'problem' (it has a\\ud800\\x1b[2J)"),  # nor act on a terminal
        ({"problem": "x", "answer": "5\n#### "}, "column 'answer' ends with ####, and no answer follows"),
    ],
)
def test_a_broken_row_is_named_with_its_line(tmp_path: Path, row: object, complaint: str) -> None:
    path = jsonl(tmp_path, {**GOOD, "id": "a"}, row, {**GOOD, "id": "b"})
    with pytest.raises(ConfigError) as refused:
        load(path)
    for part in (f"data.source={path}", "1 broken rows, 0 are allowed (data.max_bad_rows)", "line 2: ", complaint):
        assert part in str(refused.value)
    dataset = load_problems(DataSettings(source=str(path), max_bad_rows=1))
    assert dataset["id"][:] == ["a", "b"]
    assert dataset.info.description.startswith("1 broken rows left out: line 2: ")
    assert complaint in dataset.info.description


def test_broken_rows_are_counted_and_the_first_five_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *["x"] * 3, GOOD, *["x"] * 4)
    assert len(load(path, max_bad_rows=7)) == 1
    with pytest.raises(ConfigError, match="7 broken rows, 6 are allowed") as refused:
        load(path, max_bad_rows=6)
    assert [f"line {n}:" in str(refused.value) for n in range(1, 9)] == [True] * 3 + [False] + [True] * 2 + [False] * 2
    assert str(refused.value).endswith("; and 2 more")


def test_at_most_count_rows_are_read(tmp_path: Path) -> None:
    assert len(load(jsonl(tmp_path, GOOD, GOOD, "broken, but behind the last that is wanted"), count=2)) == 2


def test_bytes_that_are_no_utf8_break_their_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n" + json.dumps(GOOD).encode())
    with pytest.raises(ConfigError, match=r"1 broken rows.*line 2: not UTF-8 \(byte 1\)"):
        load(path)


def test_latin_1_is_refused_and_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    row = {**GOOD, "problem": "Combien coûte un café ?"}
    path.write_bytes(json.dumps(row, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(ConfigError, match="save the file as UTF-8"):
        load(path)
    path.write_bytes(json.dumps(row, ensure_ascii=False).encode("utf-8-sig"))
    assert load(path)[0].prompt == row["problem"], "with the mark that some editors put in front"


@pytest.mark.parametrize("rows", [[], ["x"]])
def test_nothing_usable(tmp_path: Path, rows: list[str]) -> None:
    with pytest.raises(ConfigError, match="there is no usable row"):
        load(jsonl(tmp_path, *rows), max_bad_rows=5)


@pytest.mark.parametrize("name", ["missing.jsonl", "missing.parquet"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.source=.*: there is no such file"):
        load(tmp_path / name)


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"problem": ["a", "b", "c"], "answer": [1, None, 3]}), path)
    with pytest.raises(ConfigError, match=r"1 broken rows.*row 2: column 'answer' is empty"):
        load(path)
    assert [(p.id, p.answer) for p in load(path, max_bad_rows=1)] == [("set-1", "1"), ("set-3", "3")]


def test_a_parquet_file_whose_name_is_a_pattern_and_no_copy_of_it(tmp_path: Path) -> None:
    path = tmp_path / "set[1]*.parquet"
    pq.write_table(pa.table({"problem": ["a"], "answer": [1]}), path)
    assert [p.prompt for p in load(path)] == ["a"]
    assert list(tmp_path.rglob("*")) == [path]


@pytest.mark.parametrize("size", [0, 4, 200])
def test_a_truncated_parquet_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"problem": ["x"] * 100, "answer": list(range(100))}), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ConfigError, match=rf"data\.source={path}: not a readable Parquet file"):
        load(path)


@pytest.fixture(scope="module")
def ten() -> datasets.Dataset:
    return load_problems(DataSettings(count=10))


def ids(dataset: datasets.Dataset, per_iteration: int, seed: int, iteration: int) -> list[str]:
    return [p.id for p in problems_of_iteration(dataset, per_iteration, seed, iteration)]


def test_epochs(ten: datasets.Dataset) -> None:
    # 10 problems, 4 an iteration: an epoch has two iterations and leaves two problems out
    epochs = [[ids(ten, 4, 0, 2 * epoch + half) for half in (1, 2)] for epoch in range(40)]
    for first, second in epochs:
        assert len({*first, *second}) == 8
    assert len({tuple(itertools.chain(*epoch)) for epoch in epochs}) == 40  # each in an order of its own
    seen = Counter(i for epoch in epochs for batch in epoch for i in batch)
    assert set(seen) == set(ten["id"][:])
    assert min(seen.values()) > 20  # 32 are expected; no problem is always left out


def test_order_is_decided_by_the_seed(ten: datasets.Dataset) -> None:
    assert ids(ten, 4, 1, 3) == ids(ten, 4, 1, 3)
    assert ids(ten, 10, 1, 1) != ids(ten, 10, 2, 1)
    assert sorted(ids(ten, 10, 1, 1)) == sorted(ids(ten, 10, 2, 5)) == sorted(ten["id"][:])


def test_too_few_problems(ten: datasets.Dataset) -> None:
    with pytest.raises(ConfigError, match=r"sampling\.problems=11 is more than the 10 problems.*data\.count"):
        problems_of_iteration(ten, 11, 0, 1)


def test_request_seeds_differ_in_each_argument() -> None:
    base = (0, "train", 1, "chains-1+2", 0)
    changes = (1, "eval", 2, "chains-1+3", 1)
    others = [(*base[:i], change, *base[i + 1 :]) for i, change in enumerate(changes)]
    assert len({request_seed(*arguments) for arguments in [base, *others]}) == 6
    assert request_seed(*base) == request_seed(*base)


def test_request_seeds_are_spread_over_their_range() -> None:
    grid = itertools.product(range(2), range(10), range(10), range(8))
    seeds = [request_seed(seed, "train", i, f"p{p}", sample) for seed, i, p, sample in grid]
    assert all(0 <= s < 2**31 for s in seeds)
    assert len(set(seeds)) == len(seeds)  # 1,600 of 2^31: two alike with probability 6e-4
    assert min(seeds) < 2**26 < 31 * 2**26 < max(seeds)
    assert request_seed(0, "train", 1, "1", 11) != request_seed(0, "train", 11, "1", 1)  # nor do arguments run together


def test_wrong_choices_and_the_answer_become_letters(tmp_path: Path) -> None:
    row = {"q": "Which?", "right": "oak", "w1": "elm", "w2": "ash", "w3": "yew"}
    path = jsonl(tmp_path, *({**row, "id": i} for i in range(40)))
    settings = {"problem_column": "q", "answer_column": "right", "choice_columns": ["w1", "w2", "w3"]}
    problems = load(path, answer_type="choice", **settings)
    for problem in problems:
        assert f"({problem.answer}) oak" in problem.prompt.splitlines()
        assert sorted(line[4:] for line in problem.prompt.splitlines()[2:]) == ["ash", "elm", "oak", "yew"]
    assert {problem.answer for problem in problems} == set("ABCD")  # 40 problems: each letter is missing once in 10^5
    assert load(path, **settings) == problems
    assert load(path, seed=1, **settings) != problems


def test_there_are_ten_letters(tmp_path: Path) -> None:
    row = {**GOOD, **{f"w{i}": str(i + 3) for i in range(9)}}
    assert load(jsonl(tmp_path, row), choice_columns=[f"w{i}" for i in range(9)])[0].prompt.count("\n(") == 10
    with pytest.raises(ValidationError, match="choice_columns"):
        DataSettings(choice_columns=[f"w{i}" for i in range(10)])


@pytest.mark.parametrize(
    ("answer", "read"),
    [("9 - 4 = <<9-4=5>>5\n#### 5", "5"), (["1", "2"], "1, 2"), (["7"], "7"), ("a # b", "a # b")],
)
def test_answers_of_benchmarks(tmp_path: Path, answer: object, read: str) -> None:
    [problem] = load(jsonl(tmp_path, {**GOOD, "answer": answer}))
    assert problem.answer == read


@pytest.mark.parametrize(
    ("answer_type", "answer"),
    [("integer", "1/2"), ("integer", "x"), ("choice", "12"), ("choice", "()"), ("choice", "AB")],
)
def test_an_answer_of_another_type_is_a_broken_row(tmp_path: Path, answer_type: str, answer: str) -> None:
    with pytest.raises(ConfigError, match=r"line 1: column 'answer' is no .*answer_type"):
        load(jsonl(tmp_path, {**GOOD, "answer": answer}), answer_type=answer_type)
    assert load(jsonl(tmp_path, {**GOOD, "answer": "1,024"}), answer_type="integer")[0].answer == "1,024"


def test_a_file_stands_in_for_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    data = DataSettings(source="nobody/nothing", subset="hard", split="test")
    place = tmp_path / "nobody--nothing--hard--test.jsonl"
    with pytest.raises(ConfigError, match=r"columns problem, answer\) at .*nobody--nothing--hard--test\.jsonl or"):
        load_problems(data, tmp_path)
    jsonl(tmp_path, GOOD).rename(place)
    assert [as_problem(row).answer for row in load_problems(data, tmp_path)] == ["2"]


def test_problems_with_long_solutions_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k.jsonl"
    answers = ["2 + 3 = 5\n#### 5", "2 + 3 = 5\n5 + 1 = 6\n#### 6", "2 + 3 = 5\n5 + 1 = 6\n6 + 1 = 7\n#### 7"]
    path.write_text("".join(json.dumps({"problem": f"p{i}", "answer": a}) + "\n" for i, a in enumerate(answers)))
    short = DataSettings(source=str(path), reference_column="answer", max_reference_steps=3)
    problems = load_problems(short)
    assert problems["prompt"] == ["p0", "p1"]
    assert problems.info.description == "1 problems left out: over 3 steps"
    with pytest.raises(ConfigError, match=r"set data\.reference_column"):
        load_problems(short.model_copy(update={"reference_column": None}))
