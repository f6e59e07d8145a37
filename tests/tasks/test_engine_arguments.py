"""What the presets ask vLLM for, read by vLLM itself: a flag that it has renamed, or a combination that it refuses, is
found here and not on somebody's GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sgpo_core.config.catalog import presets
from sgpo_core.config.run import load_run
from tasks.workers.judge_worker import judge_arguments
from tasks.workers.rollout_worker import engine_arguments
from tasks.workers.vllm_process import vllm_environment
from tests.helpers import REPOSITORY, shell_environment
from tests.small_models import save_small_model

ON_GPUS = [preset for preset in presets("online") if load_run(preset, []).cluster.rollout_gpus]
# Reads lists of arguments from standard input and prints what vLLM makes of each, in a process that may load it.
READ = """
import json, sys
from vllm.engine.arg_utils import EngineArgs
found = []
for arguments in json.load(sys.stdin):
    try:
        config = EngineArgs(**arguments).create_engine_config()
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
        continue
    found.append([config.parallel_config.tensor_parallel_size, config.scheduler_config.max_num_seqs,
                  config.model_config.max_model_len, str(config.model_config.dtype),
                  config.cache_config.gpu_memory_utilization])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model with a long context stands in for those of the presets, which are not here."""
    return str(save_small_model(tmp_path_factory.mktemp("model"), max_position_embeddings=65536))


def read(arguments: list[dict[str, object]]) -> list[object]:
    shell = shell_environment(Path("/nonexistent/sgpo")) | vllm_environment(threads=2, local=Path("/nonexistent"))
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps(arguments),
        cwd=REPOSITORY,
        env=shell,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_vllm_takes_the_arguments_of_every_preset(model: str) -> None:
    assert {"7b", "14b", "32b", "0.5b", "r1-qwen-7b"} <= set(ON_GPUS)
    asked, expected = [], []
    for preset in ON_GPUS:
        config = load_run(preset, [])
        cluster, judge = config.cluster, config.judge.engine
        for gpus in {cluster.rollout_gpus, 1, 2, 4}:
            asked.append(engine_arguments(model, config.model, cluster.model_copy(update={"rollout_gpus": gpus})))
            told = [cluster.max_num_seqs, config.model.max_length, f"torch.{config.model.dtype}"]
            expected.append([gpus, *told, cluster.gpu_memory_utilization])
        if config.judge.name == "llm":
            asked.append(judge_arguments(model, judge, judge.max_length))
            told = [judge.max_num_seqs, judge.max_length, f"torch.{judge.dtype}"]
            expected.append([judge.gpus, *told, judge.gpu_memory_utilization])
    assert read(asked) == expected


def test_a_flag_that_vllm_does_not_know_is_found(model: str) -> None:
    config = load_run("7b", [])
    arguments = engine_arguments(model, config.model, config.cluster)
    sleeping = config.cluster.model_copy(update={"colocated": True, "sleep": True})
    said, slept = read([arguments | {"max_number_of_sequences": 3}, engine_arguments(model, config.model, sleeping)])
    assert "max_number_of_sequences" in str(said)
    assert "Sleep mode is not supported on current platform" in str(slept)  # on the CPU; so it knows the flag
