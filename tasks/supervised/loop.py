"""Supervised training with a gate, and its result, which is kept by its settings: warm starts and judges alike.

batches ──supervised steps──▶ model ──test──▶ gate ──▶ folder, named by the settings' key
                ▲                              │
                └───────── more steps ─────────┘ not good enough
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from sgpo_core.config.base import Settings
from sgpo_core.config.loading import to_yaml
from sgpo_core.config.training import TrainSettings
from sgpo_core.rl.training_samples import TrainingSample, split_over_ranks
from sgpo_core.storage.atomic import (
    atomic_directory,
    read_json,
    remove_atomically,
    waiting_lock,
    write_json,
    write_text,
)
from sgpo_core.storage.digests import damage, put_aside, seal
from tasks.checkpointing import export_policy
from tasks.engines.cluster import Engines
from tasks.flow_page import FlowPage
from tasks.paths import home
from tasks.stage import Metrics
from tasks.tracking.tracker import Tracker, description, new_attempt, source
from tasks.workers.optimizer_state import holds_state

_STEPS_A_POINT = 50  # of the loss curve, or fewer: it has 20 points
_SECONDS_A_CALL = 2.0  # steps that one call of the ranks makes, about; the progress bar moves once a call
_SECONDS_A_SAVE = 120.0  # between two saved states; shorter trainings have none
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


def train_until_good(
    course: Course, train: TrainSettings, engines: Engines, tracker: Tracker, loss: str, saved: SavedState
) -> Metrics:
    """Returns what the last test has shown; goes on from what `saved` holds. Raises RuntimeError when the gate stays
    shut."""
    done, metrics, page = saved.load(engines), Metrics(), FlowPage(tracker.folder.name)
    for rounds in range(course.more_rounds + 1):
        end = course.steps + rounds * course.more_steps
        if done > end:
            continue  # tested before, in vain
        done = _supervise(course, train, engines, tracker, page, loss, saved, done, end)
        metrics = course.test(done)
        tracker.log(done, metrics)
        if metrics[course.gate] >= course.threshold:
            return metrics
    setting = f"gate_{course.gate.rpartition('/')[2]}"
    raise RuntimeError(
        f"{course.title}: after {done} steps {course.gate} is {metrics[course.gate]:.1%}, {setting}="
        f"{course.threshold:.0%} is wanted: {course.advice}"
    )


@dataclass(frozen=True)
class SavedState:
    """Where an interrupted training goes on: a folder with the ranks' state, from which as many ranks as may be go on,
    and the steps done."""

    folder: Path

    def load(self, engines: Engines) -> int:
        """The steps done, by ranks that were just set up."""
        if holds_state(self.folder / "engine") and (what := damage(self.folder)):
            put_aside(self.folder, what)
        if not holds_state(self.folder / "engine"):  # nothing, or that of an earlier version
            return 0
        engines.on_all_ranks("load", str(self.folder / "engine"))
        return int(read_json(self.folder / "state.json")["done"])

    def save(self, engines: Engines, done: int) -> None:
        with atomic_directory(self.folder) as target:
            engines.on_all_ranks("save", str(target / "engine"))
            write_json(target / "state.json", {"done": done})
            seal(target)


def lr_factor(step: int, course: Course, warmup: int) -> float:
    """Of the learning rate, at a step counted from 0; each round of added steps has a cosine of its own."""
    if step < course.steps:
        return cosine(step, course.steps, warmup)
    return _MORE_LR * cosine((step - course.steps) % course.more_steps, course.more_steps, 0)


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
    page: FlowPage,
    loss_name: str,
    saved: SavedState,
    done: int,
    end: int,
) -> int:
    """The steps from `done` to `end`, the last of a round; returns `end`."""
    begin = 0 if end == course.steps else end - course.more_steps
    window = max(1, min(_STEPS_A_POINT, (end - begin) // 20))
    points = [point for point in (*range(begin + window, end, window), end) if point > done]
    pace, saved_at = 1, time.monotonic()
    with tqdm(total=end - begin, initial=done - begin, desc=course.title, unit="step", mininterval=1) as bar:
        for point in points:
            losses: list[float] = []
            while done < point:
                began, some = time.monotonic(), range(done, min(point, done + pace))
                losses += _steps(course, train, engines, some)
                done += len(some)
                bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
                bar.update(len(some))
                if time.monotonic() - began < _SECONDS_A_CALL:
                    pace *= 2
            tracker.log(done, {loss_name: float(np.mean(losses))})
            page.bar(100.0 * done / end, f"{course.title}: step {done} of {end}, loss {np.mean(losses):.3f}")
            if time.monotonic() - saved_at > _SECONDS_A_SAVE:
                saved.save(engines, done)
                saved_at = time.monotonic()
    return done


def _steps(course: Course, train: TrainSettings, engines: Engines, numbers: range) -> list[float]:
    """Makes the steps with these numbers; the loss of each."""
    ranks = len(engines.trainers)
    steps = [
        (
            lr_factor(number, course, train.warmup_steps) * train.lr,
            split_over_ranks(course.batch(number), train.micro_batch_tokens, ranks),
        )
        for number in numbers
    ]
    shares = [[(lr, split[rank]) for lr, split in steps] for rank in range(ranks)]
    losses = engines.on_each_rank("supervised", [(share,) for share in shares])
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
        self.saved = SavedState(self.folder.with_name(f".{config.key}.state"))

    def result(self) -> dict[str, Any] | None:
        """That of the same settings, where it has been made and is as it was written; else it is put aside."""
        if self.folder.is_dir() and (what := damage(self.folder)):
            put_aside(self.folder, what)
        report = self.folder / "report.json"
        return read_json(report) if report.is_file() else None

    def forget(self) -> None:
        """What an interrupted training has left: the next one begins anew."""
        remove_atomically(self.saved.folder)

    def locked(self) -> AbstractContextManager[None]:
        """Waits while another process makes the same."""
        return waiting_lock(self.folder.with_name(f".{self.config.key}.lock"))

    @contextmanager
    def tracked(self, algorithm: str) -> Iterator[Tracker]:
        """The tracking run of the block, failed where it fails; `publish` finishes it."""
        assert isinstance(self.config, Settings)
        tags = {"algorithm": algorithm, "preset": self.config.preset, "seed": str(self.config.seed)}
        settings, flow = self.config.model_dump(mode="json"), self.name.replace("-", "_")
        tags |= source(f"flows/{flow}.py") | description(
            f"A {self.name} of preset `{self.config.preset}`, seed {self.config.seed}. What it makes: `{self.folder}`. "
            f"The command is `python -m flows.{flow} {self.config.preset}`; the settings are among the parameters."
        )
        tracker = Tracker.open(self.name, self.config.key, self.folder, new_attempt(), tags, settings)
        try:
            yield tracker
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
        artifact: str | None = None,
    ) -> dict[str, Any]:
        """Writes the trainer's model, whole or not at all, `complete` adding to its folder; returns the result. MLflow
        knows all of it by then, and has a copy of the folder where `artifact` names one. Raises RuntimeError where it
        does not answer."""
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
            seal(target)
            if artifact is not None:
                tracker.log_folder(target, artifact)
            tracker.finish()
        remove_atomically(self.saved.folder)
        return result
