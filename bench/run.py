"""Measures speed and memory against peers and limits: one JSON object a figure on standard output, all else on standard
error. Every bench starts its own engines, ends them, and works in a home of its own that is removed.

These are measurements, not tests: a missed goal is reported (`"met": false`) and is no failure. Let the machine rest
meanwhile; ratios bear other work better than seconds do, since both sides take turns.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from importlib import import_module

from tasks.engines.guard import start_guard

# Figure -> the module that measures it (and what else comes with it), in the order of running.
MODULES = {
    "generation": "bench.generation",
    "update": "bench.update",
    "update_shared": "bench.update",
    "iteration": "bench.iteration",
    "iteration_bfloat16": "bench.iteration",
    "iteration_two_steps": "bench.iteration",
    "iteration_135m": "bench.large_iteration",
    "overhead": "bench.iteration",
    "logprobs_memory": "bench.logprobs",
    "logprobs_time": "bench.logprobs",
    "layers_time": "bench.layers",
    "layers_agreement": "bench.layers",
    "sync_file": "bench.weight_sync",
    "sync_broadcast": "bench.weight_sync",
    "sync_digest": "bench.weight_sync",
    "sweep": "bench.sweep",
    "report_seconds": "bench.report",
    "trace_page": "bench.traces",
    "judging_start": "bench.judging",
    "judging_run": "bench.judging",
    "cached_verdicts": "bench.verdict_cache",
    "grading": "bench.grading",
    "evaluation": "bench.evaluation",
    "evaluation_memory": "bench.evaluation",
    "offline_import_seconds": "bench.offline",
    "offline_import_memory": "bench.offline",
    "offline_read": "bench.offline",
    "demo_memory": "bench.demo",
    "demo_seconds": "bench.demo",
}


def main() -> None:
    arguments = parser().parse_args()
    wanted = arguments.names or list(MODULES)
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no figure
    with tempfile.TemporaryDirectory(prefix="sgpo-bench-", ignore_cleanup_errors=True) as home:
        isolate(home)
        for module in dict.fromkeys(MODULES[name] for name in MODULES if name in wanted):
            began = time.monotonic()
            note(f"{module}, load average {os.getloadavg()[0]:.1f}")
            for figure in import_module(module).measure():
                print(figure.line(), file=lines, flush=True)
            note(f"{module} took {time.monotonic() - began:.0f} s")


def parser() -> argparse.ArgumentParser:
    about = "\n\n".join((import_module(module).__doc__ or "").strip() for module in dict.fromkeys(MODULES.values()))
    result = argparse.ArgumentParser(
        prog="python -m bench.run",
        description=__doc__,
        epilog=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("names", nargs="*", metavar="name", choices=[[], *MODULES], help=f"{', '.join(MODULES)} [all]")
    return result


def isolate(home: str) -> None:
    """As in a fresh shell: servers that the user runs are neither used nor filled. What is started from here on ends
    with this process, even by kill -9."""
    for name in [n for n in os.environ if n.startswith(("SGPO_", "PREFECT_", "MLFLOW_", "RAY_"))]:
        del os.environ[name]
    os.environ |= {"SGPO_HOME": home, "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    start_guard()


def note(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
