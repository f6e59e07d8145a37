"""A few kills of a run; `make faults` makes many, at other moments."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.faults.attempt import FLOW, TERMINATED, Attempt
from tests.faults.kills import SMALL, STAGES, Kill, killed, plan
from tests.faults.large import LAYERS, deepened
from tests.helpers import differences, meanwhile, start_from


def test_a_killed_run_ends_as_the_one_never_killed(policy: str, tmp_path: Path) -> None:
    """(With async_level=1: tests/flows/test_async.py, and make faults. Engines and ranks that die:
    tests/flows/test_recovery.py.)"""
    settings = [*start_from(policy), "algorithm.credit.scope=all_incorrect", "cluster.rollout_actors=1"]
    command = ["flows.online", "tiny", *SMALL, *settings, "iterations=6"]
    kills = [Kill(TERMINATED, "update", 2, 0.0), Kill(FLOW, "checkpoint", 1, 0.05)]
    with meanwhile(lambda: Attempt(command, tmp_path / "whole").end()) as whole:
        result, outcomes = killed(command, tmp_path / "killed", kills)
        assert differences(whole.result(), result) == []
    assert [bool(outcome.ended) for outcome in outcomes] == [False, False]


def test_forty_kills_meet_every_stage_and_every_victim() -> None:
    kills = plan(40, seed=0)
    assert {kill.stage for kill in kills if kill.victim == FLOW} == set(STAGES)
    assert len({kill.victim for kill in kills}) == 5 and plan(40, seed=0) == kills != plan(40, seed=1)


def test_the_deep_policy_of_the_large_run_says_what_the_shallow_one_does(policy: str, tmp_path: Path) -> None:
    given = AutoModelForCausalLM.from_pretrained(policy)
    deep = AutoModelForCausalLM.from_pretrained(deepened(Path(policy), tmp_path / "deep"))
    assert deep.config.num_hidden_layers == LAYERS == len(deep.model.layers)
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        torch.testing.assert_close(deep(ids).logits, given(ids).logits, atol=1e-4, rtol=0)
