"""What is wrong with a row of responses, as far as it shows in the row itself; and the count of what is broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sgpo_core.config.base import ConfigError
from sgpo_core.config.offline import ResponsesSettings
from sgpo_core.data.problems import MAX_NAMED
from sgpo_core.types import IntArray

BoolArray = npt.NDArray[np.bool_]

_POSITIVE = 1e-3  # nats by which rounding may lift a log-probability over 0


@dataclass(slots=True)
class BadRows:
    """What was left out, and why: the first few by name."""

    allowed: int
    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, file: str, unit: str, place: int, reason: str) -> None:
        self.count += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(f"{file}, {unit} {place}: {reason}")

    def refuse_too_many(self) -> None:
        if self.count > self.allowed:
            more = f"; and {self.count - len(self.named)} more" if self.count > len(self.named) else ""
            raise ConfigError(
                f"{self.count} broken rows, {self.allowed} are allowed (responses.max_bad_rows): "
                + "; ".join(self.named)
                + more
            )


def faults(table: pa.Table, settings: ResponsesSettings) -> Iterator[tuple[BoolArray, str]]:
    """(bool [rows], what is wrong with these rows), the worst first."""
    columns = settings.columns
    for name in ("problem_id", "prompt", "answer"):
        if (column := getattr(columns, name)) is not None:
            without = "a response without its problem: " if name != "answer" else ""
            yield _blank(table, name), f"{without}column {column!r} is empty"
    tokens, logprobs = (lengths(table.column(name)) for name in ("token_ids", "logprobs"))
    yield table.column("response").is_null().to_numpy(), f"column {columns.response!r} is empty"
    # With token ids (its end alone) it is what a policy said; without them it is a hole in the data.
    yield _blank(table, "response") & (tokens <= 0), f"column {columns.response!r} is an empty response"
    values, row = flat_values(table.column("token_ids"))
    yield _any(row[values != values], table), f"column {columns.token_ids!r} has gaps"  # Arrow makes NaN of them
    yield tokens == 0, f"column {columns.token_ids!r} is an empty list"
    yield (logprobs >= 0) & (tokens < 0), f"column {columns.logprobs!r} has log-probabilities, but of what token ids?"
    yield (
        (logprobs >= 0) & (tokens >= 0) & (logprobs != tokens),
        f"columns {columns.token_ids!r} and {columns.logprobs!r} differ in length: of another tokenizer?",
    )
    values, row = flat_values(table.column("logprobs"))
    yield _any(row[~np.isfinite(values)], table), f"column {columns.logprobs!r} holds NaN or infinity"
    yield _any(row[values > _POSITIVE], table), f"column {columns.logprobs!r} holds log-probabilities above 0"


def _blank(table: pa.Table, name: str) -> BoolArray:
    stripped = pc.utf8_trim_whitespace(table.column(name))
    blank: BoolArray = pc.fill_null(pc.equal(stripped, ""), True).to_numpy()
    return blank


def lengths(column: pa.ChunkedArray) -> IntArray:
    """Of lists; -1 where there is none."""
    counts: IntArray = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
    return counts


def flat_values(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(all values of a list column, row of each)."""
    counts = np.maximum(lengths(column), 0)
    return pc.list_flatten(column).to_numpy(), np.repeat(np.arange(len(counts)), counts)


def _any(rows: npt.NDArray[np.int64], table: pa.Table) -> BoolArray:
    result = np.zeros(table.num_rows, bool)
    result[rows] = True
    return result
