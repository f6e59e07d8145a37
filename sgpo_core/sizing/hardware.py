"""GPUs by name: what the vendor's data sheets say of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """memory: GiB that the driver shows, a little less than what stands on the box; tflops: dense bfloat16, 10^12 a
    second; bandwidth: of its memory, GB/s."""

    name: str
    memory: float
    tflops: float
    bandwidth: float


GPUS = {
    gpu.name: gpu
    for gpu in (  # NVIDIA's data sheets
        Gpu("L4-24", 22.0, 121, 300),
        Gpu("RTX4090-24", 23.5, 165, 1008),
        Gpu("A100-40", 39.4, 312, 1555),
        Gpu("A100-80", 79.2, 312, 2039),
        Gpu("H100-80", 79.1, 989, 3350),
        Gpu("H200-141", 139.8, 989, 4800),
    )
}
