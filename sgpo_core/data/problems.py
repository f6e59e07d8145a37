"""Problem sets: generated, from a file, or from the Hugging Face hub; always served as a `datasets.Dataset`."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from sgpo_core.chains import problems as chains
from sgpo_core.config.base import ConfigError
from sgpo_core.config.data import DataSettings
from sgpo_core.data import hub
from sgpo_core.data.gym_problems import SOURCE, gym_problems
from sgpo_core.data.segmentation import segment
from sgpo_core.grading.grader import is_integer
from sgpo_core.types import Problem

MAX_NAMED, MAX_NAMED_COLUMNS = 5, 12
SHOWN = 40  # characters of a text of others in a message
_PARQUET_ROWS = 1024  # read at a time
FILES = (".jsonl", ".json", ".parquet")


def load_problems(data: DataSettings, copies: Path | None = None) -> Dataset:
    """A data set with columns id, prompt, answer, reference, domain, answer_form (string; reference may be null);
    `info.description` says which rows were left out. In `copies` files can stand in for data sets of the hub. Raises
    ConfigError when the source is missing, has more than `max_bad_rows` broken rows, or none that is usable."""
    if data.max_reference_steps and not data.reference_column:
        raise ConfigError(
            f"data.max_reference_steps={data.max_reference_steps} counts the steps of worked solutions: set "
            "data.reference_column, too"
        )
    if data.task and data.source != SOURCE:
        raise ConfigError(f"data.task={data.task} is for data.source={SOURCE}; data.source={data.source} has no task")
    if data.source == "chains":
        rows = [_row(p) for p in chains.make_problems(data.count, data.seed, data.columns, data.carry_rate)]
        return Dataset.from_list(rows)
    if data.source == SOURCE:
        return Dataset.from_list([_row(problem) for problem in gym_problems(data)])
    if data.source.endswith(FILES):
        path = Path(data.source).expanduser()
        if not path.is_file():
            raise ConfigError(f"data.source={data.source}: there is no such file")
        return _checked(_file_rows(path), data)
    stem = (
        copies / "--".join(filter(None, [data.source.replace("/", "--"), data.subset, data.split])) if copies else None
    )
    for path in (stem.with_name(stem.name + ending) for ending in FILES) if stem else ():
        if path.is_file():
            return _checked(_file_rows(path), data)
    return _checked(_hub_rows(data, stem), data)


def as_problem(row: Mapping[str, Any]) -> Problem:
    """A row of `load_problems`."""
    return Problem(**row)


def problems_of_iteration(dataset: Dataset, per_iteration: int, seed: int, iteration: int) -> list[Problem]:
    """The problems of an iteration (counted from 1): every epoch is a shuffle of its own, by seed. The last, partial
    batch of an epoch is left out; no problem comes twice in an iteration."""
    if per_iteration > len(dataset):
        raise ConfigError(
            f"sampling.problems={per_iteration} is more than the {len(dataset)} problems: lower it, or raise data.count"
        )
    per_epoch = len(dataset) // per_iteration
    epoch, batch = divmod(iteration - 1, per_epoch)
    order = list(range(len(dataset)))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    chosen = order[batch * per_iteration : (batch + 1) * per_iteration]
    return [as_problem(dataset[i]) for i in chosen]


def request_seed(run_seed: int, purpose: str, iteration: int, problem_id: str, sample: int) -> int:
    """The seed of one sampling request, in [0, 2^31)."""
    text = json.dumps([run_seed, purpose, iteration, problem_id, sample])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def _row(problem: Problem) -> dict[str, str | None]:
    return asdict(problem)


def _file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    return parquet_rows(path) if path.suffix == ".parquet" else jsonl_rows(path)


def jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, row) of every line that is not blank; a line that is not JSON in UTF-8 gives a ValueError in the row's
    place."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                yield f"line {number}", ValueError(f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8")
            except (ValueError, RecursionError) as error:
                yield f"line {number}", ValueError(f"not JSON ({error})")


def parquet_rows(path: Path, setting: str = "data.source") -> Iterator[tuple[str, Any]]:
    """(place, row) of every row, a batch of the file in memory at a time. Raises ConfigError, which names `setting`,
    where the file can't be read."""
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{setting}={path}: not a readable Parquet file, it breaks after row {number} ({error})"
        ) from None


def _hub_rows(data: DataSettings, stem: Path | None) -> Iterator[tuple[str, Any]]:
    try:
        dataset = hub.load_split(data.source, data.subset, data.split, data.revision)
    except Exception as error:
        columns = ", ".join([data.problem_column, data.answer_column, *data.choice_columns])
        file = f"put its split {data.split} (columns {columns}) at {stem}.jsonl or .parquet, or " if stem else ""
        raise ConfigError(
            f"data.source={data.source}: can't be loaded from the Hugging Face hub: "
            f"{hub.sentence(error, 'dataset', data.source, data.revision)}. "
            f"Without internet, {file}name a local .jsonl or .parquet file in data.source"
        ) from None
    for number, row in enumerate(dataset, 1):
        yield f"row {number}", row


def names_of(columns: Iterable[object]) -> str:
    """The first columns of a row, as a message shows what others wrote: short, and nothing in it acts on a terminal."""
    return ", ".join(repr(str(name)[:SHOWN])[1:-1] for name in islice(columns, MAX_NAMED_COLUMNS)) or "none"


def named(bad: Sequence[str]) -> str:
    """The first of what is wrong with broken rows, and how many there are besides."""
    return "; ".join(bad[:MAX_NAMED]) + (f"; and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else "")


def _checked(raw: Iterator[tuple[str, Any]], data: DataSettings) -> Dataset:
    rows: list[dict[str, str | None]] = []
    bad: list[str] = []
    seen: set[str] = set()
    too_long = 0
    for place, value in raw:
        if len(rows) == data.count:
            break
        problem = (
            value
            if isinstance(value, Exception)
            else _problem(value, data, f"{Path(data.source).stem}-{place.split()[1]}")
        )
        if isinstance(problem, Problem) and problem.id in seen:
            problem = ValueError(f"id {problem.id[:SHOWN]!r} comes twice")
        if isinstance(problem, Exception):
            bad.append(f"{place}: {problem}")
            continue
        if data.max_reference_steps and len(segment(problem.reference or "")) > data.max_reference_steps:
            too_long += 1
            continue
        seen.add(problem.id)
        rows.append(_row(problem))
    if len(bad) > data.max_bad_rows:
        raise ConfigError(
            f"data.source={data.source}: {len(bad)} broken rows, {data.max_bad_rows} are allowed (data.max_bad_rows): "
            + named(bad)
        )
    if not rows:
        raise ConfigError(f"data.source={data.source}: there is no usable row")
    dataset = Dataset.from_list(rows)
    left_out = [f"{too_long} problems left out: over {data.max_reference_steps} steps"] if too_long else []
    left_out += [f"{len(bad)} broken rows left out: {named(bad)}"] if bad else []
    dataset.info.description = "; ".join(left_out)
    return dataset


def _problem(row: Any, data: DataSettings, fallback_id: str) -> Problem | ValueError:
    if not isinstance(row, Mapping):
        return ValueError("not an object")
    for column in (data.problem_column, data.answer_column, *data.choice_columns):
        if column not in row:
            return ValueError(f"no column {column!r} (it has {names_of(row)})")
        value = _text(row[column])
        if (
            isinstance(value, bool)
            or not isinstance(value, str | int | float)
            or value != value
            or not str(value).strip()
        ):
            return ValueError(f"column {column!r} is empty or neither text nor a number")
    columns = [
        data.problem_column,
        data.answer_column,
        *data.choice_columns,
        *filter(None, [data.reference_column, data.domain_column]),
        "id",
    ]
    for column in columns:
        if any("\ud800" <= c <= "\udfff" for c in str(row.get(column))):
            return ValueError(f"column {column!r} is not valid Unicode (a lone surrogate)")
    reference = row.get(data.reference_column) if data.reference_column else None
    problem = Problem(
        id=str(fallback_id if row.get("id") is None else row["id"]),
        prompt=str(row[data.problem_column]),
        answer=str(_text(row[data.answer_column])).rpartition("\n#### ")[2].strip(),
        reference=str(reference) if reference else None,
        domain=str(row.get(data.domain_column) or "") if data.domain_column else "",
        answer_form=data.answer_form,
    )
    if not problem.answer:
        return ValueError(f"column {data.answer_column!r} ends with ####, and no answer follows")
    if data.choice_columns:
        return _with_choices(problem, [str(row[column]).strip() for column in data.choice_columns], data.seed)
    if data.answer_type == "integer" and not is_integer(problem.answer):
        return ValueError(f"column {data.answer_column!r} is no integer: {problem.answer[:SHOWN]!r} (data.answer_type)")
    if data.answer_type == "choice" and problem.answer.strip("()") not in set(_LETTERS):
        return ValueError(f"column {data.answer_column!r} is no letter: {problem.answer[:SHOWN]!r} (data.answer_type)")
    return problem


_LETTERS = "ABCDEFGHIJ"


def _text(value: Any) -> Any:
    """A list of texts (solutions that all belong to the answer) as one."""
    return ", ".join(value) if isinstance(value, list) and all(isinstance(part, str) for part in value) else value


def _with_choices(problem: Problem, wrong: list[str], seed: int) -> Problem:
    """The problem with all choices below it, in an order of its own, and the right one's letter as its answer."""
    choices = [problem.answer, *wrong]
    random.Random(f"choices/{seed}/{problem.id}").shuffle(choices)
    listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip(_LETTERS, choices, strict=False))
    return replace(problem, prompt=f"{problem.prompt}\n\n{listed}", answer=_LETTERS[choices.index(problem.answer)])
