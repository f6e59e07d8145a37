"""A run on a Ray cluster of several nodes, one of which is lost, again and again, against a run on one machine.

    python -m tests.faults.nodes --losses 3

The nodes are on this machine. An engine is on each; a node that was lost is replaced once the run has gone on.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults.attempt import STAGE_BEGINS, Attempt, end_by_sigterm
from tests.faults.kills import SMALL
from tests.helpers import differences, start_from

_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
STAGES = ("generate", "judge", "update", "sync", "evaluate", "checkpoint")


def lose(nodes: Any, command: list[str], home: Path, losses: int, rng: random.Random) -> dict[str, Any]:
    """The result of a run on a cluster that loses a node in each of so many stages."""
    node = nodes.add_node(num_cpus=1, node_ip_address="127.0.0.3")
    attempt, seen = Attempt(command, home, RAY_ADDRESS=nodes.address, **_TOKEN), 0
    try:
        for number in range(losses):
            stage = STAGES[number % len(STAGES)]
            assert attempt.wait_for(f"{STAGE_BEGINS}{stage}'", 1, seen), attempt.lines[-5:]
            time.sleep(rng.uniform(0, 0.5))
            seen, began = len(attempt.lines), time.monotonic()
            nodes.remove_node(node, allow_graceful=False)
            assert attempt.wait_for("the engines start anew", 1, seen), attempt.lines[-5:]
            assert attempt.wait_for(STAGE_BEGINS, 1, len(attempt.lines)), attempt.lines[-5:]
            why = next(line for line in attempt.lines[seen:] if "the engines start anew" in line)
            print(f"{stage}: {time.monotonic() - began:.0f} s until it went on; {why}", file=sys.stderr, flush=True)
            node, seen = nodes.add_node(num_cpus=1, node_ip_address="127.0.0.3"), len(attempt.lines)
        return attempt.end()
    finally:
        attempt.process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("overrides", nargs="*", help="settings of the run: cluster.trainer_ranks=2 deepspeed=zero3")
    given = parser.parse_args()
    end_by_sigterm()
    os.environ |= _TOKEN
    from ray.cluster_utils import Cluster  # reads the token

    with tempfile.TemporaryDirectory(prefix="sgpo-faults-") as folder:
        policy = Attempt(["flows.warm_start", "tiny"], Path(folder) / "start").end()["run_dir"]
        settings = [*SMALL, *start_from(policy), f"iterations={3 * given.losses + 3}", *given.overrides]
        command = ["flows.online", "tiny", *settings]
        whole = Attempt(command, Path(folder) / "whole").end()
        # Ray takes 127.0.0.1 for another address.
        head = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        try:
            result = lose(nodes, command, Path(folder) / "lost", given.losses, random.Random(given.seed))
        finally:
            nodes.shutdown()
        found = differences(whole, result)
    print("\n".join(found) or f"{given.losses} lost nodes (seed {given.seed}): nothing differs")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
