"""What all benches work on: one small policy, and flows run as a user runs them, in a home of the bench's own.

The policy is a Qwen2 of 2.4 million parameters that has been taught `chains` of 4 columns for a minute, and to forget
every second carry. It ends its responses (about 47 tokens) and goes wrong at different steps, so that nearly every
group has something to teach: random weights would run into the length limit, and nothing would be trained on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sgpo_core.chains import problems as chains
from sgpo_core.sizing.shapes import KNOWN
from tasks.paths import REPOSITORY, home
from tasks.workers.rollout_worker import Request, RolloutWorker, Sampling, sampling_parameters

COLUMNS = 4
GROUPS, GROUP_SIZE = 16, 8
MAX_TOKENS = 64
LARGE_GROUPS, LARGE_MAX_TOKENS = 4, 150  # of large_policy
LR = 1e-5  # small: after some iterations the groups still give signals as at the start
WARM_START = [
    f"data.columns={COLUMNS}",
    "hidden_size=256",
    "layers=4",
    "heads=8",
    "intermediate_size=448",
    "curriculum=[{steps: 300, slip_rate: 0.5}]",
    "batch_size=24",
    "data.carry_rate=0.9",
    "noise=0",
    "train={lr: 1.4e-3, weight_decay: 0.01, warmup_steps: 30}",
    "gate_agreement=0",  # what it has learned matters little; that it is the same every time does
]


@lru_cache(maxsize=1)
def policy() -> str:
    """Folder of the policy, made once for all benches of a call."""
    return str(run_module("flows.warm_start", "tiny", *WARM_START)["run_dir"])


@lru_cache(maxsize=1)
def large_policy() -> str:
    """Folder of random weights in the shape of SmolLM2-135M, with the small policy's tokenizer. Its responses
    almost never end, and it learns nothing: it is there for the seconds that work takes."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    folder = shutil.copytree(policy(), home() / "large-policy")
    for written in ("model.safetensors", "digests.json"):
        (folder / written).unlink(missing_ok=True)
    config = Qwen2Config(**KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"].config(), max_position_embeddings=2048)
    ids = json.loads((folder / "config.json").read_text())
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config, name, ids.get(name))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return str(folder)


def long_problems(count: int) -> list[dict[str, str]]:
    """Additions behind two worked ones: about 100 of the policy's tokens each."""
    rng, found = random.Random(0), list[dict[str, str]]()
    for _ in range(count):
        (a, b), *shown = (chains.sample_operands(rng, columns, 0.9) for columns in (COLUMNS, COLUMNS - 1, COLUMNS - 1))
        examples = "".join(chains.prompt(x, y) + chains.solve(x, y, rng).text + "\n" for x, y in shown)
        found.append({"problem": examples + chains.prompt(a, b), "answer": str(a + b)})
    return found


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
