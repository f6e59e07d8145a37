"""Turns one bit of a file, again and again, over all files of a home that are read back; who reads it has to notice.

    python -m tests.faults.flips --flips 1000

The home is that of an online run, whose policy is registered, an offline run and an evaluation, each small.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from sgpo_core.config.base import ConfigError
from sgpo_core.storage import digests, rollout_table
from sgpo_core.storage.atomic import Damaged, read_json
from tasks.models.folders import undamaged
from tasks.reports.text_table import text_table
from tests.faults.attempt import Attempt, end_by_sigterm
from tests.faults.journeys import quick_start
from tests.faults.kills import SMALL
from tests.helpers import start_from

FOUND, HARMLESS, SILENT = "found", "harmless", "SILENT"
Reader = Callable[[Path], Any]


def whole_folder(above: int) -> Reader:
    """Of the folder so many levels above a file, whose digests are checked before anything of it is used."""

    def read(file: Path) -> bytes:
        if what := digests.damage(file.parents[above]):
            raise Damaged(Path(what))
        return file.read_bytes()

    return read


def policy(file: Path) -> bytes:
    undamaged("model.path", file.parent)
    return file.read_bytes()


def rollouts(file: Path) -> bytes:
    table = file.with_name("rollouts.parquet")
    rollout_table.read(table)
    return table.read_bytes()


def part(file: Path) -> bytes:
    """What is put aside and made again where it is damaged."""
    table = file.with_name(file.name.removeprefix(".").removesuffix(".digests"))
    if not digests.is_as_written(table):
        raise Damaged(table)
    return table.read_bytes()


# Pattern of a path below the home, what it is, and how it is read. Nothing that decides a result reads those without a
# reader: cards and settings for people, tables of evaluations, copies for MLflow's pages, caches that check themselves.
READ: list[tuple[str, str, Reader | None]] = [
    *((name, "", None) for name in ("*/README.md", "*/eval-*.parquet", "*/config.yaml", "*/format.json")),
    *((name, "", None) for name in ("prefect/*", "mlflow.db*", "services/*", "cache/*", "*.lock")),
    ("*/checkpoints/*/engine/*", "checkpoint: weights and optimizer", whole_folder(1)),
    ("*/checkpoints/*/policy/*", "checkpoint: policy", whole_folder(1)),
    ("*/checkpoints/*/digests.json", "checkpoint: digests", whole_folder(0)),
    ("*/policy/*", "final policy", policy),
    ("mlartifacts/*/artifacts/model/*", "registered policy", policy),
    ("mlartifacts/*", "", None),
    ("warm-starts/*", "warm start", whole_folder(0)),
    ("*/iterations/*/*rollouts.parquet*", "rollouts.parquet, and its digests", rollouts),
    ("*/iterations/*/metrics.json", "metrics.json", read_json),
    ("evaluations/*/generations/*.parquet*", "evaluation: responses", part),
    ("responses/*/rollouts/*.parquet*", "offline data set: responses", part),
    ("responses/*.arrow*", "offline data set: import and stages", part),
    ("*.json", "other records (result.json, import.json, ...)", read_json),
]


def make_home(home: Path) -> None:
    start = Attempt(["flows.warm_start", "tiny", *quick_start(0)], home).end()["run_dir"]
    settings = [*SMALL, *start_from(start)]
    offline = [setting for setting in settings if not setting.startswith("eval.every")]
    online = Attempt(["flows.online", "tiny", *settings, "iterations=4"], home).end()
    Attempt(["flows.offline", "tiny", *offline, "data.count=24", "eval.every=3"], home).end()
    benchmark = ["eval=chains-carry-0", "eval.sets.chains-carry-0.data.count=64", "eval.sets.chains-carry-0.k=2"]
    Attempt(["flows.evaluation", str(online["run_id"]), *benchmark], home).end()


def reader_of(name: str) -> tuple[str, Reader] | None:
    """What a file is, and who reads it; None for what nobody reads back."""
    found = next(((what, read) for pattern, what, read in READ if fnmatch(name, pattern)), None)
    return (found[0], found[1]) if found and found[1] else None


def is_the_same(was: Any, now: Any) -> bool:
    """A record may have a further key: that of its digest, with another name. Then none of its values has changed."""
    if isinstance(was, dict) and isinstance(now, dict):
        return all(name in now and now[name] == value for name, value in was.items())
    return bool(was == now)


def flip(home: Path, name: str, read: Reader, rng: random.Random) -> str:
    """FOUND, HARMLESS (what was read is the same), or SILENT with the place. The file is as it was afterwards."""
    file = home / name
    content, was = bytearray(file.read_bytes()), read(file)
    position, bit = rng.randrange(len(content)), rng.randrange(8)
    turned = bytearray(content)
    turned[position] ^= 1 << bit
    file.write_bytes(turned)
    try:
        return HARMLESS if is_the_same(was, read(file)) else f"{SILENT}: {name}, bit {bit} of byte {position}"
    except (Damaged, ConfigError, OSError):
        return FOUND
    finally:
        file.write_bytes(content)


def flips(home: Path, count: int, seed: int) -> tuple[dict[str, int], Counter[tuple[str, str]]]:
    """Files of each kind, and the outcomes of so many flips, of every kind equally many."""
    files: dict[str, list[tuple[str, Reader]]] = {}
    for file in sorted(file for file in home.rglob("*") if file.is_file() and file.stat().st_size):
        if found := reader_of(name := str(file.relative_to(home))):
            files.setdefault(found[0], []).append((name, found[1]))
    rng, outcomes = random.Random(seed), Counter[tuple[str, str]]()
    for number in range(count):
        kind = sorted(files)[number % len(files)]
        outcome = flip(home, *rng.choice(files[kind]), rng)
        outcomes[kind, outcome.partition(":")[0]] += 1
        if outcome.startswith(SILENT):
            print(outcome, file=sys.stderr, flush=True)
    return {kind: len(of_kind) for kind, of_kind in files.items()}, outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the files and the bits")
    given = parser.parse_args()
    end_by_sigterm()
    with tempfile.TemporaryDirectory(prefix="sgpo-faults-") as folder:
        make_home(Path(folder))
        files, outcomes = flips(Path(folder), given.flips, given.seed)
    kinds = (FOUND, HARMLESS, SILENT)
    rows = [[kind, str(count), *(str(outcomes[kind, outcome]) for outcome in kinds)] for kind, count in files.items()]
    print(text_table([["of", "files", *kinds], *rows]))
    sys.exit(any(outcome == SILENT for _, outcome in outcomes))


if __name__ == "__main__":
    main()
