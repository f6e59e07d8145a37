"""Weights on their way from the trainer to the rollout engines, and the proof that they arrived.

The trainer writes one safetensors file into memory (`cluster.sync_dir`); every engine reads it, and answers with a
fingerprint: the version, the checksums of the tensors it was given, and its log-probabilities of a probe text. In
float32 the probe must match the trainer's; in bfloat16 its noise hides a stale sync, which is why version and checksums
are compared too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sgpo_core.storage.atomic import write_atomically

_INTEGERS = {2: torch.int16, 4: torch.int32}


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`checksum` covers names, shapes and bits of all tensors; `probe_logprobs` are nats."""

    version: int
    checksum: int
    probe_logprobs: tuple[float, ...]

    def difference(self, other: Fingerprint) -> float:
        """Largest difference of the probe's log-probabilities, nats."""
        return max(abs(a - b) for a, b in zip(self.probe_logprobs, other.probe_logprobs, strict=True))


def checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    """A 64-bit sum over the bits of all tensors, weighted by place, so that swapped rows or tensors change it."""
    total = 0
    for name in sorted(tensors):
        bits = (
            tensors[name].detach().contiguous().view(_INTEGERS[tensors[name].element_size()]).flatten().to(torch.int64)
        )
        place = torch.arange(len(bits), device=bits.device) % 65_521 + 1
        seed = sum(ord(c) * 31**i for i, c in enumerate(name))
        total += int((bits * place).sum()) * (2 * seed + 1)
    return total % 2**63


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    write_atomically(path, lambda p: save_file(dict(tensors), p, metadata={"format": "pt"}))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
