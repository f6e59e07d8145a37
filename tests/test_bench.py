"""The benches themselves: `make bench` is called seldom, and settings get other names meanwhile."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from bench import evaluation, iteration, large_iteration, report, run, workload
from sgpo_core.config.evaluation import load_evaluation
from sgpo_core.config.run import load_run
from sgpo_core.config.sweep import load_sweep
from sgpo_core.config.warm_start import load_warm_start


@pytest.mark.parametrize("module", sorted(set(run.MODULES.values())))
def test_every_bench_can_be_called_and_says_what_it_measures(module: str) -> None:
    bench = import_module(module)
    assert callable(bench.measure)
    assert all(figure in (bench.__doc__ or "") for figure, owner in run.MODULES.items() if owner == module)


@pytest.mark.parametrize("case", [*iteration.CASES, large_iteration.CASE], ids=lambda case: case.figure)
def test_iterations_have_settings_that_there_are(
    case: iteration.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    monkeypatch.setattr(iteration, "policy", lambda: "a-policy")
    monkeypatch.setattr(iteration, "large_policy", lambda: "a-policy")
    config = load_run("tiny", iteration.overrides(case, 0))
    assert (config.model.dtype, config.train.mini_batches) == (case.dtype, case.optimizer_steps)
    prompt = 115 if case.large else 20  # tokens, at most
    assert prompt + config.sampling.max_tokens <= config.model.max_length


def test_others_have_settings_that_there_are() -> None:
    assert load_warm_start("tiny", workload.WARM_START).hidden_size == 256
    assert load_evaluation(evaluation.overrides(5, 2)) and load_sweep("grpo-vs-sgpo-tiny", report.OVERRIDES)
