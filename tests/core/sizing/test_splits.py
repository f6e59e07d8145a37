"""How a run's GPUs are divided, and what is predicted of it before there is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sgpo_core.config.run import RunConfig, load_run
from sgpo_core.sizing.hardware import GPUS, Gpu
from sgpo_core.sizing.plan import Machine, gpus_wanted, needs
from sgpo_core.sizing.seconds import phases
from sgpo_core.sizing.shapes import KNOWN
from sgpo_core.sizing.simulation import Work, decode, generation, simulate
from sgpo_core.sizing.splits import best, drawn_works, estimated, lengths, mode, predictor, splits

SEVEN, QWQ, H100 = KNOWN["Qwen/Qwen2.5-7B-Instruct"], KNOWN["Qwen/QwQ-32B"], GPUS["H100-80"]


@pytest.fixture(scope="module")
def seven() -> RunConfig:
    return load_run("7b", [])


def divided(config: RunConfig) -> tuple[int, int, int]:
    """GPUs of rollout, training, judge."""
    cluster, judge = config.cluster, config.judge.engine
    return cluster.rollout_actors * cluster.rollout_gpus, cluster.trainer_ranks, judge.actors * judge.gpus


def test_lengths_have_the_mean_that_is_asked_for_and_no_more_than_the_most() -> None:
    drawn = lengths(np.random.default_rng(0), (1000, 8), 768, 3072)
    assert drawn.mean() == pytest.approx(768, rel=0.001) and drawn.min() >= 1
    assert drawn.max() == 3072 and 0.005 < (drawn == 3072).mean() < 0.05
    long = lengths(np.random.default_rng(0), (1000, 8), 2500, 3072)
    assert long.mean() == pytest.approx(2500, rel=0.001) and long.max() == 3072
    assert (lengths(np.random.default_rng(0), (10,), 100, 100) == 100).all()


def test_what_is_drawn_follows_from_the_seed(seven: RunConfig) -> None:
    first, again = drawn_works(seven, 768, 3), drawn_works(seven, 768, 3)
    assert len(first) == 4 and all((a.written == b.written).all() for a, b in zip(first, again, strict=True))
    other = drawn_works(seven.model_copy(update={"seed": 1}), 768, 3)
    assert (first[0].written != other[0].written).any()


def test_whole_groups_are_judged_where_none_of_their_responses_is_correct(seven: RunConfig) -> None:
    asked = np.stack([work.asked for work in drawn_works(seven, 768, 100)])
    assert (asked.all(axis=2) == asked.any(axis=2)).all() and asked.mean() == pytest.approx(0.15, abs=0.02)
    incorrect = load_run("7b", ["algorithm.credit.scope=all_incorrect"])
    every = np.stack([work.asked for work in drawn_works(incorrect, 768, 100)])
    assert every.mean() == pytest.approx(0.5, abs=0.02) and (every.all(axis=2) != every.any(axis=2)).any()
    assert not any(work.asked.any() for work in drawn_works(load_run("7b", ["algorithm=grpo"]), 768, 3))


def even(length: int) -> list[Work]:
    written = np.full((128, 8), length)
    return [Work(written, written > length, written)] * 4


def test_of_responses_of_one_length_preflight_says_the_same(seven: RunConfig) -> None:
    """There each response computes its prompt, here each group: 7 of 8 x 1,024 x 200 tokens less for the engine."""
    whole = {phase.name: phase.seconds for phase in phases(seven, SEVEN, None, H100, 768)}
    pipeline = estimated(seven, SEVEN, None, H100, 768)
    line = simulate(pipeline, even(768))
    generate = whole["generate"] - 7 / 8 * 1024 * 200 * pipeline.engine.prefill
    assert line.iteration_s == pytest.approx(generate + whole["update"] + whole["sync"] + pipeline.other, rel=0.002)


def test_twice_the_machine_takes_half_the_time_where_arithmetic_bounds_it(seven: RunConfig) -> None:
    """With so much bandwidth that reading takes no time."""
    gpu = Gpu("fast", H100.memory, H100.tflops, 1e9)
    seconds = []
    for count in (1, 2):
        cluster = seven.cluster.model_copy(update={"rollout_actors": 2 * count, "trainer_ranks": 4 * count})
        pipeline = estimated(seven.model_copy(update={"cluster": cluster}), SEVEN, None, gpu, 768)
        seconds.append(simulate(replace(pipeline, sync=0, other=0), even(768)).iteration_s)
    assert seconds[0] == pytest.approx(2 * seconds[1])


def test_the_last_long_responses_keep_the_engines_waiting(seven: RunConfig) -> None:
    """Same number of tokens; the longest response alone takes 3,072 steps."""
    pipeline = estimated(seven, SEVEN, None, H100, 768)
    engine = pipeline.engine
    tail = max(generation(drawn_works(seven, 768, 1)[0], 2, engine, 200)[1])
    assert max(generation(even(768)[0], 2, engine, 200)[1]) < tail
    assert tail > 3000 * engine.step and decode([], engine) == []


def test_every_gpu_is_used_and_everything_fits(seven: RunConfig) -> None:
    found = list(splits(seven, SEVEN, QWQ, H100, 1, 8))
    assert {gpus_wanted(config, QWQ) for config in found} == {8}
    assert all(need.fits for config in found for need in needs(config, SEVEN, QWQ, Machine(8, H100)))
    assert {mode(config) for config in found} == {"serial", "one-step-off", "colocated"}
    assert (2, 4, 2) in {divided(config) for config in found if config.async_level == 0}, "the preset's own"
    assert {judge for _, _, judge in map(divided, found)} == {1, 2, 3, 4, 5}, "a rank alone can't hold 7B"


def test_an_engines_gpus_share_the_heads_of_keys_and_values(seven: RunConfig) -> None:
    """Qwen2.5-7B has four, QwQ-32B eight; one GPU holds QwQ-32B with room for few sequences."""
    found = list(splits(seven, SEVEN, QWQ, H100, 8, 8))
    assert {config.cluster.rollout_gpus for config in found} == {1, 2, 4}
    assert {config.judge.engine.gpus for config in found} == {1, 2, 4, 8}


def test_without_a_judge_all_gpus_are_the_policys(seven: RunConfig) -> None:
    found = list(splits(seven, SEVEN, None, H100, 1, 8))
    assert {rollout + ranks for rollout, ranks, _ in map(divided, found) if rollout != 8} == {8}
    assert any(config.cluster.colocated and config.cluster.trainer_ranks == 8 for config in found)


def test_several_nodes_are_handed_out_in_eighths(seven: RunConfig) -> None:
    found = [config for config in splits(seven, SEVEN, QWQ, H100, 2, 8) if not config.cluster.colocated]
    assert {part % 2 for config in found for part in divided(config)} == {0}
    assert {config.cluster.sync_by for config in found} == {"broadcast"}, "from GPU to GPU"


def test_generating_ahead_is_left_out_where_it_is_not_allowed() -> None:
    config = load_run("7b", ["algorithm=dapo"])
    assert {mode(divided) for divided in splits(config, SEVEN, None, H100, 1, 8)} == {"serial", "colocated"}


def test_the_best_split_is_the_fastest_of_its_mode(seven: RunConfig) -> None:
    works = drawn_works(seven, 768, 3)
    predict = predictor(works, lambda config: estimated(config, SEVEN, QWQ, H100, 768), 8)
    found = [predict(config) for config in splits(seven, SEVEN, QWQ, H100, 1, 8)]
    chosen = best(found)
    assert {p.mode for p in chosen[1:]} == {"serial", "colocated"} and chosen[0].mode == "one-step-off"
    assert chosen == sorted(chosen, key=lambda p: p.line.iteration_s)
    fastest = min(p.line.iteration_s for p in found)
    assert fastest <= chosen[0].line.iteration_s < fastest / 0.99
    assert all(p.plain_s <= p.line.iteration_s for p in found)
    assert chosen[0].gpu_hours == pytest.approx(8 * 300 * chosen[0].line.iteration_s / 3600)
    assert divided(chosen[0].config)[2] > 2, "this judge wants more than the preset gives it"
