"""The cells of recorded responses in the types of `RESPONSE`: what fits, and what is wrong with what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from sgpo_core.data.problems import SHOWN
from sgpo_core.types import Outcome

_IDS, _LOGPROBS = pa.list_(pa.int32()), pa.list_(pa.float32())
RESPONSE = pa.schema(
    [
        ("id", pa.string()),
        ("problem_id", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("reference", pa.string()),
        ("domain", pa.string()),
        ("response", pa.string()),
        ("truncated", pa.bool_()),
        ("token_ids", _IDS),
        ("logprobs", _LOGPROBS),
        ("grade", pa.string()),
        ("first_error_step", pa.int32()),
        ("verdict_status", pa.string()),
    ]
)


def holds_numbers(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a list of this type can be one of token ids, or of log-probabilities."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    whole = pa.types.is_integer(kind.value_type) or pa.types.is_null(kind.value_type)
    return bool(whole) or bool(pa.types.is_floating(kind.value_type) and pa.types.is_floating(wanted.value_type))


def as_table(cells: dict[str, Any], names: dict[str, str], errors: dict[int, str], rows: int) -> pa.Table:
    """Columns in the types of RESPONSE; cells that don't fit are null and named in `errors`."""
    arrays = []
    for field in RESPONSE:
        values = cells.get(field.name)
        if values is None:
            arrays.append(pa.nulls(rows, field.type))
        elif isinstance(values, list):
            arrays.append(_array(values, field, names[field.name], errors))
        else:
            arrays.append(values)
    return pa.table(arrays, schema=RESPONSE)


def _array(values: list[Any], field: pa.Field, column: str, errors: dict[int, str]) -> pa.Array:
    clean = LOOKED_AT.get(field.name)
    try:
        return _strictly([clean(v) for v in values] if clean else values, field.type)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass  # one of them is broken: which?
    kept: list[Any] = []
    for i, value in enumerate(values):
        try:
            one = clean(value) if clean else value
            _strictly([one], field.type)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            one = None
            unicode = isinstance(error, UnicodeError)
            said = "is not valid Unicode" if unicode else f"is {_shown(value)}, wanted: {in_words(field.name)}"
            errors.setdefault(i, f"column {column!r} {said}")
        kept.append(one)
    return pa.array(kept, field.type)


def _strictly(values: list[Any], kind: pa.DataType) -> pa.Array:
    """An array; where Arrow would make 1 of 1.5 in a list, ValueError."""
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    found = pa.array(values)
    if not (pa.types.is_null(found.type) or holds_numbers(found.type, kind)):
        raise ValueError("not a list of such numbers")
    return found.cast(kind)


def _text_or_number(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError("neither text nor a number")
    return str(value)


def _outcome(value: Any) -> str | None:
    """A grade as one of `Outcome`; numbers and truth values say correct or wrong."""
    if value is None:
        return None
    if isinstance(value, str):
        return Outcome(value).value
    if value not in (0, 1):
        raise ValueError("no grade")
    return (Outcome.CORRECT if value else Outcome.WRONG).value


def _step(value: Any) -> int | None:
    """A step's number; pandas writes whole numbers with gaps as floats, and the gaps as NaN."""
    if value is None or value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 1:
        raise ValueError("no number of a step")
    return int(value)


def _status(value: Any) -> str | None:
    if value not in (None, "ok", "abstained"):
        raise ValueError("no status")
    return None if value is None else str(value)


# Columns whose cells are looked at one by one.
LOOKED_AT: dict[str, Callable[[Any], str | int | None]] = {
    "id": _text_or_number,
    "problem_id": _text_or_number,
    "answer": _text_or_number,
    "grade": _outcome,
    "first_error_step": _step,
    "verdict_status": _status,
}


def in_words(name: str) -> str:
    """What a cell of this column has to be, as an error says it."""
    if name == "grade":
        return f"one of {', '.join(Outcome)}, true, false, 1, 0"
    if name == "verdict_status":
        return "ok or abstained"
    if name == "first_error_step":
        return "a number from 1 on"
    if name in LOOKED_AT:
        return "text or a number"
    kind = RESPONSE.field(name).type
    if pa.types.is_list(kind):
        return "a list of token ids" if name == "token_ids" else "a list of numbers"
    return "text" if pa.types.is_string(kind) else "true or false"


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, default=str)
    except RecursionError:  # nested nearly as deep as could be read
        return "nested too deep"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
