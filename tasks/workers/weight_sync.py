"""Weights on their way from the trainer to the rollout engines, and the proof that they arrived.

The trainer writes one safetensors file into memory (`cluster.sync_dir`); every engine reads it, and answers with a
`Proof`: the version, a digest of every parameter that it then holds, and its log-probabilities of a probe text. The
trainer computes the same digests from its own weights, for an engine fuses some tensors and holds only a part of each
where it is spread over several GPUs (`Layout`). The digests show that the engine holds these very weights. The probe
shows that it computes with them: its log-probabilities are close to the trainer's, as close as the dtype allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from safetensors.torch import load_file, save_file

from sgpo_core.storage.atomic import write_atomically

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
OTHERWISE = "Engine and trainer build this architecture in different ways: choose a model of another one"
Digests = dict[str, str]  # parameter -> digest


@dataclass(frozen=True, slots=True)
class Part:
    """`length` rows (`dim` 0) or columns (1) of a tensor of the trainer's, from `start`; all of it where `length` is
    None. `padding` rows of zeros follow."""

    name: str
    dim: int = 0
    start: int = 0
    length: int | None = None
    padding: int = 0

    def of(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        tensor = tensors[self.name]
        if self.length is not None:
            if tensor.dim() <= self.dim or tensor.shape[self.dim] < self.start + self.length:
                raise ValueError(
                    f"{self.name} has shape {tuple(tensor.shape)}, of which the engine wants {self.length} from "
                    f"{self.start} on in dimension {self.dim}. {OTHERWISE}"
                )
            tensor = tensor.narrow(self.dim, self.start, self.length)
        if self.padding:
            tensor = torch.cat([tensor, tensor.new_zeros(self.padding, *tensor.shape[1:])])
        return tensor


Layout = dict[str, tuple[Part, ...]]  # parameter of an engine's process -> what it is made of, row after row


@dataclass(frozen=True, slots=True)
class Proof:
    """What an engine holds after a sync. `digests`: of each of its processes (tensor parallel), of each parameter;
    `probe_logprobs` are nats."""

    version: int
    digests: tuple[Digests, ...]
    probe_logprobs: tuple[float, ...]

    def faults(self, found: Proof) -> list[str]:
        """What the engine that gave `found` does not hold of these weights."""
        faults = [] if found.version == self.version else [f"version {found.version} for {self.version}"]
        for rank, (ours, theirs) in enumerate(zip(self.digests, found.digests, strict=True)):
            where = f" in process {rank}" if len(self.digests) > 1 else ""
            for said, names in (
                ("not loaded", sorted(ours.keys() - theirs.keys())),
                ("unknown to the trainer", sorted(theirs.keys() - ours.keys())),
                ("different", sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name])),
            ):
                if names:
                    faults.append(f"{len(names)} of {len(ours)} parameters {said}{where} ({names[0]}, ...)")
        return faults

    def probe_difference(self, found: Proof) -> ProbeDifference:
        """How far the engine's log-probabilities of the probe are from these."""
        ours, theirs = np.array(self.probe_logprobs), np.array(found.probe_logprobs)
        differences = np.abs(ours - theirs) if len(ours) == len(theirs) else np.array([np.inf])
        if not np.isfinite(differences).all():
            return ProbeDifference(float("inf"), float("inf"))
        mean, high = float(differences.mean()), float(np.quantile(differences, 0.9))
        return ProbeDifference(mean, high)


@dataclass(frozen=True, slots=True)
class ProbeDifference:
    """Absolute difference of log-probabilities (nats) over the probe's tokens: mean, and 90th percentile. The largest
    one says nothing in bfloat16: single tokens differ by half a nat between an engine and a trainer that hold the same
    weights."""

    mean: float
    high: float

    def within(self, tolerance: float) -> bool:
        """The mean within the tolerance, the 90th percentile within four times it."""
        return self.mean <= tolerance and self.high <= 4 * tolerance


def digest(tensor: torch.Tensor) -> str:
    """16 hexadecimal digits of shape, dtype and bits (XXH3), wherever the tensor is."""
    flat = tensor.detach().contiguous().flatten()
    bits = flat.view(_INTEGERS[tensor.element_size()]).cpu().numpy()
    hashed = xxhash.xxh3_64(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    hashed.update(bits.data)
    return hashed.hexdigest()


def expected_digests(tensors: Mapping[str, torch.Tensor], layouts: Sequence[Layout]) -> tuple[Digests, ...]:
    """The digests of the parameters that engines of these layouts have to hold. Raises ValueError where a tensor has no
    place in any of them, or where a place has no tensor."""
    used = {part.name for layout in layouts for parts in layout.values() for part in parts}
    if missing := sorted(used - tensors.keys()):
        lacking = ", ".join(missing[:3])
        raise ValueError(f"the engine has parameters that the trainer's model lacks: {lacking}, ... {OTHERWISE}")
    if unused := sorted(tensors.keys() - used):
        left = ", ".join(unused[:3])
        raise ValueError(f"the engine has no place for tensors of the trainer: {left}, ... {OTHERWISE}")
    return tuple(
        {name: digest(torch.cat([part.of(tensors) for part in parts])) for name, parts in layout.items()}
        for layout in layouts
    )


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    write_atomically(path, lambda p: save_file(dict(tensors), p, metadata={"format": "pt"}))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)
