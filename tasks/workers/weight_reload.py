"""What vLLM's own processes (one a GPU) learn from us: to receive new weights themselves, each its part, and to say
what they then hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from typing import Any

import torch

from tasks.workers.weight_sync import OTHERWISE, Digests, Layout, Part, digest
from tasks.workers.weight_transfer import Named, Transfer

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


class WeightReload:
    """Mixed into vLLM's worker (`worker_extension_cls`)."""

    model_runner: Any
    reload_weights: Any
    device: torch.device
    rank: int  # among the engine's processes

    def weight_layout(self) -> Layout:
        """What each parameter of this process is made of, in names of the Hugging Face model."""
        model = self.model_runner.get_model()
        packed = getattr(model, "packed_modules_mapping", {})
        tied = bool(getattr(model.config, "tie_word_embeddings", False))
        layout = {}
        for module_name, module in model.named_modules():
            for parameter_name, _ in module.named_parameters(recurse=False):
                name = f"{module_name}.{parameter_name}"
                layout[name] = tuple(_parts(module, module_name, parameter_name, packed))
        if tied and {HEAD, EMBEDDING} <= layout.keys():
            layout[HEAD] = layout[EMBEDDING]
        return layout

    def receive_weights(self, transfer: Transfer, first_rank: int) -> Digests:
        """Loads the weights, and answers with a digest of each parameter of this process. `first_rank`: that of this
        engine's first process in the transfer."""
        model = self.model_runner.get_model()
        weights = with_tied_head(transfer.receive(first_rank + self.rank, self.device), model)
        packs = self.device.type == "cpu"  # on a GPU all parameters stay as they are loaded
        with observed_before_packing(model) if packs else nullcontext(Digests()) as packed:
            try:
                self.reload_weights(weights_iterator=weights)
            finally:  # what is left, also by an error: the sender and other processes would wait for this one
                for _ in weights:
                    pass
        found = packed | resident_digests(model)
        if self.device.type == "cuda":  # a layer's second copy, while it was loaded: a rank may want that memory
            torch.cuda.empty_cache()
        return found


def with_tied_head(weights: Iterator[Named], model: Any) -> Iterator[Named]:
    """The trainer does not send a tied head, and a reload does not tie it again: it would keep the old weights.
    (Gemma's first two generations have none in vLLM, they use the embedding.)"""
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    missing = tied and any(name == HEAD for name, _ in model.named_parameters(remove_duplicate=False))
    embedding: torch.Tensor | None = None
    for name, tensor in weights:
        missing = missing and name != HEAD
        embedding = tensor if missing and name == EMBEDDING else embedding
        yield name, tensor
    if missing and embedding is not None:
        yield HEAD, embedding


def _parts(module: Any, module_name: str, parameter: str, packed: dict[str, list[str]]) -> Iterator[Part]:
    """How vLLM spreads this parameter; whatever is of no parallel kind is whole in every process."""
    from vllm.model_executor.layers.linear import (
        ColumnParallelLinear,
        MergedColumnParallelLinear,
        QKVParallelLinear,
        RowParallelLinear,
    )
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    prefix, _, last = module_name.rpartition(".")
    names = [f"{prefix}.{source}.{parameter}" for source in packed.get(last, [last])]
    names = [name.removeprefix(".") for name in names]
    if isinstance(module, QKVParallelLinear):
        places = [module.tp_rank, *[module.tp_rank // module.num_kv_head_replicas] * 2]
        queries, keys = module.total_num_heads, module.total_num_kv_heads
        whole = [queries * module.head_size, keys * module.head_size, keys * module.v_head_size]
        yield from _rows(names, whole, module.output_partition_sizes, places)
    elif isinstance(module, MergedColumnParallelLinear):
        places = [module.tp_rank] * len(module.output_sizes)
        yield from _rows(names, module.output_sizes, module.output_partition_sizes, places)
    elif isinstance(module, ColumnParallelLinear):
        yield Part(names[0], 0, module.tp_rank * module.output_size_per_partition, module.output_size_per_partition)
    elif isinstance(module, RowParallelLinear) and parameter == "weight":
        yield Part(names[0], 1, module.tp_rank * module.input_size_per_partition, module.input_size_per_partition)
    elif isinstance(module, VocabParallelEmbedding):
        rows = module.shard_indices.org_vocab_end_index - module.shard_indices.org_vocab_start_index
        padding = module.num_embeddings_per_partition - rows
        yield Part(names[0], 0, module.shard_indices.org_vocab_start_index, rows, padding)
    else:
        yield Part(names[0])


def _rows(names: list[str], whole: list[int], sizes: list[int], places: list[int]) -> Iterator[Part]:
    """The parts of a fused layer, `sizes` rows each: of a tensor each of `whole` rows, or of one that is fused in the
    trainer's model, too (Phi-3)."""
    if len(names) not in (1, len(sizes)):
        raise ValueError(f"{names[0]}: {len(names)} tensors make {len(sizes)} parts. {OTHERWISE}")
    starts = [0] * len(sizes)
    if len(names) == 1:
        names, starts = names * len(sizes), [0, *accumulate(whole[:-1])]
    for name, start, size, place in zip(names, starts, sizes, places, strict=True):
        yield Part(name, 0, start + place * size, size)


@contextmanager
def observed_before_packing(model: Any) -> Iterator[Digests]:
    """The digests of the parameters of every layer that vLLM processes after it was loaded, taken right before: on the
    CPU it then packs a linear layer's weight for its own kernels and leaves an empty tensor."""
    names = {id(module): name for name, module in model.named_modules()}
    kinds = {type(module.quant_method) for module in model.modules() if hasattr(module, "quant_method")}
    found: Digests = {}
    originals = {kind: kind.process_weights_after_loading for kind in kinds}

    def observing(original: Any) -> Any:
        def process(method: Any, layer: Any, *arguments: Any, **keywords: Any) -> Any:
            if id(layer) in names:
                prefix = names[id(layer)]
                found.update({f"{prefix}.{n}": digest(p) for n, p in layer.named_parameters(recurse=False)})
            return original(method, layer, *arguments, **keywords)

        return process

    for kind, original in originals.items():
        kind.process_weights_after_loading = observing(original)
    try:
        yield found
    finally:
        for kind, original in originals.items():
            kind.process_weights_after_loading = original


def resident_digests(model: Any) -> Digests:
    """Of all parameters that are there as they were loaded: not those that were packed away."""
    parameters: Iterator[tuple[str, torch.Tensor]] = model.named_parameters(remove_duplicate=False)
    return {name: digest(parameter) for name, parameter in parameters if parameter.numel()}
