"""The registry: every algorithm is a YAML that composes, says where it comes from, and refuses what contradicts it."""

from __future__ import annotations

from typing import Any

import pytest

from sgpo_core.config.base import ConfigError
from sgpo_core.config.catalog import CONF, presets
from sgpo_core.config.run import load_run
from sgpo_core.rl.advantages import batch_advantages
from sgpo_core.rl.credit import CreditRule, Judged, group_credit, must_judge
from sgpo_core.types import Verdict

NAMES = presets("algorithm")
EXPECTED = {
    *("grpo", "sgpo", "sgpo-masked", "dr-grpo", "dapo", "gspo", "rloo", "reinforce++", "reinforce++-baseline", "gpg"),
    *("raft", "reinforce-rej", "unlikeliness", "disco", "gdpo", "srpo", "ngrpo", "rl-zvp"),
}


def test_all_are_there() -> None:
    assert set(NAMES) == EXPECTED


@pytest.mark.parametrize("name", NAMES)
def test_each_composes_and_differs_from_the_others_under_algorithm_alone(name: str) -> None:
    chosen, grpo = (load_run("tiny", [f"algorithm={n}"]).model_dump() for n in (name, "grpo"))
    assert chosen["algorithm"]["name"] == name
    assert {key for key in grpo if chosen[key] != grpo[key]} <= {"algorithm"}


@pytest.mark.parametrize("name", NAMES)
def test_each_says_where_it_comes_from(name: str) -> None:
    assert "\n# Source: arXiv " in (CONF / "algorithm" / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["algorithm=sgpo", "algorithm.filter=mixed"], "drops the all-negative groups"),
        (["algorithm=sgpo", "algorithm.filter=correct", "algorithm.advantage.baseline=none"], "judge would credit"),
        (["algorithm=grpo", "algorithm.filter=correct"], "advantage.baseline=none"),
        (["algorithm=dapo", "algorithm.filter=none"], "needs filter=mixed"),
        (["algorithm=grpo", "algorithm.credit.mask_after_error=true"], "needs verdicts"),
        (["algorithm=sgpo-masked", "algorithm.credit.overlong_buffer=0.2"], "would not reach the end"),
        (["algorithm=disco", "algorithm.advantage.std=group"], "set advantage.std=none"),
        (["algorithm=gdpo", "algorithm.credit.scope=all_negative"], "needs credit.scope=all_incorrect"),
        (["algorithm=gdpo", "algorithm.advantage.std=none"], "its own normalization"),
        (["algorithm=ngrpo", "algorithm.advantage.baseline=batch"], "needs baseline=group"),
        (["algorithm=ngrpo", "algorithm.filter=mixed"], "needs filter=none"),
        (["algorithm=rl-zvp", "algorithm.filter=mixed"], "groups without signal"),
        (["algorithm=raft", "algorithm.advantage.std=batch"], "set advantage.std=none"),
        (["algorithm=disco", "algorithm.credit.scope=all_negative"], "set credit.scope=none"),
        (["algorithm=gdpo", "algorithm.credit.overlong_buffer=0.2"], "would be ignored"),
        (["algorithm=rl-zvp", "algorithm.credit.scope=all_incorrect"], "credit.scope=none"),
        (["algorithm=grpo", "algorithm.loss.tis_cap=2"], "needs loss.old_logprobs=trainer"),
    ],
)
def test_contradictions_are_refused_with_the_reason(overrides: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        load_run("tiny", overrides)
    assert str(refused.value).startswith("algorithm: ") and len(str(refused.value)) < 250


FILTERED = {"dapo", "reinforce-rej", "unlikeliness"}  # these filter all-wrong groups out: test_filters.py
GRADED = {"sgpo", "sgpo-masked", "gdpo"}
PUSHED_DOWN = {"reinforce++", "ngrpo", "rl-zvp"}


def of_an_all_wrong_group(name: str) -> list[float]:
    """Two groups of four, one mixed, one all wrong whose responses have 0, 1, 2, 3 correct steps of 5; the advantages
    of the latter."""
    settings = load_run("tiny", [f"algorithm={name}"]).algorithm
    rule = CreditRule(**settings.credit.model_dump(include=set(CreditRule.__slots__)))
    wrong = [Judged(False, verdict=Verdict(c + 1), prefix_length=c, own_length=5) for c in range(4)]
    mixed = [Judged(True), *wrong[:3]]
    groups = [group_credit(group, rule) for group in (mixed, wrong)]
    return batch_advantages(groups, settings.advantage)[1]


@pytest.mark.parametrize("name", sorted(GRADED))
def test_steps_decide_in_an_all_wrong_group(name: str) -> None:
    advantages = of_an_all_wrong_group(name)
    assert advantages == sorted(set(advantages)) and advantages[0] < 0 < advantages[-1]


@pytest.mark.parametrize("name", sorted(PUSHED_DOWN))
def test_an_all_wrong_group_is_pushed_down(name: str) -> None:
    advantages = of_an_all_wrong_group(name)
    assert len(set(advantages)) == 1 and advantages[0] < 0


@pytest.mark.parametrize("name", sorted(EXPECTED - FILTERED - GRADED - PUSHED_DOWN))
def test_an_all_wrong_group_teaches_nothing(name: str) -> None:
    assert of_an_all_wrong_group(name) == [0.0] * 4


def credits(pattern: str, scope: Any) -> list[Any]:
    """A group of correct (C) and wrong responses (digits: their correct steps of 5)."""
    group = [
        Judged(True)
        if letter == "C"
        else Judged(False, verdict=Verdict(int(letter) + 1), prefix_length=int(letter), own_length=5)
        for letter in pattern
    ]
    assert must_judge([r.correct for r in group], "none") == [False] * len(group)
    return group_credit(group, CreditRule(scope=scope))


@pytest.mark.parametrize("pattern", ["C012", "CC4", "0C", "CCCC", "4C40C"])
def test_grpo_and_sgpo_are_identical_where_something_is_correct(pattern: str) -> None:
    sgpo, grpo = (
        batch_advantages([credits(pattern, load_run("tiny", [f"algorithm={name}"]).algorithm.credit.scope)])
        for name in ("sgpo", "grpo")
    )
    assert sgpo == grpo


@pytest.mark.parametrize("scope", ["all_negative", "all_incorrect"])
def test_a_correct_response_beats_every_wrong_one(scope: str) -> None:
    rewards = [c.shaped_reward for c in credits("C01234", scope)]
    assert rewards[0] == max(rewards) and rewards[0] > max(rewards[1:])


def test_reward_increases_with_rts() -> None:
    rewards = [c.shaped_reward for c in credits("01234", "all_negative")]
    assert rewards == sorted(set(rewards))
