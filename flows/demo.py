"""demo: does SGPO learn where GRPO stalls? A warm start, then both, on one set of engines.

hard setting (success below 0.1 %)   GRPO, SGPO x seeds ─┐
mild setting (success about 1 %)     GRPO, SGPO x 1      ├─▶ table, picture, MLflow
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from prefect import flow

from flows import cli
from flows.online import online
from sgpo_core.config import load_run
from tasks.cluster import keep_engines
from tasks.planning import check_resources
from tasks.reporting import FinishedRun, comparison_table, draw_comparison
from tasks.services import home

SETTINGS = {"hard": "model=tiny", "mild": "model=tiny_mild"}


def plan(seeds: int) -> list[tuple[str, str, int, list[str]]]:
    """(setting, algorithm, seed, overrides) of every run, the hard setting first, algorithms in turn."""
    runs = [("hard", algorithm, seed) for seed in range(seeds) for algorithm in ("sgpo", "grpo")]
    runs += [("mild", algorithm, 0) for algorithm in ("sgpo", "grpo")]
    return [(setting, algorithm, seed, overrides(setting, algorithm, seed)) for setting, algorithm, seed in runs]


def overrides(setting: str, algorithm: str, seed: int) -> list[str]:
    return [SETTINGS[setting], f"algorithm={algorithm}", f"seed={seed}", "experiment=demo", f"sweep=demo-{setting}"]


@flow(name="demo", persist_result=False)
def demo(seeds: int = 3, fresh: bool = False) -> dict[str, Any]:
    """All runs, one after the other, each resumable; then the table and the picture."""
    finished = []
    results = {}
    with keep_engines():
        for setting, algorithm, seed, chosen in plan(seeds):
            results[setting, algorithm, seed] = result = online("tiny", chosen, fresh=fresh)
            finished.append(FinishedRun(setting, algorithm, seed, Path(result["run_dir"])))
    picture = home() / "demo" / "comparison.png"
    draw_comparison(finished, picture, "SGPO and GRPO on chains: 6-column addition, a policy that forgets carries")
    return {"runs": finished, "picture": str(picture), "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each algorithm on the hard setting [3]")
    parser.add_argument("--fresh", action="store_true", help="run again what is complete")
    options = parser.parse_args()
    cli.run_and_report(lambda: _report(options.seeds, options.fresh))


def _report(seeds: int, fresh: bool) -> dict[str, Any]:
    config = load_run("tiny", plan(seeds)[0][3])
    check_resources(config)
    done = demo(seeds, fresh)
    last = config.iterations
    table = comparison_table(done["runs"], [last // 3, 2 * last // 3, last])
    print(
        f"\n{table}\n\n"
        f"picture   {done['picture']}\n"
        f"runs      {home() / 'demo'}\n"
        "in MLflow make up, then open the MLflow address that it prints: experiment demo > Chart view > Group by:\n"
        "          algorithm, and in the search field: tags.sweep = 'demo-hard'\n",
        file=sys.stderr,
    )
    first = next(iter(done["results"].values()))
    return {
        "run_id": "demo",
        "mlflow_run_id": first["mlflow_run_id"],
        "run_dir": str(home() / "demo"),
        "final_metrics": {
            f"{setting}/{algorithm}/s{seed}": result["final_metrics"]["eval/chains/avg_at_k"]
            for (setting, algorithm, seed), result in done["results"].items()
        },
    }


if __name__ == "__main__":
    main()
