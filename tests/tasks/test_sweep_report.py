"""The report of a sweep: one file that needs nothing else, honest about what is missing."""

from __future__ import annotations

import csv
from pathlib import Path

from sgpo_core.analysis.comparison import RunRecord, compare
from tasks.sweeps.report import METRICS, as_text, verdict, write_report

METRIC = "eval/chains/avg_at_k"


def record(arm: str, seed: int, final: float) -> RunRecord:
    curves = {name: {i: 0.1 * i for i in range(1, 5)} for name in METRICS}
    return RunRecord(f"{arm}-{seed}", arm, seed, True, {"name": arm}, {**curves, METRIC: {0: 0.0, 4: final}})


def test_report_is_one_file(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    runs = [record(arm, seed, 0.2 + 0.5 * (arm == hostile)) for arm in ("grpo", hostile) for seed in (0, 1, 2)]
    comparison = compare(runs, ["grpo", hostile], [0, 1, 2, 3], "grpo", METRIC, 0.5)
    html = write_report("a sweep", comparison, runs, tmp_path).read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "http" not in html.replace("http-equiv", "") and html.count("data:image/png;base64,") == 3
    assert "2 runs are missing or unfinished" in html
    rows = list(csv.DictReader((tmp_path / "points.csv").open()))
    assert {r["metric"] for r in rows} == {METRIC, *METRICS} and len(rows) == 6 * (2 + 4 * len(METRICS))
    assert "0.700 [0.700, 0.700]" in as_text(comparison)


def test_the_verdict_is_no_stronger_than_the_numbers() -> None:
    few = [record(arm, seed, 0.2 + 0.1 * (arm == "sgpo")) for arm in ("grpo", "sgpo") for seed in range(3)]
    assert "not significant" in verdict(compare(few, ["grpo", "sgpo"], range(3), "grpo", METRIC, 0.5))
    many = [record(arm, seed, 0.2 + 0.1 * (arm == "sgpo")) for arm in ("grpo", "sgpo") for seed in range(6)]
    text = verdict(compare(many, ["grpo", "sgpo"], range(6), "grpo", METRIC, 0.5))
    assert "+0.100 against grpo" in text and "not significant" not in text
    assert "nothing to compare" in verdict(compare([], ["grpo", "sgpo"], [0], "grpo", METRIC, 0.5))


def test_an_empty_sweep_has_a_report(tmp_path: Path) -> None:
    comparison = compare([], ["grpo", "sgpo"], [0], "grpo", METRIC, 0.5)
    html = write_report("empty", comparison, [], tmp_path).read_text()
    assert "grpo, seed 0: never started; sgpo, seed 0: never started" in html and "base64" not in html
