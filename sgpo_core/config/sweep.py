"""A sweep: a grid of settings x seeds over one preset, as the list of runs that it stands for.

An *arm* is one point of the grid, without the seed: what the report compares. Runs of different arms with the same seed
see the same problems in the same order with the same seeds of sampling: they are pairs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from pydantic import Field

from sgpo_core.config.base import ConfigError, Experiment, Fraction, Positive, Settings
from sgpo_core.config.catalog import not_among, require_preset
from sgpo_core.config.loading import load_preset
from sgpo_core.config.offline import OfflineConfig, load_offline, offline_first
from sgpo_core.config.overrides import quoted, read_overrides
from sgpo_core.config.run import RunConfig, TrainingConfig, load_run

Value = str | int | float | bool | None | list[int | float | str]
_RESERVED = {"null", "true", "false", "nan", "inf"}


class SweepConfig(Settings):
    """Everything that decides a sweep."""

    preset: str = Field("", description="the preset these settings came from")
    name: str = Field("", pattern=r"^[\w .:+-]*$", description="tag of its runs in MLflow; empty: the preset's name")
    flow: Literal["online", "offline"] = Field("online", description="which flow runs: sgpo-online or sgpo-offline")
    run_preset: str = Field("tiny", description="preset in conf/online or conf/offline that every run starts from")
    experiment: Experiment = Field("sweeps", description="MLflow experiment, and folder of the runs")
    overrides: list[str] = Field(default_factory=list, description='settings of every run, e.g. ["iterations=60"]')
    grid: dict[str, list[Value]] = Field(
        default_factory=dict,
        description="setting of a run -> its values, e.g. {algorithm: [grpo, sgpo]}; every combination is an arm",
    )
    seeds: list[int] = Field(default_factory=lambda: [0, 1, 2], description="seeds of every arm")
    baseline: str = Field("", description="arm that the others are compared with; empty: the first")
    benchmark: str = Field("chains", description="evaluation set whose avg@k is compared")
    target: Fraction = Field(
        0.5, description="the report says how many iterations and tokens each arm needs to reach this accuracy"
    )
    parallel: Positive = Field(
        1, description="runs at a time, each process with engines of its own; several need the cores or GPUs for it"
    )
    attempts: Positive = Field(2, description="tries of a run before it counts as failed; the sweep goes on")

    @property
    def tag(self) -> str:
        return self.name or self.preset


@dataclass(frozen=True, slots=True)
class SweepRun:
    """One run of a sweep; `overrides` go to its flow."""

    arm: str
    seed: int
    overrides: tuple[str, ...]
    config: TrainingConfig


def load_sweep(preset: str, overrides: Sequence[str] = ()) -> SweepConfig:
    """The settings of a sweep: conf/sweep/<preset>.yaml and Hydra overrides."""
    return load_preset(SweepConfig, "sweep", preset, overrides)


def arms(config: SweepConfig) -> dict[str, list[str]]:
    """Name of each arm -> its overrides. `algorithm=sgpo` is named sgpo, a point of several settings by all of them."""
    names = list(config.grid)
    result = {}
    for values in product(*config.grid.values()):
        chosen = dict(zip(names, values, strict=True))
        parts = [str(v) if key == "algorithm" else f"{key.split('.')[-1]}={v}" for key, v in chosen.items()]
        result[" ".join(parts) or "all"] = [f"{key}={_hydra(v)}" for key, v in chosen.items()]
    return result


def sweep_runs(config: SweepConfig) -> list[SweepRun]:
    """Every run, all arms of a seed before the next seed, so that a sweep that is stopped has pairs. Runs that can
    share engines are neighbors. Raises ConfigError for any run that can't be, before one is started."""
    if not config.seeds or not all(config.grid.values()):
        raise ConfigError("a sweep without seeds, or with a setting without values, has no runs: see grid and seeds")
    if len(set(config.seeds)) < len(config.seeds) or "seed" in config.grid:
        raise ConfigError("seeds of a sweep stand in `seeds`, each once, and not in its grid")
    require_preset("run_preset", config.flow, config.run_preset)
    model = OfflineConfig if config.flow == "offline" else RunConfig
    for setting, overrides in (("overrides", config.overrides), ("grid", _points(config.grid))):
        try:
            read_overrides(overrides, model)
        except ConfigError as error:
            raise ConfigError(f"{setting}: {error}") from None
    named = arms(config)
    if config.baseline and config.baseline not in named:
        there = "`baseline=` takes the first; the arms are"
        raise ConfigError(not_among(f"baseline={config.baseline}", config.baseline, list(named), there))
    runs = []
    for seed in config.seeds:
        for arm, chosen in named.items():
            overrides = [
                *config.overrides,
                *chosen,
                f"seed={seed}",
                f"experiment={_hydra(config.experiment)}",
                f"tags.sweep={_hydra(config.tag)}",
                f"tags.arm={_hydra(arm)}",
            ]
            run = _load(config, overrides)
            if config.benchmark not in run.eval.sets:
                sets = list(run.eval.sets)
                raise ConfigError(not_among(f"benchmark={config.benchmark}", config.benchmark, sets, "eval.sets has"))
            runs.append(SweepRun(arm, seed, tuple(overrides), run))
    first_with = {key: i for i, key in reversed(list(enumerate(map(_engines, runs))))}
    return sorted(runs, key=lambda run: first_with[_engines(run)])


def _points(grid: Mapping[str, Sequence[Value]]) -> list[str]:
    """Every value of a grid as an override."""
    return [f"{key}={_hydra(value)}" for key, values in grid.items() for value in values]


def _load(config: SweepConfig, overrides: Sequence[str]) -> TrainingConfig:
    if config.flow == "offline":
        return load_offline(config.run_preset, overrides)
    run = load_run(config.run_preset, overrides)
    offline_first(run)  # is refused here, too, where it can't be
    return run


def _engines(run: SweepRun) -> str:
    return f"{run.config.model}{run.config.cluster}"


def _hydra(value: Value) -> str:
    """A value as Hydra's override grammar writes it. Plain words stay bare, as the choice of a group has to be."""
    if isinstance(value, list):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, str):
        word = re.fullmatch(r"[A-Za-z][\w./+-]*", value, re.ASCII) and value.lower() not in _RESERVED
        return value if word else quoted(value)
    return "null" if value is None else str(value).lower()
