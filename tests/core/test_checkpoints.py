"""The layout of a run, and which checkpoints count."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgpo_core.storage.atomic import atomic_directory, write_json
from sgpo_core.storage.run_dir import RunPaths, best_checkpoint, iterations_saved, prune


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "run")


def save(paths: RunPaths, *iterations: int) -> None:
    for iteration in iterations:
        with atomic_directory(paths.checkpoint(iteration)) as folder:
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
    with pytest.raises(OSError), atomic_directory(paths.checkpoint(40)):
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


def evaluated(paths: RunPaths, iteration: int, **accuracies: float) -> None:
    metrics = {f"eval/{name}/avg_at_k": value for name, value in accuracies.items()} | {"eval/a/pass_at_k": 1.0}
    write_json(paths.metrics(iteration), {"metrics": metrics})


def test_the_best_checkpoint_is_that_of_the_best_evaluation(paths: RunPaths) -> None:
    assert best_checkpoint(paths) is None
    save(paths, 10, 20, 30)
    assert best_checkpoint(paths) == 30  # none was evaluated
    evaluated(paths, 10, a=0.5, b=0.7)
    evaluated(paths, 20, a=0.9, b=0.3)
    assert best_checkpoint(paths) == 20  # .6 and .6: the latest
    evaluated(paths, 15, a=1.0)  # evaluated, but not saved
    evaluated(paths, 10, a=0.5, b=0.8)
    assert best_checkpoint(paths) == 10


def test_the_best_checkpoint_stays(paths: RunPaths) -> None:
    save(paths, 10, 20, 30, 40)
    prune(paths.checkpoints, keep=2, best=10)
    assert iterations_saved(paths.checkpoints) == [10, 30, 40]
