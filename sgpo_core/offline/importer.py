"""Responses that exist already, checked, tokenized and grouped by problem, in the memory that a part of them takes.

    batches ──check──▶ good rows ──by hash of the problem──▶ parts on disk ──sort, tokenize, cut──▶ shards of groups

All rows of a problem fall into the same part, so that each part is grouped by itself. What is broken is counted, and
named with file and row; over `max_bad_rows` the whole is refused and nothing is left behind.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import ResponsesSettings
from sgpo_core.data.problems import SHOWN
from sgpo_core.data.segmentation import SEGMENTER, segment
from sgpo_core.offline.cells import RESPONSE
from sgpo_core.offline.checks import BadRows, faults, flat_values, lengths
from sgpo_core.offline.sources import Batch, read_batches, source_files
from sgpo_core.offline.store import write_shard
from sgpo_core.storage.rollout_table import SCHEMA

SHARD_ROWS = 4096  # a shard is what later stages write at a time, and so lose at most by a crash
_PART_BYTES = 8 * 2**20  # of the source, compressed or not; some 20,000 responses
_MOST_PARTS = 128  # each is an open file
_PLACED = pa.schema([*RESPONSE, ("file", pa.int32()), ("place", pa.int64())])
_SHARD = (
    *("problem_id", "domain", "group", "sample", "prompt", "answer", "reference", "answer_form", "prompt_ids"),
    *("token_ids", "rollout_logprobs", "response", "truncated", "grade", "first_error_step", "verdict_status"),
)


class Codec(Protocol):
    """A policy's tokenizer, as far as responses need it. `max_length`: prompt and response together, tokens."""

    eos: int
    vocabulary: int
    max_length: int

    def prompts(self, texts: Sequence[str]) -> list[list[int]]: ...
    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...
    def decode(self, token_ids: Sequence[Sequence[int]]) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import; `too_long` responses don't fit into model.max_length, which is no fault of theirs."""

    rows: int
    responses: int
    groups: int
    too_long: int
    bad_rows: int
    bad_named: list[str]


def import_responses(settings: ResponsesSettings, codec: Codec, folder: Path, work: Path) -> Imported:
    """Writes the shards of a source into `folder`; `work` is a folder for what is needed meanwhile. Raises ConfigError
    when the source can't be read, has too many broken rows, or none that is usable."""
    bad = BadRows(settings.max_bad_rows)
    files, rows = _partition(settings, bad, work)
    bad.refuse_too_many()
    groups = responses = too_long = shards = 0
    for part in tqdm(sorted(work.glob("*.arrow")), desc="grouping", unit="part", disable=None):
        table, overlong = _grouped(_read(part), files, codec, bad, groups, settings.answer_form)
        too_long += overlong
        for shard in _cut(table):
            write_shard(folder, shards, shard)
            shards += 1
        responses += table.num_rows
        groups += len(pc.unique(table.column("group")))
        part.unlink()
    bad.refuse_too_many()
    if not responses:
        raise ConfigError(
            f"responses.source={settings.source}: there is no usable response ({rows} rows, {bad.count} broken, "
            f"{too_long} over model.max_length={codec.max_length} tokens)"
        )
    return Imported(rows, responses, groups, too_long, bad.count, bad.named)


Files = list[tuple[str, str]]  # (name, unit) by number


def _partition(settings: ResponsesSettings, bad: BadRows, work: Path) -> tuple[Files, int]:
    """Checks every row by itself and spreads the good ones over parts; returns the files, and the rows seen."""
    size = sum(f.stat().st_size for f in source_files(settings.source))
    parts = min(_MOST_PARTS, 1 + size // _PART_BYTES) if size else _MOST_PARTS // 2
    work.mkdir(parents=True, exist_ok=True)
    files: Files = []
    seen: set[int] = set()
    rows = 0
    with ExitStack() as stack, tqdm(desc="reading responses", unit=" rows", disable=None) as bar:
        writers = [stack.enter_context(pa.ipc.new_stream(str(work / f"{i:04d}.arrow"), _PLACED)) for i in range(parts)]
        for batch in read_batches(settings):
            if not files or files[-1][0] != batch.file:
                files.append((batch.file, batch.unit))
            good = _checked(batch, settings, seen, bad, len(files) - 1)
            _spread(good, writers)
            rows += batch.table.num_rows
            bar.update(batch.table.num_rows)
    return files, rows


def _spread(table: pa.Table, writers: Sequence[pa.RecordBatchWriter]) -> None:
    part = np.array([zlib.crc32(i.encode()) % len(writers) for i in table.column("problem_id").to_pylist()], np.int64)
    order = np.argsort(part, kind="stable")
    ordered, bounds = table.take(order), np.searchsorted(part[order], np.arange(len(writers) + 1))
    for writer, start, stop in zip(writers, bounds[:-1], bounds[1:], strict=True):
        if stop > start:
            writer.write_table(ordered.slice(start, stop - start))


def _checked(batch: Batch, settings: ResponsesSettings, seen: set[int], bad: BadRows, file: int) -> pa.Table:
    """The good rows of a batch, with their place; the others are counted."""
    errors, table = batch.errors, batch.table
    for broken, reason in faults(table, settings):
        for i in np.flatnonzero(broken):
            errors.setdefault(int(i), reason)
    for i, value in enumerate(table.column("id").to_pylist()):
        if value is None or i in errors:
            continue
        digest = hash_of(value)
        if digest in seen:
            errors[i] = f"id {value[:SHOWN]!r} comes twice"
        seen.add(digest)
    for i in sorted(errors):
        bad.add(batch.file, batch.unit, int(batch.places[i]), errors[i])
    if settings.columns.problem_id is None:
        ids = [f"prompt-{hash_of(text):016x}" if text else None for text in table.column("prompt").to_pylist()]
        table = table.set_column(1, "problem_id", pa.array(ids, pa.string()))
    table = table.append_column("file", pa.array(np.full(table.num_rows, file, np.int32)))
    table = table.append_column("place", pa.array(batch.places))
    keep = np.ones(table.num_rows, bool)
    keep[list(errors)] = False
    return table.filter(pa.array(keep)) if errors else table


def hash_of(text: str) -> int:
    """64 bits of a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _read(part: Path) -> pa.Table:
    with pa.ipc.open_stream(str(part)) as stream:
        table = stream.read_all()
    order = pc.sort_indices(table, [(name, "ascending") for name in ("problem_id", "file", "place")])
    return table.take(order)


def _grouped(
    table: pa.Table, files: Files, codec: Codec, bad: BadRows, first_group: int, answer_form: str
) -> tuple[pa.Table, int]:
    """A part's rows as a shard has them, its groups counted from `first_group`; and how many were too long."""
    starts = _starts(table)
    of_group = np.repeat(np.arange(len(starts)), np.diff([*starts, table.num_rows]))
    prompts = codec.prompts(table.column("prompt").take(starts).to_pylist()) if len(starts) else []
    token_ids = _token_ids(table, codec)
    errors = _verdicts_beyond(table) | _contradictions(table, starts, of_group) | _misspelt(table, token_ids, codec)
    file, place = (table.column(name).to_pylist() for name in ("file", "place"))
    for i in sorted(errors):
        name, unit = files[file[i]]
        bad.add(name, unit, place[i], errors[i])
    fits = np.array([len(prompts[of_group[i]]) + len(ids) <= codec.max_length for i, ids in enumerate(token_ids)], bool)
    good = np.ones(table.num_rows, bool)
    good[list(errors)] = False
    kept = np.flatnonzero(good & fits)
    numbers, group = np.unique(of_group[kept], return_inverse=True)
    first = np.searchsorted(group, np.arange(len(numbers)))
    rows = table.take(kept)
    values: dict[str, Any] = {
        **{name: rows.column(name) for name in rows.column_names},
        # Of a problem, and so of its first response.
        "reference": rows.column("reference").take(first[group]),
        "domain": pc.fill_null(rows.column("domain").take(first[group]), ""),
        "answer_form": [answer_form] * len(kept),
        "group": (first_group + group).astype(np.int32),
        "sample": (np.arange(len(kept)) - first[group]).astype(np.int32),
        "prompt_ids": [prompts[of_group[i]] for i in kept],
        "token_ids": [token_ids[i] for i in kept],
        "rollout_logprobs": rows.column("logprobs"),
        "truncated": pc.fill_null(rows.column("truncated"), False),
    }
    schema = pa.schema([SCHEMA.field(name) for name in _SHARD])
    result = pa.table([_column(values[f.name], f.type) for f in schema], schema=schema)
    return result, int((good & ~fits).sum())


def _column(values: Any, kind: pa.DataType) -> Any:
    return values if isinstance(values, pa.ChunkedArray) else pa.array(values, kind)


def _starts(table: pa.Table) -> np.ndarray:
    """First row of each problem; the rows are sorted by problem."""
    codes = table.column("problem_id").combine_chunks().dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    numbers = codes.indices.to_numpy()
    return np.flatnonzero(np.diff(numbers, prepend=-1))


def _token_ids(table: pa.Table, codec: Codec) -> list[list[int]]:
    """As recorded, or the text's, with an end-of-sequence unless it was cut."""
    column = table.column("token_ids")
    counts, (values, _) = np.maximum(lengths(column), 0), flat_values(column)
    ends = np.cumsum(counts)
    result = [values[end - n : end].tolist() for end, n in zip(ends, counts, strict=True)]
    missing = np.flatnonzero(column.is_null().to_numpy())
    texts, cut = (table.column(name).take(missing).to_pylist() for name in ("response", "truncated"))
    for i, ids, truncated in zip(missing, codec.encode(texts) if len(missing) else [], cut, strict=True):
        result[i] = ids if truncated else [*ids, codec.eos]
    return result


def _contradictions(table: pa.Table, starts: np.ndarray, of_group: np.ndarray) -> dict[int, str]:
    """Rows whose problem is another one than that of the first row with its id."""
    errors: dict[int, str] = {}
    for name in ("prompt", "answer"):
        column = table.column(name)
        differs = pc.not_equal(column, column.take(starts).take(pa.array(of_group))).to_numpy()
        for i in np.flatnonzero(differs):
            of = table.column("problem_id")[i].as_py()
            errors.setdefault(int(i), f"problem {of[:SHOWN]!r} has another {name} here than in its first row")
    return errors


def _misspelt(table: pa.Table, token_ids: Sequence[list[int]], codec: Codec) -> dict[int, str]:
    """Rows whose token ids don't spell their text, because they are another tokenizer's, or because this one can't."""
    known = [max(ids) < codec.vocabulary and min(ids) >= 0 if ids else False for ids in token_ids]
    texts = codec.decode([ids if fits else [] for ids, fits in zip(token_ids, known, strict=True)])
    recorded = table.column("token_ids").is_valid().to_numpy()
    errors: dict[int, str] = {}
    for i, (fits, spelt, written) in enumerate(zip(known, texts, table.column("response").to_pylist(), strict=True)):
        if fits and spelt == written:
            continue
        if not recorded[i]:
            errors[i] = "the policy's tokenizer can't spell the response"
        elif not fits:
            errors[i] = f"token ids of another tokenizer: this one has {codec.vocabulary}"
        else:
            errors[i] = f"token ids of another tokenizer: they spell {spelt[:SHOWN]!r}, not the response"
    return errors


def _verdicts_beyond(table: pa.Table) -> dict[int, str]:
    """Rows whose first wrong step is behind their last one: its steps were counted in another way."""
    errors: dict[int, str] = {}
    for i in np.flatnonzero(table.column("first_error_step").is_valid().to_numpy()):
        step, steps = table.column("first_error_step")[i].as_py(), len(segment(table.column("response")[i].as_py()))
        if step > steps:
            errors[int(i)] = f"first_error_step={step} of a response of {steps} steps ({SEGMENTER})"
    return errors


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    """Whole groups, a shard ending with the group that reaches SHARD_ROWS."""
    groups, start = table.column("group").to_numpy(), 0
    while start < len(groups):
        last = groups[min(start + SHARD_ROWS, len(groups)) - 1]
        stop = int(np.searchsorted(groups, last, side="right"))
        yield table.slice(start, stop - start)
        start = stop
