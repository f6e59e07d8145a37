"""The problem sets of a run as MLflow's page names them: name, digest, number of problems, where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import xxhash
from mlflow.entities import Dataset, DatasetInput, InputTag

from sgpo_core.config.data import DataSettings
from sgpo_core.data.gym_problems import SOURCE
from sgpo_core.data.problems import FILES
from tasks.tracking.tracker import Tracker

_Set = tuple[DataSettings, datasets.Dataset]


def log_problem_sets(tracker: Tracker, train: _Set, benchmarks: Mapping[str, _Set]) -> None:
    """Adds what is trained on, and each benchmark, to the inputs of the run; once, also where it is resumed."""
    there = tracker.client.get_run(tracker.run_id).inputs
    if there and there.dataset_inputs:
        return
    named = [("training", _name(train[0]), train), *(("evaluation", name, of) for name, of in benchmarks.items())]
    inputs = [
        DatasetInput(_described(name, *of), [InputTag("mlflow.data.context", purpose)]) for purpose, name, of in named
    ]
    tracker.client.log_inputs(tracker.run_id, inputs)


def _described(name: str, settings: DataSettings, problems: datasets.Dataset) -> Dataset:
    kind, source = _source(settings)
    return Dataset(
        name=name,
        digest=digest(problems["prompt"], problems["answer"]),
        source_type=kind,
        source=json.dumps(source),
        profile=json.dumps({"num_rows": len(problems)}),
    )


def digest(prompts: Sequence[str], answers: Sequence[str]) -> str:
    """16 characters that name these problems with their answers, in this order."""
    return xxhash.xxh3_64_hexdigest(json.dumps([list(prompts), list(answers)]).encode())


def _name(settings: DataSettings) -> str:
    if settings.source.endswith(FILES):
        return Path(settings.source).name
    return "/".join(filter(None, [settings.source, settings.subset]))


def _source(settings: DataSettings) -> tuple[str, Mapping[str, object]]:
    """In the words of MLflow: `code` (generated), `local` or `hugging_face`, and what says more."""
    if settings.source in ("chains", SOURCE):
        told = settings.model_dump(mode="json", exclude_defaults=True)
        return "code", {"tags": {"mlflow.source.name": settings.source, "settings": json.dumps(told)}}
    if settings.source.endswith(FILES):
        return "local", {"uri": settings.source}
    told = {"path": settings.source, "config_name": settings.subset, "split": settings.split}
    return "hugging_face", told | {"revision": settings.revision}
