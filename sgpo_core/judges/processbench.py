"""ProcessBench's format (arXiv 2412.06559): solutions whose first wrong step is known, to measure judges on.

A row: id ("gsm8k-0": its subset, a number), generator (who wrote the solution), problem, steps (a list of texts),
final_answer_correct, label (0-based index of the first wrong step, -1 for none); here also reference, a worked
solution, where there is one.

    python -m sgpo_core.judges.processbench --out FILE.jsonl --count N      writes a generated set
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from sgpo_core.chains import problems as chains
from sgpo_core.chains.corruptions import Error, corrupted, positions
from sgpo_core.config.base import ConfigError
from sgpo_core.data import hub
from sgpo_core.data.problems import SHOWN, jsonl_rows, named, names_of, parquet_rows
from sgpo_core.judges.base import Item
from sgpo_core.storage.atomic import write_text
from sgpo_core.types import Problem, Step

HUB, HUB_SUBSETS = "Qwen/ProcessBench", ("gsm8k", "math", "olympiadbench", "omnimath")
HUB_REVISION = "3bdcd5371ed567559a78f559c01c13a6deee7604"
GENERATED = 300  # solutions, by default: a share near 0.9 is known to +- 0.035 (two standard errors)
_COLUMNS = 6
_OTHER_PROBLEMS = 20_000_000  # added to the seed: other problems than a policy or a judge is trained on
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """One solution, see the module."""

    id: str
    generator: str
    problem: str
    steps: tuple[str, ...]
    final_answer_correct: bool
    label: int
    reference: str | None = None

    @property
    def subset(self) -> str:
        return self.id.rpartition("-")[0] or self.id

    def item(self) -> Item:
        """What a judge reads: a step ends with its line."""
        texts = [step if step.endswith("\n") else step + "\n" for step in self.steps[:-1]] + [self.steps[-1]]
        ends = list(accumulate(map(len, texts)))
        steps = tuple(Step(end - len(text), end, text) for text, end in zip(texts, ends, strict=True))
        return Item(Problem(self.id, self.problem, "", self.reference, self.subset), steps)


def load(source: str, max_bad_rows: int = 0, setting: str = "data.path") -> list[Example]:
    """The examples of "chains" (generated), a .jsonl, .json or .parquet file, a folder of them, or the Hugging Face set
    `Qwen/ProcessBench` (all of it, or `Qwen/ProcessBench/math`). Raises ConfigError, which names `setting`, when the
    source is missing, has more than `max_bad_rows` broken rows (others are logged), or none that is usable."""
    if source == "chains":
        return generated(GENERATED)
    if source == HUB or source.startswith(f"{HUB}/"):
        return _checked(_hub_rows(source, setting), source, max_bad_rows, setting)
    path = Path(source)
    files = sorted(file for suffix in _READERS for file in path.glob(f"*{suffix}")) if path.is_dir() else [path]
    if not files or not all(file.is_file() and file.suffix in _READERS for file in files):
        raise ConfigError(
            f"{setting}={source}: there is no such .jsonl, .json or .parquet file, nor a folder with one; {HUB} loads "
            "from the Hugging Face hub, chains is generated"
        )
    rows = ((f"{file.name} {place}", row) for file in files for place, row in _READERS[file.suffix](file, setting))
    return _checked(rows, source, max_bad_rows, setting)


def _json_rows(path: Path, setting: str) -> Iterator[tuple[str, Any]]:
    """Of an array of objects, which is how the set's own files are."""
    try:
        rows = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}={path}: not UTF-8: save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{setting}={path}: not JSON ({error}); a file of one object a line ends in .jsonl") from None
    if not isinstance(rows, list):
        raise ConfigError(f"{setting}={path}: not an array of objects; a file of one object a line ends in .jsonl")
    for number, row in enumerate(rows, 1):
        yield f"row {number}", row


_READERS = {".jsonl": lambda path, setting: jsonl_rows(path), ".json": _json_rows, ".parquet": parquet_rows}


def _hub_rows(source: str, setting: str) -> Iterator[tuple[str, Any]]:
    chosen = source.removeprefix(HUB).removeprefix("/")
    if chosen and chosen not in HUB_SUBSETS:
        raise ConfigError(f"{setting}={source}: the subsets of {HUB} are {', '.join(HUB_SUBSETS)}")
    for subset in [chosen] if chosen else HUB_SUBSETS:
        try:
            dataset = hub.load_split(HUB, None, subset, HUB_REVISION)
        except Exception as error:
            raise ConfigError(
                f"{setting}={source}: can't be loaded from the Hugging Face hub: "
                f"{hub.sentence(error, 'dataset', HUB, HUB_REVISION)}. "
                f"Without internet, copy the set's files ({', '.join(f'{name}.json' for name in HUB_SUBSETS)}) into a "
                f"folder and name it: {setting}=FOLDER; {setting}=chains needs no file"
            ) from None
        for number, row in enumerate(dataset, 1):
            yield f"{subset} row {number}", row


def _checked(rows: Iterator[tuple[str, Any]], source: str, max_bad_rows: int, setting: str) -> list[Example]:
    examples: dict[str, Example] = {}
    bad: list[str] = []
    for place, row in rows:
        try:
            example = _example(row)
            if example.id in examples:
                raise ValueError(f"id {example.id[:SHOWN]!r} comes twice")
            examples[example.id] = example
        except ValueError as error:
            bad.append(f"{place}: {error}")
    if len(bad) > max_bad_rows:
        raise ConfigError(f"{setting}={source}: {len(bad)} broken rows, {max_bad_rows} are allowed: {named(bad)}")
    if bad:
        _log.warning("%s: %d broken rows left out: %s", source, len(bad), named(bad))
    if not examples:
        raise ConfigError(f"{setting}={source}: there is no usable row")
    return list(examples.values())


def _example(row: Any) -> Example:
    """Raises ValueError, with what is wrong, for a row that is not of the format."""
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, Mapping):
        raise ValueError("not an object")
    for column in ("id", "problem", "steps", "final_answer_correct", "label"):
        if column not in row:
            raise ValueError(f"no column {column!r} (it has {names_of(row)})")
    steps, label, reference = row["steps"], row["label"], row.get("reference")
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
        raise ValueError("column 'steps' is not a list of texts")
    texts = {"problem": row["problem"], **{f"steps[{i}]": step for i, step in enumerate(steps)}}
    for column, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"column {column!r} is empty or not text")
    for column, text in {**texts, "id": row["id"], "generator": row.get("generator"), "reference": reference}.items():
        if any("\ud800" <= c <= "\udfff" for c in str(text)):
            raise ValueError(f"column {column!r} is not valid Unicode (a lone surrogate)")
    if isinstance(label, bool) or not isinstance(label, int) or not -1 <= label < len(steps):
        raise ValueError(f"column 'label' is {label!r}: neither -1 nor the index of one of {len(steps)} steps")
    if not isinstance(row["final_answer_correct"], bool):
        raise ValueError("column 'final_answer_correct' is neither true nor false")
    return Example(
        id=str(row["id"]),
        generator=str(row.get("generator") or ""),
        problem=row["problem"],
        steps=tuple(steps),
        final_answer_correct=row["final_answer_correct"],
        label=label,
        reference=str(reference) if reference else None,
    )


# Per subset: the errors it is made of, and whether they come at the end only.
_SUBSETS = {
    "chains-slip": ((Error.FORGOTTEN_CARRY,), False),
    "chains-noise": ((Error.WRONG_SUM, Error.MISREAD_DIGIT), False),
    "chains-late": (tuple(Error), True),
}


def generated(count: int, seed: int = 0) -> list[Example]:
    """`count` solutions of `chains` problems in three subsets, half of each erroneous, the same for the same arguments.

    `chains-slip`: the habitual error, a forgotten carry, and more of them after the first; `chains-noise`: a wrong sum
    or a misread digit; `chains-late`: an error of any kind in the last column or in the answer line, where a judge that
    stops reading finds none.
    """
    rng = random.Random(f"processbench/{seed}")
    problems = chains.make_problems(count, _OTHER_PROBLEMS + seed, _COLUMNS)
    names = list(_SUBSETS)
    return [
        _generated(problem, f"{names[i % 3]}-{i // 3}", names[i % 3], i // 3 % 2 == 0, rng)
        for i, problem in enumerate(problems)
    ]


def _generated(problem: Problem, name: str, subset: str, erroneous: bool, rng: random.Random) -> Example:
    a, b = chains.operands(problem.prompt) or (0, 0)
    kind, position, lines = "", 0, chains.solve(a, b).lines
    if erroneous:
        errors, late = _SUBSETS[subset]
        possible = {
            error: places
            for error in errors
            if (places := [p for p in positions(a, b, error) if not late or p >= _COLUMNS])
        } or {Error.WRONG_SUM: positions(a, b, Error.WRONG_SUM)}  # not a single carry: 1 in 100,000 problems
        error = rng.choice(list(possible))
        kind, position = error.value, rng.choice(possible[error])
        lines = corrupted(a, b, error, position, rng, slip_rate=0.7 if subset == "chains-slip" else 0.0)
    return Example(
        id=name,
        generator=f"constructed: {kind or 'correct'}",
        problem=problem.prompt,
        steps=tuple(line.rstrip("\n") for line in lines),
        final_answer_correct=lines[-1] == f"Answer: \\boxed{{{a + b}}}",
        label=position - 1,
        reference=problem.reference,
    )


def write(path: Path, examples: Sequence[Example]) -> None:
    """One JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(asdict(example), ensure_ascii=False) + "\n" for example in examples))


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes a generated set to a file."""
    parser = argparse.ArgumentParser(
        prog="python -m sgpo_core.judges.processbench",
        description="Writes solutions of chains problems with known first errors, in ProcessBench's format.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="the file to write")
    parser.add_argument("--count", type=int, default=GENERATED, help=f"solutions, in three subsets [{GENERATED}]")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other problems [0]")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.out.suffix != ".jsonl":
        parser.error("--count is at least 1, and the name of the file ends in .jsonl")
    try:
        write(options.out, generated(options.count, options.seed))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
