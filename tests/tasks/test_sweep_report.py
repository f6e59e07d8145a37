"""The report of a sweep: one file that needs nothing else, honest about what is missing."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from sgpo_core.analysis.comparison import Comparison, RunRecord, compare
from tasks.sweeps.report import METRICS, as_text, verdict, write_report

METRIC = "eval/chains/avg_at_k"


def record(arm: str, seed: int, final: float, middle: float | None = None, tokens: float = 0.1) -> RunRecord:
    """Four iterations; `tokens` are those of the policy in each."""
    curves = {name: {i: 0.1 * i for i in range(1, 5)} for name in METRICS}
    curves["rollout/tokens"] = dict.fromkeys(range(1, 5), tokens)
    accuracy = {0: 0.0, 4: final} if middle is None else {0: 0.0, 2: middle, 4: final}
    return RunRecord(f"{arm}-{seed}", arm, seed, True, {"name": arm}, {**curves, METRIC: accuracy})


def dapo_wins_at_equal_iterations(seeds: int) -> Comparison:
    """dapo uses three times the tokens: when grpo has reached .5 it is at a third of its way."""
    runs = [record("grpo", s, 0.5 + s / 100, tokens=100) for s in range(seeds)]
    runs += [record("dapo", s, 0.8 + s / 100, tokens=300) for s in range(seeds)]
    return compare(runs, ["grpo", "dapo"], range(seeds), "grpo", METRIC, 0.5)


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
    assert "0.700 [range: 0.700, 0.700]" in as_text(comparison)  # all equal: no spread is known


def test_an_interval_has_its_name_wherever_it_is_shown(tmp_path: Path) -> None:
    three, two = ([record("grpo", seed, 0.2 + 0.1 * seed) for seed in range(n)] for n in (3, 2))
    # .2 .3 .4: s = .1, half width 4.3027 * .1 / sqrt(3) = .248
    for runs, shown in ((three, "0.300 [95 % t: 0.052, 0.548]"), (two, "0.250 [range: 0.200, 0.300]")):
        comparison = compare(runs, ["grpo"], range(len(runs)), "grpo", METRIC, 0.5)
        html = write_report("a sweep", comparison, runs, tmp_path).read_text()
        summary = (tmp_path / "summary.csv").read_text()
        assert shown in html and shown in summary and shown in as_text(comparison)


def test_the_verdict_is_no_stronger_than_the_numbers() -> None:
    few = [record(arm, seed, 0.2 + 0.1 * (arm == "sgpo")) for arm in ("grpo", "sgpo") for seed in range(3)]
    assert "not significant" in verdict(compare(few, ["grpo", "sgpo"], range(3), "grpo", METRIC, 0.5))
    many = [record(arm, seed, 0.2 + 0.1 * (arm == "sgpo")) for arm in ("grpo", "sgpo") for seed in range(6)]
    text = verdict(compare(many, ["grpo", "sgpo"], range(6), "grpo", METRIC, 0.5))
    assert "+0.100 against grpo, paired by seed, significant at 5 %" in text and "not significant" not in text
    assert text.endswith("The two agree.")
    assert "nothing to compare" in verdict(compare([], ["grpo", "sgpo"], [0], "grpo", METRIC, 0.5))


def test_the_verdict_says_when_equal_tokens_decide_otherwise() -> None:
    # grpo ends at .525 with 4 * 100 tokens (and the judge's 1); dapo has used 1,201 at its end, .825, and at 401 it is
    # at a third of that.
    text = verdict(dapo_wins_at_equal_iterations(6))
    assert text.startswith("At equal iterations (4) dapo has the highest accuracy, 0.825: +0.300 against grpo")
    assert (
        "At equal tokens (401, the fewest that any run used) grpo has the highest accuracy, 0.525. It is the baseline."
        in text
    )
    assert (
        "The two disagree. Highest is dapo at equal iterations (4), and grpo at equal tokens, where dapo is at" in text
    )
    assert (
        "dapo is significantly better than the baseline at equal iterations (4), and significantly worse at equal"
        in text
    )
    few = verdict(dapo_wins_at_equal_iterations(2))
    assert "The two disagree. Highest is dapo" in few and "significantly" not in few
    assert few in as_text(dapo_wins_at_equal_iterations(2)).replace("\n", " ")


def test_the_verdict_names_the_iterations_where_they_differ() -> None:
    runs = [record("grpo", 0, 0.5), record("sgpo", 0, 0.4)]
    longer = replace(runs[1], curves={**runs[1].curves, METRIC: {0: 0.0, 8: 0.6}})
    text = verdict(compare([runs[0], longer], ["grpo", "sgpo"], [0], "grpo", METRIC, 0.5))
    assert text.startswith("After the last iteration (4 to 8) sgpo has the highest accuracy")


def test_without_tokens_the_verdict_says_so() -> None:
    run = RunRecord("r", "grpo", 0, True, curves={METRIC: {0: 0.1, 2: 0.5}})
    assert "No tokens were recorded" in verdict(compare([run], ["grpo"], [0], "grpo", METRIC, 0.5))


def test_an_empty_sweep_has_a_report(tmp_path: Path) -> None:
    comparison = compare([], ["grpo", "sgpo"], [0], "grpo", METRIC, 0.5)
    html = write_report("empty", comparison, [], tmp_path).read_text()
    assert "grpo, seed 0: never started; sgpo, seed 0: never started" in html and "base64" not in html
