"""benchmark-eval: a policy on benchmarks, by a protocol that every result carries.

    POLICY ──▶ weights hash ─┬─▶ generate (Ray + vLLM, by problem) ──▶ grade ──▶ score ──▶ MLflow
    eval=... ──▶ protocol id ┘

POLICY is a folder, the id of a run or of a warm start of ours, an id of the Hugging Face hub, models:/NAME@ALIAS in
MLflow's registry, or `registered`: every candidate and champion there, compared with the last night and with the
champion (the nightly).
What was evaluated before, with the same weights and protocol, is not evaluated again; what was killed goes on.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("evaluation")

from typing import Any

from prefect import flow, get_run_logger

from flows.deployment import explained
from sgpo_core.config.evaluation import load_evaluation
from sgpo_core.config.overrides import Overrides
from tasks.benchmarks.evaluate import evaluate_policy
from tasks.benchmarks.nightly import run_night
from tasks.benchmarks.records import record_evaluation, results_table
from tasks.flow_page import show_result
from tasks.preflight import check_evaluation
from tasks.tracking.policies import resolve

REGISTERED = "registered"


@flow(name="benchmark-eval", flow_run_name="benchmark-eval {policy}", persist_result=False)
@explained
def benchmark_eval(
    policy: str, overrides: Overrides = (), force: bool = False, rescore: bool = False
) -> dict[str, Any]:
    """Evaluates a policy on benchmarks.

    Args:
        policy: A folder, the id of a run or of a warm start, ORG/NAME of the Hugging Face hub, models:/NAME@ALIAS, or
            registered (every candidate and champion, compared with the last night).
        overrides: Settings that differ from the preset, each a key=value: eval=nine, cluster=gpu8.
            docs/settings.md lists them.
        force: Generate again, even if it was evaluated before; registered always does.
        rescore: Only grade and score what was generated.
    """
    config = load_evaluation(overrides)
    check_evaluation(config)
    if policy == REGISTERED:
        return run_night(config)
    found = resolve(policy)
    results = evaluate_policy(config, found, force, rescore)
    get_run_logger().info(f"{found.name}, weights {found.weights}\n{results_table(results)}")
    result = record_evaluation(config, found, results)
    following = [f"The same responses graded anew: `sgpo evaluation {policy} --rescore`, with the same settings"]
    return show_result(f"{found.name} on benchmarks", result, following, results_table(results))
