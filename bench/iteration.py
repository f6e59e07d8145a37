"""iteration, overhead: whole iterations of `python -m flows.online` as a user runs it (Ray, vLLM, DeepSpeed, Prefect,
MLflow, parquet) against steps of TRL's GRPOTrainer (see trl_peer.py), both on 16 problems x 8 responses.

TRL is what one would use instead on this machine. Its bare minimum is transformers' generation and one optimizer step;
ours generates with vLLM, grades, judges every wrong response (more than the default does), records everything, makes
two optimizer steps on the same tokens and brings the weights to two engines. Each has both cores and the niceness of
Ray's workers, and the thread settings that suit it best.

overhead is the share of our iterations that is neither generation nor update: the price of the orchestration.

The runs take turns, each with the machine to itself. Not counted are the first iterations, our last one (it evaluates
and saves), and those in which more than one group was without signal: we skip its tokens, where TRL computes on.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from bench.figures import Figure
from bench.workload import COLUMNS, GROUP_SIZE, GROUPS, LR, MAX_TOKENS, iteration_records, policy, run_module

ROUNDS = 2
ITERATIONS = 14
WARM_UP = 2
STAGES = ("generate", "grade", "judge", "credit", "update", "sync", "record")

Record = dict[str, float]


def measure() -> Iterator[Figure]:
    """Both figures, of the same runs."""
    if find_spec("trl") is None:
        raise SystemExit("bench: the peer of `iteration`, TRL, is not installed; `make bench` does that")
    own: list[Record] = []
    peer: list[Record] = []
    for seed in range(ROUNDS):
        own += our_iterations(seed)
        peer += trl_steps(seed)
    seconds, peer_seconds = median(own, "time/iteration_s"), median(peer, "seconds")
    yield Figure(
        figure="iteration",
        value=seconds,
        unit="s",
        goal=(">=", 1.25),
        peer=peer_seconds,
        ratio=peer_seconds / seconds,
        how=f"peer: TRL GRPOTrainer, 1 optimizer step (ours: {median(own, 'policy/steps'):.0f}); "
        f"medians of {len(own)} and {len(peer)}; "
        f"sampled tokens {median(own, 'rollout/tokens'):.0f} and {median(peer, 'tokens'):.0f}; "
        f"we trained on {median(own, 'groups'):.0f} of {GROUPS} groups",
    )
    yield Figure(
        figure="overhead",
        value=statistics.median(overhead(record) for record in own),
        unit="share of the iteration",
        goal=("<=", 0.15),
        how="neither generate nor update; medians in ms: "
        + ", ".join(f"{name} {1000 * median(own, f'time/{name}_s'):.0f}" for name in STAGES),
    )


def our_iterations(seed: int) -> list[Record]:
    """The iterations that count, of one run."""
    result = run_module("flows.online", "tiny", *overrides(policy(), seed))
    records = iteration_records(result["run_dir"])
    for record in records:
        record["groups"] = GROUPS * (1 - record["group/zero_signal_frac"])
    return [record for record in records[WARM_UP:-1] if record["groups"] >= GROUPS - 1]


def overrides(folder: str, seed: int) -> list[str]:
    return [
        # At this size two ranks of one thread each take a tenth less than one rank of two: no threads to wait for.
        "cluster.trainer_ranks=2",
        "cluster.trainer_threads=1",
        "train.micro_batch_tokens=2048",
        "model.warm_start=null",
        f"model.path={folder}",
        f"seed={seed}",
        f"iterations={ITERATIONS}",
        f"data.columns={COLUMNS}",
        f"++eval.sets.chains.data.columns={COLUMNS}",
        f"sampling.problems={GROUPS}",
        f"sampling.group_size={GROUP_SIZE}",
        f"sampling.max_tokens={MAX_TOKENS}",
        "algorithm.credit.scope=all_incorrect",
        "eval.every=1000",
        f"train.lr={LR}",
        "checkpoint.every=1000",
    ]


def trl_steps(seed: int) -> list[Record]:
    """The steps of one run of the peer that count, with both cores and OpenMP as it comes (its best, measured)."""
    columns = run_module("bench.trl_peer", policy(), str(ITERATIONS), str(seed), OMP_NUM_THREADS="2")
    steps = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return steps[WARM_UP:]


def overhead(record: Record) -> float:
    spent = record["time/generate_s"] + record["time/update_s"]
    return (record["time/iteration_s"] - spent) / record["time/iteration_s"]


def median(records: Sequence[Record], name: str) -> float:
    return statistics.median(record[name] for record in records)
