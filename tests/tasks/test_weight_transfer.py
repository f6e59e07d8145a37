"""Both ways of weights, without engines: what is sent arrives to the bit, and nobody waits for ever."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tasks.workers.meeting import Meeting, interface_of
from tasks.workers.weight_transfer import BroadcastTransfer, FileTransfer, Named

CPU = torch.device("cpu")
TENSORS = {
    "weight": torch.arange(-6.0, 6.0).reshape(3, 4) / 7,
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "half": torch.arange(5, dtype=torch.bfloat16) / 3,
    "number": torch.tensor(2.5),
    "large": torch.arange(2**20, dtype=torch.float32),
}


def lent(shortened_to: int | None = None) -> Iterator[Named]:
    """Each tensor is there only until the next is asked for."""
    for name, tensor in itertools.islice(TENSORS.items(), shortened_to):
        copy = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor)
        yield name, copy
        copy.fill_(-1)
    if shortened_to is not None:
        raise RuntimeError("the trainer fails")


@pytest.fixture
def broadcast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BroadcastTransfer:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    return BroadcastTransfer(Meeting(3, file=str(tmp_path / "meeting")), timeout_s=60.0)


@pytest.fixture
def hasty(broadcast: BroadcastTransfer) -> BroadcastTransfer:
    return replace(broadcast, timeout_s=15.0)


def same(found: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(TENSORS) and all(
        found[n].dtype == t.dtype and found[n].shape == t.shape and torch.equal(found[n], t) for n, t in TENSORS.items()
    )


def test_what_is_broadcast_arrives_everywhere_and_again(broadcast: BroadcastTransfer) -> None:
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):  # the group that has met stays
            receiving = [pool.submit(lambda rank: dict(broadcast.receive(rank, CPU)), rank) for rank in (1, 2)]
            broadcast.send(lent())
            assert [same(received.result()) for received in receiving] == [True, True]


def test_a_file_carries_the_same(tmp_path: Path) -> None:
    transfer = FileTransfer(str(tmp_path / "policy-3"))
    for _ in range(2):
        transfer.send(lent())
        assert same(dict(transfer.receive(1, CPU)))


def test_whoever_waits_for_a_sender_that_failed_says_so_in_time(hasty: BroadcastTransfer) -> None:
    with ThreadPoolExecutor(2) as pool:
        receiving = [pool.submit(lambda rank: dict(hasty.receive(rank, CPU)), rank) for rank in (1, 2)]
        with pytest.raises(RuntimeError, match="the trainer fails"):
            hasty.send(lent(3))
        for received in receiving:
            with pytest.raises(RuntimeError, match=r"(?i)timed out"):
                received.result(60)


def test_what_can_not_be_told_is_refused(broadcast: BroadcastTransfer, tmp_path: Path) -> None:
    for transfer in (broadcast, FileTransfer(str(tmp_path / "policy-5"))):
        with pytest.raises(ValueError, match="name and shape of a tensor take more than 1024 bytes"):
            transfer.send(iter([("x" * 1024, torch.zeros(1))]))
    with pytest.raises(ValueError, match="no weights to send"):
        broadcast.send(iter([]))


def test_processes_of_several_nodes_meet_on_the_interface_that_ray_uses() -> None:
    assert interface_of("127.0.0.1").startswith("lo") and interface_of("192.0.2.1") == ""
