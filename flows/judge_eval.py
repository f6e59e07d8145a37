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

from typing import Any

from prefect import flow

from flows import judge_training
from sgpo_core.config.judge_eval import JudgeEvalConfig, load_judge_eval
from tasks.engines.cluster import keep_engines
from tasks.judges import judge_eval as tasks
from tasks.preflight import check_judge


@flow(name="judge-eval", persist_result=False)
def judge_eval(preset: str = "default", overrides: list[str] | None = None, fresh: bool = False) -> dict[str, Any]:
    """The scores of a judge; the overall F1 under the key f1."""
    config = load_judge_eval(preset, [*(overrides or []), *(["judge.cache=false"] if fresh else [])])
    examples = tasks.load_examples(config)
    with keep_engines():
        return tasks.evaluate_judge(config, judge_training.ready(config.judge), examples)


def check(config: JudgeEvalConfig) -> None:
    """What can be checked before anything starts."""
    check_judge(config.judge)
    tasks.load_examples(config)
