"""docs/settings.md says of each setting whether it is part of a run's id; here each of them is held to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sgpo_core.config.catalog import Setting, describe
from sgpo_core.config.loading import load_preset
from sgpo_core.config.offline import OfflineConfig
from sgpo_core.config.reference import as_markdown
from sgpo_core.config.run import RunConfig, TrainingConfig, load_run
from sgpo_core.config.warm_start import load_warm_start

TINY = load_run("tiny")
ROOT = Path(__file__).resolve().parents[3]
# Settings that have to agree with others, or that have few values: another valid one.
OTHER = {
    "cluster.sync_by": "file",
    "model.dtype": "bfloat16",
    "model.thinks": True,
    "model.warm_start": "tiny_mild",
    "data.task": {"min_terms": 6},
    "data.answer_type": "integer",
    "data.answer_form": "hashes",
    "data.max_reference_steps": 3,
    "data.choice_columns": ["wrong"],
    "judge.prompt": "marker-v1",
    "judge.thinks": True,
    "judge.endpoint.extra_body": {"top_k": 20},
    "algorithm.resampling.strategy": "history",
    "algorithm.credit.scope": "all_incorrect",
    "algorithm.credit.rts_unit": "tokens",
    "algorithm.credit.expected_length": "group",
    "algorithm.credit.truncated": "prefix",
    "algorithm.credit.no_error_found": "last_step",
    "algorithm.filter": "mixed",
    "algorithm.advantage.baseline": "leave_one_out",
    "algorithm.advantage.std": "floor",
    "algorithm.loss.mean": "token",
    "algorithm.loss.no_signal_groups": "keep",
    "algorithm.loss.ratio": "sequence",
    "algorithm.loss.old_logprobs": "trainer",
    "algorithm.loss.tis_cap": 2.0,
    "algorithm.loss.dual_clip": 3.0,
    "train.betas": [0.8, 0.98],
    "groups": "negative",
    "cluster.sync_tolerance": 0.25,
    "checkpoint.model": "other",
    "prompt": "{problem} ?",
    "judge.engine.dtype": "bfloat16",
    "eval.sets.<name>.data.seed": 7,
}
TOGETHER: dict[str, dict[str, Any]] = {
    "model.thinks": {"model.chat_template": True},
    "cluster.colocated": {
        **{"cluster.rollout_actors": 1, "cluster.rollout_gpus": 1},
        **{"cluster.trainer_ranks": 1, "cluster.trainer_gpus": 1},
    },
    "cluster.sleep": {"deepspeed.zero_stage": 2},
    "judge.votes": {"judge.temperature": 0.5},
    "judge.endpoint.reasoning_effort": {"judge.thinks": True},
    "algorithm.filter": {"algorithm.credit.scope": "none"},
    "algorithm.loss.tis_cap": {"algorithm.loss.old_logprobs": "trainer"},
    "algorithm.credit.domain_weight": {"algorithm.advantage.std": "none"},
    "algorithm.credit.difficulty_weight": {"algorithm.advantage.std": "none", "algorithm.credit.scope": "none"},
    "algorithm.advantage.separate_rewards": {"algorithm.credit.scope": "all_incorrect"},
    "algorithm.advantage.entropy_coef": {"algorithm.credit.scope": "none"},
}


def other_value(setting: Setting) -> Any:
    """A valid value that is not the default."""
    for key in (setting.key, setting.key.removeprefix("eval.sets.<name>.")):
        if key in OTHER:
            return OTHER[key]
    default = setting.default
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2 if default else 0.25
    assert default is None or isinstance(default, str), setting.key
    return f"{default or ''}x"


def changed(config: TrainingConfig, values: dict[str, Any]) -> TrainingConfig:
    """The config with other values of some settings, by dotted key."""
    settings = config.model_dump()
    for key, value in values.items():
        *path, last = key.replace("<name>", "chains").split(".")
        place = settings
        for name in path:
            place = place[name]
        place[last] = value
    return type(config).model_validate(settings)


def settings_of(model: type[TrainingConfig]) -> list[Setting]:
    return list(describe(model))


@pytest.mark.parametrize("setting", settings_of(RunConfig), ids=lambda s: s.key)
def test_a_setting_is_in_the_id_exactly_when_it_decides_the_result(setting: Setting) -> None:
    base = changed(TINY, TOGETHER.get(setting.key, {}))
    other = changed(base, {setting.key: other_value(setting)})
    assert other != base
    assert (other.run_id != base.run_id) is setting.decides


@pytest.mark.parametrize("key", ["responses.source", "responses.max_bad_rows", "groups", "epochs"])
def test_the_same_of_an_offline_run(key: str) -> None:
    [setting] = [s for s in settings_of(OfflineConfig) if s.key == key]
    base = load_preset(OfflineConfig, "offline", "tiny", [])
    other = changed(base, {key: other_value(setting)})
    assert (other.run_id != base.run_id) is setting.decides is (key != "responses.max_bad_rows")


def test_how_the_work_is_spread_is_not_in_an_id() -> None:
    """How the work is spread, memory, checkpoints, iterations."""
    outside = {s.key for s in settings_of(RunConfig) if not s.decides}
    assert outside >= {
        *("cluster.rollout_actors", "cluster.gpu_memory_utilization", "train.micro_batch_tokens"),
        *("checkpoint.every", "iterations", "experiment", "deepspeed.zero_stage", "judge.engine.gpus"),
    }
    assert not outside & {"seed", "train.lr", "judge.noise", "model.dtype", "sampling.max_tokens", "tags.sweep"}


def test_a_run_names_what_its_presets_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm start whose settings change is another start, and a run from it another run."""
    before = load_run("tiny").run_id
    longer = load_warm_start("tiny", ["batch_size=47"]).key
    monkeypatch.setattr("sgpo_core.config.run.warm_start_key", lambda name: longer)
    assert load_run("tiny").model_copy().run_id != before  # settings are read once a process, and so is their id


def test_a_copy_has_an_id_of_its_own() -> None:
    config = load_run("tiny")
    assert config.model_copy(update={"seed": 7}).run_id != config.run_id
    assert config.model_copy(update={"seed": 7}).run_id == load_run("tiny", ["seed=7"]).run_id


def test_the_page_is_made_of_the_settings() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert page.endswith(as_markdown() + "\n")
