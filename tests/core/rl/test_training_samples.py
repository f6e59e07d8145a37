"""What the trainer is given: weights and advantages of every token, the tensors of a micro-batch, and which rank gets
which samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sgpo_core.config.algorithm import LossSettings
from sgpo_core.rl.losses import policy_loss, token_logprobs
from sgpo_core.rl.training_samples import TrainingSample, collate, forward_sample, policy_samples, split_over_ranks
from sgpo_core.types import Credit, Rollout, RolloutGroup, TokenLogprobs
from tests.records import floats, group, ints, rollout

Member = tuple[RolloutGroup, Rollout]


def member(
    prompt: list[int], tokens: list[int], logprobs: list[float], advantage: float, credit: list[float], **fields: Any
) -> Member:
    earned = Credit(0.0, advantage=advantage, token_credit=floats(*credit))
    response = rollout(token_ids=ints(*tokens), rollout_logprobs=floats(*logprobs), credit=earned, **fields)
    return group(0, [response], None, *prompt), response


RECOMPUTED = TokenLogprobs(floats(-0.25, -1.25, -1.75), floats(1.0, 2.0, 3.0))
MEMBERS = [
    member([11, 12], [13, 14, 15], [-0.5, -1.0, -1.5], 2.0, [1.0, 0.0, 0.5], recomputed=RECOMPUTED),
    member([21], [22], [-2.0], -1.0, [1.0]),
]


def samples(mean: str = "sequence", **loss: Any) -> list[TrainingSample]:
    return policy_samples(MEMBERS, LossSettings(mean=mean, **loss), 10)


@pytest.mark.parametrize(
    ("mean", "weights"),
    [
        ("sequence", [1 / 6, 1 / 2]),
        ("token", [1 / 4, 1 / 4]),
        ("sum", [1 / 2, 1 / 2]),
        ("max_length", [1 / 20, 1 / 20]),
    ],
)
def test_policy_samples(mean: str, weights: list[float]) -> None:
    first, second = samples(mean)
    assert first.input_ids.tolist() == [11, 12, 13, 14, 15]
    assert first.prompt_length == 2
    assert first.weights.tolist() == pytest.approx([weights[0]] * 3)  # the masked token stays in the denominator
    assert first.advantages.tolist() == [2, 0, 1]  # times its token's credit
    assert first.sampler_logprobs.tolist() == [-0.5, -1.0, -1.5]
    assert second.weights.tolist() == pytest.approx([weights[1]])
    assert second.advantages.tolist() == [-1]
    arrays = (array for s in samples() for array in (s.weights, s.advantages, s.sampler_logprobs))
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert {s.input_ids.dtype for s in samples()} == {np.dtype(np.int32)}


def test_responses_without_signal_are_counted_but_not_trained_on() -> None:
    # Two more responses of 2 and 4 tokens. Over the first two 1/6, 1/2; over all four 1/12, 1/4; tokens 4 and 10.
    silent = [member([1], [1] * n, [-1.0] * n, 0.0, [1.0] * n) for n in (2, 4)]
    for mean, weights in (("sequence", [1 / 12, 1 / 4]), ("token", [1 / 10] * 2), ("sum", [1 / 4] * 2)):
        kept = policy_samples([*MEMBERS, *silent], LossSettings(mean=mean), 10)
        assert [s.weights[0] for s in kept] == pytest.approx(weights)
    with_kl = policy_samples([*MEMBERS, *silent], LossSettings(kl_coef=0.1), 10)
    assert len(with_kl) == 4  # it pulls on them, too


def test_ratios_are_taken_to_the_trainer_where_the_settings_say_so() -> None:
    def old(of: str) -> list[list[float] | None]:
        return [None if s.old_logprobs is None else s.old_logprobs.tolist() for s in samples(old_logprobs=of)]

    assert old("trainer") == [[-0.25, -1.25, -1.75], None]  # the second's are not known yet
    assert old("sampler") == [[-0.5, -1.0, -1.5], [-2.0]]  # the trainer's were computed for something else
    with pytest.raises(AssertionError, match="all have old log-probabilities, or none"):
        collate(samples(old_logprobs="trainer"))


@pytest.mark.parametrize("credit", [None, Credit(1.0)])
def test_a_response_without_its_credit_is_refused(credit: Credit | None) -> None:
    with pytest.raises(AssertionError, match="the update comes after credit"):
        policy_samples([(MEMBERS[1][0], replace(MEMBERS[1][1], credit=credit))], LossSettings(), 10)


def test_forward_sample_trains_on_nothing() -> None:
    sample = forward_sample([11, 12], ints(13, 14, 15))
    assert sample.input_ids.tolist() == [11, 12, 13, 14, 15]
    assert sample.prompt_length == 2
    assert sample.weights.tolist() == sample.advantages.tolist() == sample.sampler_logprobs.tolist() == [0.0, 0.0, 0.0]
    assert collate([sample]).targets.tolist() == [13, 14, 15]


def test_collate() -> None:
    batch = collate(samples())
    assert batch.input_ids.tolist() == [[11, 12, 13, 14, 15, 21, 22]]  # no padding
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1]]
    assert batch.row.tolist() == [0, 0, 0, 1]
    assert batch.before.tolist() == [1, 2, 3, 5]  # where the token before is, which predicts it
    assert batch.targets.tolist() == [13, 14, 15, 22]
    assert batch.advantages.tolist() == [2, 0, 1, -1]
    assert batch.old_logprobs is not None
    assert batch.old_logprobs.tolist() == batch.sampler_logprobs.tolist() == [-0.5, -1.0, -1.5, -2.0]
    assert batch.weights.tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])
    assert batch.input_ids.dtype == batch.targets.dtype == batch.before.dtype == torch.int64
    assert batch.weights.dtype == batch.advantages.dtype == batch.sampler_logprobs.dtype == torch.float32


def test_responses_to_one_prompt_share_it_and_keep_their_order() -> None:
    first, second = forward_sample([1, 2], [3]), forward_sample([9], [8, 7])
    batch = collate([first, second, forward_sample([1, 2], [4, 5])])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 9, 8, 7]]
    assert batch.row.tolist() == [0, 1, 1, 2, 2]
    assert batch.targets.tolist() == [3, 8, 7, 4, 5]
    assert batch.before.tolist() == [1, 5, 6, 1, 3]


def test_to_moves_every_tensor() -> None:
    moved = collate(samples()).to(torch.device("meta"))
    tensors = (getattr(moved, name) for name in moved.__slots__ if name != "layout")
    assert {tensor.device.type for tensor in (*tensors, moved.layout.place)} == {"meta"}


def test_a_rank_without_samples_still_computes_something_and_learns_nothing() -> None:
    batch = collate([])
    assert batch.input_ids.shape == (1, 2)
    assert batch.before.tolist() == [0]
    logits = torch.randn(1, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logprobs, _ = token_logprobs(logits[batch.before], batch.targets)
    terms = policy_loss(logprobs, batch.sampler_logprobs, batch.advantages, batch.weights)
    terms.loss.backward()
    assert terms.token_count.item() == terms.loss.item() == 0
    assert not logits.grad.any()


def test_samples_of_supervised_text_have_no_advantages() -> None:
    nothing = np.zeros(0, np.float32)
    sample = TrainingSample(np.array([1, 2, 3], np.int32), np.array([0.5, 0.5], np.float32), nothing, nothing)
    batch = collate([sample, sample])
    assert batch.targets.tolist() == [2, 3, 2, 3]
    assert batch.weights.tolist() == [0.5] * 4
    assert batch.advantages.numel() == batch.sampler_logprobs.numel() == 0
    assert batch.old_logprobs is None


def test_collate_takes_the_targets_of_samples_that_have_them() -> None:
    nothing = np.zeros(0, np.float32)
    ids, weights = np.array([1, 2, 3], np.int32), np.ones(2, np.float32)
    plain = TrainingSample(ids, weights, nothing, nothing)
    other = replace(plain, input_ids=np.array([4, 5, 6, 7], np.int32), targets=np.array([8, 9], np.int32))
    batch = collate([plain, other])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch.targets.tolist() == [2, 3, 8, 9]
    assert (batch.row.tolist(), batch.before.tolist()) == ([0, 0, 1, 1], [0, 1, 4, 5])


def test_split_over_ranks() -> None:
    # Lengths 5 and 2. Budget 7 holds both; budget 6 does not; with two ranks each has one.
    both = samples()
    names = {id(sample): number for number, sample in enumerate(both)}

    def split(budget: int, ranks: int) -> list[list[list[int]]]:
        return [[[names[id(s)] for s in batch] for batch in rank] for rank in split_over_ranks(both, budget, ranks)]

    assert split(7, 1) == [[[0, 1]]]
    assert split(6, 1) == [[[0], [1]]]
    assert split(10, 2) == [[[0]], [[1]]]
    assert split(10, 3) == [[[0]], [[1]], [[]]]
    assert split_over_ranks([], 10, 2) == [[], []]


@pytest.mark.parametrize("budget", [1, 16, 1000])
@pytest.mark.parametrize("ranks", [1, 3])
def test_the_loss_of_a_mini_batch_does_not_depend_on_how_it_is_split(budget: int, ranks: int) -> None:
    rng = np.random.default_rng(0)
    lengths = [3, 1, 7, 2, 5]
    responses = [rng.integers(1, 9, n).tolist() for n in lengths]
    logprobs = [rng.normal(-2, 1, n).tolist() for n in lengths]
    credits = [rng.random(n).tolist() for n in lengths]
    columns = zip(responses, logprobs, [1.0, -0.5, 0.3, 2.0, -1.0], credits, strict=True)
    everything = policy_samples([member([1, 2], *column) for column in columns], LossSettings(), 7)
    table = torch.log_softmax(torch.tensor(rng.normal(size=(10, 10))), -1)  # log-probability of a token after another

    def loss(batch: list[TrainingSample]) -> float:
        b = collate(batch)
        new = table[b.input_ids[0, b.before], b.targets]
        return policy_loss(new, b.sampler_logprobs.double(), b.advantages.double(), b.weights.double()).loss.item()

    total = sum(loss(batch) for rank in split_over_ranks(everything, budget, ranks) for batch in rank)
    assert total == pytest.approx(loss(everything), abs=1e-12)
