"""Responses that exist already, read a batch at a time from Parquet, JSONL, our own runs, or a Hugging Face data set.

    source ──files──▶ batches of raw rows ──columns by name──▶ `Batch` in the types of RESPONSE, what is broken named

Nothing is held but the batch in hand, so that the size of a source does not matter. A row that can't be read is an
entry in `Batch.errors`; a file that can't be (truncated, a column missing, or of another type) is a ConfigError.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import ColumnSettings, ResponsesSettings
from sgpo_core.data import hub
from sgpo_core.data.problems import names_of
from sgpo_core.offline.cells import LOOKED_AT, RESPONSE, as_table, holds_numbers, in_words

ROWS = 4096  # of a batch
_REQUIRED = ("problem_id", "prompt", "answer", "response")


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighboring rows of a file. `table` has the columns of RESPONSE; `places` int64 [rows], each row's number in its
    file, from 1; `unit` says of what ("row", "line"); `errors` row of the batch -> what is wrong with it."""

    file: str
    unit: str
    places: np.ndarray
    table: pa.Table
    errors: dict[int, str]


def read_batches(settings: ResponsesSettings) -> Iterator[Batch]:
    """All rows of a source, in its order. Raises ConfigError for a source that can't be read."""
    path = Path(settings.source).expanduser()
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        yield from _data_set(settings, path)
    elif path.exists() or settings.source.endswith((".jsonl", ".parquet")) or settings.source.startswith((".", "/")):
        for file in source_files(settings.source):
            yield from (_parquet if file.suffix == ".parquet" else _jsonl)(file, settings.columns)
    else:
        yield from _data_set(settings, None)


def source_files(source: str) -> list[Path]:
    """The files of a local source, in order: itself; of a folder all rollouts.parquet below it, else its .parquet and
    .jsonl files; of a saved data set all files. Empty for a Hugging Face data set id. Raises ConfigError for a local
    source without any."""
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        if source.endswith((".jsonl", ".parquet")) or source.startswith((".", "/", "~")):
            raise ConfigError(f"responses.source={source}: there is no such file or folder")
        return []
    files = sorted(path.rglob("rollouts.parquet")) or sorted(
        p for s in ("parquet", "jsonl") for p in path.glob(f"*.{s}")
    )
    if not files and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        files = sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise ConfigError(f"responses.source={source}: neither rollouts.parquet nor .parquet or .jsonl files in it")
    return files


def _jsonl(path: Path, columns: ColumnSettings) -> Iterator[Batch]:
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        while chunk := list(islice(numbered, ROWS)):
            rows, errors = [], {}
            for i, (_, line) in enumerate(chunk):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    row, errors[i] = {}, f"not JSON ({error})"
                if not isinstance(row, dict):
                    row, errors[i] = {}, "not an object"
                rows.append(row)
            names = _column_names(columns)
            _note_missing(rows, names, errors)
            cells = {name: [row.get(column) for row in rows] for name, column in names.items()}
            table = as_table(cells, names, errors, len(rows))
            yield Batch(str(path), "line", np.array([number for number, _ in chunk], np.int64), table, errors)


def _note_missing(rows: Sequence[dict[str, Any]], names: dict[str, str], errors: dict[int, str]) -> None:
    """A required column, or one that the user named, that a row of JSONL lacks."""
    for name in _must_be_there(names):
        for i, row in enumerate(rows):
            if names[name] not in row:
                errors.setdefault(i, f"no column {names[name]!r} (it has {names_of(row)})")


def _parquet(path: Path, columns: ColumnSettings) -> Iterator[Batch]:
    at = 0
    try:
        with pq.ParquetFile(path) as file:
            names = _present(str(path), file.schema_arrow, columns)
            for part in file.iter_batches(ROWS, columns=list(dict.fromkeys(names.values()))):
                yield _from_arrow(str(path), at, pa.Table.from_batches([part]), names)
                at += part.num_rows
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}: not a whole Parquet file, it breaks after row {at} ({reason})") from None


def _data_set(settings: ResponsesSettings, saved: Path | None) -> Iterator[Batch]:
    from datasets import DatasetDict, load_from_disk

    try:
        if saved is None:
            loaded = hub.load_split(settings.source, None, settings.split, settings.revision, streaming=True)
        else:
            loaded = load_from_disk(str(saved))
            loaded = loaded[settings.split] if isinstance(loaded, DatasetDict) else loaded
        parts = loaded.with_format("arrow").iter(ROWS)
    except Exception as error:
        raise ConfigError(
            f"responses.source={settings.source}: can't be loaded as a Hugging Face data set: "
            f"{hub.sentence(error, 'dataset', settings.source, settings.revision)}. Without internet, name a local "
            "file or folder instead"
        ) from None
    at, names = 0, None
    for part in parts:
        names = names or _present(settings.source, part.schema, settings.columns)
        yield _from_arrow(settings.source, at, part, names)
        at += part.num_rows


def _from_arrow(file: str, at: int, part: pa.Table, names: dict[str, str]) -> Batch:
    errors: dict[int, str] = {}
    columns = {name: _typed(part.column(column), name, file, column) for name, column in names.items()}
    table = as_table(columns, names, errors, part.num_rows)
    return Batch(file, "row", np.arange(at + 1, at + 1 + part.num_rows, dtype=np.int64), table, errors)


def _typed(column: pa.ChunkedArray, name: str, file: str, column_name: str) -> pa.ChunkedArray | list[Any]:
    """An Arrow column in the type of RESPONSE, or as Python values where cells need a look each. Raises ConfigError for
    a type that no cell can have."""
    wanted, kind = RESPONSE.field(name).type, column.type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    if name in LOOKED_AT and (number or text or pa.types.is_boolean(kind)):
        return column.to_pylist()
    if pa.types.is_list(wanted):
        fits = holds_numbers(kind, wanted)
    else:
        fits = text if pa.types.is_string(wanted) else pa.types.is_boolean(kind)
    if not fits and not pa.types.is_null(kind):
        raise ConfigError(f"{file}: column {column_name!r} is {kind} in row 1 and all others, wanted: {in_words(name)}")
    return column.cast(wanted, safe=False) if kind != wanted else column


def _column_names(columns: ColumnSettings) -> dict[str, str]:
    """Our name -> the source's, of all that are not switched off."""
    return {name: column for name in RESPONSE.names if (column := getattr(columns, name)) is not None}


def _must_be_there(names: dict[str, str]) -> list[str]:
    """Required ones, and those that the user named (an optional column of the default name may be missing)."""
    default = ColumnSettings()
    return [name for name, column in names.items() if name in _REQUIRED or column != getattr(default, name)]


def _present(file: str, schema: pa.Schema, columns: ColumnSettings) -> dict[str, str]:
    names = _column_names(columns)
    for name in _must_be_there(names):
        if names[name] not in schema.names:
            raise ConfigError(
                f"{file}: no column {names[name]!r} (it has {names_of(schema.names)}): name yours with "
                f"responses.columns.{name}=..."
            )
    return {name: column for name, column in names.items() if column in schema.names}
