"""The demo's table and picture, from records of made-up runs."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image

from sgpo_core.storage.atomic import write_json
from tasks.reports.demo import ACCURACY, ALL_NEGATIVE, FinishedRun, comparison_table, draw_comparison


def made_up(folder: Path, algorithm: str, seed: int, accuracy: float) -> FinishedRun:
    run = folder / f"{algorithm}-{seed}"
    for step in (10, 20):
        metrics = {ACCURACY: accuracy * step / 10, ALL_NEGATIVE: 0.5}
        write_json(run / f"iterations/{step:06d}/metrics.json", {"step": step, "metrics": metrics})
    return FinishedRun("hard", algorithm, seed, run)


def test_table_has_mean_and_sample_std_over_seeds(tmp_path: Path) -> None:
    runs = [made_up(tmp_path, "sgpo", 0, 0.1), made_up(tmp_path, "sgpo", 1, 0.3), made_up(tmp_path, "grpo", 0, 0.0)]
    rows = comparison_table(runs, [10, 20, 30]).splitlines()
    # mean of .1 and .3 is .2, sample std sqrt(2 * .1^2 / 1) = .141; at iteration 20 twice that; nothing at 30
    assert "0.200 ± 0.141" in rows[2] and "0.400 ± 0.283" in rows[2] and " - " in rows[2]
    assert rows[3].split()[:3] == ["hard", "GRPO", "1"]


def test_picture_is_written_whole(tmp_path: Path) -> None:
    runs = [made_up(tmp_path, "sgpo", s, 0.1 * s) for s in (1, 2)] + [made_up(tmp_path, "grpo", 1, 0.0)]
    draw_comparison(runs, tmp_path / "picture.png", "title")
    assert matplotlib.image.imread(tmp_path / "picture.png").shape[0] > 300
    assert not list(tmp_path.glob(".*partial"))
