"""What all benches work on: one small policy, and flows run as a user runs them, in a home of the bench's own.

The policy is a Qwen2 of 2.4 million parameters that has been taught `chains` of 4 columns for a minute, and to forget
every second carry. It ends its responses (about 47 tokens) and goes wrong at different steps, so that nearly every
group has something to teach: random weights would run into the length limit, and nothing would be trained on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tasks.paths import REPOSITORY
from tasks.workers.rollout_worker import Request, RolloutWorker, Sampling, sampling_parameters

COLUMNS = 4
GROUPS, GROUP_SIZE = 16, 8
MAX_TOKENS = 64
LR = 1e-5  # small: after some iterations the groups still give signals as at the start
_WARM_START = [
    f"columns={COLUMNS}",
    "hidden_size=256",
    "layers=4",
    "heads=8",
    "intermediate_size=448",
    "curriculum=[{steps: 300, slip_rate: 0.5}]",
    "batch_size=24",
    "carry_rate=0.9",
    "noise=0",
    "train={lr: 1.4e-3, weight_decay: 0.01, warmup_steps: 30}",
    "gate_agreement=0",  # what it has learned matters little; that it is the same every time does
]


@lru_cache(maxsize=1)
def policy() -> str:
    """Folder of the policy, made once for all benches of a call."""
    return str(run_module("flows.warm_start", "tiny", *_WARM_START)["run_dir"])


def run_module(*command: str, **variables: str) -> dict[str, Any]:
    """`python -m COMMAND`, in a process of its own, to its end; the JSON object on its last line of output."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=REPOSITORY,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def iteration_records(run_dir: str) -> list[dict[str, float]]:
    """The metrics of every iteration of a run, the start (0) left out."""
    files = sorted(Path(run_dir).glob("iterations/*/metrics.json"))
    records = [json.loads(file.read_text()) for file in files]
    return [record["metrics"] for record in records if record["step"] > 0]


def bare_seconds(worker: RolloutWorker, requests: Sequence[Request], sampling: Sampling) -> float:
    """Runs inside the actor: seconds of `LLM.generate` and nothing else."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    common = sampling_parameters(sampling) | {"detokenize": False}
    prompts = [TokensPrompt(prompt_token_ids=list(request.prompt_ids)) for request in requests]
    parameters = [SamplingParams(seed=request.seed, **common) for request in requests]
    began = time.perf_counter()
    worker.llm.generate(prompts, parameters, use_tqdm=False)
    return time.perf_counter() - began
