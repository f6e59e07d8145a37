"""judge-training: a small judge, fine-tuned to name the first wrong step; cached by its settings.

corrupted solutions, or rollouts with ─────────┐
another judge's verdicts                       ▼
a policy, or any model ───────────supervised steps──▶ judge ──verdicts──▶ gate ──▶ runs/judges/<key>
                                          ▲                                 │
                                          └─────────── more steps ──────────┘ too few are exact
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("judge_training")

from typing import Annotated, Any

from prefect import flow

from flows import warm_start
from flows.deployment import explained, named_by
from sgpo_core.config.catalog import one_of
from sgpo_core.config.data import ModelSettings
from sgpo_core.config.judge import JudgeSettings
from sgpo_core.config.judge_training import JudgeTrainingConfig, is_preset, is_warm_start, load_judge_training
from sgpo_core.config.overrides import Overrides
from sgpo_core.config.warm_start import load_warm_start
from tasks.flow_page import show_result
from tasks.judges.kinds import kind_of
from tasks.models.folders import model_folder
from tasks.models.policy_checks import check_policy
from tasks.supervised import judge_training as tasks
from tasks.supervised.judge_exercises import exercises_of


@flow(
    name="judge-training",
    flow_run_name=named_by(load_judge_training, "judge-training {0.key}"),
    persist_result=False,
)
@explained
def judge_training(
    preset: Annotated[str, one_of("judge_training")] = "tiny", overrides: Overrides = (), fresh: bool = False
) -> dict[str, Any]:
    """Makes a judge, or says where it lies.

    Args:
        preset: Where the settings come from, a file of conf/judge_training.
        overrides: Settings that differ from the preset, each a key=value: steps=1000, seed=1.
            docs/settings.md lists them.
        fresh: Train again what is there already.
    """
    result = make(load_judge_training(preset, overrides), fresh)
    used = f"judge=trained judge.model={result['run_dir']}"
    following = [f"Measured: `sgpo judge-eval {used}`", f"In a run: `sgpo online PRESET {used}`"]
    return show_result(f"Judge {result['run_id']}", result, following)


def check(config: JudgeTrainingConfig) -> None:
    """Raises ConfigError, before anything starts, where there is nothing to learn from."""
    if tasks.kept(config).result() is None:
        exercises_of(config)


def make(config: JudgeTrainingConfig, fresh: bool = False) -> dict[str, Any]:
    """The judge itself, after the policies that it starts from and is tested on."""
    kept = tasks.kept(config)
    with kept.locked():
        if fresh:
            kept.forget()
        elif result := kept.result():
            return result
        exercises, base = exercises_of(config), _model("base", config.base)
        model = ModelSettings(max_length=config.max_length)
        check_policy(f"base={config.base}", base, model, config.cluster, length="max_length")
        policy = _model("policy", config.policy) if exercises.needs_policy else None
        return tasks.train_judge(config, base, exercises, policy)


_part_of_a_run = flow(
    name="judge-training", flow_run_name="judge-training {config.key}", validate_parameters=False, persist_result=False
)(make)


def ready(judge: JudgeSettings) -> JudgeSettings:
    """The settings with the folder of the model that judges here: one that is named by its preset in
    conf/judge_training is made where it is missing, one of the hub is downloaded."""
    kind = kind_of(judge)
    if kind.trainable and is_preset(judge.model):
        config = load_judge_training(judge.model)
        folder = (tasks.kept(config).result() or _part_of_a_run(config))["run_dir"]
    elif kind.local:
        folder = str(model_folder("judge.model", judge.model))
    else:
        return judge
    return judge.model_copy(update={"model": folder})


def _model(setting: str, name: str) -> str:
    if is_warm_start(name):
        return warm_start.ready(load_warm_start(name))
    return str(model_folder(setting, name))
