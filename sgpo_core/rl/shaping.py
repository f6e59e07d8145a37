"""What some algorithms do to the rewards of a group, before advantages: new rewards, in order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgpo_core.config.algorithm import CreditSettings
from sgpo_core.types import Credit


@dataclass(frozen=True, slots=True)
class Sampled:
    """What shaping needs to know of a response: its length (tokens, of at most `max_length`), the mean log-probability
    of its tokens under the policy that sampled it (nats), and the share of its domain among all problems (0..1]."""

    length: int
    max_length: int
    mean_logprob: float = 0.0
    domain_share: float = 1.0


def shape(group: Sequence[Credit], sampled: Sequence[Sampled], settings: CreditSettings) -> list[Credit]:
    """The group's credits with the shapings that the settings ask for, in this order."""
    rewards = [c.shaped_reward for c in group]
    if settings.unlikeliness > 0:
        rewards = unlikeliness_rewards(rewards, [s.mean_logprob for s in sampled], settings.unlikeliness)
    if settings.difficulty_weight:
        weight = difficulty_weight([c.correct for c in group if c.counts])
        rewards = [weight * r for r in rewards]
    if settings.domain_weight:
        rewards = [domain_weight(s.domain_share) * r for r, s in zip(rewards, sampled, strict=True)]
    if settings.overlong_buffer > 0:
        penalties = [overlong_penalty(s.length, s.max_length, settings.overlong_buffer) for s in sampled]
        rewards = [r - settings.overlong_penalty * penalty for r, penalty in zip(rewards, penalties, strict=True)]
    return [replace(c, shaped_reward=r) for c, r in zip(group, rewards, strict=True)]


def domain_shares(domains: Sequence[str]) -> dict[str, float]:
    """Share of each domain among the problems, by name."""
    return {domain: count / len(domains) for domain, count in Counter(domains).items()}


def unlikeliness_rewards(rewards: Sequence[float], mean_logprobs: Sequence[float], coef: float) -> list[float]:
    """Unlikeliness reward (arXiv 2506.02355): r (1 - coef (G - rank) / G), rank 1 the likeliest of the whole group, by
    the mean log-probability of its tokens, as in the authors' code.

    A wrong response has r = 0 and is not touched; the least likely one keeps all it earned.
    """
    size = len(rewards)
    result = []
    for reward, mine in zip(rewards, mean_logprobs, strict=True):
        likelier, alike = sum(x > mine for x in mean_logprobs), sum(x == mine for x in mean_logprobs)
        rank = likelier + (alike + 1) / 2  # those that are equally likely share the mean of their ranks
        result.append(reward * (1.0 - coef * (size - rank) / size))
    return result


def difficulty_weight(correct: Sequence[bool], eps: float = 1e-5) -> float:
    """DISCO (arXiv 2505.15074): 1 / (share of correct responses in the group + eps), eps as in the authors' code."""
    return 1.0 / (sum(correct) / max(1, len(correct)) + eps)


def domain_weight(share: float) -> float:
    """DISCO (arXiv 2505.15074), the variant its authors chose: log(1 + 1 / share), of a domain's share of the
    problems."""
    return math.log(1.0 + 1.0 / share)


def overlong_penalty(length: int, max_length: int, buffer: float) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476) as a penalty in 0..1: none up to max_length (1 - buffer), then
    linear, 1 at max_length. DAPO's rewards are -1 and 1 and its penalty is at most 1: on our 0 and 1 that is a
    setting `overlong_penalty` of 1/2."""
    room = max_length * buffer
    return min(1.0, max(0.0, (length - (max_length - room)) / room))
