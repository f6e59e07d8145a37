"""ProcessBench's format: the generated set, files as they come, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgpo_core.chains import problems as chains
from sgpo_core.config.base import ConfigError
from sgpo_core.data import hub
from sgpo_core.judges import processbench
from sgpo_core.judges.processbench import Example, generated, load
from sgpo_core.judges.rule import rule
from sgpo_core.judges.scores import score

ROW = {
    "id": "gsm8k-7",
    "generator": "a-model",
    "problem": "1 + 1, and 1 more?",
    "steps": ["1 + 1 = 2", "2 + 1 = 4", "So 4."],
    "final_answer_correct": False,
    "label": 1,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def jsonl(path: Path, *rows: Any) -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def test_labels_are_what_the_rule_judge_finds() -> None:
    examples = generated(600)
    report = score(rule([e.item() for e in examples]), [e.label for e in examples], [e.subset for e in examples])
    assert {name: s.f1 for name, s in report.subsets.items()} == {"chains-slip": 1, "chains-noise": 1, "chains-late": 1}


def test_a_generated_set_is_balanced() -> None:
    examples = generated(600)
    assert Counter((e.subset, e.label >= 0) for e in examples) == {
        (subset, erroneous): 100
        for subset in ("chains-slip", "chains-noise", "chains-late")
        for erroneous in (True, False)
    }
    assert len({e.id for e in examples}) == len({e.problem for e in examples}) == 600
    assert all(e.final_answer_correct is (e.label < 0) for e in examples)  # wrong digits do not cancel
    labels = {subset: {e.label for e in examples if e.subset == subset} for subset in ("chains-slip", "chains-late")}
    assert labels == {"chains-slip": {-1, 1, 2, 3, 4, 5}, "chains-late": {-1, 5, 6}}  # the first column has no carry
    assert {e.generator.partition(": ")[2] for e in examples} == {
        *("correct", "forgotten-carry", "wrong-sum", "misread-digit", "wrong-answer")
    }


def test_a_generated_set_is_decided_by_its_seed_and_apart_from_training_problems() -> None:
    assert generated(30) == generated(30)
    assert generated(30) != generated(30, seed=1)
    training = {p.prompt for seed in (0, 1) for p in chains.make_problems(2048, seed)}
    assert not training & {e.problem for e in generated(600)}


def test_an_example_as_a_judge_reads_it() -> None:
    item = generated(1)[0].item()
    assert item.text + "\n" == "".join(f"{step}\n" for step in generated(1)[0].steps)
    assert [step.start for step in item.steps] == [0, *(step.end for step in item.steps[:-1])]
    assert all(item.text[step.start : step.end] == step.text for step in item.steps)
    assert item.problem.reference == chains.solve(*chains.operands(item.problem.prompt)).text
    assert (item.problem.answer, item.problem.domain) == ("", "chains-slip")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set{suffix}"
    rows = [ROW, {**ROW, "id": "gsm8k-8", "label": -1}]
    if suffix == ".jsonl":
        jsonl(path, *rows)
    elif suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    first, second = load(str(path))
    assert first == Example("gsm8k-7", "a-model", ROW["problem"], tuple(ROW["steps"]), False, 1)
    assert (first.subset, second.label, second.reference) == ("gsm8k", -1, None)


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "gsm8k.json").write_text(json.dumps([ROW]))
    jsonl(tmp_path / "math.jsonl", {**ROW, "id": "math-0"})
    (tmp_path / "README.md").write_text("no data")
    assert [e.id for e in load(str(tmp_path))] == ["gsm8k-7", "math-0"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{'id': 1}", "not JSON"),
        ("[1]", "not an object"),
        ({k: v for k, v in ROW.items() if k != "label"}, "no column 'label' (it has id, generator"),
        ({**ROW, "steps": []}, "'steps' is not a list of texts"),
        ({**ROW, "steps": "a. b."}, "'steps' is not a list of texts"),
        ({**ROW, "steps": ["a", 2]}, "'steps[1]' is empty or not text"),
        ({**ROW, "steps": ["a", " "]}, "'steps[1]' is empty or not text"),
        ({**ROW, "problem": ""}, "'problem' is empty"),
        ({**ROW, "label": 3}, "'label' is 3: neither -1 nor the index of one of 3 steps"),
        ({**ROW, "label": -2}, "'label' is -2"),
        ({**ROW, "label": "1"}, "'label' is '1'"),
        ({**ROW, "label": True}, "'label' is True"),
        ({**ROW, "final_answer_correct": "no"}, "'final_answer_correct' is neither true nor false"),
        ({**ROW, "steps": ["\ud800", "b"], "label": 0}, "'steps[0]' is not valid Unicode"),
        ({**ROW, "id": "x-1"}, "id 'x-1' comes twice"),
    ],
)
def test_broken_rows_are_counted_and_named(tmp_path: Path, row: Any, complaint: str) -> None:
    source = jsonl(tmp_path / "set.jsonl", {**ROW, "id": "x-1"}, row)
    with pytest.raises(ConfigError) as error:
        load(source)
    assert f"data.path={source}: 1 broken rows, 0 are allowed: set.jsonl line 2: " in str(error.value)
    assert complaint in str(error.value)
    assert [e.id for e in load(source, max_bad_rows=1)] == ["x-1"]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    for source in (str(tmp_path / "no.jsonl"), str(tmp_path), "set.csv"):
        with pytest.raises(ConfigError, match=r"gate_data=.*there is no such \.jsonl"):
            load(source, setting="judge.gate_data")
    with pytest.raises(ConfigError, match="there is no usable row"):
        load(jsonl(tmp_path / "empty.jsonl"))
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"not an array of objects; a file of one object a line ends in \.jsonl"):
        load(str(tmp_path / "x.json"))
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(ConfigError, match=r"data\.path=.*not a readable Parquet file"):
        load(str(tmp_path / "x.parquet"))


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_split(name: str, subset: None, split: str, revision: str) -> list[dict[str, Any]]:
        asked.append((name, split))
        return [{**ROW, "id": f"{split}-0"}]

    monkeypatch.setattr(hub, "load_split", load_split)
    assert [e.subset for e in load("Qwen/ProcessBench")] == ["gsm8k", "math", "olympiadbench", "omnimath"]
    assert [e.subset for e in load("Qwen/ProcessBench/math")] == ["math"]
    assert asked == [("Qwen/ProcessBench", s) for s in ("gsm8k", "math", "olympiadbench", "omnimath", "math")]
    with pytest.raises(ConfigError, match="the subsets of Qwen/ProcessBench are gsm8k, math"):
        load("Qwen/ProcessBench/physics")


def test_without_internet_the_error_says_which_files_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConfigError, match=r"Without internet, copy the set's files \(gsm8k\.json, .* data\.path=FOLDER"
    ):
        load("Qwen/ProcessBench")


def test_the_command_writes_what_is_loaded(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "set.jsonl"
    command = [sys.executable, "-m", "sgpo_core.judges.processbench", "--out", str(out), "--count", "12", "--seed", "3"]
    subprocess.run(command, check=True, cwd=Path(processbench.__file__).parents[2], timeout=120)
    assert load(str(out)) == generated(12, seed=3)
    columns = set(json.loads(out.read_text().splitlines()[0]))
    assert columns == {*ROW, "reference"}


@pytest.mark.parametrize("arguments", [["--out", "x.csv"], ["--out", "x.jsonl", "--count", "0"], []])
def test_the_command_refuses(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        processbench.main(arguments)
