"""What the trainer eats: weights and advantages of every token, tensors of a micro-batch, and how rows are dealt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgpo_core.rl.losses import policy_loss, token_logprobs
from sgpo_core.rl.training_samples import TrainingSample, collate, deal, policy_rows

PROMPTS = [[11, 12], [21]]
RESPONSES = [[13, 14, 15], [22]]
LOGPROBS = [[-0.5, -1.0, -1.5], [-2.0]]
CREDITS = [[1.0, 0.0, 0.5], [1.0]]


def rows(mean: str = "sequence") -> list[TrainingSample]:
    return policy_rows(PROMPTS, RESPONSES, LOGPROBS, [2.0, -1.0], CREDITS, mean, 10)


@pytest.mark.parametrize(
    ("mean", "weights"),
    [
        ("sequence", [1 / 6, 1 / 2]),
        ("token", [1 / 4, 1 / 4]),
        ("sum", [1 / 2, 1 / 2]),
        ("max_length", [1 / 20, 1 / 20]),
    ],
)
def test_policy_rows(mean: str, weights: list[float]) -> None:
    first, second = rows(mean)
    assert first.input_ids.tolist() == [11, 12, 13, 14, 15]
    assert first.prompt_length == 2
    assert first.weights.tolist() == pytest.approx([weights[0]] * 3)  # the masked token stays in the denominator
    assert first.advantages.tolist() == [2, 0, 1]  # times its token's credit
    assert first.old_logprobs.tolist() == [-0.5, -1.0, -1.5]
    assert second.weights.tolist() == pytest.approx([weights[1]])
    assert second.advantages.tolist() == [-1]
    arrays = (array for r in rows() for array in (r.weights, r.advantages, r.old_logprobs))
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_policy_rows_of_unequal_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        policy_rows(PROMPTS, RESPONSES, LOGPROBS, [1.0], CREDITS, "token", 10)


def test_collate() -> None:
    batch = collate(rows())
    assert batch.input_ids.tolist() == [[11, 12, 13, 14, 15], [21, 22, 0, 0, 0]]  # padded on the right
    assert batch.row.tolist() == [0, 0, 0, 1]
    assert batch.position.tolist() == [1, 2, 3, 0]  # where the token before is, which predicts it
    assert batch.targets.tolist() == [13, 14, 15, 22]
    assert batch.advantages.tolist() == [2, 0, 1, -1]
    assert batch.old_logprobs.tolist() == [-0.5, -1.0, -1.5, -2.0]
    assert batch.weights.tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])
    assert batch.input_ids.dtype == batch.targets.dtype == batch.position.dtype == torch.int64
    assert batch.weights.dtype == batch.advantages.dtype == batch.old_logprobs.dtype == torch.float32


def test_to_moves_every_tensor() -> None:
    moved = collate(rows()).to(torch.device("meta"))
    assert {getattr(moved, name).device.type for name in moved.__slots__} == {"meta"}


def test_a_rank_without_rows_still_computes_something_and_learns_nothing() -> None:
    batch = collate([])
    assert batch.input_ids.shape == (1, 2)
    assert batch.position.tolist() == [0]
    logits = torch.randn(1, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    logprobs, _ = token_logprobs(logits[batch.position], batch.targets)
    terms = policy_loss(logprobs, batch.old_logprobs, batch.advantages, batch.weights)
    terms.loss.backward()
    assert terms.token_count.item() == terms.loss.item() == 0
    assert not logits.grad.any()


def test_rows_of_supervised_text_have_no_advantages() -> None:
    nothing = np.zeros(0, np.float32)
    row = TrainingSample(np.array([1, 2, 3], np.int32), np.array([0.5, 0.5], np.float32), nothing, nothing)
    batch = collate([row, row])
    assert batch.targets.tolist() == [2, 3, 2, 3]
    assert batch.weights.tolist() == [0.5] * 4
    assert batch.advantages.numel() == batch.old_logprobs.numel() == 0


def test_deal() -> None:
    # Lengths 5 and 2. Budget 10 holds both (2 * 5); budget 9 does not; with two ranks each has one.
    first, second = rows()

    def dealt(budget: int, ranks: int) -> list[list[list[int]]]:
        names = {id(first): 0, id(second): 1}
        return [[[names[id(r)] for r in batch] for batch in rank] for rank in deal([first, second], budget, ranks)]

    assert dealt(10, 1) == [[[0, 1]]]
    assert dealt(9, 1) == [[[0], [1]]]
    assert dealt(10, 2) == [[[0]], [[1]]]
    assert dealt(10, 3) == [[[0]], [[1]], [[]]]
    assert deal([], 10, 2) == [[], []]


@pytest.mark.parametrize("budget", [1, 16, 1000])
@pytest.mark.parametrize("ranks", [1, 3])
def test_the_loss_of_a_mini_batch_does_not_depend_on_how_it_is_dealt(budget: int, ranks: int) -> None:
    rng = np.random.default_rng(0)
    lengths = [3, 1, 7, 2, 5]
    responses = [rng.integers(1, 9, n).tolist() for n in lengths]
    logprobs = [rng.normal(-2, 1, n).tolist() for n in lengths]
    credits = (rng.random(n) for n in lengths)
    all_rows = policy_rows([[1, 2]] * 5, responses, logprobs, [1.0, -0.5, 0.3, 2.0, -1.0], list(credits), "sequence", 7)
    table = torch.log_softmax(torch.tensor(rng.normal(size=(10, 10))), -1)  # log-probability of a token after another

    def loss(batch_rows: list[TrainingSample]) -> float:
        b = collate(batch_rows)
        new = table[b.input_ids[b.row, b.position], b.targets]
        return policy_loss(new, b.old_logprobs.double(), b.advantages.double(), b.weights.double()).loss.item()

    total = sum(loss(batch) for rank in deal(all_rows, budget, ranks) for batch in rank)
    assert total == pytest.approx(loss(all_rows), abs=1e-12)
