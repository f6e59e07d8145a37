"""Runs on a Ray cluster of two nodes, one of which is lost in the middle, against a run on one machine.

    python -m tests.faults.nodes --losses 6

The nodes are on this machine, an engine is on each. Each run loses a node in another stage.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.attempt import STAGE_BEGINS, Attempt, end_by_sigterm
from tests.faults.kills import SMALL
from tests.faults.ray_nodes import ray_nodes
from tests.helpers import differences, start_from

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
_ANEW = "the engines start anew"
STAGES = ("generate", "judge", "update", "sync", "evaluate", "checkpoint")


def start_on(nodes: Any, command: Sequence[str], home: Path) -> Attempt:
    """A command whose run is on that cluster."""
    return Attempt(command, home, RAY_ADDRESS=nodes.address, **TOKEN)


def began_anew(attempt: Attempt, seen: int) -> tuple[int, float]:
    """After the line `seen`: the line that says who was lost, and the seconds until a stage begins again."""
    began = time.monotonic()
    assert attempt.wait_for(_ANEW, 1, seen), attempt.lines[-5:]
    at = next(i for i, line in enumerate(attempt.lines) if i >= seen and _ANEW in line)
    assert attempt.wait_for(STAGE_BEGINS, 1, at), attempt.lines[-5:]
    return at, time.monotonic() - began


def lose(command: list[str], home: Path, stage: str, rng: random.Random) -> dict[str, Any]:
    """The result of a run on a cluster of two nodes that loses one of them in this stage."""
    with ray_nodes(2) as (nodes, [node]):
        attempt = start_on(nodes, command, home)
        try:
            assert attempt.wait_for(f"{STAGE_BEGINS}{stage}'", rng.randint(1, 2)), attempt.lines[-5:]
            time.sleep(rng.uniform(0, 0.25))
            seen = len(attempt.lines)
            nodes.remove_node(node, allow_graceful=False)
            at, seconds = began_anew(attempt, seen)
            result = attempt.end()
        finally:
            attempt.process.kill()
    print(
        f"{stage}: {seconds:.0f} s until it went on; {attempt.lines[at].split(' - ', 1)[-1]}",
        file=sys.stderr,
        flush=True,
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", type=int, default=len(STAGES), help="runs [6]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("overrides", nargs="*", help="settings of the run: cluster.trainer_ranks=2 deepspeed=zero3")
    given = parser.parse_args()
    end_by_sigterm()
    os.environ |= TOKEN
    with tempfile.TemporaryDirectory(prefix="sgpo-faults-") as folder:
        policy = Attempt(["flows.warm_start", "tiny"], Path(folder) / "start").end()["run_dir"]
        command = ["flows.online", "tiny", *SMALL, *start_from(policy), "iterations=6", *given.overrides]
        whole, found = Attempt(command, Path(folder) / "whole").end(), list[str]()
        for number in range(given.losses):
            stage = STAGES[number % len(STAGES)]
            result = lose(command, Path(folder) / f"lost-{number}", stage, random.Random(f"{given.seed}/{number}"))
            found += [f"{stage}: {difference}" for difference in differences(whole, result)]
    print("\n".join(found) or f"{given.losses} lost nodes (seed {given.seed}): nothing differs")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
