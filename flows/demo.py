"""demo: does SGPO learn where GRPO stalls? A warm start, then both, on one set of engines.

hard setting (success below 0.1 %)   sweep of GRPO, SGPO x seeds ─┐
mild setting (success below 1 %)     sweep of GRPO, SGPO x 1      ├─▶ table, picture, reports, MLflow
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which take seconds
    from flows.cli import main

    main("demo")

from collections.abc import Mapping
from typing import Any

from prefect import flow

from flows.deployment import explained
from flows.sweep import check, sweep
from sgpo_core.config.run import load_run
from sgpo_core.config.sweep import load_sweep
from tasks.engines.cluster import keep_engines
from tasks.failures import PartlyFailed
from tasks.paths import home
from tasks.reports.demo import color_one, comparison_table, draw_comparison, finished_runs

# Setting -> the sweep that it is. The hard one has the seeds that are asked for, the mild one its own.
SWEEPS = {"hard": "grpo-vs-sgpo-tiny", "mild": "grpo-vs-sgpo-tiny-mild"}
TITLE = "SGPO and GRPO on chains: 6-column addition, a policy that forgets carries"


def overrides(setting: str, seeds: int) -> list[str]:
    chosen = [f"seeds={list(range(seeds))}"] if setting == "hard" else []
    return [f"name=demo-{setting}", "experiment=demo", *chosen]


@flow(name="demo", flow_run_name="demo", persist_result=False)
@explained
def demo(seeds: int = 3, fresh: bool = False) -> dict[str, Any]:
    """Both sweeps on one set of engines; then the table and the picture of both."""
    with keep_engines():
        results = {setting: _swept(preset, overrides(setting, seeds), fresh) for setting, preset in SWEEPS.items()}
    finished = [run for setting, result in results.items() for run in finished_runs(setting, result)]
    picture = home() / "demo" / "comparison.png"
    draw_comparison(finished, picture, TITLE)
    done = {"runs": finished, "picture": str(picture), "traces": str(color_one(finished)), "sweeps": results}
    if failed := failures(results):
        raise PartlyFailed(f"failed: {'; '.join(failed)}", done)
    return done


def _swept(preset: str, settings: list[str], fresh: bool) -> dict[str, Any]:
    try:
        return sweep(preset, settings, fresh=fresh)
    except PartlyFailed as failed:
        return failed.result


def failures(sweeps: Mapping[str, Any]) -> list[str]:
    return [f"{setting} {name}: {why}" for setting in sweeps for name, why in sweeps[setting]["failed"].items()]


def compare(seeds: int, fresh: bool) -> dict[str, Any]:
    """The demo from the shell."""
    for setting, preset in SWEEPS.items():
        check(load_sweep(preset, overrides(setting, seeds)))
    try:
        return explain(demo(seeds, fresh))
    except PartlyFailed as failed:
        raise PartlyFailed(str(failed), explain(failed.result)) from None


def explain(done: dict[str, Any]) -> dict[str, Any]:
    """The result, with the table and what to look at next as its text."""
    last = load_run("tiny").iterations
    table = comparison_table(done["runs"], [last // 3, 2 * last // 3, last])
    sweeps = done["sweeps"]
    text = (
        f"\n{table}\n\n"
        + "".join(f"failed    {line}\n" for line in failures(sweeps))
        + f"picture   {done['picture']}\n"
        + "".join(f"report    {result['report']}\n" for result in sweeps.values())
        + f"traces    {done['traces']} (right steps green, the first wrong one red)\n"
        + f"runs      {home() / 'demo'}\n"
        "in MLflow make up, then open the MLflow address that it prints: experiment demo > Chart view > Group by:\n"
        "          algorithm, and in the search field: tags.sweep = 'demo-hard'\n"
    )
    return {
        "text": text,
        "run_id": "demo",
        "mlflow_run_id": sweeps["hard"]["mlflow_run_id"],
        "run_dir": str(home() / "demo"),
        "final_metrics": {
            f"{setting}/{name}": accuracy
            for setting, result in sweeps.items()
            for name, accuracy in result["final_metrics"].items()
        },
    }
