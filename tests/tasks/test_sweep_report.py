"""The report of a sweep: one file that needs nothing else, honest about what is missing."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgpo_core.analysis.comparison import Comparison, RunRecord, compare
from sgpo_core.types import FloatArray
from tasks.reports.plotting import ALGORITHMS, OTHERS, color_of, save, style_of
from tasks.sweeps import pictures
from tasks.sweeps.report import COLUMNS, METRICS, as_text, verdict, write_report

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
    assert "http" not in html.replace("http-equiv", "") and html.count("data:image/png;base64,") == 6
    assert "2 runs are missing or unfinished" in html
    rows = list(csv.DictReader((tmp_path / "points.csv").open()))
    assert {r["metric"] for r in rows} == {METRIC, *METRICS} and len(rows) == 6 * (2 + 4 * len(METRICS))
    assert "0.700 [range: 0.700, 0.700]" in as_text(comparison)  # all equal: no spread is known


def test_an_interval_has_its_name_wherever_it_is_shown(tmp_path: Path) -> None:
    three, two = ([record("grpo", seed, 0.2 + 0.1 * seed) for seed in range(n)] for n in (3, 2))
    # .2 .3 .4: s = .1, half width 4.3027 * .1 / sqrt(3) = .248
    for runs, shown in ((three, "0.300 [95 % t: 0.052, 0.548]"), (two, "0.250 [range: 0.200, 0.300]")):
        comparison = compare(runs, ["grpo"], range(len(runs)), "grpo", METRIC, 0.5)
        html = write_report("a sweep", comparison, runs, tmp_path).read_text().replace("\u00a0", " ")
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


def test_too_few_runs_say_so() -> None:
    def said(seeds: int) -> str:
        runs = [record(arm, seed, 0.2 + 0.1 * (arm == "sgpo")) for arm in ("grpo", "sgpo") for seed in range(seeds)]
        return verdict(compare(runs, ["grpo", "sgpo"], range(seeds), "grpo", METRIC, 0.5))

    # The least p of n pairs is 2 / 2^n: 1/16 of five, 1/32 of six.
    assert "no corrected p below 0.0625 is possible: too few runs to call a difference significant." in said(5)
    assert "too few" not in said(6) and "no corrected p below 0.0312 is possible." in said(6)


@pytest.mark.parametrize("order", [["grpo", "sgpo"], ["sgpo", "grpo"]])
def test_a_tie_is_no_difference(order: list[str]) -> None:
    runs = [record(arm, seed, 0.4) for arm in order for seed in range(3)]
    text = verdict(compare(runs, order, range(3), "grpo", METRIC, 0.5))
    tie = f"there is no difference between {order[0]} and {order[1]}: accuracy 0.400."
    assert text.startswith(f"At equal iterations (4) {tie} At equal tokens (") and text.count(tie) == 2
    assert text.endswith("The two agree.") and "highest" not in text
    runs += [record("dapo", seed, 0.3) for seed in range(3)]
    text = verdict(compare(runs, [*order, "dapo"], range(3), "grpo", METRIC, 0.5))
    assert f"{tie} Every other arm is below." in text


def test_a_tie_above_the_baseline_says_by_how_much() -> None:
    accuracy = {"grpo": 0.3, "sgpo": 0.6, "dapo": 0.6001}
    runs = [record(arm, seed, accuracy[arm]) for arm in accuracy for seed in range(8)]
    text = verdict(compare(runs, list(accuracy), range(8), "grpo", METRIC, 0.5))
    assert "there is no difference between sgpo and dapo: accuracy 0.600. Every other arm is below." in text
    assert "sgpo is at +0.300 against grpo, paired by seed, significant at 5 %" in text
    assert "dapo is at +0.300 against grpo, paired by seed, significant at 5 %" in text


def test_a_tie_at_the_end_is_no_disagreement_with_a_leader() -> None:
    runs = [record("grpo", s, 0.5, tokens=100) for s in range(3)] + [
        record("sgpo", s, 0.5, tokens=50) for s in range(3)
    ]
    text = verdict(compare(runs, ["grpo", "sgpo"], range(3), "grpo", METRIC, 0.5))
    assert "no difference between grpo and sgpo" in text and "At equal tokens (201, the fewest" in text
    assert "sgpo has the highest accuracy, 0.500" in text and text.endswith("The two agree.")


def test_every_cell_is_named_for_narrow_screens(tmp_path: Path) -> None:
    runs = [record("grpo", seed, 0.2 + 0.1 * seed) for seed in range(3)]
    html = write_report("a sweep", compare(runs, ["grpo"], range(3), "grpo", METRIC, 0.5), runs, tmp_path).read_text()
    names = re.findall(r'<td data-name="([^"]*)">', html)
    assert names == [*COLUMNS[:10], COLUMNS[0], *COLUMNS[10:]] and "<td>" not in html
    assert '<meta name="viewport" content="width=device-width' in html
    wide = re.findall(r"0\.300[^<]*0\.548\]", html)  # a line breaks before an interval and after its name, nowhere else
    assert wide == ["0.300 [95\u00a0%\u00a0t: 0.052,\u00a00.548]"] * 2


def test_pictures_have_a_narrow_one_with_whole_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def look(figure: Any, path: Path) -> Path:
        drawn.append((path.name, figure))
        return save(figure, path)

    monkeypatch.setattr(pictures, "save", look)
    runs = [record(arm, seed, 0.2) for arm in ("grpo", "sgpo") for seed in range(2)]
    comparison = compare(runs, ["grpo", "sgpo"], range(2), "grpo", METRIC, 0.5)
    pictures.draw(runs, comparison, tmp_path)
    assert [name for name, _ in drawn] == [
        f.replace(".png", x) for f in pictures.FILES for x in (".png", "-narrow.png")
    ]
    widths = [figure.get_figwidth() for _, figure in drawn]
    assert max(widths[1::2]) < 4.5 < min(widths[::2])
    ticks = [x for _, f in drawn for a in f.axes if a.get_xlabel() == "iteration" for x in a.get_xticks()]
    assert len(ticks) > 10 and all(x == int(x) for x in ticks)


# How a screen's linear red, green and blue look to those without one of the three cones (Machado et al. 2009).
BLINDNESS = {
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(color: str, matrix: list[list[float]]) -> FloatArray:
    """A color as CIELAB has it: lightness from 0 to 100, and two axes of hue."""
    part = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(np.array(matrix) @ linear, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)], np.float32)


@pytest.mark.parametrize("blind", BLINDNESS)
def test_color_blind_readers_can_tell_colors_apart(blind: str) -> None:
    """About 2 is the least difference that is seen in large areas; in thin lines many times that is wanted."""
    colors = [*ALGORITHMS.values(), *OTHERS]
    looks = [seen(color, BLINDNESS[blind]) for color in colors]
    close = [(a, b) for a, b in combinations(range(len(colors)), 2) if np.linalg.norm(looks[a] - looks[b]) < 15]
    assert [(colors[a], colors[b]) for a, b in close] == []
    grpo, sgpo = (seen(ALGORITHMS[name], BLINDNESS[blind]) for name in ("grpo", "sgpo"))
    assert np.linalg.norm(grpo - sgpo) > 30


def test_colors_that_come_again_have_another_line() -> None:
    assert len({(color_of("", n), style_of(n)) for n in range(20)}) == 20


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
