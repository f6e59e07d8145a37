"""The layout of a run, which checkpoints count, and runs that an earlier version has begun."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sgpo_core.storage.atomic import atomic_directory, write_json
from sgpo_core.storage.run_dir import RunPaths, best_checkpoint, iterations_saved, prune, unfinished_predecessor


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
        paths.format: "format.json",
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


DECIDING = {"seed": 0, "algorithm": {"credit": {"beta": 10.0}}, "train": {"betas": [0.9, 0.98]}}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """A folder of runs; that which is about to begin is `tiny-sgpo-s0-new`."""
    return tmp_path / "sgpo"


def begun(experiment: Path, name: str = "tiny-sgpo-s0-old", **changes: object) -> RunPaths:
    """A run as the earlier format has left it: all settings in its file, those that decide nothing with them."""
    paths = RunPaths(experiment / name)
    paths.root.mkdir(parents=True)
    paths.config.write_text(yaml.safe_dump({**DECIDING, "iterations": 4, "cluster": {"trainer_ranks": 1}, **changes}))
    return paths


def predecessor(experiment: Path) -> Path | None:
    return unfinished_predecessor(RunPaths(experiment / "tiny-sgpo-s0-new"), DECIDING)


def test_a_run_that_an_earlier_version_has_begun_is_found(experiment: Path) -> None:
    assert predecessor(experiment) is None  # there is nothing yet, not even the folder
    earlier = begun(experiment)
    assert predecessor(experiment) == earlier.root
    begun(experiment, "tiny-sgpo-s0-older")
    assert predecessor(experiment) == earlier.root  # the first by name


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": 400, "cluster": {"trainer_ranks": 8}},  # decides nothing
        {"algorithm": {"credit": {"beta": 10.0}, "sampling": {"strategy": "plain"}}},  # has another name by now
    ],
)
def test_settings_that_do_not_decide_make_no_other_run(experiment: Path, changes: dict[str, object]) -> None:
    assert predecessor(experiment) is None
    earlier = begun(experiment, **changes)
    assert predecessor(experiment) == earlier.root


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"algorithm": {"credit": {"beta": 9.0}}}, {"train": {"betas": [0.9, 0.95]}}]
)
def test_a_run_with_other_settings_is_no_predecessor(experiment: Path, changes: dict[str, object]) -> None:
    other = begun(experiment, **changes)
    assert predecessor(experiment) is None
    other.config.write_text(yaml.safe_dump(DECIDING))
    assert predecessor(experiment) == other.root


@pytest.mark.parametrize("name", ["tiny-sgpo-s1-old", "tiny-grpo-s0-old", "tiny-sgpo-s0", "tiny-sgpo-s0-new"])
def test_a_run_of_another_name_is_no_predecessor_nor_is_the_run_itself(experiment: Path, name: str) -> None:
    begun(experiment, name)
    assert predecessor(experiment) is None
    earlier = begun(experiment)
    assert predecessor(experiment) == earlier.root


def test_a_run_that_is_finished_or_can_be_read_is_no_predecessor(experiment: Path) -> None:
    finished, readable, empty = (begun(experiment, f"tiny-sgpo-s0-{name}") for name in ("a", "b", "c"))
    assert predecessor(experiment) == finished.root
    write_json(finished.result, {"iterations": 4})
    assert predecessor(experiment) == readable.root
    write_json(readable.format, 2)
    assert predecessor(experiment) == empty.root
    empty.config.unlink()  # it was cut short before its first file was there
    assert predecessor(experiment) is None
