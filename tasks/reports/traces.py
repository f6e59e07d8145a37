"""Colored traces: what a run's policy wrote, and what the judge says of each step, as pages for a browser.

Two passes over each rollouts.parquet, so that every page can link to the next one of its kind: the first counts, the
second writes. Both read a few rows at a time and keep a page's at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sgpo_core.config.base import ConfigError
from sgpo_core.storage.atomic import atomic_directory, write_text
from sgpo_core.storage.run_dir import RunPaths
from tasks.reports.trace_pieces import LIMIT, SHORT_LIMIT, colored, first_error, plain, template

KINDS = ("all-negative", "mixed", "all-positive", "abstained", "ungraded")  # of groups; one can be of two
PAGE_CHARACTERS = 6_000_000  # of responses; closes a page early, for a browser is slow with more
GROUP_RESPONSES = 256  # more are counted, not shown
_ROWS = 64  # read at once
_GROUP = ("group", "problem_id", "prompt")  # the first that a file has tells its groups apart
_COUNTED = ("outcome_reward", "grade", "verdict_status")
_SHOWN = (
    *("sample", "answer", "reference", "domain", "response", "truncated", "extracted_answer", "step_ends"),
    *(
        "first_error_step",
        "verdict_reason",
        "verdict_votes",
        "rts",
        "shaped_reward",
        "excluded",
        "filtered",
        "advantage",
    ),
)
_NUMBERS = {"RTS": "rts", "outcome": "outcome_reward", "shaped": "shaped_reward", "advantage": "advantage"}

Row = dict[str, Any]
Links = dict[str, str]  # kind of group, or "all" -> page


class TraceError(ConfigError):
    """Traces can't be made, and why."""


@dataclass(slots=True)
class Group:
    """The responses to one prompt."""

    key: Any
    problem: Row
    count: int = 0
    correct: int = 0
    graded: int = 0
    judged: int = 0
    abstained: int = 0
    characters: int = 0
    responses: list[Row] = field(default_factory=list)

    @property
    def wide(self) -> bool:
        """Long responses take more room on the page."""
        return self.characters > 800 * len(self.responses)

    @property
    def kinds(self) -> list[str]:
        """Those of KINDS that it is."""
        if self.graded < self.count:
            outcome = "ungraded"
        else:
            outcome = "mixed" if 0 < self.correct < self.count else "all-positive" if self.correct else "all-negative"
        return [outcome, "abstained"] if self.abstained else [outcome]

    def add(self, row: Row) -> None:
        correct, status = _correct(row), row.get("verdict_status")
        self.count += 1
        self.correct += correct is True
        self.graded += correct is not None
        self.judged += status is not None
        self.abstained += status == "abstained"
        if self.count <= GROUP_RESPONSES:
            self.characters += row["length"]
            self.responses.append(_response(row, correct))


@dataclass(slots=True)
class Page:
    """What is on a page, or on several: numbers of groups, in all and by kind, and of responses."""

    groups: int = 0
    responses: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    characters: int = 0

    def add(self, group: Group) -> None:
        self.groups += 1
        self.responses += group.count
        self.kinds.update(group.kinds)
        self.characters += group.characters


class Iteration(NamedTuple):
    number: int
    source: Path
    pages: list[Page]

    @property
    def total(self) -> Page:
        return _sum(self.pages)

    def href(self, page: int) -> str:
        """Where a page (from 1) lies below the index."""
        return f"iteration-{self.number:06d}/page-{page:05d}.html"


def iterations_with_rollouts(run_dir: Path) -> list[int]:
    """The iterations of which a run has kept the responses."""
    found = (path.parent.name for path in (run_dir / "iterations").glob("*/rollouts.parquet"))
    return sorted(int(name) for name in found if name.isdigit())


def write_traces(run_dir: Path, iterations: Sequence[int], folder: Path, page_size: int = 50) -> Path:
    """Pages of at most `page_size` groups for each of the iterations, and an index of them, whose path comes back.

    The folder of an iteration is replaced whole. TraceError where one has no responses, or none that can be read.
    """
    if page_size < 1:
        raise TraceError(f"a page has at least one group, got {page_size}")
    chosen = []
    for number in sorted(set(iterations)):
        source = RunPaths(run_dir).rollouts(number)
        if not source.is_file():
            raise TraceError(f"iteration {number} has no {source}")
        chosen.append(Iteration(number, source, _plan(source, page_size)))
    run, index = run_dir.absolute().name, folder / "index.html"
    starts = [_first_of_each_kind(_offers(iteration)) for iteration in chosen]
    for iteration, before, after in zip(chosen, _before(starts), _after(starts), strict=True):
        _write_pages(folder, run, iteration, {"previous_iteration": before, "next_iteration": after})
    total = _sum(iteration.total for iteration in chosen)
    write_text(index, template("index.html.j2").render(run=run, iterations=chosen, total=total, filters=KINDS))
    return index


def _sum(pages: Iterable[Page]) -> Page:
    total = Page()
    for page in pages:
        total.groups += page.groups
        total.responses += page.responses
        total.kinds.update(page.kinds)
    return total


def _plan(source: Path, page_size: int) -> list[Page]:
    """Which groups go on which page: each takes the next `groups` of them."""
    pages = [Page()]
    for group in _groups(_rows_without_texts(source)):
        full = pages[-1].groups == page_size or pages[-1].characters + group.characters > PAGE_CHARACTERS
        if full and pages[-1].groups:
            pages.append(Page())
        pages[-1].add(group)
    return pages


def _write_pages(folder: Path, run: str, iteration: Iteration, links: dict[str, Links]) -> None:
    offers, groups, layout = _offers(iteration), _groups(_rows(iteration.source)), template("page.html.j2")
    places = zip(iteration.pages, _before(offers), _after(offers), strict=True)
    with atomic_directory(folder / Path(iteration.href(1)).parent) as partial:
        for number, (page, before, after) in enumerate(places, 1):
            text = layout.render(
                run=run,
                iteration=iteration,
                number=number,
                page=page,
                groups=islice(groups, page.groups),  # one at a time is in memory, beside the page's text
                links={"previous_page": before, "next_page": after, **links},
                filters=KINDS,
            )
            (partial / Path(iteration.href(number)).name).write_text(text, encoding="utf-8")


def _offers(iteration: Iteration) -> list[Links]:
    """What each page is a target for."""
    hrefs = [f"../{iteration.href(number)}" for number in range(1, len(iteration.pages) + 1)]
    return [
        {"all": href} | {kind: href for kind in KINDS if page.kinds[kind]}
        for href, page in zip(hrefs, iteration.pages, strict=True)
    ]


def _first_of_each_kind(offers: Sequence[Links]) -> Links:
    return {kind: href for offer in reversed(offers) for kind, href in offer.items()}


def _before(offers: Iterable[Links]) -> list[Links]:
    """For each place, the nearest target of each kind in front of it."""
    nearest: Links = {}
    found = []
    for offer in offers:
        found.append(nearest)
        nearest = nearest | offer
    return found


def _after(offers: Sequence[Links]) -> list[Links]:
    return _before(reversed(offers))[::-1]


def _groups(rows: Iterable[Row]) -> Iterator[Group]:
    """Rows that are neighbors and of one group."""
    group = None
    for row in rows:
        key = next((row[name] for name in _GROUP if name in row), row["row"])
        if group is None or key != group.key:
            if group is not None:
                yield group
            group = Group(key, _problem(row))
        group.add(row)
    if group is not None:
        yield group


def _correct(row: Row) -> bool | None:
    """None: not graded."""
    if (outcome := row.get("outcome_reward")) is not None:
        return bool(outcome == 1.0)
    return None if row.get("grade") is None else row["grade"] == "correct"


def _problem(row: Row) -> Row:
    """What stands above a group. Long texts are cut here already, so that no more is kept than is shown."""
    long = {name: plain(row.get(name)) for name in ("prompt", "reference")}
    short = {name: plain(row.get(name), SHORT_LIMIT) for name in ("problem_id", "domain", "answer")}
    return {**long, **short, "number": row.get("group")}


def _response(row: Row, correct: bool | None) -> Row:
    """What is shown of a response."""
    same = ("sample", "truncated", "excluded", "filtered", "verdict_status", "first_error_step")
    return {
        **{name: row.get(name) for name in same},
        **{name: plain(row.get(name), SHORT_LIMIT) for name in ("grade", "extracted_answer", "verdict_reason")},
        "correct": correct,
        "error": first_error(row),
        "votes": [{0: "none", -1: "abstained"}.get(vote, vote) for vote in row.get("verdict_votes") or ()],
        "numbers": {label: row.get(name) for label, name in _NUMBERS.items()},
        "text": colored(row, correct),
    }


def _rows(source: Path) -> Iterator[Row]:
    """Rows with those of the columns shown that the file has, their place in it and the length of their response."""
    start = 0
    for batch in _batches(source, (*_GROUP, *_COUNTED, *_SHOWN)):
        values = {name: batch.column(name) for name in batch.schema.names}
        for i in range(batch.num_rows):  # a row at a time: Python's texts take up to four times the room
            row = {name: column[i].as_py() for name, column in values.items()}
            yield row | {"row": start + i, "length": min(len(row.get("response") or ""), LIMIT)}
        start += batch.num_rows


def _rows_without_texts(source: Path) -> Iterator[Row]:
    """What counting takes. The `length` of a row's response is as it will be shown."""
    start = 0
    for batch in _batches(source, (*_GROUP, *_COUNTED, "response")):
        names = batch.schema.names
        lengths = pc.utf8_length(batch.column("response")).to_pylist() if "response" in names else [0] * batch.num_rows
        for i, row in enumerate(batch.select([name for name in names if name != "response"]).to_pylist()):
            yield {**row, "row": start + i, "length": min(lengths[i] or 0, LIMIT)}
        start += batch.num_rows


def _batches(source: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A few rows at a time. The pipeline writes one big row group a file: read ahead it would be in memory whole, so
    pages come from the disk through a small buffer."""
    try:
        with pq.ParquetFile(source, buffer_size=1 << 16, pre_buffer=False) as file:
            known = [name for name in columns if name in file.schema_arrow.names]
            yield from file.iter_batches(_ROWS, columns=known, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise TraceError(f"{source} can't be read: {error}") from error
