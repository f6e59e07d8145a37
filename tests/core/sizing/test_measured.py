"""A pipeline that is fitted to a run: to one that was simulated, so that what is fitted is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sgpo_core.config.run import RunConfig, load_run
from sgpo_core.sizing.measured import Iteration, evaluation_seconds, fitted, predicted, redrawn
from sgpo_core.sizing.simulation import Engine, Judge, Pipeline, Work, generation, simulate

ENGINE = Engine(64, step=0.005, sequence=0.0002)
TRUTH = Pipeline(2, ENGINE, 0, Judge(1, None, seconds=0.001), update=5e-5, sync=0.1, other=0.3)


@pytest.fixture(scope="module")
def tiny() -> RunConfig:
    return load_run("tiny", [])


def recorded(truth: Pipeline, low: int = 1, high: int = 96, trained: float = 0.5) -> list[Iteration]:
    """20 iterations as metrics.json would have them."""
    rng, found = np.random.default_rng(0), []
    for number in range(20):
        asked = np.broadcast_to(rng.random((16, 1)) < 0.4, (16, 8))
        written = rng.integers(low, high + number, (16, 8))
        work = Work(written, asked, np.zeros((16, 8), int), trained)
        seconds = {
            "time/iteration_s": simulate(truth, [work, work, work]).iteration_s + 7,
            "time/evaluate_s": 7.0,
            "time/generate_s": max(generation(work, truth.engines, truth.engine, 0)[1]),
            "time/update_s": truth.update * trained * work.tokens,
            "time/sync_s": truth.sync,
            "judge/calls": float(asked.sum()) if truth.judge else 0.0,
            "judge/seconds": 0.001 * asked.sum() if truth.judge else 0.0,
        }
        found.append(Iteration(work, seconds))
    return found


def test_what_was_simulated_is_found_again(tiny: RunConfig) -> None:
    """The step and the sequence share what one equation of 21 says: that both take the same time."""
    iterations = recorded(TRUTH)
    fit = fitted(tiny, iterations)
    assert fit.update == pytest.approx(TRUTH.update) and fit.sync == pytest.approx(0.1)
    assert fit.judge == Judge(1, None, seconds=pytest.approx(0.001))
    assert fit.engine.seconds(1, 64, 0) == pytest.approx(ENGINE.seconds(1, 64, 0), rel=0.1)
    assert fit.other == pytest.approx(0.3, abs=0.02)
    works = [iteration.work for iteration in iterations]
    whole = simulate(fit, [works[0], *works, works[-1]]).iteration_s
    assert whole == pytest.approx(np.mean([iteration.seconds for iteration in iterations])), "evaluations left out"


def test_lengths_that_are_all_alike_can_not_tell_steps_from_sequences(tiny: RunConfig) -> None:
    """50 steps of 64 sequences: each gets half of the time, and the whole is right."""
    engine = fitted(tiny, recorded(TRUTH, low=50, high=51)[:1]).engine
    assert engine.step == pytest.approx(64 * engine.sequence)
    assert engine.seconds(1, 64, 0) == pytest.approx(ENGINE.seconds(1, 64, 0))


def test_no_part_of_a_step_takes_less_than_no_time(tiny: RunConfig) -> None:
    """Seconds that fall while the number of sequences rises."""
    iterations = recorded(replace(TRUTH, judge=None))
    for number, iteration in enumerate(iterations):
        iterations[number] = replace(iteration, metrics={**iteration.metrics, "time/generate_s": 1 - number / 100})
    engine = fitted(tiny, iterations).engine
    assert min(engine.step, engine.sequence) >= 0 and max(engine.step, engine.sequence) > 0


def test_a_run_that_trained_on_nothing_says_nothing_of_the_update(tiny: RunConfig) -> None:
    assert fitted(tiny, recorded(TRUTH, trained=0.0)).update == 0


def test_other_settings_change_what_they_are_about(tiny: RunConfig) -> None:
    fit = fitted(tiny, recorded(TRUTH))
    other = load_run(
        "tiny",
        ["cluster.rollout_actors=4", "cluster.trainer_ranks=2", "cluster.max_num_seqs=16", "judge.engine.actors=2"],
    )
    changed = predicted(fit, tiny, other)
    assert (changed.engines, changed.engine.slots) == (4, 16) and changed.engine.step == fit.engine.step
    assert changed.update == pytest.approx(fit.update / 2)
    assert fit.judge and changed.judge == replace(fit.judge, seconds=fit.judge.seconds / 2)
    assert predicted(fit, tiny, load_run("tiny", ["algorithm=grpo"])).judge is None
    assert predicted(fit, tiny, load_run("tiny", ["async_level=1"])).async_level == 1


def test_lengths_are_drawn_from_the_runs(tiny: RunConfig) -> None:
    run = [iteration.work for iteration in recorded(TRUTH)]
    works = redrawn(run, load_run("tiny", ["sampling.group_size=4"]), 50)
    assert len(works) == 51 and {work.written.shape for work in works} == {(16, 4)}
    assert {n for work in works for n in work.written.flat} <= {n for work in run for n in work.written.flat}
    asked = np.stack([work.asked for work in works])
    assert asked.mean() == pytest.approx(np.mean([work.asked for work in run]), abs=0.05)
    assert (asked.all(axis=2) == asked.any(axis=2)).all() and works[0].trained == pytest.approx(0.5)
    assert not any(work.asked.any() for work in redrawn(run, load_run("tiny", ["algorithm=grpo"]), 3))


def test_an_evaluation_is_another_configuration(tiny: RunConfig) -> None:
    """Twice as many responses for each engine as it has slots, all of 50 tokens: two waves."""
    fit = replace(TRUTH, engine=Engine(64, step=0.01))
    assert evaluation_seconds(fit, [np.full((64, 4), 50)] * 3) == pytest.approx(3 * 2 * 0.5)
