"""What DeepSpeed is told: its configuration, from the settings of a run."""

from __future__ import annotations

from typing import Any

from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import DeepSpeedSettings, TrainSettings


def deepspeed_config(model: ModelSettings, train: TrainSettings, sharding: DeepSpeedSettings) -> dict[str, Any]:
    """For every rank alike: AdamW, clipping, ZeRO's stage, and what is computed in float32."""
    stage = sharding.stage(model.dtype)
    zero: dict[str, Any] = {"stage": stage}
    if sharding.offload_optimizer:
        # Page-locked memory would come in powers of two, up to twice what is needed. Its faster copies would save an
        # estimated few seconds of an update that is estimated to take minutes.
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
    in_float32: dict[str, Any] = {}
    if model.dtype == "bfloat16":  # gradients are added up, over micro-batches and over ranks, in float32
        in_float32 = {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Every call of step() ends an accumulation, after as many backward passes as the plan has micro-batches.
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0 if stage == 0 else train.grad_clip,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": train.lr,
                "betas": list(train.betas),
                "weight_decay": train.weight_decay,
                "torch_adam": not sharding.offload_optimizer,
            },
        },
        "bf16": {"enabled": model.dtype == "bfloat16"},
        **in_float32,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "timers": {"throughput": {"enabled": False}},  # it would wait for the GPU before every forward pass
    }
