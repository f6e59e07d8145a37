"""Ends a run, again and again, and compares its end with that of a run to which nothing happened. Most ends are by
SIGKILL, of the flow or of one of its processes.

`make faults` runs it whole; tests/faults/test_kills.py runs a few kills.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.reports.text_table import text_table
from tests.faults.attempt import FLOW, PATIENCE_S, STAGE_BEGINS, TERMINATED, Attempt, end_by_sigterm
from tests.helpers import differences, start_from

START = "start"  # of a process, before its first stage
STAGES = (
    *(START, "generate", "grade", "judge", "recompute_logprobs", "credit"),
    *("update", "sync", "evaluate", "record", "checkpoint"),
)
OTHERS = ["rollout engine", "trainer rank", "Prefect", TERMINATED]
# Stages that are not part of every iteration come soon: where a kill waits for one, the run gets on by few iterations.
SMALL = [
    *("sampling.problems=4", "sampling.group_size=4", "eval.every=3", "eval.sets.chains.data.count=8"),
    *("eval.sets.chains.k=2", "checkpoint.every=2", "cluster.restarts=1000"),
]


@dataclass(frozen=True)
class Kill:
    """Of whom, and when: so many seconds after a stage has begun for the n-th time since the last kill. (`START`: after
    the flow has been killed and started once more.)"""

    victim: str
    stage: str
    occurrence: int
    delay_s: float


@dataclass(frozen=True)
class Outcome:
    """What a kill did: the iteration in which it fell, the one after which the run went on, and the seconds until it
    was back at work. `ended`: the last line of a flow that ended although another process was killed."""

    kill: Kill
    iteration: int
    resumed_after: int
    seconds: float
    ended: str = ""


def plan(count: int, seed: int) -> list[Kill]:
    """Every stage in turn, in each mostly the flow itself."""
    kills = []
    for number in range(count):
        rng, stage = random.Random(f"{seed}/{number}"), STAGES[number % len(STAGES)]
        victim = OTHERS[number // 4 % len(OTHERS)] if number % 4 == 3 and stage != START else FLOW
        rare = stage in ("evaluate", "checkpoint", START)
        delay = rng.uniform(0, 30 if stage == START else 0.25)
        kills.append(Kill(victim, stage, 1 if rare else rng.randint(1, 2), delay))
    return kills


def killed(command: Sequence[str], home: Path, kills: Sequence[Kill]) -> tuple[dict[str, Any], list[Outcome]]:
    """The result of a run that is killed so often, and started again with the same command, and what each kill did."""
    attempt, seen, outcomes = Attempt(command, home), 0, list[Outcome]()
    try:
        for number, kill in enumerate(kills, 1):
            if kill.stage == START:
                attempt.kill(FLOW)
                attempt = Attempt(command, home)
            else:
                there = attempt.wait_for(f"{STAGE_BEGINS}{kill.stage}'", kill.occurrence, seen)
                assert there, f"the run ended before kill {number}: {attempt.lines[-5:]}"
            time.sleep(kill.delay_s)
            iteration = 1 + _last_recorded(home)
            before, at = len(attempt.lines), time.monotonic()
            attempt.kill(kill.victim)
            ended = ""
            whole = kill.victim in (FLOW, TERMINATED)
            if not whole and not attempt.wait_for(STAGE_BEGINS, 1, before):
                ended = attempt.lines[-1]
            if whole or ended:
                attempt, before = Attempt(command, home), 0
            attempt.wait_for(STAGE_BEGINS, 1, before)
            seconds = time.monotonic() - at
            resumed = [line for line in attempt.lines[before:] if "resuming after iteration" in line]
            after = int(resumed[-1].rsplit(" ", 1)[1]) if resumed else 0
            outcomes.append(Outcome(kill, iteration, after, seconds, ended))
            print(f"kill {number} of {len(kills)}: {', '.join(_row(outcomes[-1]))}", file=sys.stderr, flush=True)
            seen = len(attempt.lines)
        if kills and kills[-1].victim == "Prefect":  # nobody is there to take the flow's state: it ends as failed
            attempt.process.wait(10 * PATIENCE_S)
            attempt = Attempt(command, home)
        return attempt.end(), outcomes
    finally:
        attempt.process.kill()


def _last_recorded(home: Path) -> int:
    """The last iteration whose record is there."""
    return max((int(file.parent.name) for file in home.glob("sgpo/*/iterations/*/metrics.json")), default=0)


def _row(outcome: Outcome) -> list[str]:
    kill = outcome.kill
    when = f"{kill.delay_s:.2f} s into {kill.stage}"
    parts = [kill.victim, when, str(outcome.iteration), str(outcome.resumed_after), f"{outcome.seconds:.0f}"]
    return [*parts, outcome.ended]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("overrides", nargs="*", help="settings of the run: async_level=1")
    arguments = parser.parse_args()
    end_by_sigterm()
    kills = plan(arguments.kills, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="sgpo-faults-") as folder:
        policy = Attempt(["flows.warm_start", "tiny"], Path(folder) / "start").end()["run_dir"]
        # As many iterations as the kills can let pass.
        settings = [*SMALL, *start_from(policy), f"iterations={3 * len(kills) + 3}", *arguments.overrides]
        command = ["flows.online", "tiny", *settings]
        whole = Attempt(command, Path(folder) / "whole").end()
        result, outcomes = killed(command, Path(folder) / "killed", kills)
        found = differences(whole, result)
    print(text_table([["killed", "when", "in iteration", "resumed after", "s to go on", ""], *map(_row, outcomes)]))
    print("\n".join(found) or f"{len(kills)} kills (seed {arguments.seed}): nothing lost, nothing counted twice")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
