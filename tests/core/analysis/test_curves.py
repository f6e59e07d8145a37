"""Metrics of several runs beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgpo_core.analysis.curves import Curve, mean_std, over_seeds, read_curve
from sgpo_core.storage.atomic import write_json
from sgpo_core.storage.run_dir import RunPaths


def curve(seed: int, values: dict[int, float]) -> Curve:
    return Curve("sgpo", seed, values)


def test_a_curve_is_read_from_the_records_of_a_run(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    for iteration, metrics in {0: {"a": 0, "b": 1}, 1: {"b": 2}, 5: {"a": 0.5}, 10: {"a": 1}}.items():
        write_json(paths.metrics(iteration), {"step": iteration, "metrics": metrics})
    paths.iteration(11).mkdir()  # one that was cut short
    assert read_curve(tmp_path, "sgpo", 3, "a") == Curve("sgpo", 3, {0: 0.0, 5: 0.5, 10: 1.0})
    assert read_curve(tmp_path, "sgpo", 3, "c").values == {}
    assert read_curve(tmp_path / "none", "sgpo", 3, "a").values == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], (2, 1)),  # (1 + 0 + 1) / 2
        ([0.2, 0.6], (0.4, 0.2828427)),  # 2 * 0.04 / 1
        ([0.3], (0.3, 0)),
        ([5, 5, 5], (5, 0)),
    ],
)
def test_mean_and_sample_deviation(values: list[float], expected: tuple[float, float]) -> None:
    assert mean_std(values) == pytest.approx(expected)


def test_over_seeds_at_the_iterations_that_all_have() -> None:
    curves = [curve(0, {10: 1.0, 0: 0.0, 5: 9.0}), curve(1, {0: 0.2, 10: 3.0}), curve(2, {0: 0.4, 10: 2.0, 15: 1.0})]
    result = over_seeds(curves)
    assert list(result) == [0, 10]
    assert result[0] == pytest.approx((0.2, 0.2))  # (0.04 + 0 + 0.04) / 2
    assert result[10] == pytest.approx((2, 1))
    assert over_seeds(curves[:1])[5] == (9.0, 0.0)
    assert over_seeds([]) == {}
