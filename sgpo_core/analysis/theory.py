"""The exact learning dynamics of GRPO and SGPO on K independent steps: how many updates until the policy succeeds?

A response is K steps; step k is right with probability p_k = sigma(theta_k), independently; correct = all K right.
Its level c is the number of right steps before the first wrong one (K: correct), of probability

    Q_c = p_1 .. p_c (1 - p_{c+1}),   Q_K = P = p_1 .. p_K.

A group of G responses is the counts n = (n_0 .. n_K) ~ Multinomial(G, Q), and the policy gradient expected of it

    g_k = E sum_c (n_c / G) A_c(n) h_ck,   h_ck = 1 - p_k for k <= c,  -p_k for k = c + 1,  0 after,

because d log pi / d theta_k = 1[step k right] - p_k, of mean 0 past the first wrong step: no reward depends on it.
A_c is the group-relative advantage with the std over n, not n - 1 (a constant factor), and eps = 0; RTS = c / K.
Everything is enumerated, nothing is sampled: C(G+K, K) count vectors. GRPO has a closed form as well (`grpo_update`).

[ours] The paper's theory has two steps; K steps, uneven steps, scopes and the mask are this project's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from sgpo_core.rl.credit import CreditRule, Judged, group_credit, logistic_reward
from sgpo_core.types import Verdict

Array = NDArray[np.float64]
MAX_COUNT_VECTORS = 300_000  # about 100 MB of tables; K = 6 allows groups of 20
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Rule:
    """Who learns: the group's size and the settings of `algorithm.credit`; `scope="none"` is GRPO."""

    group_size: int = 8
    credit: CreditRule = field(default_factory=CreditRule)
    mask_after_error: bool = False

    @property
    def is_grpo(self) -> bool:
        return self.credit.scope == "none"  # the mask changes nothing: there a wrong response never has A > 0


def rules(group_size: int = 8) -> dict[str, Rule]:
    """The rules that are compared, by name: GRPO, then SGPO as it is by default, masked, and in its wider scope."""
    return {
        "GRPO": Rule(group_size, CreditRule(scope="none")),
        "SGPO": Rule(group_size),
        "SGPO masked": Rule(group_size, mask_after_error=True),
        "SGPO all_incorrect": Rule(group_size, CreditRule(scope="all_incorrect")),
    }


def level_probabilities(p: Array) -> Array:
    """Q_0 .. Q_K, float64 [K + 1], of the steps' probabilities [K]."""
    reached = np.concatenate([[1.0], np.cumprod(p)])
    probabilities: Array = reached * np.concatenate([1.0 - p, [1.0]])
    return probabilities


def all_negative_fraction(p: Sequence[float] | Array, group_size: int) -> float:
    """(1 - P)^G: the share of groups without a correct response."""
    return float((1.0 - np.prod(p)) ** group_size)


def expected_update(p: Sequence[float] | Array, rule: Rule) -> Array:
    """g = the expected gradient in the logits theta, float64 [K], at steps of probabilities p [K], each in (0, 1)."""
    return grpo_update(p, rule.group_size) if rule.is_grpo else enumerated_update(p, rule)


def grpo_update(p: Sequence[float] | Array, group_size: int) -> Array:
    """GRPO's g [K] in closed form: (1 - p_k) / (1 - P) * E sqrt(m (G - m)) / G over m ~ Binomial(G, P).

    m correct ones have A = sqrt((G-m)/m), the others -sqrt(m/(G-m)); h_k is 1 - p_k in the correct ones and, since its
    mean over all is 0, -(1 - p_k) P / (1 - P) in the mean of the others. About (1 - p_k) P sqrt(G-1) for small P.
    """
    p = _checked(p)
    log_success = float(np.log(p).sum())
    failure = -math.expm1(log_success)  # 1 - P without its rounding
    if failure == 0.0:
        return np.zeros_like(p)  # every step at 1 to the last bit
    m = np.arange(group_size + 1)
    log_choose = _log_factorial(group_size) - _log_factorial(m) - _log_factorial(group_size - m)
    chance = np.exp(log_choose + m * log_success + (group_size - m) * math.log(failure))
    update: Array = (1.0 - p) / failure * (chance @ np.sqrt(m * (group_size - m))) / group_size
    return update


def enumerated_update(p: Sequence[float] | Array, rule: Rule) -> Array:
    """g [K] of any rule, as the sum over all count vectors."""
    p = _checked(p)
    table = _group_table(len(p), rule.group_size, rule.credit)
    log_q = np.log(np.maximum(level_probabilities(p), _TINY))  # a level that can't be: 0 times its log is 0, as it must
    chance = np.exp(table.log_multinomial + table.counts @ log_q)
    reward, blame = chance @ table.reward, chance @ table.blame  # [K + 1]: mean of n_c / G * A_c, its two signs
    right = np.tri(len(p) + 1, len(p), -1) * (1.0 - p)  # h_ck of the right steps, [K + 1, K]
    wrong = np.eye(len(p) + 1, len(p)) * -p  # of the first wrong one; the last row, correct, has none
    update: Array = (reward + blame) @ right + (blame if rule.mask_after_error else reward + blame) @ wrong
    return update


@dataclass(frozen=True, slots=True)
class _GroupTable:
    """What does not depend on p, float64: `counts` [M, K + 1], `log_multinomial` [M], and n_c / G * A_c [M, K + 1],
    where A_c > 0 in `reward` and where A_c < 0 in `blame`, 0 elsewhere."""

    counts: Array
    log_multinomial: Array
    reward: Array
    blame: Array


@lru_cache(maxsize=16)
def _group_table(steps: int, group_size: int, credit: CreditRule) -> _GroupTable:
    counts = _count_vectors(steps, group_size)
    weights = counts / group_size * _advantages(counts, credit)
    log_multinomial = _log_factorial(group_size) - _log_factorial(counts).sum(1)
    return _GroupTable(counts, log_multinomial, np.maximum(weights, 0.0), np.minimum(weights, 0.0))


def _count_vectors(steps: int, group_size: int) -> Array:
    """Every way to spread G responses over the levels, [C(G+K, K), K + 1]: the gaps K bars leave in G + K places."""
    size = math.comb(group_size + steps, steps)
    if size > MAX_COUNT_VECTORS:
        raise ValueError(f"groups of {group_size} at {steps} steps are {size:,} cases: choose a smaller group")
    bars = np.array(list(combinations(range(group_size + steps), steps)), dtype=float).reshape(size, steps)
    return np.diff(bars, axis=1, prepend=-1, append=group_size + steps) - 1


def _advantages(counts: Array, credit: CreditRule) -> Array:
    """A_c of every count vector, [M, K + 1] like `counts`; 0 where all rewards of the group are equal."""
    steps = counts.shape[1] - 1
    outcome = np.eye(steps + 1)[steps]  # [K + 1]: 1 for correct
    graded = np.array([logistic_reward(c / steps, credit.beta, credit.gamma) for c in range(steps)] + [1.0])
    judged = {"none": False, "all_negative": counts[:, -1:] == 0, "all_incorrect": True}[credit.scope]
    rewards = np.where(judged, graded, outcome) + np.zeros_like(counts)
    group_size = counts.sum(1, keepdims=True)
    mean = (counts * rewards).sum(1, keepdims=True) / group_size
    std = np.sqrt((counts * (rewards - mean) ** 2).sum(1, keepdims=True) / group_size)
    low = np.where(counts > 0, rewards, np.inf).min(1, keepdims=True)
    high = np.where(counts > 0, rewards, -np.inf).max(1, keepdims=True)
    # Not `std > 0`: rounding in the mean would make a signal of none.
    advantages: Array = np.divide(rewards - mean, std, out=np.zeros_like(counts), where=high > low)
    return advantages


def learn(p0: Sequence[float] | Array, rule: Rule, step_size: float = 0.5) -> Iterator[Array]:
    """p [K] at the start and after each update theta += step_size * g, without end."""
    p = _checked(p0)
    theta = np.log(p) - np.log1p(-p)
    while True:
        yield p
        theta = theta + step_size * expected_update(p, rule)
        p = 1.0 / (1.0 + np.exp(-theta))


def steps_to(
    p0: Sequence[float] | Array,
    rule: Rule,
    threshold: float = 0.9,
    step_size: float = 0.5,
    max_steps: int = 100_000,
) -> int | None:
    """Updates until P >= threshold; None where max_steps do not get there."""
    for step, p in enumerate(islice(learn(p0, rule, step_size), max_steps + 1)):
        if np.prod(p) >= threshold:
            return step
    return None


def even_start(steps: int, all_negative: float, group_size: int = 8) -> Array:
    """p [K], all alike, at which a share `all_negative` in (0, 1) of the groups has no correct response."""
    return np.full(steps, (1.0 - all_negative ** (1.0 / group_size)) ** (1.0 / steps))


def speed_up(p0: Sequence[float] | Array, rule: Rule, max_steps: int = 100_000) -> float | None:
    """GRPO's updates to P >= 0.9 over those of `rule`; None where either needs more than max_steps."""
    grpo = steps_to(p0, Rule(rule.group_size, CreditRule(scope="none")), max_steps=max_steps)
    other = steps_to(p0, rule, max_steps=max_steps)
    return grpo / other if grpo and other else None


def monte_carlo_update(
    p: Sequence[float] | Array, rule: Rule, samples: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """g from `samples` sampled groups, and its standard error, both [K].

    It shares nothing with the enumeration: whole responses, past their first wrong step too, and rewards from the
    function that training takes them from.
    """
    p = _checked(p)
    right = rng.random((samples, rule.group_size, len(p))) < p
    before_error = np.cumprod(right, axis=2)  # 1 on the steps before the first wrong one
    groups, which = np.unique(before_error.sum(2), axis=0, return_inverse=True)
    advantages = np.array([_sampled_advantages(group, len(p), rule) for group in groups])[which.reshape(-1)]
    counted = np.ones_like(before_error)
    if rule.mask_after_error:
        counted = np.where(advantages[..., None] > 0, before_error, 1)
    gradients = (advantages[..., None] * counted * (right - p)).mean(1)  # [samples, K]
    return gradients.mean(0), gradients.std(0, ddof=1) / math.sqrt(samples)


def _sampled_advantages(levels: NDArray[np.int64], steps: int, rule: Rule) -> Array:
    group = [
        Judged(
            correct=int(level) == steps,
            verdict=Verdict(int(level) + 1 if level < steps else None),
            prefix_length=int(level),
            own_length=steps,
        )
        for level in levels
    ]
    rewards = np.array([credit.shaped_reward for credit in group_credit(group, rule.credit)])
    return np.zeros_like(rewards) if np.ptp(rewards) == 0 else (rewards - rewards.mean()) / rewards.std()


def _checked(p: Sequence[float] | Array) -> Array:
    p = np.asarray(p, dtype=float)
    if p.ndim != 1 or not p.size or not ((p > 0) & (p <= 1)).all():
        raise ValueError(f"p is one probability in (0, 1] a step, got {p.tolist()}")
    return p


def _log_factorial(n: int | Array | NDArray[np.int64]) -> Array:
    table = np.array([math.lgamma(i + 1) for i in range(int(np.max(n)) + 1)])
    values: Array = table[np.asarray(n, dtype=int)]
    return values
