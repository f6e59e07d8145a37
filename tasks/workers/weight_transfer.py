"""How weights travel from the trainer's first rank to the processes of the rollout engines: through a file in memory,
which one node needs, or broadcast over a process group (gloo on the CPU, NCCL on GPUs), which nodes without a shared
folder need. Both carry the same tensors under the same names; weight_sync.py proves what arrived."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from sgpo_core.storage.atomic import write_atomically

Named = tuple[str, torch.Tensor]
_HEADER = 1024  # bytes of a tensor's name, dtype and shape before it is broadcast


class Transfer(Protocol):
    """One way. Rank 0 sends; processes of engines are the ranks from 1 on."""

    @property
    def together(self) -> bool:
        """Sender and receivers have to be at work at the same time."""

    def send(self, tensors: Iterable[Named]) -> None:
        """A tensor is read before the next one is asked for, so that a trainer whose weights are in shards has one
        whole tensor at a time."""

    def receive(self, rank: int, device: torch.device) -> Iterator[Named]:
        """All that is sent, in its order. To be read to its end."""


@dataclass(frozen=True, slots=True)
class FileTransfer:
    """Through one safetensors file, whole or not at all, in a folder that all processes see."""

    path: str
    together = False

    def send(self, tensors: Iterable[Named]) -> None:
        write_weights(Path(self.path), on_the_cpu(tensors))

    def receive(self, rank: int, device: torch.device) -> Iterator[Named]:
        yield from read_weights(Path(self.path)).items()


@dataclass(frozen=True, slots=True)
class BroadcastTransfer:
    """Tensor after tensor, from the memory of the sender's device to that of each receiver's, without a file. `size`
    processes take part. They meet in the file `meeting`, or, where it is empty, at the sender's `host` and `port`."""

    size: int
    timeout_s: float
    meeting: str = ""
    host: str = ""
    port: int = 0
    together = True

    def send(self, tensors: Iterable[Named]) -> None:
        group: _Group | None = None
        for name, tensor in tensors:
            group = group or _group(self, 0, tensor.device.type)
            bits = tensor.detach().contiguous().flatten().view(torch.uint8)
            group.broadcast(_header([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)], bits.device))
            group.broadcast(bits)
        if group is None:
            raise ValueError("there are no weights to send")
        group.broadcast(_header(None, bits.device))

    def receive(self, rank: int, device: torch.device) -> Iterator[Named]:
        group = _group(self, rank, device.type)
        while True:
            header = torch.empty(_HEADER, dtype=torch.uint8, device=device)
            group.broadcast(header)
            told = json.loads(header.cpu().numpy().tobytes())
            if told is None:
                return
            name, dtype, shape = told
            tensor = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
            group.broadcast(tensor.view(-1).view(torch.uint8))
            yield name, tensor


class _Group:
    """A process group beside those that DeepSpeed and vLLM have of their own: torch's default one is taken."""

    def __init__(self, transfer: BroadcastTransfer, rank: int, device: str) -> None:
        from torch import distributed

        timeout = timedelta(seconds=transfer.timeout_s)
        store: Any = (
            distributed.FileStore(transfer.meeting, transfer.size)
            if transfer.meeting
            else distributed.TCPStore(transfer.host, transfer.port, transfer.size, rank == 0, timeout)
        )
        if device == "cuda":
            options = distributed.ProcessGroupNCCL.Options()
            options._timeout = timeout
            self._group: Any = distributed.ProcessGroupNCCL(store, rank, transfer.size, options)
        else:
            self._group = distributed.ProcessGroupGloo(store, rank, transfer.size, timeout)
        self._store, self._how = store, distributed.BroadcastOptions()
        self._how.rootRank = self._how.rootTensor = 0

    def broadcast(self, tensor: torch.Tensor) -> None:
        self._group.broadcast([tensor], self._how).wait()


@cache  # to meet costs more than to send: once in the life of a process
def _group(transfer: BroadcastTransfer, rank: int, device: str) -> _Group:
    return _Group(transfer, rank, device)


def _header(told: object, device: torch.device) -> torch.Tensor:
    text = json.dumps(told).encode()
    if len(text) > _HEADER:
        raise ValueError(f"{told}: name and shape of a tensor take more than {_HEADER} bytes")
    return torch.frombuffer(bytearray(text.ljust(_HEADER)), dtype=torch.uint8).to(device)


def on_the_cpu(tensors: Iterable[Named]) -> dict[str, torch.Tensor]:
    """Copies of them all, contiguous, as a file wants them."""
    whole = torch.contiguous_format  # a merged weight may be none
    return {name: tensor.to("cpu", copy=True, memory_format=whole) for name, tensor in tensors}


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    write_atomically(path, lambda p: save_file(dict(tensors), p, metadata={"format": "pt"}))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
