"""Supervised training with a gate, and its result, which is kept by its settings: warm starts and judges alike.

batches ──supervised steps──▶ model ──test──▶ gate ──▶ folder, named by the settings' key
                ▲                              │
                └───────── more steps ─────────┘ not good enough
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
from tqdm import tqdm

from sgpo_core.config.base import Settings
from sgpo_core.config.loading import to_yaml
from sgpo_core.config.training import TrainSettings
from sgpo_core.rl.training_samples import TrainingSample, split_over_ranks
from sgpo_core.storage.atomic import atomic_directory, read_json, waiting_lock, write_json, write_text
from tasks.checkpointing import export_policy
from tasks.engines.cluster import Engines
from tasks.paths import home
from tasks.stage import Metrics
from tasks.tracking.tracker import Tracker, new_attempt

_STEPS_A_POINT = 50  # of the loss curve, or fewer: it has 20 points
_SECONDS_A_CALL = 2.0  # steps that one call of the ranks makes, about; the progress bar moves once a call
_MORE_LR = 0.3  # of the learning rate, where steps are added


@dataclass(frozen=True)
class Course:
    """How a model is trained: `batch(step)` gives the samples of an optimizer step (all weights sum to 1), `test(steps
    done)` what the model can do, of which the metric `gate` has to reach `threshold` (setting: gate_<metric>). Where it
    does not, `more_steps` are added, at most `more_rounds` times."""

    title: str
    steps: int
    batch: Callable[[int], list[TrainingSample]]
    test: Callable[[int], Metrics]
    gate: str
    threshold: float
    more_steps: int
    more_rounds: int
    advice: str


def train_until_good(course: Course, train: TrainSettings, engines: Engines, tracker: Tracker, loss: str) -> Metrics:
    """Returns what the last test has shown. Raises RuntimeError when the gate stays shut."""
    factors = [cosine(i, course.steps, train.warmup_steps) for i in range(course.steps)]
    done = 0
    for _ in range(course.more_rounds + 1):
        done = _supervise(course, train, engines, tracker, loss, factors, done)
        metrics = course.test(done)
        tracker.log(done, metrics)
        if metrics[course.gate] >= course.threshold:
            return metrics
        factors = [_MORE_LR * cosine(i, course.more_steps, 0) for i in range(course.more_steps)]
    setting = f"gate_{course.gate.rpartition('/')[2]}"
    raise RuntimeError(
        f"{course.title}: after {done} steps {course.gate} is {metrics[course.gate]:.1%}, {setting}="
        f"{course.threshold:.0%} is wanted: {course.advice}"
    )


def cosine(step: int, total: int, warmup: int) -> float:
    """Factor of the learning rate: linear up over `warmup` steps, then a half cosine down to 0 at `total`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _supervise(
    course: Course,
    train: TrainSettings,
    engines: Engines,
    tracker: Tracker,
    loss_name: str,
    factors: Sequence[float],
    done: int,
) -> int:
    """One step for each factor of the learning rate; returns how many were done so far."""
    window = max(1, min(_STEPS_A_POINT, len(factors) // 20))
    pace, points = 1, [factors[i : i + window] for i in range(0, len(factors), window)]
    with tqdm(total=len(factors), desc=course.title, unit="step", mininterval=1) as bar:
        for point in points:
            losses: list[float] = []
            while len(losses) < len(point):
                began, some = time.monotonic(), point[len(losses) : len(losses) + pace]
                losses += _steps(course, train, engines, some, done)
                done += len(some)
                bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
                bar.update(len(some))
                if time.monotonic() - began < _SECONDS_A_CALL:
                    pace *= 2
            tracker.log(done, {loss_name: float(np.mean(losses))})
    return done


def _steps(course: Course, train: TrainSettings, engines: Engines, factors: Sequence[float], done: int) -> list[float]:
    """The loss of each of the steps that follow `done`."""
    ranks = engines.trainers
    steps = [
        (factor * train.lr, split_over_ranks(course.batch(done + i), train.micro_batch_tokens, len(ranks)))
        for i, factor in enumerate(factors)
    ]
    shares = [[(lr, split[rank]) for lr, split in steps] for rank in range(len(ranks))]
    losses = ray.get([t.supervised.remote(share) for t, share in zip(ranks, shares, strict=True)])
    return [float(loss) for loss in np.sum(losses, axis=0)]


class Keyed(Protocol):
    """Settings of a supervised training."""

    @property
    def preset(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def key(self) -> str: ...


class Kept:
    """The result of a supervised training: a model's folder below `home()`, named by its settings' key, with
    settings.yaml and report.json. `name` is its MLflow experiment."""

    def __init__(self, name: str, shelf: str, config: Keyed) -> None:
        self.name, self.config = name, config
        self.folder = home() / shelf / config.key
        self.start = self.folder.with_name(f".{config.key}.start")  # for a model that the training starts from

    def result(self) -> dict[str, Any] | None:
        """That of the same settings, where it has been made."""
        report = self.folder / "report.json"
        return read_json(report) if report.is_file() else None

    def locked(self) -> AbstractContextManager[None]:
        """Waits while another process makes the same."""
        return waiting_lock(self.folder.with_name(f".{self.config.key}.lock"))

    @contextmanager
    def tracked(self, algorithm: str) -> Iterator[Tracker]:
        """The tracking run of the block, failed where it fails."""
        assert isinstance(self.config, Settings)
        tags = {"algorithm": algorithm, "preset": self.config.preset, "seed": str(self.config.seed)}
        settings = self.config.model_dump(mode="json")
        tracker = Tracker.open(self.name, self.config.key, self.folder, new_attempt(), tags, settings)
        try:
            yield tracker
            tracker.finish()
        except BaseException as error:
            tracker.fail(error)
            raise

    def publish(
        self,
        engines: Engines,
        base: str,
        tracker: Tracker,
        metrics: Metrics,
        complete: Callable[[Path], None] | None = None,
    ) -> dict[str, Any]:
        """Writes the trainer's model, whole or not at all, `complete` adding to its folder; returns the result."""
        assert isinstance(self.config, Settings)
        result = {
            "run_id": self.config.key,
            "mlflow_run_id": tracker.run_id,
            "run_dir": str(self.folder),
            "final_metrics": metrics,
        }
        with atomic_directory(self.folder) as target:
            export_policy(engines, base, target)
            if complete is not None:
                complete(target)
            write_text(target / "settings.yaml", to_yaml(self.config))
            write_json(target / "report.json", result)
        return result
