"""Low-rank adapters (Hu et al., 2021, arXiv 2106.09685): beside every linear layer W of the decoder a product B A of
low rank is trained, and W stays. Engines and files get the merged weight W + alpha / rank x B A, so that they need not
know of adapters: a sync carries the whole policy, and proves it as ever."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sgpo_core.config.data import LoraSettings

_NAME = "default"  # of the one adapter, in peft
_PREFIX = "base_model.model."  # of its tensors' names in a file
_SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]+)/?$")
_SEED = 0  # of the adapters' first values: the same on every rank, and in every run


@dataclass(frozen=True, slots=True)
class Exported:
    """A tensor that leaves the trainer: its name in a file, the parameters that it is made of, and how, without a copy
    where it is one of them; under ZeRO-3 they have to be gathered first."""

    name: str
    parameters: list[nn.Parameter]
    make: Callable[[], Tensor]


def add_adapters(lm: nn.Module, settings: LoraSettings) -> None:
    """Puts adapters into the model, B = 0, and freezes all else."""
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        inject_adapter_in_model(_peft_config(settings), lm, _NAME)


def exported(lm: nn.Module) -> Iterator[Exported]:
    """Every tensor of the policy, a tied head once, adapters merged."""
    layers = {f"{name}.base_layer.weight": layer for name, layer in _adapted(lm)}
    for name, parameter in lm.named_parameters():
        if name in layers:
            layer: Any = layers[name]
            a, b = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
            merge = _merging(parameter, a, b, layer.scaling[_NAME])
            yield Exported(name.replace(".base_layer.", "."), [parameter, a, b], merge)
        elif f".{_NAME}." not in name:
            yield Exported(name.replace(".base_layer.", "."), [parameter], parameter.detach)


def adapter_tensors(lm: nn.Module) -> Iterator[Exported]:
    """Those of the adapters alone, by the names that peft reads in adapter_model.safetensors."""
    for name, parameter in lm.named_parameters():
        if f".{_NAME}." in name:
            yield Exported(_PREFIX + name.replace(f".{_NAME}.", "."), [parameter], parameter.detach)


def write_config(settings: LoraSettings, policy: str, folder: str) -> None:
    """adapter_config.json; `policy` is the folder of the model that the adapters belong to. One of the hub's cache is
    named by its id and revision."""
    config = _peft_config(settings)
    config.base_model_name_or_path, config.inference_mode = policy, True
    if found := _SNAPSHOT.search(policy):
        config.base_model_name_or_path, config.revision = f"{found[1]}/{found[2]}", found[3]
    config.save_pretrained(folder)


def _peft_config(settings: LoraSettings) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _adapted(lm: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in lm.named_modules():
        if _NAME in getattr(module, "lora_A", {}):
            yield name, module


def _merging(weight: nn.Parameter, a: nn.Parameter, b: nn.Parameter, scaling: float) -> Callable[[], Tensor]:
    """The sum is made in float32 and rounded once."""
    return lambda: torch.add(weight.float(), b.float() @ a.float(), alpha=scaling).to(weight.dtype).detach()
