"""The layout of a run, and which checkpoints count."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgpo_core.checkpoints import RunPaths, iterations_saved, prune
from sgpo_core.files import whole_directory


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "run")


def save(paths: RunPaths, *iterations: int) -> None:
    for iteration in iterations:
        with whole_directory(paths.checkpoint(iteration)) as folder:
            (folder / "weights").write_text(str(iteration))


def test_layout(paths: RunPaths) -> None:
    below = {
        paths.rollouts(12): "iterations/000012/rollouts.parquet",
        paths.metrics(12): "iterations/000012/metrics.json",
        paths.evaluation(0, "chains"): "iterations/000000/eval-chains.parquet",
        paths.checkpoint(12): "checkpoints/000012",
        paths.policy: "policy",
        paths.config: "config.yaml",
        paths.result: "result.json",
    }
    assert {path: path.relative_to(paths.root).as_posix() for path in below} == below


def test_only_whole_checkpoints_count(paths: RunPaths) -> None:
    assert iterations_saved(paths.checkpoints) == []
    save(paths, 10, 2, 100)
    for name in (".000020.partial", ".000005.removed", "latest"):
        (paths.checkpoints / name).mkdir()
    (paths.checkpoints / "000030").touch()  # a file is no checkpoint
    with pytest.raises(OSError), whole_directory(paths.checkpoint(40)):
        raise OSError("disk full")
    assert iterations_saved(paths.checkpoints) == [2, 10, 100]


@pytest.mark.parametrize(("keep", "left"), [(1, [100]), (2, [20, 100]), (3, [3, 20, 100]), (9, [3, 20, 100])])
def test_prune_keeps_the_newest(paths: RunPaths, keep: int, left: list[int]) -> None:
    save(paths, 20, 100, 3)
    prune(paths.checkpoints, keep)
    assert iterations_saved(paths.checkpoints) == left
    assert sorted(p.name for p in paths.checkpoints.iterdir()) == [f"{i:06d}" for i in left]
    assert [(paths.checkpoint(i) / "weights").read_text() for i in left] == [str(i) for i in left]


def test_prune_ends_what_a_crash_cut_short(paths: RunPaths) -> None:
    save(paths, 1, 2)
    paths.checkpoint(1).rename(paths.checkpoints / ".000001.removed")
    prune(paths.checkpoints, keep=2)
    assert [p.name for p in paths.checkpoints.iterdir()] == ["000002"]


def test_prune_without_checkpoints(paths: RunPaths) -> None:
    prune(paths.checkpoints, keep=2)
    assert not paths.checkpoints.exists()
