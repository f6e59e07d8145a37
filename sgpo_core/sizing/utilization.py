"""How busy the hardware was: model FLOPs utilization, and the share of an iteration in which engines waited."""

from __future__ import annotations

from collections.abc import Mapping

from sgpo_core.sizing.hardware import Gpu
from sgpo_core.sizing.shapes import ModelShape

# Stages in which each kind of engine is at work.
_AT_WORK = {"rollout": ("generate", "generate_ahead", "evaluate"), "trainer": ("recompute_logprobs", "update")}


def mfu(
    shape: ModelShape, gpu: Gpu, gpus: int, tokens: int, length: float, seconds: float, adapters: bool = False
) -> float:
    """Operations that `tokens` tokens of texts of `length` need for a forward and a backward pass (3 times 2 for each
    parameter, and attention), over what so many GPUs could do in that time by their data sheet. What is computed twice
    (gradient checkpointing) counts once (Chowdhery et al., 2022, arXiv 2204.02311, appendix B). Where only adapters
    are trained, the weights have no gradients: 2 times 2."""
    passes = 2 if adapters else 3
    return passes * tokens * shape.token_operations(length) / (seconds * gpus * gpu.tflops * 1e12)


def idle_shares(metrics: Mapping[str, float]) -> dict[str, float]:
    """`speed/<rollout|trainer|judge>_idle_frac`: the share of `time/iteration_s` in which these engines waited. Of the
    judge only where it was asked."""
    whole = metrics["time/iteration_s"]
    if whole <= 0:
        return {}
    busy = {kind: sum(metrics.get(f"time/{name}_s", 0.0) for name in stages) for kind, stages in _AT_WORK.items()}
    if judging := metrics.get("judge/seconds", 0.0):
        busy["judge"] = judging
    return {f"speed/{kind}_idle_frac": max(0.0, 1 - seconds / whole) for kind, seconds in busy.items()}
