"""Every flow in turn, harmed at moments of its own log, against the same flows unharmed.

    python -m tests.faults.journeys --harm kill stop lock mlflow
    python -m tests.faults.journeys --harm disk     (as root: its home is a small file system in memory)

Each flow starts from what those before it have left. `make faults` runs them all.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tasks.reports.text_table import text_table
from tests.faults.attempt import FLOW, TERMINATED, VICTIMS, Attempt, end_by_sigterm
from tests.faults.homes import differences_of_homes
from tests.faults.kills import SMALL
from tests.faults.mlflow_server import MlflowServer
from tests.helpers import start_from

_DISK_MIB, _PAUSE_S = 2048, 20.0
_FULL = "the disk is full"
Command = list[str]
Harm = Callable[[Attempt, Path, random.Random], str]


def journeys(policy: str, judge: str) -> dict[str, Command]:
    """The commands by what they are, in an order in which each finds what it needs."""
    start = start_from(policy)
    trained = ["judge=trained", f"judge.model={judge}"]
    runs = ",".join(f'"{setting}"' for setting in (*SMALL, *start, "iterations=2"))
    benchmark = ["eval=chains-carry-0", "eval.sets.chains-carry-0.data.count=128", "eval.sets.chains-carry-0.k=2"]
    offline = [setting for setting in SMALL if not setting.startswith("eval.every")]
    return {
        "warm start": ["flows.warm_start", "tiny", *quick_start(1)],
        "judge training": ["flows.judge_training", "tiny", *quick_judge(policy, 1)],
        "judge on solutions": ["flows.judge_eval", *trained, "data.limit=40"],
        "online, trained judge": [
            *("flows.online", "tiny", *SMALL, *start, *trained, "iterations=3"),
            "algorithm.credit.scope=all_incorrect",
        ],
        "offline": ["flows.offline", "tiny", *offline, *start, *trained, "data.count=24", "eval.every=3"],
        "sweep": ["flows.sweep", "grpo-vs-sgpo-tiny", "seeds=[0]", "name=journey", f"overrides=[{runs}]"],
        "nightly": ["flows.evaluation", "registered", *benchmark],
    }


def quick_start(seed: int) -> list[str]:
    curriculum = "curriculum=[{steps: 300, slip_rate: 0.3}]"
    return [curriculum, "gate_agreement=0", "gate_samples=64", f"seed={seed}"]


def quick_judge(policy: str, seed: int) -> list[str]:
    return [f"base={policy}", f"policy={policy}", "steps=250", "gate_samples=32", "gate_accuracy=0", f"seed={seed}"]


def kill(attempt: Attempt, home: Path, rng: random.Random) -> str:
    """Ends one of the processes, mostly the flow itself; says which."""
    victim = rng.choice([FLOW, FLOW, TERMINATED, *(v for v in VICTIMS if v != "Prefect")])
    try:
        attempt.kill(victim)
    except LookupError:  # this flow has none, or not yet
        victim = FLOW
        attempt.kill(victim)
    return victim


def fill_disk(attempt: Attempt, home: Path, rng: random.Random) -> str:
    """Takes all room that there is, again and again, until the flow has ended. It does so with words that say why, or
    had nothing more to write."""
    filler = home.parent / "filler"
    with filler.open("wb") as file:
        while attempt.process.poll() is None:
            room = os.statvfs(filler)
            part = room.f_bavail * room.f_frsize
            while part >= room.f_frsize:  # others take and free some meanwhile
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), part)
                except OSError:
                    part //= 2
                else:
                    break
            time.sleep(0.05)
        status = attempt.wait()
    filler.unlink()
    said = [line for line in attempt.lines if _FULL in line]
    assert status == 0 or said, f"exit status {status} for a full disk: " + "\n".join(attempt.lines[-30:])
    return f"exit status {status}"


def stop(attempt: Attempt, home: Path, rng: random.Random) -> str:
    """SIGSTOP for the flow's process, as when a laptop is closed, and SIGCONT."""
    attempt.process.send_signal(signal.SIGSTOP)
    time.sleep(_PAUSE_S)
    attempt.process.send_signal(signal.SIGCONT)
    return f"stopped for {_PAUSE_S:.0f} s"


def lock(attempt: Attempt, home: Path, rng: random.Random) -> str:
    """Another process has the databases of MLflow and Prefect, as a backup may."""
    with ExitStack() as held:
        for database in filter(Path.exists, (home / "mlflow.db", home / "prefect/prefect.db")):
            connection = held.enter_context(closing(sqlite3.connect(database, timeout=60, isolation_level=None)))
            connection.execute("BEGIN EXCLUSIVE")
        time.sleep(_PAUSE_S)
    return f"databases locked for {_PAUSE_S:.0f} s"


def lose_mlflow(server: MlflowServer, attempt: Attempt, home: Path, rng: random.Random) -> str:
    """MLflow's server is killed, and is back a while later."""
    server.kill()
    time.sleep(_PAUSE_S)
    server.start()
    return f"MLflow's server away for {_PAUSE_S:.0f} s"


HARMS: dict[str, Harm] = {
    "kill": kill,
    "stop": stop,
    "lock": lock,
    "disk": fill_disk,
}
_MLFLOW = "mlflow"


@contextmanager
def ready(harm: str, home: Path) -> Iterator[tuple[Harm, dict[str, str]]]:
    """What does the harm of that name, and the environment of the flows to which it is done."""
    if harm != _MLFLOW:
        yield HARMS[harm], {}
        return
    with MlflowServer(home) as server:
        yield partial(lose_mlflow, server), {"MLFLOW_TRACKING_URI": server.address}


def harmed(
    command: Command,
    home: Path,
    lines: int,
    harm: Harm,
    moments: Sequence[float],
    rng: random.Random,
    environment: dict[str, str],
) -> str:
    """Runs a command to its end in spite of so many harms; says what they were. `lines`: of the log of a whole run,
    `moments`: ascending shares of them. (What was done before a harm is not done again.)"""
    done, attempt = [], Attempt(command, home, **environment)
    try:
        for moment in moments:
            there = attempt.wait_for_line(max(1, round(moment * lines)))
            time.sleep(rng.uniform(0, 0.5))
            if not there or attempt.process.poll() is not None:
                break  # it had less to do than a whole run
            last = attempt.lines[-1][-60:]
            done.append(f"{harm(attempt, home, rng)} at {moment:.0%}")
            print(f"  {done[-1]}, after: {last}", file=sys.stderr, flush=True)
            if attempt.process.poll():  # (0: it had nothing more to do)
                attempt = Attempt(command, home, **environment)
        if status := attempt.wait():  # a flow that does not outlive its engines
            done.append(f"exit status {status}: {attempt.lines[-1][:100]}")
            attempt = Attempt(command, home, **environment)
        attempt.end()
    finally:
        attempt.process.kill()
    return ", ".join(done) or "none"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system in memory, of its own, at this folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harm", choices=[*HARMS, _MLFLOW], nargs="+", default=["kill"])
    parser.add_argument("--times", type=int, default=4, help="each flow is harmed at most so often [4]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="*", default=[], help="these flows alone, and what they need")
    given = parser.parse_args()
    end_by_sigterm()
    chosen = {*given.only, "online, trained judge"} if "nightly" in given.only else set(given.only)
    rows, failed = [["flow", "lines of its log", "harmed", "not as unharmed"]], False
    with ExitStack() as open_until_the_end:
        folder = Path(open_until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="sgpo-faults-")))
        if "disk" in given.harm:
            open_until_the_end.enter_context(small_disk(folder / "disk"))
        start, whole = folder / "start", folder / "whole"
        policy = _run(["flows.warm_start", "tiny", *quick_start(0)], start)[0]["run_dir"]
        judge = _run(["flows.judge_training", "tiny", *quick_judge(policy, 0)], start)[0]["run_dir"]
        for name, command in journeys(policy, judge).items():
            if chosen and name not in chosen:
                continue
            lines = _run(command, whole)[1]
            for harm in given.harm:
                print(f"{name}: {harm}", file=sys.stderr, flush=True)
                rng, home = random.Random(f"{given.seed}/{name}/{harm}"), folder / harm / "home"
                moments = sorted(rng.uniform(0.02, 0.95) for _ in range(given.times))
                with ready(harm, home) as (does, environment):
                    did = harmed(command, home, lines, does, moments, rng, environment)
                found = differences_of_homes(whole, home)
                failed |= bool(found)
                rows.append([name, str(lines), did, "; ".join(found) or "nothing"])
                print("  not as unharmed: " + rows[-1][-1], file=sys.stderr, flush=True)
    print(text_table(rows))
    sys.exit(failed)


def _run(command: Command, home: Path) -> tuple[dict[str, Any], int]:
    """The result of an unharmed run, and the number of its lines."""
    attempt = Attempt(command, home)
    return attempt.end(), len(attempt.lines)


if __name__ == "__main__":
    main()
