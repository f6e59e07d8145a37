"""What a proof of weights is made of; tests/tasks/test_rollout.py has it with real engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
import torch

from tasks.workers.weight_reload import _rows
from tasks.workers.weight_sync import Digests, ExpectedDigests, Layout, Part, Proof, digest

Q, K, V = torch.arange(8.0).reshape(4, 2), torch.arange(8.0, 12).reshape(2, 2), torch.arange(12.0, 16).reshape(2, 2)
O = torch.arange(16.0, 24).reshape(2, 4)  # noqa: E741
EMBEDDING = torch.arange(6.0).reshape(3, 2)
TENSORS = {"q": Q, "k": K, "v": V, "o": O, "embed": EMBEDDING}


def expected_digests(tensors: Mapping[str, torch.Tensor], layouts: Sequence[Layout]) -> tuple[Digests, ...]:
    """Of tensors that are there only until the next is asked for, as under ZeRO-3."""

    def passing() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in tensors.items():
            lent = tensor.clone()
            yield name, lent
            lent.fill_(-1)

    expected = ExpectedDigests(layouts)
    assert [name for name, _ in expected.noting(passing())] == list(tensors)
    return expected.result()


def test_a_digest_sees_bits_shape_dtype_and_order() -> None:
    tensor = torch.arange(6.0)
    others = [tensor.flip(0), tensor.reshape(2, 3), tensor.to(torch.float64), tensor.to(torch.bfloat16), tensor + 1e-7]
    assert len({digest(t) for t in [tensor, *others]}) == 6
    assert digest(tensor) == digest(tensor.clone()) == digest(torch.stack([tensor, tensor], 1)[:, 0])
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))


def test_the_parts_of_two_processes_by_hand() -> None:
    """Four query heads and two key-value heads of one row, over two processes: each has two query heads and one of the
    others; the output projection is cut by columns, the three rows of the embedding are 2 and 1, padded to 2."""
    layouts = [
        {
            "qkv": (Part("q", 0, 2 * rank, 2), Part("k", 0, rank, 1), Part("v", 0, rank, 1)),
            "o": (Part("o", 1, 2 * rank, 2),),
            "embed": (Part("embed", 0, 2 * rank, 2 - rank, rank),),
        }
        for rank in (0, 1)
    ]
    held = [
        {
            "qkv": torch.tensor([[0.0, 1], [2, 3], [8, 9], [12, 13]]),
            "o": torch.tensor([[16.0, 17], [20, 21]]),
            "embed": torch.tensor([[0.0, 1], [2, 3]]),
        },
        {
            "qkv": torch.tensor([[4.0, 5], [6, 7], [10, 11], [14, 15]]),
            "o": torch.tensor([[18.0, 19], [22, 23]]),
            "embed": torch.tensor([[4.0, 5], [0, 0]]),
        },
    ]
    expected = tuple({name: digest(tensor) for name, tensor in process.items()} for process in held)
    assert expected_digests(TENSORS, layouts) == expected
    assert expected_digests(dict(reversed(TENSORS.items())), layouts) == expected


def test_a_tensor_without_a_place_and_a_place_without_a_tensor_are_named() -> None:
    with pytest.raises(ValueError, match=r"no place for tensors of the trainer: embed, k, o"):
        expected_digests(TENSORS, [{"q": (Part("q"),)}])
    with pytest.raises(ValueError, match=r"parameters that the trainer's model lacks: bias"):
        expected_digests({"q": Q}, [{"q": (Part("q"),), "bias": (Part("bias"),)}])


def proof(version: int = 3, probe: tuple[float, ...] = (-1.0, -2.0), **digests: str) -> Proof:
    return Proof(version, (digests,), probe)


def test_every_fault_is_named() -> None:
    ours = proof(a="1", b="2", c="3")
    assert ours.faults(proof(a="1", b="2", c="3")) == []
    assert ours.faults(proof(2, a="1", b="2", c="3")) == ["version 2 for 3"]
    assert ours.faults(proof(a="1", b="9")) == [
        "1 of 3 parameters not loaded (c, ...)",
        "1 of 3 parameters different (b, ...)",
    ]
    assert ours.faults(proof(a="1", b="2", c="3", d="4")) == ["1 of 3 parameters unknown to the trainer (d, ...)"]
    two = Proof(3, ({"a": "1"}, {"a": "2"}), ())
    assert two.faults(Proof(3, ({"a": "1"}, {"a": "1"}), ())) == ["1 of 1 parameters different in process 1 (a, ...)"]


def test_the_probe_looks_at_mean_and_percentile() -> None:
    """Differences 0.1 at nine of ten tokens and 1.1 at one: mean 0.2; sorted, the 90th percentile lies at place 8.1 of
    0 to 9, a tenth of the way from 0.1 to 1.1: 0.2."""
    differences = np.array([0.1] * 9 + [1.1])
    found = proof(probe=tuple(-differences)).probe_difference(proof(probe=(0.0,) * 10))
    assert found.mean == pytest.approx(0.2) and found.high == pytest.approx(0.2)
    assert found.within(0.21) and not found.within(0.19)
    wide = proof(probe=(0.0,) * 4 + (1.0,)).probe_difference(proof(probe=(0.0,) * 5))
    assert wide.mean == pytest.approx(0.2) and wide.high == pytest.approx(0.6)
    assert wide.within(0.2) and not proof(probe=(0.0,) * 4 + (2.0,)).probe_difference(proof(probe=(0.0,) * 5)).within(
        0.25
    )


def test_a_probe_that_is_no_number_or_of_another_length_is_not_within() -> None:
    for other in (proof(probe=(float("nan"), -2.0)), proof(probe=(-1.0,))):
        assert not proof().probe_difference(other).within(1e9)


def test_rows_of_a_layer_that_is_fused_in_the_trainer_too() -> None:
    """Process 1 of 2, of 8 query rows and 4 of keys and of values: from row 4 on, from 8 + 2 on, from 12 + 2 on."""
    fused = list(_rows(["qkv"], [8, 4, 4], [4, 2, 2], [1, 1, 1]))
    assert fused == [Part("qkv", 0, 4, 4), Part("qkv", 0, 10, 2), Part("qkv", 0, 14, 2)]
    apart = list(_rows(["q", "k", "v"], [8, 4, 4], [4, 2, 2], [1, 1, 1]))
    assert apart == [Part("q", 0, 4, 4), Part("k", 0, 2, 2), Part("v", 0, 2, 2)]


def test_an_architecture_that_the_engine_builds_otherwise_is_named() -> None:
    with pytest.raises(ValueError, match=r"q: 2 tensors make 3 parts.*choose a model of another one"):
        list(_rows(["q", "kv"], [8, 4, 4], [4, 2, 2], [0, 0, 0]))
    for part in (Part("q", 0, 2, 3), Part("q", 2, 0, 1)):
        with pytest.raises(ValueError, match=r"q has shape \(4, 2\), of which .*choose a model of another one"):
            expected_digests({"q": Q}, [{"q": (part,)}])
