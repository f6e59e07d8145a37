"""warm-start: supervised start of a policy, on `chains` or on worked solutions, cached by its settings.

random weights, another warm start, any model ──supervised steps──▶ policy ──sample──▶ gate ──▶ runs/warm-starts/<key>
                                                      ▲                        │
                                                      └────── more steps ──────┘ too few responses are as they should
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("warm_start")

from typing import Annotated, Any

from prefect import flow

from flows.deployment import explained, named_by
from sgpo_core.config.catalog import one_of
from sgpo_core.config.overrides import Overrides
from sgpo_core.config.warm_start import WarmStartConfig, load_warm_start
from tasks.data import open_problems
from tasks.flow_page import show_result
from tasks.models.folders import model_folder
from tasks.models.policy_checks import check_policy
from tasks.supervised import warm_start as tasks


@flow(
    name="warm-start",
    flow_run_name=named_by(load_warm_start, "warm-start {0.key}"),
    persist_result=False,
)
@explained
def warm_start(
    preset: Annotated[str, one_of("warm_start")] = "tiny", overrides: Overrides = (), fresh: bool = False
) -> dict[str, Any]:
    """Makes a warm start, or says where it lies.

    Args:
        preset: Where the settings come from, a file of conf/warm_start.
        overrides: Settings that differ from the preset, each a key=value: model=smol, data=gsm8k.
            docs/settings.md lists them.
        fresh: Train again what is there already.
    """
    result = make(load_warm_start(preset, overrides), fresh)
    folder = result["run_dir"]
    following = [
        f"Trained on by reinforcement learning: `sgpo online PRESET model.warm_start=null model.path={folder}`",
        f"On a benchmark: `sgpo evaluation {folder}`",
    ]
    return show_result(f"Warm start {result['run_id']}", result, following)


def check(config: WarmStartConfig) -> None:
    """Raises ConfigError, before anything starts, where there is nothing to learn from."""
    if tasks.kept(config).result() is None:
        open_problems(config.data)


def make(config: WarmStartConfig, fresh: bool = False) -> dict[str, Any]:
    """The warm start itself, its bases first."""
    base = make(load_warm_start(config.base, []))["run_dir"] if config.base else None
    if base is None and config.model.path:
        base = str(model_folder("model.path", config.model.path))
        check_policy(f"model.path={config.model.path}", base, config.model, config.cluster)
    kept = tasks.kept(config)
    with kept.locked():
        if fresh:
            kept.forget()
        result = None if fresh else kept.result()
        return result or tasks.train_policy(config, base)


_part_of_a_run = flow(
    name="warm-start", flow_run_name="warm-start {config.key}", validate_parameters=False, persist_result=False
)(make)


def ready(config: WarmStartConfig) -> str:
    """Its folder, for a run that starts from it. What is missing is made in a flow run of its own, below that of the
    run, which shows how far it is."""
    return str((tasks.kept(config).result() or _part_of_a_run(config))["run_dir"])
