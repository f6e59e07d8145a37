"""How weights travel from the trainer's first rank to the processes of the rollout engines: through a file in memory,
which one node needs, or broadcast over a process group (gloo on the CPU, NCCL on GPUs), which nodes without a shared
folder need. Both carry the same tensors under the same names; weight_sync.py proves what arrived."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file

from sgpo_core.storage.atomic import write_atomically
from tasks.workers.meeting import Meeting

Named = tuple[str, torch.Tensor]
_HEADER = 1024  # bytes of a tensor's name, dtype and shape, which go before it
_ALIGNED = 64  # bytes, of which the place of a tensor in a file is a multiple, as is the header's length


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
    """Through a file in a folder that all processes see: tensor after tensor, as they come."""

    path: str
    together = False

    def send(self, tensors: Iterable[Named]) -> None:
        with open(self.path, "wb") as file:
            for name, tensor in tensors:
                bits = _bits(tensor).cpu()
                file.write(_header(name, tensor))
                file.write(bits.numpy().data)
                file.write(bytes(-len(bits) % _ALIGNED))
            file.write(_header())

    def receive(self, rank: int, device: torch.device) -> Iterator[Named]:
        """They lie in the file, which is mapped and not read."""
        whole = torch.from_file(self.path, size=Path(self.path).stat().st_size, dtype=torch.uint8)
        place = 0
        while described := _described(whole[place : place + _HEADER]):
            name, dtype, shape = described
            begin = place + _HEADER
            end = begin + math.prod(shape) * dtype.itemsize
            yield name, whole[begin:end].view(dtype).view(shape)
            place = end + (begin - end) % _ALIGNED


@dataclass(frozen=True, slots=True)
class BroadcastTransfer:
    """Tensor after tensor, from the memory of the sender's device to that of each receiver's, without a file."""

    meeting: Meeting
    timeout_s: float
    together = True

    def send(self, tensors: Iterable[Named]) -> None:
        device: torch.device | None = None
        for name, tensor in tensors:
            device = tensor.device
            self._tell(_header(name, tensor), device)
            _group(self, 0, device.type).broadcast(_bits(tensor))
        if device is None:
            raise ValueError("there are no weights to send")
        self._tell(_header(), device)

    def _tell(self, header: bytes, device: torch.device) -> None:
        on_device = torch.frombuffer(bytearray(header), dtype=torch.uint8).to(device)
        _group(self, 0, device.type).broadcast(on_device)

    def receive(self, rank: int, device: torch.device) -> Iterator[Named]:
        group, header = _group(self, rank, device.type), torch.empty(_HEADER, dtype=torch.uint8, device=device)
        while True:
            group.broadcast(header)
            if (described := _described(header)) is None:
                return
            name, dtype, shape = described
            tensor = torch.empty(shape, dtype=dtype, device=device)
            group.broadcast(_bits(tensor))
            yield name, tensor


class _Group:
    """A process group beside those that DeepSpeed and vLLM have of their own: torch's default one is taken."""

    def __init__(self, transfer: BroadcastTransfer, rank: int, device: str) -> None:
        from torch import distributed

        timeout, size = timedelta(seconds=transfer.timeout_s), transfer.meeting.size
        store = transfer.meeting.store(rank, timeout)
        if device == "cuda":
            options = distributed.ProcessGroupNCCL.Options()
            options._timeout = timeout
            self._group: Any = distributed.ProcessGroupNCCL(store, rank, size, options)
        else:
            self._group = distributed.ProcessGroupGloo(store, rank, size, timeout)
        self._store, self._how = store, distributed.BroadcastOptions()
        self._how.rootRank = self._how.rootTensor = 0

    def broadcast(self, tensor: torch.Tensor) -> None:
        self._group.broadcast([tensor], self._how).wait()


@cache  # to meet costs more than to send: once in the life of a process
def _group(transfer: BroadcastTransfer, rank: int, device: str) -> _Group:
    return _Group(transfer, rank, device)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """uint8 [bytes], of the same memory where that is contiguous."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _header(name: str = "", tensor: torch.Tensor | None = None) -> bytes:
    """What goes before a tensor; without one, behind the last."""
    told = None if tensor is None else [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
    text = json.dumps(told).encode()
    if len(text) > _HEADER:
        raise ValueError(f"{told}: name and shape of a tensor take more than {_HEADER} bytes")
    return text.ljust(_HEADER)


def _described(header: torch.Tensor) -> tuple[str, torch.dtype, list[int]] | None:
    told = json.loads(header.cpu().numpy().tobytes())
    return None if told is None else (told[0], getattr(torch, told[1]), told[2])


def on_the_cpu(tensors: Iterable[Named]) -> dict[str, torch.Tensor]:
    """Copies of them all, contiguous, as a file wants them."""
    whole = torch.contiguous_format  # a merged weight may be none
    return {name: tensor.to("cpu", copy=True, memory_format=whole) for name, tensor in tensors}


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    write_atomically(path, lambda p: save_file(dict(tensors), p, metadata={"format": "pt"}))
