"""The command line: what it answers before anything that takes seconds is imported, and what it hands to the flows."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pkgutil import resolve_name

import pytest

from flows.arguments import Parser
from flows.commands import COMMANDS, about
from tests.helpers import REPOSITORY

SLOW = {"prefect", "torch", "ray", "vllm", "transformers", "mlflow", "datasets", "deepspeed"}
# What has to be there beside the options, of each command.
EXAMPLES = {
    "evaluation": ["POLICY"],
    "judge_eval": [],
    "preflight": ["7b"],
    "report": ["--sweep", "x"],
    "sweep": ["grpo-vs-sgpo-tiny"],
    "traces": ["FOLDER"],
} | {name: ["tiny"] for name in ("online", "offline", "warm_start", "judge_training")}


def answered(*command: str) -> tuple[int, str, set[str]]:
    """Exit status, what was said, and the packages that were imported for it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *command],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in lines if line.startswith("import time:")}
    said = "\n".join(line for line in lines if not line.startswith("import time:"))
    assert "argparse" in imported
    return done.returncode, done.stdout + said, imported


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_slow(name: str) -> None:
    status, said, imported = answered(f"flows.{name}", "--help")
    assert status == 0 and about(name).splitlines()[0] in said
    assert imported & SLOW == set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flows.online", "tiny", "samplng.group_size=4"], "sampling.group_size"),
        (["flows", "online", "tiny", "seed=-1"], "seed=-1"),
        (["flows.online", "tinny"], "tinny"),
        (["flows.online"], "PRESET"),
        (["flows.online", "tiny", "smol"], "smol"),
        (["flows.online", "tiny", "--frsh"], "--frsh"),
        (["flows.sweep", "grpo-vs-sgpo-tiny", "grid.algorithm=[grpo,sgop]"], "sgop"),
        (["flows.evaluation", "x", "eval.sets.chains.k=0"], "eval.sets.chains.k"),
        (["flows.traces", "x", "--iterations", "one"], "--iterations"),
        (["flows.theory", "--group-size", "99"], "--group-size"),
    ],
)
def test_a_mistake_is_answered_before_anything_slow_is_imported(arguments: list[str], said: str) -> None:
    status, answer, imported = answered(*arguments)
    assert status == 2 and answer.startswith("error: ") and said in answer
    assert answer.count("\n") < 3
    assert imported & SLOW == set()


def parser(name: str) -> Parser:
    command = COMMANDS[name]
    made = Parser(name, "", command.word, command.settings)
    command.options(made)
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_calls_takes_its_arguments(name: str) -> None:
    command = COMMANDS[name]
    run = resolve_name(command.run)
    inspect.signature(getattr(run, "fn", run)).bind(**parser(name).read(EXAMPLES.get(name, [])))
    if command.check:
        inspect.signature(resolve_name(command.check)).bind("the settings")


@pytest.mark.parametrize(
    "line", ["tiny seed=1 --fresh", "--fresh tiny seed=1", "tiny --fresh seed=1", "seed=1 --fresh tiny"]
)
def test_options_stand_anywhere(line: str) -> None:
    assert parser("online").read(line.split()) == {"preset": "tiny", "overrides": ["seed=1"], "fresh": True}


def test_an_option_may_stand_for_a_setting() -> None:
    given = parser("offline").read(["tiny", "--max-bad-rows", "7", "seed=1"])
    assert given["overrides"] == ["seed=1", "responses.max_bad_rows=7"]
