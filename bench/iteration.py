"""iteration, iteration_bfloat16, iteration_two_steps, overhead: whole iterations of `python -m flows.online` as a
user runs it (Ray, vLLM, DeepSpeed, Prefect, MLflow, parquet) against steps of TRL's GRPOTrainer (see trl_peer.py), on
the same 16 problems x 8 responses, in one precision and with as many optimizer steps.

TRL is what one would use instead on this machine. Its bare minimum is transformers' generation and the update; ours
generates with vLLM, grades, judges every wrong response (more than the default does), records everything, and brings
the weights to two engines. Each has both cores and the niceness of Ray's workers, and the thread settings that suit it
best.

overhead is the share of our iterations (float32, one optimizer step) that is neither generation nor update: the price
of the orchestration.

The runs of a case take turns, each with the machine to itself. Not counted are the first iterations, our last one (it
evaluates and saves), and those in which more than one group was without signal: we skip its tokens, where TRL computes
on.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec

from bench.figures import Figure
from bench.trl_peer import Work
from bench.workload import (
    COLUMNS,
    GROUP_SIZE,
    GROUPS,
    LARGE_GROUPS,
    LARGE_MAX_TOKENS,
    LR,
    MAX_TOKENS,
    iteration_records,
    large_policy,
    long_problems,
    policy,
    run_module,
)
from sgpo_core.config.data import DataSettings
from sgpo_core.data.problems import load_problems, problems_of_iteration
from tasks.paths import home

WARM_UP = 2
STAGES = ("generate", "grade", "judge", "credit", "update", "sync", "record")

Record = dict[str, float]


@dataclass(frozen=True)
class Case:
    """What both sides do alike."""

    figure: str
    dtype: str
    optimizer_steps: int
    goal: float
    large: bool = False

    @property
    def rounds(self) -> int:
        return 1 if self.large else 2

    @property
    def iterations(self) -> int:
        return 7 if self.large else 14

    @property
    def groups(self) -> int:
        return LARGE_GROUPS if self.large else GROUPS

    @property
    def max_tokens(self) -> int:
        return LARGE_MAX_TOKENS if self.large else MAX_TOKENS

    def policy(self) -> str:
        return large_policy() if self.large else policy()

    def data(self) -> DataSettings:
        if not self.large:
            return DataSettings(columns=COLUMNS)
        source = home() / "long-problems.jsonl"
        source.write_text("\n".join(map(json.dumps, long_problems(2 * self.groups * self.iterations))))
        return DataSettings(source=str(source))


CASES = (
    Case("iteration", "float32", 1, 1.15),
    Case("iteration_bfloat16", "bfloat16", 1, 1.3),
    Case("iteration_two_steps", "float32", 2, 1.15),
)


def measure() -> Iterator[Figure]:
    """All figures; `overhead` is of the runs of the first."""
    for case in CASES:
        own, peer = in_turn(case)
        yield against_trl(case, own, peer)
        if case is CASES[0]:
            yield Figure(
                figure="overhead",
                value=statistics.median(overhead(record) for record in own),
                unit="share of the iteration",
                goal=("<=", 0.15),
                how="neither generate nor update; medians in ms: "
                + ", ".join(f"{name} {1000 * median(own, f'time/{name}_s'):.0f}" for name in STAGES),
            )


def in_turn(case: Case) -> tuple[list[Record], list[Record]]:
    """The iterations that count, ours and those of the peer."""
    if find_spec("trl") is None:
        raise SystemExit(f"bench: the peer of `{case.figure}`, TRL, is not installed; `make bench` does that")
    own: list[Record] = []
    peer: list[Record] = []
    for seed in range(case.rounds):
        own += our_iterations(case, seed)
        peer += trl_steps(case, seed)
    return own, peer


def against_trl(case: Case, own: Sequence[Record], peer: Sequence[Record]) -> Figure:
    seconds, peer_seconds = median(own, "time/iteration_s"), median(peer, "seconds")
    return Figure(
        figure=case.figure,
        value=seconds,
        unit="s",
        goal=(">=", case.goal),
        peer=peer_seconds,
        ratio=peer_seconds / seconds,
        how=f"peer: TRL GRPOTrainer; both in {case.dtype}, optimizer steps {median(own, 'policy/steps'):.0f} and "
        f"{case.optimizer_steps}; medians of {len(own)} and {len(peer)}; "
        f"sampled tokens {median(own, 'rollout/tokens'):.0f} and {median(peer, 'tokens'):.0f}; "
        f"ours: generate {median(own, 'time/generate_s'):.2f} s, update {median(own, 'time/update_s'):.2f} s, on "
        f"{median(own, 'groups'):.0f} of {case.groups} groups",
    )


def our_iterations(case: Case, seed: int) -> list[Record]:
    """The iterations that count, of one run."""
    result = run_module("flows.online", "tiny", *overrides(case, seed))
    records = iteration_records(result["run_dir"])
    for record in records:
        record["groups"] = case.groups * (1 - record["group/zero_signal_frac"])
    return [record for record in records[WARM_UP:-1] if record["groups"] >= case.groups - 1]


def overrides(case: Case, seed: int) -> list[str]:
    data = case.data()
    large = [
        "algorithm=ngrpo",
        "data=file",
        f"data.source={data.source}",
        "cluster.kv_cache_mib=512",
        "model.max_length=320",
    ]
    small = [f"data.columns={data.columns}", "algorithm.credit.scope=all_incorrect"]
    return [
        *(large if case.large else small),
        # At this size two ranks of one thread each take a tenth less than one rank of two: no threads to wait for.
        *([] if case.large else ["cluster.trainer_ranks=2", "cluster.trainer_threads=1"]),
        "train.micro_batch_tokens=2048",
        "model.warm_start=null",
        f"model.path={case.policy()}",
        f"model.dtype={case.dtype}",
        f"train.mini_batches={case.optimizer_steps}",
        f"seed={seed}",
        f"iterations={case.iterations}",
        f"eval.sets.chains.data.columns={COLUMNS}",
        *(["eval.sets.chains.data.count=1", "eval.sets.chains.k=1"] if case.large else []),
        f"sampling.problems={case.groups}",
        f"sampling.group_size={GROUP_SIZE}",
        f"sampling.max_tokens={case.max_tokens}",
        "eval.every=1000",
        f"train.lr={LR}",
        "checkpoint.every=1000",
    ]


def trl_steps(case: Case, seed: int) -> list[Record]:
    """The steps of one run of the peer that count, with both cores and OpenMP as it comes (its best, measured)."""
    problems = load_problems(case.data())
    chosen = [p for i in range(1, case.iterations + 1) for p in problems_of_iteration(problems, case.groups, seed, i)]
    work = Work(
        policy=case.policy(),
        problems=[{"prompt": p.prompt, "answer": p.answer} for p in chosen],
        dtype=case.dtype,
        groups=case.groups,
        max_tokens=case.max_tokens,
        optimizer_steps=case.optimizer_steps,
        seed=seed,
    )
    file = home() / "work-of-trl.json"
    file.write_text(json.dumps(asdict(work)))
    columns = run_module("bench.trl_peer", str(file), OMP_NUM_THREADS="2")
    steps = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return steps[WARM_UP:]


def overhead(record: Record) -> float:
    spent = record["time/generate_s"] + record["time/update_s"]
    return (record["time/iteration_s"] - spent) / record["time/iteration_s"]


def median(records: Sequence[Record], name: str) -> float:
    return statistics.median(record[name] for record in records)
