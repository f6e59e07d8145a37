"""judge-eval: how good is a judge? Its verdicts on solutions whose first wrong step is known (ProcessBench's format).

solutions ──▶ judge ──▶ verdicts ──▶ accuracy on erroneous and on correct ones, F1, early / exact / late, cost

    python -m flows.judge_eval judge=trained
    python -m flows.judge_eval judge=endpoint judge.model=NAME data.path=Qwen/ProcessBench

The preset may be left out. `--fresh` asks again what is in the cache of verdicts.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("judge_eval")

from typing import Annotated, Any

from prefect import flow

from flows import judge_training
from flows.deployment import explained, named_by
from sgpo_core.config.catalog import one_of
from sgpo_core.config.judge_eval import JudgeEvalConfig, load_judge_eval
from sgpo_core.config.overrides import Overrides
from tasks.engines.cluster import keep_engines
from tasks.flow_page import show_result
from tasks.judges import judge_eval as tasks
from tasks.preflight import check_judge


@flow(
    name="judge-eval",
    flow_run_name=named_by(load_judge_eval, "judge-eval {0.judge.name} on {0.data.path}"),
    persist_result=False,
)
@explained
def judge_eval(
    preset: Annotated[str, one_of("judge_eval")] = "default", overrides: Overrides = (), fresh: bool = False
) -> dict[str, Any]:
    """The scores of a judge; the overall F1 under the key f1.

    Args:
        preset: Where the settings come from, a file of conf/judge_eval.
        overrides: Settings that differ from the preset, each a key=value: judge=trained, judge.votes=5.
            docs/settings.md lists them.
        fresh: Ask again what is in the cache of verdicts.
    """
    config = load_judge_eval(preset, [*overrides, *(["judge.cache=false"] if fresh else [])])
    examples = tasks.load_examples(config)
    with keep_engines():
        result, table = tasks.evaluate_judge(config, judge_training.ready(config.judge), examples)
    following = [f"Every verdict: `{result['run_dir']}/verdicts.parquet`"]
    return show_result(f"Judge {config.judge.name} on {config.data.path}", result, following, table)


def check(config: JudgeEvalConfig) -> None:
    """What can be checked before anything starts."""
    check_judge(config.judge)
    tasks.load_examples(config)
