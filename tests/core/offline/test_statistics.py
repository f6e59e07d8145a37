"""Statistics of a data set: counted by hand on two small parts, and a warning when nothing can be learned."""

from __future__ import annotations

import json

from sgpo_core.offline.statistics import Statistics, as_rows, mean, quantile, warnings
from sgpo_core.types import Credit, Grade, Judgment, Outcome, Rollout, Verdict
from tests.records import group, ints, rollout


def response(
    outcome: Outcome,
    tokens: int,
    steps: int,
    advantage: float,
    rts: float | None = None,
    verdict: Verdict | None = None,
    truncated: bool = False,
    text: str = "So \\boxed{1}",
) -> Rollout:
    abstained = verdict is not None and verdict.abstained
    credit = Credit(0.0, rts, excluded=abstained, correct=outcome is Outcome.CORRECT, advantage=advantage)
    return rollout(
        text=text,
        token_ids=ints(*range(1, tokens + 1)),
        truncated=truncated,
        grade=Grade(outcome),
        step_ends=tuple(range(1, steps + 1)),
        judgment=None if verdict is None else Judgment(verdict),
        credit=credit,
    )


# Group 0: mixed (one of two right). Group 1: all-negative, judged, RTS .25 and .95, an abstention; it has a signal.
FIRST = [
    group(0, [response(Outcome.CORRECT, 2, 1, 0.7), response(Outcome.WRONG, 3, 2, -0.7)]),
    group(
        1,
        [
            response(Outcome.WRONG, 1, 1, -0.7, 0.25, Verdict(1)),
            response(Outcome.UNPARSABLE, 2, 1, 0.7, 0.95, Verdict(1), truncated=True),
            response(Outcome.TIMEOUT, 4, 2, 0.0, None, Verdict.abstain("timeout")),
        ],
    ),
]
# Group 2: all-positive, no signal. RTS 1 belongs to the last tenth.
SECOND = [group(2, [response(Outcome.CORRECT, 2, 1, 0.0, 1.0, text="1")])]


def counted() -> Statistics:
    statistics = Statistics()
    statistics.add(FIRST)
    statistics.add(SECOND)
    return statistics


def test_counts() -> None:
    s = counted()
    assert (s.responses, s.groups, s.all_negative, s.mixed, s.all_positive, s.signal) == (6, 3, 1, 1, 1, 2)
    assert (s.correct, s.ungraded, s.truncated, s.judged, s.abstained) == (2, 1, 1, 3, 1)
    assert (s.unanswered, s.malformed) == (1, {"no_answer": 1})
    assert s.sizes == {2: 1, 3: 1, 1: 1}
    assert s.lengths == {1: 1, 2: 3, 3: 1, 4: 1}
    assert s.steps == {1: 4, 2: 2}
    assert s.rts == {2: 1, 9: 2}


def test_written_and_read_again() -> None:
    s = counted()
    assert Statistics.from_json(json.loads(json.dumps(s.to_json()))) == s


def test_mean_and_quantiles_of_histograms() -> None:
    lengths = {1: 1, 2: 3, 3: 1, 4: 1}  # 1 2 2 2 3 4: mean 14/6
    assert mean(lengths) == 14 / 6
    assert [quantile(lengths, q) for q in (0.0, 0.1, 0.5, 5 / 6, 1.0)] == [1, 1, 2, 3, 4]
    assert mean({}) == 0.0 and quantile({}, 0.5) == 0


def test_table_names_everything_that_was_asked_for() -> None:
    rows = dict(as_rows(counted()))
    assert rows["all-negative groups"] == "1 (33.3%)" and rows["abstained"] == "1 (33.3%)"
    assert rows["RTS, by tenths from 0 to 1"] == "0 0 1 0 0 0 0 0 0 2"
    assert rows["tokens a response"] == "mean 2.3, median 2, 90 % in 1-4, longest 4"
    assert dict(as_rows(Statistics()))["groups"] == "0, of 0-0 responses"


def test_warning_when_nothing_can_be_learned() -> None:
    assert warnings(counted(), "sgpo") == []
    no_signal = Statistics()
    no_signal.add(SECOND)
    line, _ = warnings(no_signal, "grpo")
    assert line.startswith("nothing can be learned: none of the 1 groups has a signal under grpo (0 are all-negative")
    assert line.endswith("algorithm=sgpo")
    few = Statistics(groups=100, signal=4, judged=1)
    assert warnings(few, "sgpo") == ["little can be learned: 4 of 100 groups have a signal under sgpo"]


def test_warning_of_answers_that_nobody_reads() -> None:
    # Two of three responses write their answer as A: 26.
    plain = response(Outcome.UNPARSABLE, 3, 2, 0.5, text="13 * 2 = 26\nA: 26")
    s = Statistics()
    s.add([group(0, [plain, plain, response(Outcome.CORRECT, 3, 1, -1.0)])])
    answers, form = warnings(s, "sgpo")
    assert "2 of 3 responses have no answer that can be read" in answers and "data.answer_form" in answers
    assert "2 of 3 responses are malformed (no_answer 2)" in form and "format_gate=false" in form
    assert dict(as_rows(s))["malformed"] == "2 (66.7%) no_answer 2"
