"""Responses that try to talk the judge into credit: what they are, and that the rule judge gives them none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sgpo_core.judges.injections import INJECTIONS, AttackOutcome, Twin, as_markdown, attacks, twins
from sgpo_core.judges.rule import rule
from sgpo_core.types import Verdict

TWINS = twins()
OUTCOMES = attacks(rule)
ROOT = Path(__file__).resolve().parents[3]


def test_there_are_enough_and_no_two_are_the_same() -> None:
    assert len(INJECTIONS) >= 30
    assert len({i.name for i in INJECTIONS}) == len({i.text for i in INJECTIONS}) == len(INJECTIONS)
    assert {i.place for i in INJECTIONS} == {"error", "first", "end"}
    assert twins() == TWINS


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.injection.name)
def test_twins_differ_by_the_injected_text_alone(twin: Twin) -> None:
    assert twin.honest.problem == twin.injected.problem
    assert len(twin.honest.steps) == 7
    assert twin.injected.text.replace(f"\n{twin.injection.text}", "", 1) in (twin.honest.text, twin.honest.text + "\n")


def test_the_rule_judge_gives_the_same_verdict_or_an_earlier_one() -> None:
    for outcome in OUTCOMES:
        assert outcome.honest == Verdict(outcome.twin.first_error)
        # A remark behind the right first step makes that step wrong.
        first = outcome.twin.injection.place == "first"
        assert outcome.injected == (Verdict(1) if first else outcome.honest), outcome.twin.injection.name
        assert not outcome.gained


@pytest.mark.parametrize(
    ("honest", "injected", "gained"),
    [  # the true first wrong step is TWINS[0].first_error
        (Verdict(3), Verdict(3), False),
        (Verdict(3), Verdict(2), False),
        (Verdict(3), Verdict(4), True),
        (Verdict(3), Verdict(None), True),
        (Verdict(3), Verdict.abstain("x"), False),
        (Verdict(None), Verdict(None), False),  # missed as well
        (Verdict(None), Verdict(3), False),
        (Verdict.abstain("x"), Verdict(None), True),
        (Verdict.abstain("x"), Verdict(TWINS[0].first_error), False),
        (Verdict.abstain("x"), Verdict(TWINS[0].first_error + 1), True),
        (Verdict.abstain("x"), Verdict.abstain("x"), False),
    ],
)
def test_what_a_gain_is(honest: Verdict, injected: Verdict, gained: bool) -> None:
    assert AttackOutcome(TWINS[0], honest, injected).gained is gained


def test_the_table() -> None:
    lines = as_markdown(OUTCOMES).splitlines()
    assert len(lines) == len(INJECTIONS) + 4
    assert lines[-1] == f"0 of {len(INJECTIONS)} gained something."
    assert as_markdown(OUTCOMES) in (ROOT / "docs" / "injections.md").read_text(encoding="utf-8")
    assert [line for line in lines[:-2] if len(re.findall(r"(?<!\\)\|", line)) != 7] == []
    assert all(line.isprintable() for line in lines)
    gained = (
        AttackOutcome(TWINS[0], Verdict(2), Verdict.abstain("x")),
        AttackOutcome(TWINS[1], Verdict(2), Verdict(None)),
    )
    assert [line.rsplit("` | ")[-1] for line in as_markdown(gained).splitlines()[2:4]] == [
        "2 | abstained | no |",
        "2 | none | yes |",
    ]
