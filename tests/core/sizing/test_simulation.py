"""Iterations as events, against closed forms that are derived by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from sgpo_core.sizing.simulation import Engine, Judge, Pipeline, Text, Timeline, Work, decode, generation, simulate

FREE = Engine(1000, step=0.01)  # 10 ms a step, whatever runs
PIPELINE = Pipeline(2, FREE, prompt=0, judge=None, update=0.0, sync=0.0)


def texts(*written: int) -> list[Text]:
    return [Text(0, 0, n) for n in written]


def work(written: list[list[int]], asked: bool = False, verdict: int = 0) -> Work:
    shape = np.array(written).shape
    return Work(np.array(written), np.full(shape, asked), np.full(shape, verdict))


EVEN = work([[100, 100]] * 4)


def run(pipeline: Pipeline, one: Work, iterations: int = 4) -> Timeline:
    return simulate(pipeline, [one] * (iterations + 1))


def test_with_room_for_all_a_generation_lasts_as_long_as_its_longest_response() -> None:
    assert decode(texts(10, 30, 20), FREE) == pytest.approx([0.1, 0.3, 0.2])
    assert decode([], FREE) == [] and decode(texts(0, 10), FREE) == pytest.approx([0.0, 0.1])


def test_one_slot_takes_one_after_the_other() -> None:
    assert decode(texts(10, 30, 20), replace(FREE, slots=1)) == pytest.approx([0.1, 0.4, 0.6])


def test_a_response_that_ends_makes_room_for_the_next() -> None:
    """Two slots: 10 and 30 begin; the third begins at step 10 and ends at step 30, with the second; the fourth then."""
    assert decode(texts(10, 30, 20, 5), replace(FREE, slots=2)) == pytest.approx([0.1, 0.3, 0.3, 0.35])


def test_each_running_sequence_costs() -> None:
    """10 steps of two sequences, 10 of one: 10 x (1 + 2) + 10 x (1 + 1) s."""
    assert decode(texts(10, 20), Engine(2, step=1, sequence=1)) == pytest.approx([30, 50])


def test_keys_and_values_of_every_token_are_read() -> None:
    """Two sequences behind prompts of 100: step k reads 2 x (100 + k) tokens, k = 0 to 9: 2,090 in all; the ten steps
    after them read 110 to 119: 1,145. The prompts took 100 x 0.5 s each: the second one's is in the cache."""
    engine = Engine(2, token=1, prefill=0.5)
    ends = decode([Text(100, 100, 10), Text(100, 0, 20)], engine)
    assert ends == pytest.approx([50 + 2090, 50 + 2090 + 1145])


def test_the_slower_of_reading_and_multiplying_counts() -> None:
    """Four sequences of 3 s each multiply for 12 s a step; one reads for 10 s."""
    assert decode(texts(5, 5, 5, 5), Engine(4, step=10, product=3)) == pytest.approx([60] * 4)
    assert decode(texts(5), Engine(4, step=10, product=3)) == pytest.approx([50])


def test_a_text_waits_for_room_in_the_kv_cache() -> None:
    """Room for 50 tokens: 20 + 20 begin, the third when they end. One that is longer than all of it runs alone."""
    assert decode(texts(20, 20, 20), replace(FREE, kv_tokens=50)) == pytest.approx([0.2, 0.2, 0.4])
    assert decode(texts(80, 20), replace(FREE, kv_tokens=50)) == pytest.approx([0.8, 1.0])


def test_groups_are_spread_as_in_a_run() -> None:
    """Engine 0 has groups 0 and 2, engine 1 group 1; a group is complete with its last response."""
    complete, done = generation(work([[10, 20], [50, 40], [30, 5]]), 2, FREE, 0)
    assert complete == pytest.approx([0.2, 0.5, 0.3]) and done == pytest.approx([0.3, 0.5])
    complete, done = generation(work([[10, 20]]), 2, FREE, 0)
    assert complete == pytest.approx([0.2]) and done == pytest.approx([0.2, 0]), "an engine without a group"


def test_serial_stages_add_up() -> None:
    """1 s of generation, 800 tokens x 2.5 ms of update, 0.5 s of sync, 0.25 s besides."""
    line = run(replace(PIPELINE, update=0.0025, sync=0.5, other=0.25), EVEN)
    assert line.iteration_s == pytest.approx(1 + 2 + 0.5 + 0.25)
    assert line.idle("rollout", 2) == pytest.approx(2.75 / 3.75)
    assert line.idle("trainer", 1) == pytest.approx(1.75 / 3.75)


@pytest.mark.parametrize(("update", "seconds"), [(0.5, 1.0), (1.0, 1.0), (3.0, 3.0)])
def test_one_step_off_costs_the_longer_of_generation_and_update(update: float, seconds: float) -> None:
    line = run(replace(PIPELINE, update=update / 800, async_level=1), EVEN)
    assert line.iteration_s == pytest.approx(seconds)
    assert line.idle("rollout", 2) == pytest.approx(1 - 1 / seconds)
    assert line.idle("trainer", 1) == pytest.approx(1 - update / seconds)


def test_one_step_off_weights_wait_for_both() -> None:
    """The sync comes after generation and update; what is left of an iteration goes on beside the next generation."""
    line = run(replace(PIPELINE, update=0.5 / 800, sync=0.25, other=0.125, async_level=1), EVEN)
    assert line.iteration_s == pytest.approx(1 + 0.25)


def test_a_fast_judge_costs_the_last_groups_judging_alone() -> None:
    """One engine, one slot: a group of one response is complete each second, and judged in 0.25 s."""
    one = work([[100]] * 8, asked=True)
    pipeline = replace(PIPELINE, engines=1, engine=replace(FREE, slots=1), judge=Judge(1, None, seconds=0.25))
    line = run(pipeline, one)
    assert line.iteration_s == pytest.approx(8 + 0.25)
    assert run(replace(pipeline, judge=None), one).iteration_s == pytest.approx(8)
    assert line.idle("judge", 1) == pytest.approx(1 - 8 * 0.25 / 8.25)


def test_a_slow_judge_decides_the_iteration() -> None:
    """The first group is there after 1 s; judging 8 takes 8 x 2 s from then on."""
    one = work([[100]] * 8, asked=True)
    pipeline = replace(PIPELINE, engines=1, engine=replace(FREE, slots=1), judge=Judge(1, None, seconds=2))
    assert run(pipeline, one).iteration_s == pytest.approx(1 + 16)
    assert run(replace(pipeline, judge=Judge(2, None, seconds=2)), one).iteration_s < 1 + 16
    assert run(pipeline, work([[100]] * 8)).iteration_s == pytest.approx(8), "nothing is asked"


def test_a_group_joins_those_that_are_judged() -> None:
    """Groups are complete at 1, 1.2, 1.4 and 1.6 s. A verdict takes 1 s, two side by side: the first is there at 2 s,
    the second at 2.2 s, and each makes room for another."""
    one = Work(np.array([[100], [20], [20], [20]]), np.full((4, 1), True), np.full((4, 1), 100))
    pipeline = replace(PIPELINE, engines=1, engine=replace(FREE, slots=1), judge=Judge(1, Engine(2, step=0.01)))
    line = run(pipeline, one)
    [judged] = [(span.begin, span.end) for span in line.spans if (span.kind, span.iteration) == ("judge", 0)]
    assert judged == pytest.approx((1, 3.2)) and line.iteration_s == pytest.approx(3.2)
    alone = run(replace(pipeline, judge=Judge(1, Engine(1, step=0.001))), one)
    assert [s.end - s.begin for s in alone.spans if (s.kind, s.iteration) == ("judge", 0)] == pytest.approx([0.1] * 4)


def test_each_vote_is_written() -> None:
    one = work([[100]], asked=True, verdict=50)
    for votes in (1, 3):
        judge = Judge(1, Engine(1, step=0.01), votes=votes)
        assert run(replace(PIPELINE, judge=judge), one).iteration_s == pytest.approx(1 + 0.5 * votes)


@pytest.mark.parametrize(("judging", "whole"), [(1.5, 3), (4, 4)])
def test_one_step_off_the_longest_stage_counts(judging: float, whole: float) -> None:
    """Generation 1 s, update 3 s: judging in 1.5 s is done before the update's end. In 4 s it is at work all the time:
    when it is done, the next responses are there."""
    pipeline = replace(PIPELINE, judge=Judge(1, None, seconds=judging / 8), update=3 / 800, async_level=1)
    line = run(pipeline, work([[100, 100]] * 4, asked=True))
    assert line.iteration_s == pytest.approx(whole)
    assert line.idle("judge", 1) == pytest.approx(1 - judging / whole)


def test_no_token_is_lost_and_nothing_overlaps() -> None:
    rng = np.random.default_rng(0)
    works = [
        Work(rng.integers(1, 200, (6, 4)), rng.random((6, 4)) < 0.4, rng.integers(1, 90, (6, 4))) for _ in range(6)
    ]
    pipeline = Pipeline(3, Engine(2, 0.01, 0.001), 10, Judge(2, Engine(3, 0.02), 5), 1e-4, 0.1, 0.1, 1)
    line = simulate(pipeline, works)
    assert line.tokens == [w.tokens for w in works[:-1]] and line.ends == sorted(line.ends)
    assert line.tokens_s == pytest.approx(sum(line.tokens[1:]) / (line.ends[-1] - line.ends[0]))
    assert simulate(pipeline, works).spans == line.spans
    for kind, count in (("rollout", 3), ("judge", 2), ("trainer", 1), ("sync", 1)):
        for number in range(count):
            mine = sorted((s.begin, s.end) for s in line.spans if (s.kind, s.number) == (kind, number))
            assert len(mine) > 4
            assert all(end <= begin + 1e-9 for (_, end), (begin, _) in pairwise(mine))
