"""The preset `7b` on a Ray cluster of two nodes, of which every kind of part is lost once, against the same run that
loses nothing.

    python -m tests.faults.large

The policy is a Qwen2 as deep as Qwen2.5-7B (28 layers), and narrow. It is trained by two ranks (ZeRO-3, bfloat16),
sampled by two engines, and judged by two, all on the CPU; the nodes are on this machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.faults.attempt import FLOW, STAGE_BEGINS, VICTIMS, Attempt, end_by_sigterm
from tests.faults.nodes import TOKEN, began_anew, start_on
from tests.faults.ray_nodes import ray_nodes
from tests.helpers import differences, quick_judge

LAYERS = 28
NODE = "node"
# Who is lost, and in which stage: one after the other.
LOSSES = (
    *(("rollout engine", "generate"), ("judge engine", "judge"), ("trainer rank", "update")),
    *((NODE, "sync"), (FLOW, "checkpoint")),
)
SETTINGS = [
    *("model=tiny", "model.warm_start=null", "model.dtype=bfloat16", "data=chains", "eval=chains"),
    *("sampling={problems: 4, group_size: 4, max_tokens: 96}", "train.micro_batch_tokens=512", "train.mini_batches=2"),
    *("cluster=cpu", "cluster.trainer_ranks=2", "cluster.trainer_threads=1", "cluster.restarts=9"),
    *("judge=trained", "judge.engine.actors=2", "algorithm.credit.scope=all_incorrect"),
    *("iterations=6", "eval.every=3", "eval.sets.chains.data.count=8", "eval.sets.chains.k=2", "checkpoint.every=2"),
]


def command(policy: str, judge: str, folder: Path) -> list[str]:
    """The run, of a policy that is made in `folder`."""
    deep = deepened(Path(policy), folder)
    return ["flows.online", "7b", *SETTINGS, f"model.path={deep}", f"judge.model={judge}"]


def deepened(policy: Path, folder: Path) -> Path:
    """The policy, as deep as Qwen2.5-7B: the layers that are added give nothing to what they are given, so that it says
    the same as before. They learn."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(policy, folder, ignore=shutil.ignore_patterns("digests.json", "*.safetensors"))
    given = AutoModelForCausalLM.from_pretrained(policy)
    config, there = given.config, given.config.num_hidden_layers
    config.num_hidden_layers, config.layer_types = LAYERS, ["full_attention"] * LAYERS
    deep = AutoModelForCausalLM.from_config(config)
    missing, unknown = deep.load_state_dict(given.state_dict(), strict=False)
    assert not unknown and {int(name.split(".")[2]) for name in missing} == set(range(there, LAYERS))
    for layer in deep.model.layers[there:]:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    deep.save_pretrained(folder)
    return folder


def bereft(command: list[str], home: Path) -> tuple[dict[str, Any], list[str]]:
    """The result of the run that suffers all losses, and what it said of each."""
    said, seen = list[str](), 0
    with ray_nodes(2) as (nodes, [node]):
        attempt = start_on(nodes, command, home)
        try:
            for who, stage in LOSSES:
                assert attempt.wait_for(f"{STAGE_BEGINS}{stage}'", 1, seen), attempt.lines[-5:]
                seen = len(attempt.lines)
                if who == FLOW:
                    attempt.kill(FLOW)
                    attempt, began = start_on(nodes, command, home), time.monotonic()
                    assert attempt.wait_for(STAGE_BEGINS), attempt.lines[-5:]
                    said.append(_row(who, stage, time.monotonic() - began, "the same command goes on"))
                    seen = 0
                    continue
                if who == NODE:
                    nodes.remove_node(node, allow_graceful=False)
                else:
                    end_one(who)
                seen, seconds = began_anew(attempt, seen)
                said.append(_row(who, stage, seconds, attempt.lines[seen].split(" - ", 1)[-1]))
            return attempt.end(), said
        finally:
            attempt.process.kill()


def end_one(who: str) -> None:
    """Kills the first such process. (The nodes are children of this process, and what runs on them theirs.)"""
    for child in psutil.Process().children(recursive=True):
        if VICTIMS[who] in " ".join(child.cmdline()):
            child.kill()
            return
    raise LookupError(who)


def _row(who: str, stage: str, seconds: float, what: str) -> str:
    line = f"{who}, in {stage}: {seconds:.0f} s until it went on; {what}"
    print(line, file=sys.stderr, flush=True)
    return line


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    end_by_sigterm()
    os.environ |= TOKEN
    with tempfile.TemporaryDirectory(prefix="sgpo-faults-") as folder:
        start = Path(folder) / "start"
        policy = Attempt(["flows.warm_start", "tiny"], start).end()["run_dir"]
        judge = Attempt(["flows.judge_training", "tiny", *quick_judge(policy)], start).end()["run_dir"]
        run = command(policy, judge, Path(folder) / "deep")
        with ray_nodes(2) as (nodes, _):
            whole = start_on(nodes, run, Path(folder) / "whole").end()
        result, _ = bereft(run, Path(folder) / "bereft")
        found = differences(whole, result)
    print("\n".join(found) or f"{len(LOSSES)} losses: nothing differs")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
