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

import numpy as np

from bench.figures import Figure
from sgpo_core.chains import problems as chains
from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item
from sgpo_core.judges.rule import rule
from sgpo_core.storage import rollout_table
from sgpo_core.storage.run_dir import RunPaths
from sgpo_core.types import Credit, Grade, Outcome, Problem, Rollout, RolloutGroup
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
    groups = [
        RolloutGroup(number, problem, np.zeros(0, np.int32), tuple(_response(problem, s, rng) for s in range(SIZE)))
        for number, problem in enumerate(chains.make_problems(GROUPS, seed=0))
    ]
    rollout_table.write(RunPaths(run).rollouts(1), groups)


def _response(problem: Problem, sample: int, rng: random.Random) -> Rollout:
    text = chains.solve(*chains.operands(problem.prompt) or (0, 0), rng, slip_rate=0.5).text
    steps = tuple(segment(text))
    [judgment] = rule([Item(problem, steps)])
    correct = judgment.verdict.first_error_step is None
    return Rollout(
        sample=sample,
        text=text,
        truncated=False,
        token_ids=np.zeros(0, np.int32),
        rollout_logprobs=np.zeros(0, np.float32),
        grade=Grade(Outcome.CORRECT if correct else Outcome.WRONG, text[text.rindex("{") + 1 : -1]),
        step_ends=tuple(step.end for step in steps),
        judgment=judgment,
        credit=Credit(rng.random(), rts=rng.random(), correct=correct, advantage=rng.gauss(0, 1)),
    )


def _page(index: Path) -> str:
    return min(path for path in index.parent.rglob("page-*.html")).as_uri()
