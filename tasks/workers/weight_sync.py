"""The proof that weights arrived at the rollout engines (weight_transfer.py has the way there).

Every engine answers with a `Proof`: the version, a digest of every parameter that it then holds, and its
log-probabilities of a probe text. The trainer computes the same digests from its own weights, for an engine fuses some
tensors and holds only a part of each where it is spread over several processes (`Layout`). The digests show that the
engine holds these very weights. The probe shows that it computes with them: its log-probabilities are close to the
trainer's, as close as the dtype allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xxhash

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


class ExpectedDigests:
    """The digests of the parameters that engines of these layouts have to hold, made while the trainer's tensors pass:
    one is kept, on the CPU, only until the parameters that it is a part of are complete."""

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self._found: tuple[Digests, ...] = tuple({} for _ in layouts)
        self._missing: dict[tuple[int, str], set[str]] = {}  # process and parameter -> tensors that are to come
        self._wanted: dict[str, list[tuple[int, str]]] = {}  # tensor -> processes and parameters that it is a part of
        for process, layout in enumerate(layouts):
            for parameter, parts in layout.items():
                self._missing[process, parameter] = {part.name for part in parts}
                for name in self._missing[process, parameter]:
                    self._wanted.setdefault(name, []).append((process, parameter))
        self._layouts, self._kept, self._unused = layouts, dict[str, torch.Tensor](), list[str]()

    def noting(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same tensors, in passing."""
        for name, tensor in tensors:
            yield name, tensor
            self._note(name, tensor)

    def _note(self, name: str, tensor: torch.Tensor) -> None:
        users = self._wanted.get(name, [])
        if not users:
            self._unused.append(name)
            return
        complete = [user for user in users if self._missing[user] == {name}]
        alone = len(complete) == len(users)  # nobody waits for another: no copy is needed
        self._kept[name] = tensor.detach() if alone else tensor.detach().to("cpu", copy=True)
        for process, parameter in users:
            self._missing[process, parameter].discard(name)
        for process, parameter in complete:
            parts = self._layouts[process][parameter]
            tensors = [part.of(self._kept).cpu() for part in parts]
            self._found[process][parameter] = digest(torch.cat(tensors) if len(tensors) > 1 else tensors[0])
        for other in [other for other in self._kept if not any(self._missing[user] for user in self._wanted[other])]:
            del self._kept[other]

    def result(self) -> tuple[Digests, ...]:
        """Of each process, once all tensors have passed. Raises ValueError where a tensor has no place in any of them,
        or where a place has no tensor."""
        if missing := sorted(set().union(*self._missing.values())):
            lacking = ", ".join(missing[:3])
            raise ValueError(f"the engine has parameters that the trainer's model lacks: {lacking}, ... {OTHERWISE}")
        if self._unused:
            left = ", ".join(sorted(self._unused)[:3])
            raise ValueError(f"the engine has no place for tensors of the trainer: {left}, ... {OTHERWISE}")
        return self._found
