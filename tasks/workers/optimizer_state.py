"""The state of an optimizer on disk: of every trained parameter the float32 weight and AdamW's two moments, whole, by
name, in safetensors alone. It does not matter over how many ranks and in which ZeRO stage they were spread: a run can
go on in another layout.

DeepSpeed's own checkpoints are pickles of what each rank holds, and fit that layout alone. It knows where each rank's
part of a parameter is; that is read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sgpo_core.storage.atomic import read_json, write_json

KINDS = ("weight", "exp_avg", "exp_avg_sq")  # of each parameter: the float32 weight, AdamW's first and second moment
_INDEX = "state.json"
_FILE_BYTES = 2 << 30  # of one file, which its rank holds in memory until it is written


@dataclass(frozen=True, slots=True)
class _Part:
    """What this rank holds of one parameter: `length` elements of `flat`, from `offset`; they are the parameter's from
    `start` on."""

    flat: Tensor
    offset: int
    start: int
    length: int

    def of(self, state: Tensor) -> Tensor:
        """The same part of a tensor that is laid out as `flat` is."""
        return state.view(-1).narrow(0, self.offset, self.length)


def save_state(engine: Any, folder: Path, steps_done: int) -> None:
    """Called on all ranks together, which share the files among them."""
    named = _trained(engine)
    files = list(_files(named))
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for number, names in enumerate(files):
            mine = number % ranks == rank
            if mine and written:  # one file in memory, and the other ranks need not wait for the disk of this one
                written.result()
            tensors = whole_state(engine, names, keep=mine)
            if mine:
                written = writer.submit(save_file, tensors, folder / _file(number))
        if written:
            written.result()
    if rank == 0:
        write_json(folder / _INDEX, {"steps_done": steps_done, "files": files})
    torch.distributed.barrier()  # whoever asked rank 0 may count on all files


def load_state(engine: Any, folder: Path) -> int:
    """Called on all ranks together; returns the number of optimizer steps done. Raises ValueError where the parameters
    are not those of the model."""
    named, index = _trained(engine), read_json(folder / _INDEX)
    saved = [name for names in index["files"] for name in names]
    if set(saved) != set(named):
        odd = sorted(set(saved) ^ set(named))
        raise ValueError(f"{folder} holds the state of another model: {len(odd)} parameters differ ({odd[0]}, ...)")
    _begin(engine, index["steps_done"])
    for number, names in enumerate(index["files"]):
        with safe_open(folder / _file(number), "pt") as file:
            for name in names:
                for kind in KINDS:
                    _put(engine, named[name], kind, file.get_tensor(f"{kind}/{name}"))
    return int(index["steps_done"])


def whole_state(engine: Any, names: Sequence[str] | None = None, keep: bool = True) -> dict[str, Tensor]:
    """`KIND/NAME` of the named parameters (all that are trained) -> float32, on the CPU. Called on all ranks together:
    those that keep nothing give their parts."""
    named = _trained(engine)
    found = {}
    for name in named if names is None else names:
        for kind in KINDS:
            whole = _whole(engine, named[name], kind)
            if keep:
                found[f"{kind}/{name}"] = whole.cpu()
    return found


def holds_state(folder: Path) -> bool:
    """Whether `save_state` has written there: an earlier version wrote something else."""
    return (folder / _INDEX).is_file()


def _trained(engine: Any) -> dict[str, nn.Parameter]:
    return {name: p for name, p in engine.module.lm.named_parameters() if p.requires_grad}


def _files(named: dict[str, nn.Parameter]) -> Iterator[list[str]]:
    """The names of the parameters in each file."""
    names: list[str] = []
    size = 0
    for name, parameter in named.items():
        bytes_ = len(KINDS) * 4 * _shape(parameter).numel()
        if names and size + bytes_ > _FILE_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += bytes_
    if names:
        yield names


def _file(number: int) -> str:
    return f"optimizer-{number:05}.safetensors"


def _shape(parameter: nn.Parameter) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))  # under ZeRO-3 its own is that of nothing


def _whole(engine: Any, parameter: nn.Parameter, kind: str) -> Tensor:
    """float32, of the parameter's shape, put together from all ranks."""
    shape, part = _shape(parameter), _part(engine, parameter)
    whole = torch.zeros(shape.numel(), dtype=torch.float32, device=parameter.device)
    if part is not None and (state := _state(engine, part, kind)) is not None:
        whole.narrow(0, part.start, part.length).copy_(part.of(state))
    if engine.zero_optimization_stage():
        torch.distributed.all_reduce(whole)
    return whole.view(shape)


def _put(engine: Any, parameter: nn.Parameter, kind: str, whole: Tensor) -> None:
    import deepspeed

    part = _part(engine, parameter)
    if part is not None:
        state = _state(engine, part, kind)
        assert state is not None  # `_begin` made it
        part.of(state).copy_(whole.view(-1).narrow(0, part.start, part.length))
    if kind == "weight":  # also the one that the forward pass reads, in the dtype of the model
        sharded = hasattr(parameter, "ds_id")
        with torch.no_grad(), deepspeed.zero.GatheredParameters([parameter], 0, enabled=sharded):
            if not sharded or torch.distributed.get_rank() == 0:
                parameter.copy_(whole)


def _state(engine: Any, part: _Part, kind: str) -> Tensor | None:
    """None: the optimizer has made no step yet."""
    if kind == "weight":
        return part.flat.detach()
    found: Tensor | None = engine.basic_optimizer.state[part.flat].get(kind)
    return found


def _part(engine: Any, parameter: nn.Parameter) -> _Part | None:
    """None: this rank holds nothing of it."""
    optimizer: Any = engine.optimizer
    if hasattr(parameter, "ds_id"):  # ZeRO-3: the same length on every rank, the last ones padded
        group, offset, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start = length * torch.distributed.get_rank()
        held = min(length, _shape(parameter).numel() - start)
        return _Part(optimizer.fp32_partitioned_groups_flat[group], offset, start, held) if held > 0 else None
    if hasattr(parameter, "_hp_mapping"):  # ZeRO-1 and -2
        if (mapping := parameter._hp_mapping) is None:
            return None
        there, here = mapping.hp_fragment_address, mapping.lp_fragment_address
        return _Part(_flat(optimizer)[mapping.param_group_index], there.start, here.start, here.numel)
    return _Part(parameter, 0, 0, parameter.numel())


def _flat(optimizer: Any) -> Sequence[Tensor]:
    """This rank's part of every group of parameters, float32: under another name in bfloat16 and ZeRO-1."""
    found: Sequence[Tensor] = getattr(optimizer, "single_partition_of_fp32_groups", None) or getattr(
        optimizer, "fp32_groups_flat_partition", []
    )
    return found


def _begin(engine: Any, steps_done: int) -> None:
    """An optimizer that has made no step has no moments: makes them, and sets its number of steps."""
    base = engine.basic_optimizer
    flats = {id(part.flat): part.flat for p in _trained(engine).values() if (part := _part(engine, p)) is not None}
    for flat in flats.values():
        step = torch.tensor(float(steps_done)) if isinstance(base, torch.optim.AdamW) else steps_done
        moments = {kind: torch.zeros_like(flat, requires_grad=False) for kind in KINDS[1:]}
        base.state[flat] = {"step": step, **moments}
