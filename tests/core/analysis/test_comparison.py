"""What a sweep says, by hand."""

from __future__ import annotations

import pytest

from sgpo_core.analysis.comparison import RunRecord, Standing, compare, differing_settings

METRIC = "eval/chains/avg_at_k"


def record(arm: str, seed: int, accuracy: dict[int, float], tokens: float = 100.0, finished: bool = True) -> RunRecord:
    steps = range(1, max(accuracy) + 1)
    curves = {
        METRIC: accuracy,
        "rollout/tokens": dict.fromkeys(steps, tokens),
        "judge/tokens": dict.fromkeys(steps, 10.0),
        "judge/calls": dict.fromkeys(steps, 4.0),
        "time/iteration_s": dict.fromkeys(steps, 2.0),
        "group/all_negative_frac": dict.fromkeys(steps, 0.5),
    }
    return RunRecord(f"{arm}-{seed}", arm, seed, finished, {"algorithm.name": arm, "seed": seed, "lr": 1}, curves)


def accuracy(standing: Standing) -> float:
    assert standing.accuracy is not None
    return standing.accuracy.mean


RECORDS = [
    record("grpo", 0, {0: 0.0, 2: 0.2, 4: 0.4}),
    record("grpo", 1, {0: 0.0, 2: 0.0, 4: 0.2}),
    record("sgpo", 0, {0: 0.0, 2: 0.5, 4: 0.8}, tokens=200),
    record("sgpo", 1, {0: 0.0, 2: 0.3, 4: 0.9}, tokens=200),
    record("dapo", 0, {0: 0.0, 2: 0.6, 4: 0.6}),
    record("dapo", 1, {0: 0.0, 2: 0.1}, finished=False),
]


def test_axes() -> None:
    run = RECORDS[2]
    assert run.against(METRIC, "iteration") == {0.0: 0.0, 2.0: 0.5, 4.0: 0.8}
    assert run.against(METRIC, "tokens") == {0.0: 0.0, 420.0: 0.5, 840.0: 0.8}  # the judge's 10 count
    assert run.against(METRIC, "seconds") == {0.0: 0.0, 4.0: 0.5, 8.0: 0.8}


def test_summary_by_hand() -> None:
    found = compare(RECORDS, ["grpo", "sgpo", "dapo"], [0, 1], "grpo", METRIC, 0.5)
    grpo, sgpo, dapo = found.arms
    assert found.token_budget == 440  # grpo's whole run
    assert [accuracy(row.final) for row in found.arms] == pytest.approx([0.3, 0.85, 0.6])
    assert found.iterations == (4, 4)
    assert (grpo.runs, sgpo.runs, dapo.runs) == (2, 2, 1)
    # At 440 tokens grpo has done all four; sgpo is 20 / 420 of the way from iteration 2 (.4) to 4 (.85).
    assert accuracy(grpo.equal_tokens) == pytest.approx(0.3)
    assert accuracy(sgpo.equal_tokens) == pytest.approx(0.4 + 0.45 * 20 / 420)
    # Mean height: (0 + .5)/2 and (.5 + .8)/2 over halves, mean .45; (.15 + .6)/2 = .375 for seed 1
    assert sgpo.area == pytest.approx((0.45 + 0.375) / 2)
    # Seed 0 gets there at iteration 2, seed 1 at 4: the median is 3; grpo never does, not even once.
    assert (sgpo.reached, sgpo.iterations_to_target, sgpo.tokens_to_target) == (2, 3, 630)
    assert (grpo.reached, grpo.iterations_to_target, grpo.tokens_to_target) == (0, None, None)
    assert (sgpo.tokens, sgpo.seconds, sgpo.judge_calls, sgpo.all_negative) == (840, 8, 16, 0.5)


def test_differences_are_paired_and_corrected() -> None:
    found = compare(RECORDS, ["grpo", "sgpo", "dapo"], [0, 1], "grpo", METRIC, 0.5)
    grpo, sgpo, dapo = found.arms
    assert grpo.final.versus is None and grpo.final.p_adjusted is None
    assert sgpo.final.versus is not None and dapo.final.versus is not None
    assert sgpo.final.versus.mean == pytest.approx(((0.8 - 0.4) + (0.9 - 0.2)) / 2)
    assert (sgpo.final.versus.n, sgpo.final.versus.p, sgpo.final.versus.smallest_p) == (2, 0.5, 0.5)  # 2 of 4 patterns
    assert (dapo.final.versus.n, dapo.final.versus.mean) == (1, pytest.approx(0.2))
    assert sgpo.final.p_adjusted == 1.0  # Holm: 2 x 0.5


def test_at_equal_tokens_the_same_runs_are_paired_again() -> None:
    found = compare(RECORDS, ["grpo", "sgpo", "dapo"], [0, 1], "grpo", METRIC, 0.5)
    versus = found.arms[1].equal_tokens.versus
    # At 440 tokens sgpo is at .5 + .3 / 21 and .3 + .6 / 21, grpo at .4 and .2
    assert versus is not None and versus.mean == pytest.approx((0.1 + 0.3 / 21 + 0.1 + 0.6 / 21) / 2)
    assert (versus.low, versus.high, versus.kind) == (
        pytest.approx(0.1 + 0.3 / 21),
        pytest.approx(0.1 + 0.6 / 21),
        "range",
    )


def test_three_times_the_tokens_win_the_one_and_lose_the_other() -> None:
    # dapo uses 330 + 10 tokens an iteration, grpo 110: the budget is grpo's 440, where dapo has gone 440 / 680 of its
    # way from 0 at the start to .15 at iteration 2, while grpo is at .2.
    runs = [record("grpo", s, {0: 0.0, 4: 0.2 + s / 100}) for s in range(6)]
    runs += [record("dapo", s, {0: 0.0, 2: 0.15 + s / 100, 4: 0.4 + s / 100}, tokens=330) for s in range(6)]
    grpo, dapo = compare(runs, ["grpo", "dapo"], range(6), "grpo", METRIC, 0.5).arms
    assert dapo.final.versus is not None and dapo.final.versus.mean == pytest.approx(0.2)
    assert accuracy(dapo.equal_tokens) == pytest.approx((0.15 + 0.025) * 440 / 680)
    assert dapo.final.p_adjusted == dapo.equal_tokens.p_adjusted == 2 / 64  # all six seeds, either way
    assert (dapo.final.finding, dapo.equal_tokens.finding, grpo.final.finding) == (1, -1, 0)


def test_without_tokens_there_is_no_budget() -> None:
    run = RunRecord("r", "a", 0, True, curves={METRIC: {0: 0.1, 2: 0.5}})
    found = compare([run], ["a"], [0], "a", METRIC, 0.5)
    assert found.token_budget is None and found.arms[0].equal_tokens.accuracy is None
    assert accuracy(found.arms[0].final) == 0.5


def test_an_unfinished_sweep_says_what_is_missing() -> None:
    found = compare(RECORDS, ["grpo", "sgpo", "dapo", "rloo"], [0, 1], "grpo", METRIC, 0.5)
    assert found.missing == ["dapo, seed 1: in progress", "rloo, seed 0: never started", "rloo, seed 1: never started"]
    assert found.arms[3].final.accuracy is None and found.arms[3].area is None
    nothing = compare([], ["grpo", "sgpo"], [0], "grpo", METRIC, 0.5)
    assert [row.runs for row in nothing.arms] == [0, 0] and len(nothing.missing) == 2
    assert nothing.token_budget is None and nothing.iterations is None


def test_most_must_arrive_for_a_median() -> None:
    runs = [record("a", s, {0: 0.0, 2: x}) for s, x in enumerate((0.9, 0.9, 0.1))]
    assert compare(runs, ["a"], [0, 1, 2], "a", METRIC, 0.5).arms[0].iterations_to_target == 2
    runs = [record("a", s, {0: 0.0, 2: x}) for s, x in enumerate((0.9, 0.1, 0.1))]
    assert compare(runs, ["a"], [0, 1, 2], "a", METRIC, 0.5).arms[0].iterations_to_target is None


def test_differing_settings() -> None:
    assert differing_settings(RECORDS) == {"algorithm.name": {"grpo": "grpo", "sgpo": "sgpo", "dapo": "dapo"}}


def test_tokens_of_an_offline_start_count_from_the_beginning() -> None:
    curves = {"acc": {0: 0.1, 2: 0.5}, "rollout/tokens": {0: 1000.0, 1: 10.0, 2: 10.0}, "judge/tokens": {1: 1.0}}
    assert RunRecord("r", "a", 0, True, curves=curves).against("acc", "tokens") == {1000.0: 0.1, 1021.0: 0.5}
