"""What is said of engines when they start."""

from __future__ import annotations

from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import ClusterSettings
from tasks.engines.cluster import kv_advice


def test_a_kv_cache_that_is_too_small_is_said() -> None:
    # 128 MiB hold 9 sequences; 64 need 128 * 64 / 9 = 910.2 MiB.
    model, cluster = ModelSettings(max_length=640), ClusterSettings(kv_cache_mib=128, max_num_seqs=64)
    assert kv_advice(64.0, model, cluster) == ""
    advice = kv_advice(9.0, model, cluster)
    assert "holds 9 responses of model.max_length=640" in advice and "cluster.kv_cache_mib=911 holds them all" in advice
    on_gpu = ClusterSettings(rollout_gpus=1, max_num_seqs=64)
    assert "cluster.gpu_memory_utilization" in kv_advice(9.0, model, on_gpu)
