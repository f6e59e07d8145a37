"""trace_page: 10,000 colored responses, opened in headless Chromium, painted.

Twice: all on one page (which the pipeline never writes: it pages), and the first page of as many as it is shipped. The
peer is an empty page: starting Chromium is most of it.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from sgpo_core.chains import problems as chains
from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item, rule
from sgpo_core.storage import rollout_table
from sgpo_core.storage.run_dir import RunPaths
from tasks.reports.traces import write_traces

GROUPS, SIZE, TRIES = 1250, 8, 5


def measure() -> Iterator[Figure]:
    browser = shutil.which("chromium")
    if browser is None:
        raise SystemExit("trace_page needs Chromium (apt install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        run, profile = Path(folder) / "run", Path(folder) / "profile"
        write_run(run)
        pages = {
            "empty": "about:blank",
            "whole": _page(write_traces(run, [1], run / "whole", page_size=GROUPS)),
            "paged": _page(write_traces(run, [1], run / "paged")),
        }
        seconds: dict[str, list[float]] = {name: [] for name in pages}
        for _ in range(TRIES + 1):  # the first fills caches
            for name, page in pages.items():
                seconds[name].append(open_page(browser, page, profile))
    empty, whole, paged = (statistics.median(seconds[name][1:]) for name in ("empty", "whole", "paged"))
    yield Figure(
        figure="trace_page",
        value=whole - empty,
        unit="s",
        goal=("<=", 2),
        how=f"{GROUPS * SIZE} responses on one page, beyond the {empty:.2f} s of an empty page; a page as shipped: "
        f"{paged - empty:.2f} s",
    )


def open_page(browser: str, page: str, profile: Path) -> float:
    """Seconds until Chromium has loaded and painted a page, its own start and end included."""
    began = time.monotonic()
    subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"),
            *("--window-size=1300,1000", f"--screenshot={profile}.png", page),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return time.monotonic() - began


def write_run(run: Path) -> None:
    """One iteration of a policy that forgets carries, judged by the rule judge."""
    rng = random.Random(0)
    columns: dict[str, list[object]] = {}
    for group, problem in enumerate(chains.make_problems(GROUPS, seed=0)):
        a, b = chains.operands(problem.prompt) or (0, 0)
        for sample in range(SIZE):
            text = chains.solve(a, b, rng, slip_rate=0.5).text
            steps = segment(text)
            verdict = rule([Item(problem, tuple(steps))])[0].verdict
            correct = verdict.first_error_step is None
            row = {
                "problem_id": problem.id,
                "group": group,
                "sample": sample,
                "prompt": problem.prompt,
                "answer": problem.answer,
                "reference": problem.reference,
                "response": text,
                "truncated": False,
                "grade": "correct" if correct else "wrong",
                "extracted_answer": text[text.rindex("{") + 1 : -1],
                "outcome_reward": float(correct),
                "step_ends": [step.end for step in steps],
                "first_error_step": verdict.first_error_step,
                "verdict_status": verdict.status.value,
                "verdict_reason": verdict.reason,
                "rts": rng.random(),
                "shaped_reward": rng.random(),
                "neutral": False,
                "left_out": False,
                "advantage": rng.gauss(0, 1),
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    path = RunPaths(run).rollouts(1)
    path.parent.mkdir(parents=True)
    rollout_table.write(path, columns)


def _page(index: Path) -> str:
    return min(path for path in index.parent.rglob("page-*.html")).as_uri()
