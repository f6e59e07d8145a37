"""Coloured traces: colours worked out by hand, pages and their links, and how much memory it all takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.reports import traces
from tasks.reports.trace_pieces import LIMIT, colored, plain
from tasks.reports.traces import TraceError, iterations_with_rollouts, write_traces
from tests.helpers import run_module
from tests.trace_pages import Page, Row, abstained, judged, made_run, page_of, response


@pytest.mark.parametrize(
    ("row", "correct", "kinds"),
    [
        (response(correct=True), True, ["right"] * 3),
        (response(), False, ["unjudged"] * 3),
        (abstained(), False, ["unjudged"] * 3),
        (judged(1), False, ["wrong", "after", "after"]),
        (judged(2), False, ["right", "wrong", "after"]),
        (judged(3), False, ["right", "right", "wrong"]),
        (judged(None), False, ["right"] * 3),  # the judge finds nothing wrong
        (judged(4), False, ["unjudged"] * 3),  # a step that isn't there: nobody knows what is meant
        (judged(2, step_ends=[]), False, ["unjudged"]),
        (judged(2, step_ends=None), False, ["unjudged"]),
        (judged(2, step_ends=[10, 99]), False, ["right", "wrong"]),  # behind the text's end
        (judged(2, step_ends=[10, 20]), False, ["right", "wrong", "after"]),  # a rest that no step covers
        (response(response=""), False, []),
    ],
)
def test_colours(row: Row, correct: bool, kinds: list[str]) -> None:
    pieces = colored(row, correct)
    assert [piece.kind for piece in pieces] == kinds
    assert "".join(piece.text for piece in pieces) == row["response"]


def test_colours_on_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, [judged(2), response(correct=True, sample=1), abstained(sample=2)])
    steps = [c for c in page.classes("div") if c in ("right", "wrong", "after", "unjudged")]
    assert steps == ["right", "wrong", "after"] + ["right"] * 3 + ["unjudged"] * 3
    assert page.classes("section") == ["group filtered mixed abstained"]
    assert page.classes("article") == ["response", "response", "response abstained"]


def test_what_a_response_says_of_itself(tmp_path: Path) -> None:
    scores = {"rts": 1 / 7, "shaped_reward": 0.0273468, "advantage": -0.25}
    page = page_of(tmp_path, [judged(2, **scores, filtered=True, truncated=True), abstained("no answer in time")])
    text = " ".join(page.text.split())
    assert "wrong 3 ≠ 2 truncated filtered RTS 0.143 outcome 0 shaped 0.0273 advantage −0.25" in text
    assert "judge: first wrong step 2" in text
    assert "judge: abstained no answer in time" in text and "votes" not in text
    assert "0 of 2 correct 2 judged, 1 without a verdict all-negative abstained" in text


def test_a_long_text_keeps_head_and_tail_and_the_wrong_step() -> None:
    text = "a" * 500_000 + "b" * 100 + "c" * 499_900
    pieces = colored(judged(2, response=text, step_ends=[500_000, 500_100, 1_000_000]), False)
    assert [piece.kind for piece in pieces] == ["right", "cut", "right", "wrong", "after", "cut", "after"]
    assert sum(len(p.text) for p in pieces) == LIMIT
    assert sum(len(p.text) + p.cut for p in pieces) == len(text)
    assert pieces[3].text == "b" * 100


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 5000, 10 * LIMIT])
@pytest.mark.parametrize("share", [None, 0.0, 0.3, 0.59, 0.62, 0.7, 0.9, 1.0])
def test_no_character_is_lost_or_doubled(length: int, share: float | None) -> None:
    text = "".join(chr(0x4E00 + i % 20_000) for i in range(length))
    start = min(int((share or 0) * length), length - 1)
    ends = [length] if share is None else [e for e in (start, start + 1, length) if e]
    row = judged(None if share is None else len(ends) - 1 or 1, response=text, step_ends=sorted(set(ends)))
    position = 0
    for piece in colored(row, None if share is None else False):
        assert text[position : position + len(piece.text)] == piece.text
        position += len(piece.text) + piece.cut
    assert position == length


def test_short_texts_are_cut_short() -> None:
    assert sum(len(piece.text) for piece in plain("x" * 1000, 200)) == 200
    assert plain(None) == plain("") == []


def run_of_kinds(tmp_path: Path) -> Path:
    """Seven groups of two: 0, 1, 5 all-negative (5 with an abstention), 2, 3 mixed, 4, 6 all-positive."""
    kinds = [(0, 0), (0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (1, 1)]
    rows = [response(g, bool(c), sample=i) for g, both in enumerate(kinds) for i, c in enumerate(both)]
    rows[10] = abstained(group=5)
    run = made_run(tmp_path / "run", rows)
    return made_run(run, [response(correct=True)], iteration=12)


def test_pages_and_their_links(tmp_path: Path) -> None:
    index = write_traces(run_of_kinds(tmp_path), [12, 1], tmp_path / "out", page_size=2)
    files = sorted((index.parent / "iteration-000001").iterdir())
    assert [file.name for file in files] == [f"page-0000{i}.html" for i in (1, 2, 3, 4)]
    pages = [Page(file.read_text(encoding="utf-8")) for file in files]
    assert [c.split()[2:] for page in pages for c in page.classes("section")] == [
        *(["all-negative"], ["all-negative"], ["mixed"], ["mixed"], ["all-positive"], ["all-negative", "abstained"]),
        ["all-positive"],
    ]
    here = "../iteration-000001/page-0000"
    links = [a for tag, a in pages[0].elements if tag == "a" and "data-all" in a]
    assert links[0] == {  # the next page of each kind
        "href": f"{here}2.html",
        "data-all": f"{here}2.html",
        "data-mixed": f"{here}2.html",
        "data-all-positive": f"{here}3.html",
        "data-all-negative": f"{here}3.html",
        "data-abstained": f"{here}3.html",
    }
    assert links[1]["href"] == links[1]["data-all-positive"] == "../iteration-000012/page-00001.html"
    for page in pages:
        for href in page.hrefs():
            assert href.startswith("#") or (index.parent / "iteration-000001" / href).resolve().is_file()


def test_index_links_to_pages_with_a_kind(tmp_path: Path) -> None:
    index = write_traces(run_of_kinds(tmp_path), [1, 12], tmp_path / "out", page_size=2)
    page = Page(index.read_text(encoding="utf-8"))
    kinds = [href for href in page.hrefs() if "page-00003" in href]
    assert kinds == [
        f"iteration-000001/page-00003.html{k}" for k in ("", "#all-negative", "#all-positive", "#abstained")
    ]
    assert "all-negative 3" in " ".join(page.text.split()) and "abstentions 1" in " ".join(page.text.split())
    assert page.classes("tr")[1:] == [
        "iteration filtered all-negative mixed all-positive abstained",
        "filtered all-negative",
        "filtered mixed",
        "filtered all-positive all-negative abstained",
        "filtered all-positive",
        "iteration filtered all-positive",
    ]
    assert all((index.parent / href.partition("#")[0]).is_file() for href in page.hrefs() if not href.startswith("#"))


def test_a_page_of_long_texts_is_closed_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "PAGE_CHARACTERS", 70)  # two texts of 30 fit
    write_traces(made_run(tmp_path / "run", [response(g) for g in range(5)]), [1], tmp_path / "out")
    assert len(list((tmp_path / "out/iteration-000001").iterdir())) == 3


def test_a_huge_group_is_counted_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "GROUP_RESPONSES", 3)
    page = page_of(tmp_path, [response(sample=i) for i in range(10)] + [response(1)])
    assert len(page.classes("article")) == 4 and "7 more responses" in page.text and "0 of 10 correct" in page.text


def test_writing_again_leaves_no_old_pages(tmp_path: Path) -> None:
    run = run_of_kinds(tmp_path)
    write_traces(run, [1], tmp_path / "out", page_size=1)
    write_traces(run, [1], tmp_path / "out", page_size=7)
    assert [p.name for p in (tmp_path / "out/iteration-000001").iterdir()] == ["page-00001.html"]


@pytest.mark.parametrize(
    ("columns", "kinds", "groups"),
    [
        (["response"], "ungraded", 4),
        (["prompt", "response"], "ungraded", 1),
        (["problem_id", "prompt", "response"], "ungraded", 2),
        (["group", "response", "grade"], "all-negative", 2),  # old: before outcome_reward was there
        (["group", "response", "outcome_reward"], "all-negative", 2),
        (["group", "grade", "first_error_step", "verdict_status"], "all-negative", 2),
    ],
)
def test_missing_columns(tmp_path: Path, columns: list[str], kinds: str, groups: int) -> None:
    rows = [judged(2, group=g, sample=i) for g in range(2) for i in range(2)]
    page = page_of(tmp_path, [{name: row[name] for name in columns} for row in rows])
    assert page.classes("section") == [f"group filtered {kinds}"] * groups


def test_an_unfinished_and_an_empty_table(tmp_path: Path) -> None:
    late = dict.fromkeys(("grade", "outcome_reward", "step_ends", "advantage", "excluded", "filtered", "response"))
    assert page_of(tmp_path / "unfinished", [response() | late]).classes("section") == ["group filtered ungraded"]
    run = made_run(tmp_path / "empty", [response()])
    path = run / "iterations/000001/rollouts.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert (
        "No such group"
        in (write_traces(run, [1], tmp_path / "o").parent / "iteration-000001/page-00001.html").read_text()
    )


def test_votes_are_shown(tmp_path: Path) -> None:
    text = page_of(tmp_path, [judged(2, verdict_votes=[2, 2, 0, -1])]).text
    assert "first wrong step 2 votes 2, 2, none, abstained" in " ".join(text.split())


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", [response()])
    (run / "iterations/000000").mkdir()  # an evaluation before the first iteration
    assert iterations_with_rollouts(run) == [1] and iterations_with_rollouts(tmp_path / "nowhere") == []
    with pytest.raises(TraceError, match="iteration 7 has no"):
        write_traces(run, [1, 7], tmp_path / "out")
    with pytest.raises(TraceError, match="at least one group"):
        write_traces(run, [1], tmp_path / "out", page_size=0)
    (run / "iterations/000001/rollouts.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(TraceError, match="can't be read"):
        write_traces(run, [1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path) -> None:
    run = run_of_kinds(tmp_path)
    done = run_module("flows.traces", str(run), "--iterations", "12", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{run / 'traces/index.html'}\n"), done.stderr
    assert [p.name for p in (run / "traces").iterdir() if p.is_dir()] == ["iteration-000012"]
    for arguments, words in (
        ([str(tmp_path)], "error: no iterations/*/rollouts.parquet in"),
        ([str(run), "--iterations", "12,13"], "has no responses of iteration 13: choose from 1, 12"),
    ):
        done = run_module("flows.traces", *arguments, home=tmp_path)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert "numbers with commas" in run_module("flows.traces", str(run), "--iterations", "x", home=tmp_path).stderr


# The kernel's own record of this process; what getrusage says can be its parent's.
PEAK = """
import sys
from pathlib import Path
from tasks.reports.traces import write_traces
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
run, out = map(Path, sys.argv[1:])
write_traces(run, [1], out / "small", page_size=20)  # everything is imported, and allocators are warm
before = peak()
write_traces(run, [2], out / "large", page_size=20)
print(peak() - before)
"""


def test_memory_stays_small(tmp_path: Path) -> None:
    """200,000 responses, 160 MB of text in one row group as the pipeline writes it: a page's worth is in memory."""
    rows = 200_000
    texts = [f"Step {i}: {'x' * 800}" for i in range(64)]
    path = tmp_path / "run/iterations/000002/rollouts.parquet"
    made_run(tmp_path / "run", [judged(1, group=g) for g in range(40) for _ in range(8)])
    path.parent.mkdir(parents=True)
    columns = {
        "group": pa.array([i // 8 for i in range(rows)], pa.int32()),
        "response": pa.array(texts * (rows // 64), pa.string()),
        "outcome_reward": pa.array([0.0] * rows, pa.float32()),
        "step_ends": pa.array([[400, 808]] * rows, pa.list_(pa.int32())),
        "verdict_status": pa.array(["ok"] * rows),
        "first_error_step": pa.array([2] * rows, pa.int32()),
    }
    # Without a dictionary every text is on a page of its own, as different texts are.
    pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=rows, use_dictionary=False)
    assert pq.read_metadata(path).num_row_groups == 1
    done = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "run", tmp_path], capture_output=True, text=True, check=True
    )
    assert len(list((tmp_path / "large/iteration-000002").iterdir())) == rows // 8 // 20
    assert int(done.stdout) < 60  # MiB
