"""Agreement with functions of verl and TRL on random tensors: values, and gradients in the log-probabilities.

`make test-peers` installs both (requirements/peers.txt); the tests of a peer that is missing are skipped. Everything is
float64 but where the peer itself goes by float32. Where a peer does something else on purpose, the exact factor between
the two is applied and explained, or the difference itself is the test.
"""

from __future__ import annotations

import importlib
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sgpo_core.config.algorithm import AdvantageBaseline, AdvantageSettings, LossMean
from sgpo_core.rl.advantages import batch_advantages
from sgpo_core.rl.losses import LossTerms, k3, policy_loss, token_weights, truncated_importance
from sgpo_core.rl.shaping import overlong_penalty
from sgpo_core.types import Credit

EXACT = 1e-12
# verl adds 1e-8 to the denominators of its masked means: in a response of one token that is a relative 1e-8.
VERL = 3e-8
SINGLE = 3e-6  # of float32

MAX_LENGTH = 40
LENGTHS = (9, 1, 30, 4, 17, 2, 25, 12)  # padded to 30: the width of a batch is not the limit
CLIPS = [(0.2, 0.2), (0.2, 0.28), (0.16, 0.24)]
KL_COEF = 0.04
MODES: list[tuple[LossMean, str]] = [
    ("token", "token-mean"),
    ("sequence", "seq-mean-token-mean"),
    ("sum", "seq-mean-token-sum"),
    ("max_length", "seq-mean-token-sum-norm"),
]


@pytest.fixture(scope="module")
def verl() -> Any:
    pytest.importorskip("verl", reason="verl is not installed: make test-peers")
    return importlib.import_module("verl.trainer.ppo.core_algos")


@pytest.fixture(scope="module")
def trl() -> Any:
    return pytest.importorskip("trl", reason="TRL is not installed: make test-peers")


def same(ours: Any, theirs: Any, tolerance: float = EXACT) -> None:
    """Equal up to `tolerance`, relative and, for numbers about 0, of the largest; all of them 0 would say nothing."""
    ours, theirs = (np.asarray(x.detach() if isinstance(x, Tensor) else x, np.float64) for x in (ours, theirs))
    assert ours.shape == theirs.shape
    largest = np.abs(theirs).max()
    assert largest > 0
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * largest)


# ---------------------------------------------------------------------------------------------------- advantages


class Groups:
    """Rewards of ragged groups, one of them without signal, and what verl takes them as: the reward lies on the last
    token of its response, the rest of [responses, width] is padding or 0."""

    def __init__(self, seed: int, binary: bool = False, length: int | None = None) -> None:
        generator = np.random.default_rng(seed)
        self.rewards = [generator.random(size) for size in (4, 2, 7, 5)] + [np.ones(3)]
        if binary:
            self.rewards = [np.array([1.0, 0, 0, 1]), np.array([0.0, 1]), np.zeros(3), np.array([1.0, 0, 0, 0, 0])]
        self.flat = np.concatenate(self.rewards)
        self.index = np.repeat([f"problem {i}" for i in range(len(self.rewards))], [len(g) for g in self.rewards])
        n = len(self.flat)
        self.lengths = np.full(n, length) if length else generator.integers(1, 12, n)
        self.mask = torch.arange(int(self.lengths.max())) < torch.tensor(self.lengths)[:, None]
        self.token_rewards = self.on_last_token(self.flat)

    def on_last_token(self, rewards: np.ndarray) -> Tensor:
        placed = torch.zeros(self.mask.shape, dtype=torch.float64)
        placed[torch.arange(len(rewards)), torch.tensor(self.lengths) - 1] = torch.tensor(rewards)
        return placed

    @property
    def credits(self) -> list[list[Credit]]:
        return [[Credit(float(r), correct=r == 1) for r in group] for group in self.rewards]

    def ours(self, settings: AdvantageSettings) -> np.ndarray:
        return np.concatenate(batch_advantages(self.credits, settings))

    def verl(self, function: Callable[..., tuple[Tensor, Tensor]], **arguments: Any) -> np.ndarray:
        """verl's advantages, one a response: they are the same at all of its tokens, and 0 in the padding."""
        given, _ = function(token_level_rewards=self.token_rewards, response_mask=self.mask.double(), **arguments)
        first = given[:, 0]
        assert torch.equal(given, first[:, None] * self.mask)
        return first.numpy()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("std", ["group", "none"])
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("compute_grpo_outcome_advantage", EXACT), ("compute_grpo_vectorized_outcome_advantage", SINGLE)],
)
def test_group_advantages_are_verls(verl: Any, name: str, tolerance: float, std: Any, seed: int) -> None:
    # verl compute_grpo_outcome_advantage, with its std and without (Dr. GRPO); the vectorized one goes by float32
    groups = Groups(seed)
    theirs = groups.verl(getattr(verl, name), index=groups.index, epsilon=1e-4, norm_adv_by_std_in_grpo=std == "group")
    same(groups.ours(AdvantageSettings(std=std, eps=1e-4)), theirs, tolerance)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["compute_rloo_outcome_advantage", "compute_rloo_vectorized_outcome_advantage"])
def test_leave_one_out_is_verls_rloo(verl: Any, name: str, seed: int) -> None:
    # verl compute_rloo_outcome_advantage and its vectorized form
    groups = Groups(seed)
    theirs = groups.verl(getattr(verl, name), index=groups.index)
    same(groups.ours(AdvantageSettings(baseline="leave_one_out", std="none")), theirs)


def test_gpg_advantages_are_verls_up_to_alpha(verl: Any) -> None:
    # verl compute_gpg_outcome_advantage: its alpha is samples / samples with a reward. The authors' undoes that groups
    # without signal count in the mean over tokens; ours leave that mean, and need none.
    groups = Groups(0, binary=True)
    assert (len(groups.flat), np.count_nonzero(groups.flat)) == (14, 4)
    theirs = groups.verl(verl.compute_gpg_outcome_advantage, index=groups.index, f_norm=1.0)
    same(groups.ours(AdvantageSettings(std="none")), theirs / (14 / 4))


def over_tokens(ours: np.ndarray, centered: np.ndarray, length: int, eps: float) -> np.ndarray:
    """Ours, divided by verl's std instead. verl whitens over tokens, we over responses: where all N have L tokens, the
    mean is the same and verl's variance is s² (N - 1) L / (N L - 1), s our std. It adds 1e-8 to that, we eps to s."""
    n, s = len(centered), np.std(centered, ddof=1)
    return ours * (s + eps) / math.sqrt(s**2 * (n - 1) * length / (n * length - 1) + 1e-8)


@pytest.mark.parametrize("length", [1, 6])
@pytest.mark.parametrize("baseline", ["batch", "group"])
def test_batch_whitening_is_verls_over_equal_lengths(verl: Any, baseline: AdvantageBaseline, length: int) -> None:
    # verl compute_reinforce_plus_plus_outcome_advantage (baseline: batch), ..._plus_plus_baseline_... (group)
    groups = Groups(1, length=length)
    if baseline == "batch":
        centered = groups.flat - groups.flat.mean()
        config = importlib.import_module("verl.trainer.config").AlgoConfig(gamma=1.0)
        theirs = groups.verl(verl.compute_reinforce_plus_plus_outcome_advantage, config=config)
    else:
        centered = np.concatenate([g - g.mean() for g in groups.rewards])
        theirs = groups.verl(verl.compute_reinforce_plus_plus_baseline_outcome_advantage, index=groups.index)
    ours = groups.ours(AdvantageSettings(baseline=baseline, std="batch", eps=1e-6))
    same(over_tokens(ours, centered, length, 1e-6), theirs, VERL)


def test_separate_rewards_are_verls_gdpo_over_equal_lengths(verl: Any) -> None:
    # verl compute_gdpo_outcome_advantage with two rewards, outcome and RTS, which it makes float32
    groups, length, eps = Groups(2, binary=True, length=5), 5, 1e-4
    generator = np.random.default_rng(5)
    rts = [np.where(g == 1, 1.0, generator.integers(0, 8, len(g)) / 8) for g in groups.rewards]
    credits = [
        [Credit(0.3, rts=None if r == 1 else float(t), correct=r == 1) for r, t in zip(g, ts, strict=True)]
        for g, ts in zip(groups.rewards, rts, strict=True)
    ]
    ours = np.concatenate(batch_advantages(credits, AdvantageSettings(separate_rewards=True, eps=eps)))
    summed = np.concatenate(
        [sum((x - x.mean()) / (x.std(ddof=1) + eps) for x in pair) for pair in zip(groups.rewards, rts, strict=True)]
    )
    n = len(groups.flat)
    theirs = groups.verl(
        verl.compute_gdpo_outcome_advantage,
        index=groups.index,
        epsilon=eps,
        config={"gdpo_reward_keys": ["outcome", "rts"]},
        non_tensor_batch={"outcome": groups.flat, "rts": np.concatenate(rts)},
        batch={"prompts": torch.zeros(n, 3), "attention_mask": torch.ones(n, 3 + length, dtype=torch.long)},
    )
    same(over_tokens(ours, summed, length, eps), theirs, SINGLE)


# -------------------------------------------------------------------------------------------------------- losses


class Batch:
    """Ragged responses, padded to [responses, width] with numbers that must not matter; one advantage a response.

    Ratios lie on both sides of every clip range, and log ratios of `far` beyond the bound of ±20."""

    def __init__(self, seed: int, lengths: Sequence[int] = LENGTHS, far: bool = False, spread: float = 0.3) -> None:
        generator = torch.Generator().manual_seed(seed)
        shape = (len(lengths), max(lengths))

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, dtype=torch.float64)

        self.lengths = list(lengths)
        self.mask = torch.arange(shape[1]) < torch.tensor(self.lengths)[:, None]
        self.rows = torch.arange(shape[0]).repeat_interleave(torch.tensor(self.lengths))
        self.logprobs = -3 * torch.rand(shape, generator=generator, dtype=torch.float64)
        self.old = self.logprobs + spread * normal(*shape)
        self.sampler = self.old + 0.5 * normal(*shape)
        self.reference = self.logprobs + 0.5 * normal(*shape)
        self.advantages = normal(shape[0])
        if far:
            self.old[0, :4] = self.logprobs[0, :4] + torch.tensor([30.0, -30, 25, -25])
            self.old[2, :4] = self.logprobs[2, :4] + torch.tensor([30.0, -30, 25, -25])
            self.advantages[0], self.advantages[2] = 1.5, -0.5

    @property
    def floats(self) -> Tensor:
        return self.mask.double()

    @property
    def token_advantages(self) -> Tensor:
        return self.advantages[:, None].expand(self.mask.shape).clone()

    def importance(self, cap: float) -> Tensor:
        """Our truncated importance weights, 0 in the padding."""
        weights = torch.zeros(self.mask.shape, dtype=torch.float64)
        weights[self.mask] = truncated_importance(self.old[self.mask], self.sampler[self.mask], cap)
        return weights

    def weights(self, mean: LossMean) -> Tensor:
        """[tokens], of the flat batch."""
        return torch.tensor(token_weights(self.lengths, mean, MAX_LENGTH), dtype=torch.float64)[self.rows]

    def ours(self, mean: LossMean, credit: Tensor | None = None, **settings: Any) -> tuple[LossTerms, Tensor]:
        """Our loss of the flat tokens, with advantages times `credit`, and its gradient in [responses, width]."""
        at = self.logprobs.clone().requires_grad_()
        old, reference, advantages = (
            x[self.mask]
            for x in (self.old, self.reference, self.token_advantages * (1.0 if credit is None else credit))
        )
        terms = policy_loss(
            at[self.mask],
            old,
            advantages,
            self.weights(mean),
            reference_logprobs=reference,
            rows=self.rows,
            **settings,
        )
        return terms, gradient(terms.loss, at)

    def theirs(self, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        at = self.logprobs.clone().requires_grad_()
        value = loss(at)
        return value, gradient(value, at)


def gradient(loss: Tensor, at: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(loss, at)
    return slope


def some_are_clipped(terms: LossTerms) -> None:
    assert 0 < terms.clipped_tokens < terms.token_count


def actor(low: float = 0.2, high: float = 0.2, dual: float = 1e9) -> Any:
    """verl's settings. Its dual clip (a third bound, for A < 0) is always on: a ratio `dual` of 1e9 is out of reach."""
    config = importlib.import_module("verl.workers.config").ActorConfig
    return config(
        strategy="fsdp",
        rollout_n=4,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio_low=low,
        clip_ratio_high=high,
        clip_ratio_c=dual,
    )


def verl_loss(verl: Any, name: str, batch: Batch, mode: str, config: Any, weights: Tensor | None = None) -> Any:
    """verl's policy loss `name` as a function of log-probabilities: (loss, metrics)."""
    config.global_batch_info["loss_scale_factor"] = MAX_LENGTH
    function = verl.get_policy_loss_fn(name)

    def loss(logprobs: Tensor) -> tuple[Tensor, dict[str, float]]:
        return function(batch.old, logprobs, batch.token_advantages, batch.floats, mode, config, weights)

    return loss


@pytest.mark.parametrize("lengths", [LENGTHS, (3, 0, 5, 1, 0)])
@pytest.mark.parametrize(("mean", "mode"), MODES)
def test_token_weights_are_verls_aggregation(verl: Any, mean: LossMean, mode: str, lengths: tuple[int, ...]) -> None:
    # verl agg_loss. Its mean over sequences leaves out empty ones (3 of 5 stay), ours and TRL's counts them
    batch = Batch(0, lengths)
    per_token = batch.old.clone().requires_grad_()
    theirs = verl.agg_loss(per_token, batch.floats, mode, loss_scale_factor=MAX_LENGTH)
    factor = 1.0 if mean == "token" else sum(x > 0 for x in lengths) / len(lengths)
    weights = torch.zeros(batch.mask.shape, dtype=torch.float64)
    weights[batch.mask] = batch.weights(mean)
    same((weights * batch.old).sum(), factor * theirs, VERL)
    same(weights, factor * gradient(theirs, per_token), VERL)


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize(("low", "high"), CLIPS)
@pytest.mark.parametrize(("mean", "mode"), MODES)
def test_clipped_loss_is_verls(verl: Any, mean: LossMean, mode: str, low: float, high: float, far: bool) -> None:
    # verl compute_policy_loss_vanilla, also the fraction of clipped tokens; both bound log ratios by ±20
    batch = Batch(1, far=far)
    loss = verl_loss(verl, "vanilla", batch, mode, actor(low, high))
    value, slope = batch.theirs(lambda x: loss(x)[0])
    terms, ours = batch.ours(mean, clip_low=low, clip_high=high)
    some_are_clipped(terms)
    same(terms.loss, value, VERL)
    same(ours, slope, VERL)
    same(terms.clipped_tokens / terms.token_count, loss(batch.logprobs)[1]["actor/pg_clipfrac"], 1e-6)


@pytest.mark.parametrize("dual", [1.5, 3.0])
@pytest.mark.parametrize("far", [False, True])
def test_dual_clip_is_verls(verl: Any, dual: float, far: bool) -> None:
    # verl compute_policy_loss_vanilla, whose default is clip_ratio_c=3
    batch = Batch(2, spread=1.0, far=far)
    loss = verl_loss(verl, "vanilla", batch, "token-mean", actor(dual=dual))
    value, slope = batch.theirs(lambda x: loss(x)[0])
    terms, ours = batch.ours("token", dual_clip=dual)
    spared = (batch.token_advantages < 0) & ((batch.logprobs - batch.old).exp() > dual) & batch.mask
    assert spared.sum() > 3
    assert not ours[spared].any()
    same(terms.loss, value, VERL)
    same(ours, slope, VERL)


@pytest.mark.parametrize("seed", range(3))
def test_sequence_ratio_is_verls_gspo(verl: Any, seed: int) -> None:
    # verl compute_policy_loss_gspo: its gradient goes around the mean by a stop-gradient, which is the same where all
    # tokens of a response have the same advantage
    batch = Batch(seed, spread=0.01)
    loss = verl_loss(verl, "gspo", batch, "seq-mean-token-mean", actor(3e-4, 4e-4))
    value, slope = batch.theirs(lambda x: loss(x)[0])
    terms, ours = batch.ours("sequence", clip_low=3e-4, clip_high=4e-4, ratio="sequence")
    some_are_clipped(terms)
    same(terms.loss, value, VERL)
    same(ours, slope, VERL)
    same(terms.clipped_tokens / terms.token_count, loss(batch.logprobs)[1]["actor/pg_clipfrac"], 1e-6)


@pytest.mark.parametrize(("mean", "mode"), MODES)
def test_loss_without_a_ratio_is_verls_gpg(verl: Any, mean: LossMean, mode: str) -> None:
    # verl compute_policy_loss_gpg
    batch = Batch(3)
    loss = verl_loss(verl, "gpg", batch, mode, actor())
    value, slope = batch.theirs(lambda x: loss(x)[0])
    terms, ours = batch.ours(mean, ratio="none")
    same(terms.loss, value, VERL)
    same(ours, slope, VERL)


def test_k3_is_verls_up_to_its_bound(verl: Any) -> None:
    # verl kl_penalty "k3": it is cut at 10, without a gradient beyond; ours is not
    reference = torch.zeros(101, dtype=torch.float64)
    at = torch.linspace(-4, 4, 101, dtype=torch.float64).requires_grad_()
    ours, theirs = k3(at, reference), verl.kl_penalty(at, reference, "k3")
    cut = ours > 10
    assert 0 < cut.sum() < 50
    assert (theirs[cut] == 10).all()
    same(ours[~cut], theirs[~cut])
    same(gradient(ours[~cut].sum(), at), gradient(theirs.sum(), at))


@pytest.mark.parametrize(("mean", "mode"), MODES)
def test_loss_with_a_kl_term_is_verls(verl: Any, mean: LossMean, mode: str) -> None:
    # verl compute_policy_loss_vanilla + coefficient * agg_loss(kl_penalty "k3"), the sum that its actor makes
    batch = Batch(4)
    loss = verl_loss(verl, "vanilla", batch, mode, actor())

    def with_kl(x: Tensor) -> Tensor:
        kl = verl.kl_penalty(x, batch.reference, "k3")
        return loss(x)[0] + KL_COEF * verl.agg_loss(kl, batch.floats, mode, loss_scale_factor=MAX_LENGTH)

    value, slope = batch.theirs(with_kl)
    terms, ours = batch.ours(mean, kl_coef=KL_COEF)
    assert terms.kl_sum > 1
    same(terms.loss, value, VERL)
    same(ours, slope, VERL)


def correction_weights(batch: Batch, cap: float) -> Tensor:
    helper = importlib.import_module("verl.trainer.ppo.rollout_corr_helper")
    weights, _ = helper.compute_rollout_correction_weights(
        batch.old - batch.sampler, batch.floats, rollout_is="token", rollout_is_threshold=cap
    )
    return weights


@pytest.mark.parametrize("cap", [1.2, 2.0])
def test_truncated_importance_weights_are_verls(verl: Any, cap: float) -> None:
    # verl compute_rollout_correction_weights, of tokens, with an upper bound only
    batch = Batch(5)
    theirs, ours = correction_weights(batch, cap), batch.importance(cap)
    assert 0 < (theirs == cap).sum() < batch.mask.sum() / 2
    same(ours, theirs, EXACT)


@pytest.mark.parametrize(
    ("name", "ratio", "mean", "mode"),
    [
        ("vanilla", "token", "token", "token-mean"),
        ("vanilla", "token", "sequence", "seq-mean-token-mean"),
        ("gpg", "none", "token", "token-mean"),
    ],
)
def test_importance_weights_on_advantages_are_verls_on_losses(
    verl: Any, name: str, ratio: str, mean: LossMean, mode: str
) -> None:
    # verl compute_policy_loss_vanilla and _gpg with rollout_is_weights of compute_rollout_correction_weights
    batch = Batch(6)
    loss = verl_loss(verl, name, batch, mode, actor(), correction_weights(batch, 2.0))
    value, slope = batch.theirs(lambda x: loss(x)[0])
    terms, ours = batch.ours(mean, batch.importance(2.0), ratio=ratio)
    same(terms.loss, value, SINGLE)
    same(ours, slope, SINGLE)


# ----------------------------------------------------------------------------------------------------------- TRL


class OneProcess:
    num_processes = 1
    sync_gradients = True

    def gather(self, x: Tensor) -> Tensor:
        return x

    gather_for_metrics = gather

    def reduce(self, x: Tensor, reduction: str = "sum") -> Tensor:
        return x


def trl_loss(trainer: Any, batch: Batch, logprobs: Tensor, **settings: Any) -> tuple[Tensor, dict[str, list[float]]]:
    """TRL's loss and metrics, of a trainer that is nothing but its settings: `_compute_loss` is private, but it is all
    there is, and it reads what it needs from `self` and the inputs."""
    importance = settings.pop("importance", None)
    given: dict[str, Any] = {"loss_type": "grpo", "importance_sampling_level": "token", "beta": 0.0} | settings
    width = batch.mask.shape[1]
    stub = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.ones_like(logprobs), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        use_vllm=importance is not None,
        vllm_importance_sampling_correction=importance is not None,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=MAX_LENGTH,
        accelerator=OneProcess(),
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        **given,
    )
    inputs = {
        "prompt_ids": torch.zeros(len(batch.lengths), 2, dtype=torch.long),
        "prompt_mask": torch.ones(len(batch.lengths), 2),
        "completion_ids": torch.zeros(len(batch.lengths), width, dtype=torch.long),
        "completion_mask": batch.floats,
        "advantages": batch.advantages,
        "old_per_token_logps": batch.old,
        "old_logps": (batch.old * batch.floats).sum(1),  # RLOO's
        "ref_per_token_logps": batch.reference,
        "importance_sampling_ratio": importance,
        "num_items_in_batch": batch.floats.sum(),
    }
    return trainer._compute_loss(stub, None, inputs), stub._metrics["train"]


@pytest.mark.parametrize("kl_coef", [0.0, KL_COEF])
@pytest.mark.parametrize(("low", "high"), CLIPS)
@pytest.mark.parametrize(
    ("mean", "loss_type"), [("sequence", "grpo"), ("token", "dapo"), ("token", "bnpo"), ("max_length", "dr_grpo")]
)
def test_clipped_loss_is_trls(
    trl: Any, mean: LossMean, loss_type: str, low: float, high: float, kl_coef: float
) -> None:
    # TRL GRPOTrainer._compute_loss, also its share of clipped tokens; use_bias_correction_kl (ratio x KL) is off
    batch = Batch(7)
    settings = {"loss_type": loss_type, "epsilon_low": low, "epsilon_high": high, "beta": kl_coef}
    value, slope = batch.theirs(lambda x: trl_loss(trl.GRPOTrainer, batch, x, **settings)[0])
    terms, ours = batch.ours(mean, clip_low=low, clip_high=high, kl_coef=kl_coef)
    some_are_clipped(terms)
    same(terms.loss, value)
    same(ours, slope)
    metrics = trl_loss(trl.GRPOTrainer, batch, batch.logprobs, **settings)[1]
    same(terms.clipped_tokens / terms.token_count, metrics["clip_ratio/region_mean"][0], 1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_sequence_ratio_is_trls(trl: Any, seed: int) -> None:
    # TRL GRPOTrainer._compute_loss with importance_sampling_level="sequence" (GSPO)
    batch = Batch(seed, spread=0.01)
    settings = {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4}
    value, slope = batch.theirs(lambda x: trl_loss(trl.GRPOTrainer, batch, x, **settings)[0])
    terms, ours = batch.ours("sequence", clip_low=3e-4, clip_high=4e-4, ratio="sequence")
    some_are_clipped(terms)
    same(terms.loss, value)
    same(ours, slope)


def test_an_empty_response_counts_as_in_trl(trl: Any) -> None:
    # TRL GRPOTrainer._compute_loss: one that has no token is one of the mean's responses (verl leaves it out)
    batch = Batch(8, (5, 0, 9))
    settings = {"epsilon_low": 0.2, "epsilon_high": 0.2}
    value, slope = batch.theirs(lambda x: trl_loss(trl.GRPOTrainer, batch, x, **settings)[0])
    terms, ours = batch.ours("sequence")
    same(terms.loss, value)
    same(ours, slope)


@pytest.mark.parametrize(("mean", "loss_type"), [("sequence", "grpo"), ("token", "dapo")])
def test_importance_weights_on_advantages_are_trls_on_losses(trl: Any, mean: LossMean, loss_type: str) -> None:
    # TRL GRPOTrainer._compute_loss with importance_sampling_ratio = min(trainer / sampler, cap), which it makes
    # elsewhere (vllm_importance_sampling_mode="token_truncate"); KL is not weighted
    batch = Batch(9)
    settings = {"loss_type": loss_type, "epsilon_low": 0.2, "epsilon_high": 0.2, "beta": KL_COEF}
    importance = (batch.old - batch.sampler).exp().clamp(max=2.0)
    value, slope = batch.theirs(lambda x: trl_loss(trl.GRPOTrainer, batch, x, importance=importance, **settings)[0])
    terms, ours = batch.ours(mean, batch.importance(2.0), kl_coef=KL_COEF)
    some_are_clipped(terms)
    same(terms.loss, value, SINGLE)
    same(ours, slope, SINGLE)


@pytest.mark.parametrize("on_policy", [True, False])
def test_gradient_without_a_ratio_is_trls_rloo(trl: Any, on_policy: bool) -> None:
    # TRL RLOOTrainer._compute_loss: ratio x A of the whole sequence. Where the policy is the one that sampled, its
    # gradient is ours, A times that of the log-likelihood; later each response's is its ratio times ours. Its values,
    # mean(-ratio A), are no log-likelihoods and not comparable. Clipping is off: ours has none.
    batch = Batch(10, spread=0.0 if on_policy else 0.1)
    settings = {"epsilon_low": 1e9, "epsilon_high": 1e9}
    value, slope = batch.theirs(lambda x: trl_loss(trl.RLOOTrainer, batch, x, **settings)[0])
    _, ours = batch.ours("sum", ratio="none")
    ratio = ((batch.logprobs - batch.old) * batch.floats).sum(1).exp()
    assert on_policy == bool((ratio == 1).all())
    same(ratio[:, None] * ours, slope)
    same(-(ratio * batch.advantages).mean(), value)


@pytest.mark.parametrize(("longest", "cache"), [(100, 20), (1024, 256), (50, 50)])
def test_overlong_penalty_is_trls_punishment(trl: Any, longest: int, cache: int) -> None:
    # trl.rewards.get_soft_overlong_punishment, of every length up to the limit and beyond
    punish = importlib.import_module("trl.rewards").get_soft_overlong_punishment(longest, cache)
    lengths = range(longest + 5)
    theirs = punish(completion_ids=[[0] * n for n in lengths])
    same([-overlong_penalty(n, longest, cache / longest) for n in lengths], theirs)
