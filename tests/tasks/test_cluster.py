"""Where engines start, and what is said of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from sgpo_core.config.data import ModelSettings
from sgpo_core.config.training import ClusterSettings
from tasks.engines.cluster import kv_advice
from tests.helpers import REPOSITORY, shell_environment


def test_a_kv_cache_that_is_too_small_is_said() -> None:
    # 128 MiB hold 9 sequences; 64 need 128 * 64 / 9 = 910.2 MiB.
    model, cluster = ModelSettings(max_length=640), ClusterSettings(kv_cache_mib=128, max_num_seqs=64)
    assert kv_advice(64.0, model, cluster) == ""
    advice = kv_advice(9.0, model, cluster)
    assert "holds 9 responses of model.max_length=640" in advice and "cluster.kv_cache_mib=911 holds them all" in advice
    on_gpu = ClusterSettings(rollout_gpus=1, max_num_seqs=64)
    assert "cluster.gpu_memory_utilization" in kv_advice(9.0, model, on_gpu)


# In a Ray of its own, which believes that it has two GPUs: where each engine and each rank is put.
PLACED = """
import json, ray
from sgpo_core.config.training import ClusterSettings
from tasks.engines.actors import remote_actor, shared_gpus

class Where:
    def gpus(self):
        return ray.get_gpu_ids()

ray.init(num_gpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
cluster = ClusterSettings(rollout_actors=2, rollout_gpus=1, trainer_ranks=2, trainer_gpus=1, colocated=True)
place = shared_gpus(cluster)
actors = [remote_actor(Where, 1, {}, place, i).remote() for _ in ("engines", "ranks") for i in (0, 1)]
print(json.dumps(ray.get([actor.gpus.remote() for actor in actors])))
"""


def test_an_engine_and_its_rank_share_a_gpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLACED],
        cwd=REPOSITORY,
        env=shell_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    engine_0, engine_1, rank_0, rank_1 = json.loads(done.stdout.splitlines()[-1])
    assert engine_0 == rank_0 and engine_1 == rank_1 and engine_0 != engine_1


def test_what_shares_gpus_comes_in_pairs() -> None:
    pair = {"rollout_gpus": 1, "trainer_gpus": 1, "trainer_ranks": 2, "colocated": True}
    assert ClusterSettings(rollout_actors=2, **pair).gpus == 2
    for wrong in ({"rollout_actors": 1}, {"rollout_actors": 2, "rollout_gpus": 2}, {"trainer_gpus": 0}):
        with pytest.raises(ValidationError, match="as many engines as ranks"):
            ClusterSettings(**{"rollout_actors": 2, **pair, **wrong})
