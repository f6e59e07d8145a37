"""Memory of a trainer rank and of a vLLM engine, part by part, in GiB of one device.

What the trainer's forward and backward pass keep is checked against torch's own account of fake tensors
(tests/core/sizing), at the widths of the models that the presets train.
"""

from __future__ import annotations

from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import DeepSpeedSettings, TrainSettings
from sgpo_core.rl.linear_logprobs import MAX_LOGITS
from sgpo_core.sizing.shapes import ModelShape

GIB = 2**30
WIDTH = {"float32": 4, "bfloat16": 2}  # bytes a number
CONTEXT = 1.5  # GiB: CUDA, its libraries, and the allocator's gaps
# DeepSpeed's defaults: parameters that ZeRO-3 keeps gathered, parameters that are updated at a time, numbers in a
# bucket of gradients.
_LIVE, _SUB_GROUP, _BUCKET = 10**9, 10**9, 5 * 10**8
ASLEEP = CONTEXT + 1.0  # GiB that an engine keeps while it sleeps: CUDA, and its CUDA graphs; assumed
_ENGINE_ACTIVATIONS = 2.0  # GiB that vLLM sets aside for one full forward pass and its CUDA graphs; assumed

Parts = dict[str, float]


def trainer_memory(
    shape: ModelShape,
    model: ModelSettings,
    train: TrainSettings,
    sharding: DeepSpeedSettings,
    ranks: int,
    with_reference: bool = False,
    step_copies: int = 1,
) -> Parts:
    """Of one rank's device, at the peak: that of the backward pass of a full micro-batch, or that of the optimizer's
    step, for which torch's AdamW holds `step_copies` copies of what it updates at a time (two on the CPU). A KL
    reference is whole in every rank."""
    n, width, stage = shape.parameters, WIDTH[model.dtype], sharding.stage(model.dtype)
    trained = shape.trained(model.lora.rank)
    optimizer, gradients, weights = _shares(shape, model, sharding, ranks)
    parts = {"weights": width * weights}
    if stage == 3:
        parts["gathered weights"] = width * float(min(n, _LIVE))
    if with_reference:
        parts["KL reference"] = float(width * n)
    if not sharding.offload_optimizer:
        parts["gradients"] = 4 * gradients  # float32, whatever the dtype of the weights
        parts["optimizer"] = optimizer_bytes(optimizer, model)
    bucket = (width + 4.0) * min(trained, _BUCKET) if stage > 0 and ranks > 1 else 0.0
    to_host = 4.0 * min(gradients, _SUB_GROUP) if sharding.offload_optimizer else 0.0
    parts["gradients on their way"] = bucket + to_host
    parts["activations"] = float(activation_bytes(shape, train, width, head_trained=not model.lora.rank))
    if model.lora.rank:
        parts["adapters"] = float(width * trained)
    # Without ZeRO a parameter is updated at a time.
    updated = 0.0 if stage == 0 or sharding.offload_optimizer else min(optimizer, _SUB_GROUP if stage == 3 else n)
    backward = parts["activations"] + parts["gradients on their way"]
    parts["optimizer's step, over the backward pass"] = max(0.0, 4.0 * step_copies * updated - backward)
    return {name: size / GIB for name, size in parts.items() if size}


def _shares(
    shape: ModelShape, model: ModelSettings, sharding: DeepSpeedSettings, ranks: int
) -> tuple[float, float, float]:
    """Parameters of which a rank holds the optimizer's state, the gradients, and the weights."""
    stage, trained = sharding.stage(model.dtype), shape.trained(model.lora.rank)
    sharded = (1, trained), (2, trained), (3, shape.parameters)
    optimizer, gradients, weights = (size / (ranks if stage >= level else 1) for level, size in sharded)
    return optimizer, gradients, weights


def resting_bytes(
    shape: ModelShape, model: ModelSettings, sharding: DeepSpeedSettings, ranks: int, with_reference: bool
) -> float:
    """What a rank moves to host memory before an engine wakes on its GPU. Gradients are not among it: a step has used
    them up."""
    optimizer, _, weights = _shares(shape, model, sharding, ranks)
    copies = WIDTH[model.dtype] * (weights + (shape.parameters if with_reference else 0))
    return copies + (0.0 if sharding.offload_optimizer else optimizer_bytes(optimizer, model))


def optimizer_bytes(parameters: float, model: ModelSettings) -> float:
    """Of AdamW: two moments in float32, and beside bfloat16 weights the weights in float32."""
    return parameters * (12.0 if model.dtype == "bfloat16" else 8.0)


def activation_bytes(shape: ModelShape, train: TrainSettings, width: int, head_trained: bool = True) -> float:
    """The most that forward and backward pass of `train.micro_batch_tokens` hold beside weights and gradients. With
    gradient checkpointing that is the input of every layer, and half more than what one layer keeps: its own values
    and the gradients of a part of them. Or it is reached at the output layer, whose tiles of logits are bounded. What
    adapters keep is too little to count, and beside them the head is not trained."""
    tokens = train.micro_batch_tokens
    one = tokens * width * _kept_numbers(shape, width)
    if train.gradient_checkpointing:
        kept, at_work = float(shape.layers * tokens * shape.hidden * width), 1.5 * one
    else:
        attended = (shape.heads + 2 * shape.kv_heads + 2 * shape.heads) * shape.head_size * tokens
        kept, at_work = shape.layers * (one + attended * width), 0.5 * one
    head = float(width * shape.embedding) if head_trained else 0.0  # the gradient of the output layer
    tiles = (2 * 4 + width) * min(MAX_LOGITS, tokens * shape.vocabulary)
    most = kept + max(at_work + (head if shape.tied else 0.0), tiles, 0.6 * tiles + head)
    # A tied head's gradient waits for that of the embedding, which is the last one; then there is their sum as well.
    return max(most, 3 * head) if shape.tied else most


def _kept_numbers(shape: ModelShape, width: int) -> float:
    """Numbers a token that one layer keeps: the residual stream twice, each norm's input and its result (in float32
    while it is computed), queries, keys and values before and after rotation, the attention's result, gate, its
    activation, up and their product."""
    attention = (shape.heads + 2 * shape.kv_heads) * shape.head_size
    norms = 2 * shape.hidden * (2 + 4 / width)
    return 2 * shape.hidden + norms + 2 * attention + shape.heads * shape.head_size + 4 * shape.intermediate


def engine_memory(shape: ModelShape, dtype: str, gpus: int, limit: float, sequences: int, max_length: int) -> Parts:
    """Of one of the GPUs of a vLLM engine that may take `limit` GiB of it. What weights and activations leave is the KV
    cache's, of which `sequences` of full length are counted as needed; negative where nothing is left."""
    width = WIDTH[dtype]
    weights = width * shape.parameters / gpus / GIB
    wanted = sequences * max_length * shape.kv_bytes(width) / gpus / GIB
    left = limit - weights - _ENGINE_ACTIVATIONS
    return {"weights": weights, "activations, CUDA graphs": _ENGINE_ACTIVATIONS, "KV cache": min(left, wanted)}


def kv_sequences(shape: ModelShape, dtype: str, gpus: int, gib: float, length: int) -> float:
    """Sequences of so many tokens that a KV cache of so many GiB a GPU holds."""
    return gib * GIB * gpus / (length * shape.kv_bytes(WIDTH[dtype]))
