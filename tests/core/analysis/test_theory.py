"""The exact dynamics. By hand at G = 2, where two responses of different reward have A = +1 and -1: a group {a, b} of
levels a > b contributes (h_a - h_b) / 2, one of equal rewards nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest

from sgpo_core.analysis.theory import (
    Rule,
    all_negative_fraction,
    enumerated_update,
    even_start,
    expected_update,
    grpo_update,
    learn,
    level_probabilities,
    monte_carlo_update,
    rules,
    speed_up,
    steps_to,
)
from sgpo_core.rl.credit import CreditRule

GRPO, SGPO, MASKED, ALL_INCORRECT = rules(8).values()
ALL_INCORRECT_MASKED = Rule(8, CreditRule(scope="all_incorrect"), mask_after_error=True)
EVERY_RULE = [GRPO, SGPO, MASKED, ALL_INCORRECT, ALL_INCORRECT_MASKED]
NAMES = ["grpo", "sgpo", "masked", "all_incorrect", "all_incorrect_masked"]
STARTS = [[0.3], [0.01, 0.02], [0.5, 0.5], [0.9, 0.05], [0.3, 0.6, 0.4], [0.99, 0.99, 0.5], [0.2] * 6, [0.999] * 6]


def small_group(rule: Rule, size: int) -> Rule:
    return Rule(size, rule.credit, rule.mask_after_error)


def test_levels_by_hand() -> None:
    # p = (1/2, 1/4): first step wrong 1/2; first right, second wrong 1/2 * 3/4; both right 1/8
    assert level_probabilities(np.array([0.5, 0.25])) == pytest.approx([1 / 2, 3 / 8, 1 / 8])
    assert all_negative_fraction([0.5, 0.25], 2) == pytest.approx((7 / 8) ** 2)


def test_one_step_by_hand() -> None:
    # G = 2, p: one right and one wrong with probability 2 p (1-p); ((1-p) - (-p)) / 2 = 1/2. So g = p (1-p).
    # With one step all wrong responses are alike: SGPO is GRPO.
    for rule in EVERY_RULE[:2]:
        assert expected_update([0.3], small_group(rule, 2)) == pytest.approx([0.21])


@pytest.mark.parametrize(
    ("rule", "g"),
    [
        # p = (1/2, 1/2), G = 2: Q = (1/2, 1/4, 1/4); h_2 = (1/2, 1/2), h_1 = (1/2, -1/2), h_0 = (-1/2, 0).
        # {2,0}, probability 2 * 1/4 * 1/2 = 1/4:  (1/2, 1/4)  -> (1/8, 1/16)
        # {2,1}, probability 2 * 1/4 * 1/4 = 1/8:  (0, 1/2)    -> (0, 1/16)
        # {1,0}, probability 2 * 1/4 * 1/2 = 1/4:  (1/2, -1/4) -> (1/8, -1/16), all-negative: silent in GRPO
        (GRPO, (1 / 8, 1 / 8)),
        (SGPO, (1 / 4, 1 / 16)),
        # Masked, level 1 with A > 0 counts (1/2, 0): {1,0} gives ((1/2, 0) - (-1/2, 0)) / 2 = (1/2, 0) -> (1/8, 0)
        (MASKED, (1 / 4, 1 / 8)),
        # At G = 2 grading beside a correct response changes no advantage.
        (ALL_INCORRECT, (1 / 4, 1 / 16)),
        (ALL_INCORRECT_MASKED, (1 / 4, 1 / 8)),
    ],
    ids=NAMES,
)
def test_two_steps_by_hand(rule: Rule, g: tuple[float, float]) -> None:
    pair = small_group(rule, 2)
    assert expected_update([0.5, 0.5], pair) == pytest.approx(g, abs=1e-14)
    assert enumerated_update([0.5, 0.5], pair) == pytest.approx(g, abs=1e-14)


def test_scopes_differ_by_hand() -> None:
    # G = 3, p = (1/2, 1/2) and a logistic so steep that levels 0, 1 pay 0, 1/2. The scopes differ in {2, 1, 0} alone
    # (of two distinct rewards only the order counts), which has probability 3! * 1/4 * 1/4 * 1/2 = 3/16.
    # all_negative: rewards (1, 0, 0), mean 1/3, variance 2/9: A = (sqrt 2, -sqrt(1/2), -sqrt(1/2)), so a third of
    #   sqrt 2 (1/2, 1/2) - sqrt(1/2) (1/2, -1/2) - sqrt(1/2) (-1/2, 0) = (sqrt(1/2), 3/4 sqrt 2)
    # all_incorrect: rewards (1, 1/2, 0), mean 1/2, variance 1/6: A = sqrt(3/2) (1, 0, -1), so a third of
    #   sqrt(3/2) ((1/2, 1/2) - (-1/2, 0)) = sqrt(3/2) (1, 1/2)
    narrow, wide = (Rule(3, CreditRule(scope=s, beta=1e4)) for s in ("all_negative", "all_incorrect"))
    expected = np.array([math.sqrt(1.5) - math.sqrt(0.5), math.sqrt(1.5) / 2 - 0.75 * math.sqrt(2)]) / 3 * 3 / 16
    found = expected_update([0.5, 0.5], wide) - expected_update([0.5, 0.5], narrow)
    assert found == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("p", STARTS)
@pytest.mark.parametrize("group_size", [2, 3, 8])
def test_closed_form_of_grpo_is_its_enumeration(p: list[float], group_size: int) -> None:
    assert np.abs(grpo_update(p, group_size) - enumerated_update(p, small_group(GRPO, group_size))).max() < 1e-12


@pytest.mark.parametrize("rule", EVERY_RULE, ids=NAMES)
@pytest.mark.parametrize("p", [[0.3, 0.6, 0.4], [0.1, 0.1], [0.9, 0.9, 0.9, 0.1]])
def test_sampled_groups_agree(p: list[float], rule: Rule) -> None:
    mean, error = monte_carlo_update(p, small_group(rule, 4), 20_000, np.random.default_rng(0))
    assert (np.abs(mean - expected_update(p, small_group(rule, 4))) < 4 * error).all()
    assert (error < 0.01).all()


@pytest.mark.parametrize(
    ("steps", "p", "grpo", "sgpo"),
    [
        (2, 0.2, 48, 42),
        (2, 0.1, 87, 53),
        (2, 0.05, 219, 71),
        (2, 0.02, 1062, 119),
        (2, 0.01, 3976, 199),
        (3, 0.1, 400, 81),
        (6, 0.3, 525, 119),
        (6, 0.2, 3552, 135),
    ],
)
def test_updates_to_ninety_percent(steps: int, p: float, grpo: int, sgpo: int) -> None:
    # From an independent implementation (shared/demo-recipe.md), step size 0.5, G = 8.
    assert steps_to([p] * steps, GRPO) == grpo
    assert steps_to([p] * steps, SGPO) == sgpo
    assert speed_up([p] * steps, SGPO) == grpo / sgpo


@pytest.mark.parametrize("steps", [2, 3, 6])
def test_small_p(steps: int) -> None:
    """To first order: GRPO sqrt(G-1) P at every step; masked SGPO sqrt(G-1) p_1 .. p_k at step k; unmasked SGPO the
    same at the first step, and nothing at the others, where rewarding the first wrong step cancels it."""
    p, unit = np.full(steps, 1e-4), math.sqrt(7)
    assert expected_update(p, GRPO) == pytest.approx(unit * np.full(steps, p.prod()), rel=2e-3)
    assert expected_update(p, MASKED) == pytest.approx(unit * np.cumprod(p), rel=2e-3)
    left_over = expected_update(p, SGPO) / (unit * np.cumprod(p))
    assert left_over[0] == pytest.approx(1.0, rel=2e-3)
    assert np.abs(left_over[1:]).max() < 2e-3


@pytest.mark.parametrize("p", STARTS[1:])
def test_the_mask_leaves_the_last_step_to_grpo(p: list[float]) -> None:
    # Level K-1 is the best that is wrong: in an all-negative group it never has A < 0, and masked it says nothing of
    # step K. Unmasked it lowers p_K: the last step is learned more slowly than by GRPO.
    last = grpo_update(p, 8)[-1]
    assert expected_update(p, MASKED)[-1] == pytest.approx(last, abs=1e-15)
    assert expected_update(p, SGPO)[-1] < last + 1e-15


@pytest.mark.parametrize(("first", "second"), [(0.1, 0.1), (0.7, 0.5), (0.8, 0.5), (0.99, 0.1), (0.995, 0.001)])
def test_two_steps_help_where_the_first_is_the_harder(first: float, second: float) -> None:
    # All-negative groups add w = E[n_1/G A_1] (1 - p_1 + p_1) to GRPO's g_1 and -w p_2 to its g_2. So the growth of P,
    # P sum_k (1 - p_k) g_k, gains P w (1 - p_1 - p_2 (1 - p_2)): a loss where only the second step is left to learn.
    more = expected_update([first, second], SGPO) - grpo_update([first, second], 8)
    assert more[0] > 0
    assert more[1] == pytest.approx(-second * more[0], abs=1e-14)
    assert (((1 - np.array([first, second])) * more).sum() > 0) == (1 - first > second * (1 - second))


@pytest.mark.parametrize("p", STARTS[1:4])
def test_two_wrong_levels_leave_beta_and_gamma_nothing_to_say(p: list[float]) -> None:
    other = Rule(8, CreditRule(beta=3.0, gamma=0.9))
    assert expected_update(p, other) == pytest.approx(expected_update(p, SGPO), abs=1e-12)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=NAMES)
def test_success_never_falls(rule: Rule) -> None:
    for p in ([0.1, 0.9, 0.1], [0.99, 0.99, 0.05], [0.5, 0.5], [0.3]):
        success = [float(np.prod(q)) for q in islice(learn(p, rule), 100)]
        assert min(np.diff(success)) > 0


def first_above_half(p0: Sequence[float], rule: Rule) -> list[int]:
    """The update from which on each step is right more often than not."""
    path = np.array(list(islice(learn(p0, rule), 4000)))
    return [int(n) for n in (path > 0.5).argmax(0)]


def test_sgpo_learns_in_order_and_grpo_all_at_once() -> None:
    # The numbers are docs/theory.md's: our own run's, no derivation. The order is the point.
    assert first_above_half([0.2] * 6, SGPO) == [9, 18, 30, 48, 71, 76]
    assert first_above_half([0.2] * 6, MASKED) == [9, 16, 25, 37, 50, 57]
    assert first_above_half([0.2] * 6, GRPO) == [3425] * 6


def test_the_gap_is_no_matter_of_the_step_size() -> None:
    for rule in (GRPO, SGPO):
        coarse, fine = (steps_to([0.1] * 3, rule, step_size=size) for size in (0.5, 0.05))
        assert coarse and fine and 0.95 < fine / (10 * coarse) < 1.05


def test_where_it_does_not_help() -> None:
    for steps in (2, 3, 6):
        for share in (0.1, 0.3, 0.5):
            assert 1.0 <= (speed_up(even_start(steps, share, 8), SGPO) or 0) < 1.06
    for p in ([0.99] * 5 + [0.01], [0.01] + [0.99] * 5):  # 93 % all-negative, yet nothing else to learn
        assert all_negative_fraction(p, 8) > 0.92
        assert 1.0 < (speed_up(p, SGPO) or 0) < 1.1
    for p in ([0.7] * 6, [0.99] * 5 + [0.1]):
        assert (speed_up(p, ALL_INCORRECT) or 9) < 0.95
    assert (speed_up([0.99] * 5 + [0.1], small_group(SGPO, 2)) or 9) == 71 / 72


def test_even_start_has_the_share_asked_for() -> None:
    assert all_negative_fraction(even_start(6, 0.97, 8), 8) == pytest.approx(0.97)


def test_not_reached_is_none_and_reached_is_zero() -> None:
    assert steps_to([0.01, 0.01], GRPO, max_steps=10) is None
    assert speed_up([0.01, 0.01], SGPO, max_steps=10) is None
    assert steps_to([0.97, 0.97], GRPO) == 0


def test_certain_steps_give_no_update() -> None:
    for rule in EVERY_RULE:
        assert np.abs(expected_update([1.0, 1.0], rule)).max() < 1e-200
        assert abs(expected_update([1.0, 0.4], rule)[0]) < 1e-200


def test_wrong_arguments_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="probability in"):
        expected_update([0.5, 0.0], SGPO)
    with pytest.raises(ValueError, match="smaller group"):
        expected_update([0.5] * 6, small_group(SGPO, 64))
