"""What algorithms ask of the real pipeline beyond advantages: more rounds, the trainer's own log-probabilities."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import SMALL, columns, group_slices, start_from


def run(policy: str, *overrides: str) -> Path:
    from flows.online import online

    return Path(online("tiny", [*SMALL, *start_from(policy), *overrides])["run_dir"])


def iteration(folder: Path, number: int) -> tuple[dict[str, list[Any]], dict[str, float]]:
    path = folder / f"iterations/{number:06d}"
    return columns(path / "rollouts.parquet"), json.loads((path / "metrics.json").read_text())["metrics"]


def correct(table: dict[str, list[Any]]) -> list[list[bool]]:
    return [[r == 1.0 for r in table["outcome_reward"][rows]] for rows in group_slices(table["group"])]


def test_dynamic_sampling_adds_rounds_within_a_bound_and_trains_on_mixed_groups(policy: str) -> None:
    folder = run(policy, "algorithm=dapo", "data.columns=2")
    sampled, rounds_seen = 0, set()
    for number in (1, 2, 3, 4):
        table, metrics = iteration(folder, number)
        groups = correct(table)
        mixed = [any(g) and not all(g) for g in groups]
        rounds = metrics["rollout/rounds"]
        rounds_seen.add(rounds)
        assert len(groups) == 4 * rounds and 1 <= rounds <= 3
        assert sum(mixed) >= 4 or rounds == 3
        assert sum(mixed[: 4 * (int(rounds) - 1)]) < 4  # else the last round was for nothing
        kept = [not all(table["filtered"][rows]) for rows in group_slices(table["group"])]
        assert sum(kept) == min(4, sum(mixed)) and all(m for m, k in zip(mixed, kept, strict=True) if k)
        assert all(a == 0 for a, out in zip(table["advantage"], table["filtered"], strict=True) if out)
        assert len(set(table["seed"])) == len(table["seed"])
        assert metrics["group/mixed_frac"] == pytest.approx(sum(mixed) / len(groups))  # of all that was sampled
        sampled += len(groups)
    assert sampled > 16 and rounds_seen != {1.0}


def test_the_trainer_recomputes_what_was_sampled(policy: str) -> None:
    folder = run(policy, "algorithm=rl-zvp", "algorithm.loss={old_logprobs: trainer, tis_cap: 2}", "train.epochs=2")
    no_signal = 0
    for number in (1, 2, 3, 4):
        table, metrics = iteration(folder, number)
        assert 0 < metrics["policy/sampler_logprob_diff"] < 1e-4 and metrics["policy/mismatch_alarm"] == 0.0
        for group, rows in zip(correct(table), group_slices(table["group"]), strict=True):
            for i in range(rows.start, rows.stop):
                np.testing.assert_allclose(table["trainer_logprobs"][i], table["rollout_logprobs"][i], atol=1e-4)
                entropies, given = np.array(table["trainer_entropies"][i]), np.array(table["token_credit"][i])
                if not any(group):
                    assert table["advantage"][i] == -0.1
                    np.testing.assert_allclose(given, entropies.max() - entropies, atol=1e-3)
                    no_signal += 1
                elif any(group) and not all(group):
                    np.testing.assert_allclose(given, 1.0, atol=1e-4)  # truncated importance, of equal engines
    assert no_signal > 0


def test_a_mismatch_over_the_threshold_is_told(policy: str) -> None:
    told: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("prefect.task_runs").addHandler(listener)
    overrides = ["algorithm=sgpo", "algorithm.loss.ratio=sequence", "train.mismatch_alarm=1e-12", "iterations=2"]
    metrics = [iteration(run(policy, *overrides), number)[1] for number in (1, 2)]
    logging.getLogger("prefect.task_runs").removeHandler(listener)
    alarms = sum(m["policy/mismatch_alarm"] for m in metrics)
    assert alarms == len([line for line in told if "algorithm.loss.tis_cap=2" in line]) > 0
