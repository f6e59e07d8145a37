"""A kind of judge is one class and one file in conf/judge."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from sgpo_core.chains import problems as chains
from sgpo_core.config.base import ConfigError
from sgpo_core.config.catalog import presets
from sgpo_core.config.judge import JudgeEngineSettings, JudgeSettings
from sgpo_core.config.run import load_run
from sgpo_core.data.segmentation import segment
from sgpo_core.judges.base import Item, Judge
from sgpo_core.types import Judgment, Verdict
from tasks.judges.kinds import KINDS, JudgeKind, kind, kind_of, open_judge
from tasks.preflight import check_resources


def test_every_file_of_conf_names_a_kind() -> None:
    named = {load_run("tiny", [f"judge={name}", "judge.model=x"]).judge.name for name in presets("judge")}
    assert named == set(KINDS)
    in_engines = {name for name in KINDS if JudgeSettings(name=name, engine=JudgeEngineSettings(gpus=2, actors=3)).gpus}
    assert in_engines == {name for name, found in KINDS.items() if found.local}


def test_a_new_kind_is_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.judges.kinds.KINDS", dict(KINDS))

    @kind("first")
    class FirstKind(JudgeKind):
        def open(self, settings: JudgeSettings, held: ExitStack) -> Judge:
            return lambda items: [Judgment(Verdict(1)) for _ in items]

    [problem] = chains.make_problems(1, seed=0)
    item = Item(problem, tuple(segment(problem.reference or "")))
    check_resources(load_run("tiny", ["judge.name=first"]))
    with open_judge(JudgeSettings(name="first")) as judge:
        assert [j.verdict.first_error_step for j in judge([item, item])] == [1, 1]


def test_an_unknown_kind_is_refused_before_anything_starts() -> None:
    kinds = "rule, reference, random, llm, trained, endpoint"
    with pytest.raises(ConfigError, match=rf"judge\.name=oracle: choose one of {kinds}"):
        check_resources(load_run("tiny", ["judge.name=oracle"]))


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (JudgeSettings(name="rule"), []),
        (JudgeSettings(name="llm"), ["judge.model: which model judges? (judge.name=llm)"]),
        (JudgeSettings(name="trained", model="tiny"), []),  # a preset in conf/judge_training is made when it is missing
        (
            JudgeSettings(name="llm", model="./tiny"),
            ["a Hugging Face model folder at judge.model=./tiny (found nothing)"],
        ),
    ],
)
def test_what_a_judge_lacks_is_said(settings: JudgeSettings, missing: list[str]) -> None:
    assert kind_of(settings).missing(settings) == missing
