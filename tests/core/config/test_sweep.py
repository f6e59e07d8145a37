"""A sweep is the list of runs that it stands for."""

from __future__ import annotations

from typing import Any

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.catalog import presets
from sgpo_core.config.offline import load_offline, offline_first
from sgpo_core.config.run import RunConfig, load_run
from sgpo_core.config.sweep import arms, load_sweep, sweep_runs


@pytest.mark.parametrize("preset", presets("sweep"))
def test_every_preset_is_a_list_of_runs(preset: str) -> None:
    config = load_sweep(preset)
    runs = sweep_runs(config)
    assert len(runs) == len(arms(config)) * len(config.seeds) == len({run.config.run_id for run in runs})
    assert config.baseline in arms(config)
    assert {(r.config.tags.sweep, r.config.experiment) for r in runs} == {(preset, config.experiment)}
    assert [r.config.tags.arm for r in runs] == [r.arm for r in runs]


def test_grid_and_order() -> None:
    config = load_sweep("beta-gamma-tiny", ["seeds=[4,5]"])
    runs = sweep_runs(config)
    assert [r.seed for r in runs] == [4] * 9 + [5] * 9  # all arms of a seed, then the next seed
    assert [r.arm for r in runs[:4]] == [
        "beta=5 gamma=0.3",
        "beta=5 gamma=0.5",
        "beta=5 gamma=0.7",
        "beta=10 gamma=0.3",
    ]
    credit = runs[3].config.algorithm.credit
    assert (credit.beta, credit.gamma, runs[3].config.algorithm.name) == (10.0, 0.3, "sgpo")
    # What the flow gets is what was checked.
    assert load_run(config.run_preset, runs[3].overrides) == runs[3].config


def test_runs_that_share_engines_are_neighbors() -> None:
    runs = sweep_runs(load_sweep("grpo-vs-sgpo-tiny", ["+grid={cluster.rollout_actors: [1, 2]}", "baseline="]))
    assert [r.config.cluster.rollout_actors for r in runs] == [1] * 6 + [2] * 6
    assert [r.seed for r in runs[:6]] == [0, 0, 1, 1, 2, 2]


def test_offline_runs_make_a_sweep_like_others() -> None:
    runs = sweep_runs(load_sweep("offline-grpo-vs-sgpo-tiny", ["seeds=[0,1]"]))
    assert [(r.arm, r.seed) for r in runs] == [("grpo", 0), ("sgpo", 0), ("grpo", 1), ("sgpo", 1)]
    assert all(load_offline("tiny", r.overrides) == r.config for r in runs)
    assert len({repr((r.config.data, r.config.sampling)) for r in runs}) == 1  # the same responses for all


def test_offline_then_online_is_an_arm_beside_pure_online() -> None:
    pure, after = (r.config for r in sweep_runs(load_sweep("offline-then-online-tiny", ["seeds=[3]"])))
    assert isinstance(pure, RunConfig) and isinstance(after, RunConfig)
    assert offline_first(pure) is None
    first = offline_first(after)
    assert first is not None and (first.seed, first.algorithm, first.model) == (3, after.algorithm, after.model)
    assert first.data == load_offline("tiny").data  # its own data set
    with pytest.raises(ConfigError, match=r"offline_start=tiny: .*dapo is an online algorithm"):
        sweep_runs(load_sweep("offline-then-online-tiny", ['overrides=["algorithm=dapo"]']))
    with pytest.raises(ConfigError, match=r"offline_start=small: .* \(conf/offline has"):
        sweep_runs(load_sweep("offline-then-online-tiny", ["grid.offline_start=[small]", "baseline="]))


TEXTS = [
    "a b",
    "it's",
    'say "x"',
    "null",
    "2026",
    "a=b,c",
    "a\\",
    '\\"',
    "\\boxed{}",
    "${seed}",
    "\\${x}",
    "naïve",
    "加",
    "a\nb",
]


@pytest.mark.parametrize(
    ("setting", "values", "given"),
    [
        ("algorithm.credit.beta", [5, 10.5], [5.0, 10.5]),
        ("algorithm.loss.tis_cap", [None], [None]),
        ("train.betas", [[0.9, 0.95]], [(0.9, 0.95)]),
        ("train.gradient_checkpointing", [True, False], [True, False]),
        ("data.domain_column", TEXTS, TEXTS),
    ],
)
def test_values_of_every_kind_arrive_as_they_are(setting: str, values: list[Any], given: list[Any]) -> None:
    config = load_sweep("grpo-vs-sgpo-tiny", ["seeds=[0]", "baseline="]).model_copy(update={"grid": {setting: values}})
    fixed = config.model_copy(update={"overrides": ["algorithm.loss.old_logprobs=trainer"]})
    arrived = []
    for run in sweep_runs(fixed):
        value: Any = run.config
        for name in setting.split("."):
            value = getattr(value, name)
        arrived.append(value)
        assert run.config.tags.arm == run.arm
    assert arrived == given


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["+grid={algorithm.credit.betta: [1]}", "baseline="], "algorithm.credit.betta"),
        (["grid.algorithm=[grpo,sgop]"], "algorithm=sgop"),
        (["baseline=dapo"], "baseline=dapo"),
        (["benchmark=aime24"], "benchmark=aime24"),
        (["seeds=[]"], "seeds"),
        (["seeds=[0,0]"], "seeds"),
        (['name="it\'s"'], "name"),
        (["grid.algorithm=[]"], "grid"),
        (['overrides=["iterations=0"]'], "iterations"),
        (["run_preset=8b"], "8b"),
    ],
)
def test_what_can_not_run_is_named_before_anything_runs(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        sweep_runs(load_sweep("grpo-vs-sgpo-tiny", overrides))
