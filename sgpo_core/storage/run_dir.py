"""Where a run keeps its things, and which checkpoint counts.

<run_dir>/config.yaml                       the resolved settings
          iterations/000012/rollouts.parquet  everything iteration 12 saw
          iterations/000012/.rollouts.parquet.digests   what it has to be, or was a moment before
          iterations/000012/metrics.json      its metrics, as they go to the tracking server
          checkpoints/000012/engine/          weights and optimizer after iteration 12 (DeepSpeed)
          checkpoints/000012/digests.json     of all these files
          checkpoints/000012/policy/          the weights alone (Hugging Face layout, safetensors)
          policy/                             the final policy
          attempt.json                        names this attempt to the tracking server
          format.json                         the number FORMAT, of the layout of all this
          result.json                         there once the run is complete
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from sgpo_core.storage.atomic import read_json

FORMAT = 2  # 1 had no format.json, other columns in rollouts.parquet, and ids that hashed every setting


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The layout above, below one folder."""

    root: Path

    def iteration(self, iteration: int) -> Path:
        return self.root / "iterations" / f"{iteration:06d}"

    def rollouts(self, iteration: int) -> Path:
        return self.iteration(iteration) / "rollouts.parquet"

    def metrics(self, iteration: int) -> Path:
        return self.iteration(iteration) / "metrics.json"

    def evaluation(self, iteration: int, benchmark: str) -> Path:
        return self.iteration(iteration) / f"eval-{benchmark}.parquet"

    def checkpoint(self, iteration: int) -> Path:
        return self.checkpoints / f"{iteration:06d}"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def policy(self) -> Path:
        return self.root / "policy"

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def format(self) -> Path:
        return self.root / "format.json"

    @property
    def result(self) -> Path:
        return self.root / "result.json"


def iterations_saved(checkpoints: Path) -> list[int]:
    """Iterations with a whole checkpoint, ascending. (One that is being written has a name that starts with a dot.)"""
    if not checkpoints.is_dir():
        return []
    return sorted(int(p.name) for p in checkpoints.iterdir() if p.is_dir() and p.name.isdigit())


def best_checkpoint(paths: RunPaths) -> int | None:
    """Iteration of the saved checkpoint with the highest mean avg@k over the benchmarks of its own evaluation; the
    latest of equal ones, or where none was evaluated; None where there is none. Read from the disk, so that a resume
    finds the same."""
    saved = iterations_saved(paths.checkpoints)
    return max(saved, key=lambda iteration: (mean_accuracy(paths, iteration), iteration), default=None)


def mean_accuracy(paths: RunPaths, iteration: int) -> float:
    """Mean avg@k over the benchmarks of the iteration's own evaluation, 0..1; -1 where it was not evaluated."""
    file = paths.metrics(iteration)
    metrics = read_json(file)["metrics"] if file.exists() else {}
    return fmean([value for name, value in metrics.items() if name.endswith("/avg_at_k")] or [-1.0])


def prune(checkpoints: Path, keep: int, best: int | None = None) -> None:
    """Removes all but the newest `keep` checkpoints and the best. A removal that is cut short leaves no half checkpoint
    behind under a name that counts: the folder is renamed first."""
    for iteration in iterations_saved(checkpoints)[:-keep]:
        if iteration == best:
            continue
        doomed = checkpoints / f".{iteration:06d}.removed"
        (checkpoints / f"{iteration:06d}").rename(doomed)
    for leftover in checkpoints.glob(".*.removed"):
        shutil.rmtree(leftover)


def unfinished_predecessor(paths: RunPaths, deciding: Mapping[str, Any]) -> Path | None:
    """The folder of a run with the same deciding settings that an earlier format of this project has begun and not
    finished: it has another id, and its files can't be read. None where there is none."""
    wanted = dict(_flat(deciding))
    stem = paths.root.name.rpartition("-")[0]
    for folder in sorted(paths.root.parent.glob(f"{stem}-*")):
        earlier = RunPaths(folder)
        if folder == paths.root or earlier.format.exists() or earlier.result.exists() or not earlier.config.is_file():
            continue
        settings = dict(_flat(yaml.safe_load(earlier.config.read_text(encoding="utf-8"))))
        if all(value == wanted.get(name, value) for name, value in settings.items()):
            return folder
    return None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
