"""offline_import_seconds, offline_import_memory, offline_read: a data set of 1,000,000 responses of about 70 tokens,
with token ids and log-probabilities, as one Parquet file.

The import (read, check every row, spell its tokens, group by problem) runs in a process of its own, whose peak memory
is measured. The read is of batches of 16 random groups of it, each trained on at once, against training on such batches
held in memory, ready for the trainer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import Figure, side_by_side
from bench.offline_import import MODEL
from bench.workload import run_module
from sgpo_core.chains import problems as chains
from sgpo_core.chains.policy import save_random_policy
from sgpo_core.config.algorithm import LossSettings
from sgpo_core.config.training import ClusterSettings, DeepSpeedSettings, TrainSettings
from sgpo_core.config.warm_start import WarmStartConfig
from sgpo_core.offline.batches import OfflineBatches
from sgpo_core.offline.store import Groups, Responses
from sgpo_core.rl.training_samples import TrainingSample, policy_samples
from sgpo_core.storage.rollout_table import from_table
from sgpo_core.types import Credit, RolloutGroup
from tasks.data import load_tokenizer
from tasks.engines.actors import start_ray
from tasks.engines.cluster import Engines, keep_engines, start_trainers
from tasks.paths import home
from tasks.training import train_on

RESPONSES, GROUP_SIZE, GROUPS = 1_000_000, 8, 16
TRAIN, LOSS = TrainSettings(lr=1e-6), LossSettings()
REPEATS = 15


def measure() -> Iterator[Figure]:
    """Import and read of the same data set."""
    folder = home() / "offline"
    policy, source, shards = folder / "policy", folder / "responses.parquet", folder / "shards"
    save_random_policy(WarmStartConfig(hidden_size=256, layers=4, heads=8, intermediate_size=448), policy)
    tokens = write_responses(source, str(policy))
    imported = run_module("bench.offline_import", str(policy), str(source), str(shards))
    how = f"{RESPONSES:,} responses, {tokens / RESPONSES:.0f} tokens each, {source.stat().st_size >> 20} MiB of Parquet"
    yield Figure(figure="offline_import_seconds", value=imported["seconds"], unit="s", goal=("<=", 300), how=how)
    yield Figure(figure="offline_import_memory", value=imported["peak_mib"], unit="MiB", goal=("<=", 1024), how=how)
    yield _read(str(policy), shards)


def write_responses(path: Path, policy: str) -> int:
    """Worked solutions with slips; their log-probabilities are made up. Returns the number of tokens."""
    rng, noise, tokenizer = random.Random(0), np.random.default_rng(0), load_tokenizer(policy)
    schema = pa.schema(
        [(name, pa.string()) for name in ("problem_id", "prompt", "answer", "reference", "response")]
        + [("token_ids", pa.list_(pa.int32())), ("rollout_logprobs", pa.list_(pa.float32()))]
    )
    problems, tokens = chains.make_problems(RESPONSES // GROUP_SIZE, seed=7), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for start in range(0, len(problems), 2_000):
            some = [p for p in problems[start : start + 2_000] for _ in range(GROUP_SIZE)]
            operands = [chains.operands(p.prompt) or (0, 0) for p in some]
            texts = [chains.solve(a, b, rng, slip_rate=0.6).text for a, b in operands]
            ids = [[*one, tokenizer.eos_token_id] for one in tokenizer(texts)["input_ids"]]
            logprobs = [-noise.random(len(one), np.float32) for one in ids]
            known = [[p.id for p in some], [p.prompt for p in some], [p.answer for p in some]]
            columns = [*known, [p.reference for p in some], texts, ids, logprobs]
            file.write_table(pa.table(columns, schema=schema))
            tokens += sum(map(len, ids))
    return tokens


def _read(policy: str, shards: Path) -> Figure:
    groups = Groups(Responses(shards))
    batches = OfflineBatches(groups, list(range(len(groups))), GROUPS, seed=0)
    held = [training_samples(batches, iteration) for iteration in range(1, REPEATS + 3)]
    turns = {"ours": iter(range(REPEATS + 3, 2 * REPEATS + 5)), "peer": iter(held)}  # ours: batches not seen before
    with keep_engines():
        start_ray()
        engines = Engines((), start_trainers(ClusterSettings(trainer_threads=2)), Path())
        engines.on_all_ranks("setup", policy, MODEL, TRAIN, DeepSpeedSettings(), False)
        train = partial(train_on, token_budget=TRAIN.micro_batch_tokens, loss=LOSS, temperature=1.0)

        def ours() -> float:
            began = time.perf_counter()
            train(engines, [training_samples(batches, next(turns["ours"]))])
            return time.perf_counter() - began

        def peer() -> float:
            samples = next(turns["peer"])
            began = time.perf_counter()
            train(engines, [samples])
            return time.perf_counter() - began

        read_s, held_s = side_by_side(ours, peer, REPEATS)
    return Figure(
        figure="offline_read",
        value=read_s,
        unit="s",
        goal=(">=", 0.95),
        peer=held_s,
        ratio=held_s / read_s,
        how=f"batches of {GROUPS} x {GROUP_SIZE} responses of {len(groups):,} groups, read and trained on (2.4M "
        f"parameters, 2 threads); peer: held in memory as the trainer's samples; medians of {REPEATS} in turn",
    )


def training_samples(batches: OfflineBatches, iteration: int) -> list[TrainingSample]:
    """An iteration's responses as the trainer takes them; advantages are made up."""
    columns = ["group", "sample", "prompt_ids", "token_ids", "rollout_logprobs"]
    groups = [_credited(group) for group in from_table(batches.table(iteration).select(columns))]
    return policy_samples([(group, rollout) for group in groups for rollout in group.rollouts], LOSS, 96)


def _credited(group: RolloutGroup) -> RolloutGroup:
    credits = [
        Credit(0.0, advantage=1.0 if r.sample % 2 else -1.0, token_credit=np.ones(len(r.token_ids), np.float32))
        for r in group.rollouts
    ]
    return group.with_rollouts([replace(r, credit=credit) for r, credit in zip(group.rollouts, credits, strict=True)])
