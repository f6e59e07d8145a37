"""The command line: what it answers before anything that takes seconds is imported, and what it hands to the flows."""

from __future__ import annotations

import inspect
import io
import json
import subprocess
import sys
from pkgutil import resolve_name

import pytest

from flows import cli
from flows.arguments import Parser
from flows.commands import COMMANDS, about
from tasks.reports.summary import summary
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
        (["flows.online", "tiny", "samplng.group_size=4"], "did you mean sampling.group_size?"),
        (["flows.online", "tiny", "--frsh"], "there is no option --frsh: did you mean --fresh?"),
        (["flows", "online", "tiny", "seed=-1"], "seed=-1"),
        (["flows.sweep", "grpo-vs-sgpo-tiny", "grid.algorithm=[grpo,sgop]"], "did you mean sgpo?"),
        (["flows.evaluation", "x", "eval.sets.chains.k=0"], "eval.sets.chains.k"),
    ],
)
def test_a_mistake_is_answered_before_anything_slow_is_imported(arguments: list[str], said: str) -> None:
    status, answer, imported = answered(*arguments)
    assert status == 2 and answer.startswith("error: ") and said in answer
    assert answer.count("\n") < 3
    assert imported & SLOW == set()


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("online", "", "PRESET is missing: one of 0.5b, "),
        ("online", "seed=1", "PRESET is missing: one of 0.5b, "),
        ("online", "tiny --seed=3", "there is no option --seed: a setting is given without dashes, seed=VALUE"),
        ("online", "tiny --algorithm grpo", "there is no option --algorithm: a setting is given without dashes"),
        ("online", "tiny --zzz", "there is no option --zzz: --help lists them"),
        ("online", "--fresh tiny --fresh", "--fresh is given twice: once is enough"),
        ("preflight", "7b --gpus 4 --gpus=8", "--gpus is given twice"),
        ("preflight", "7b --gpus none", "--gpus: a whole number of at least 1 is wanted, got 'none'"),
        ("preflight", "7b --response-tokens -5", "--response-tokens: "),
        ("preflight", "7b --flow onlin", "--flow: invalid choice: 'onlin'"),
        ("report", "--swep x", "there is no option --swep: did you mean --sweep?"),
        ("report", "", "--sweep"),
        ("traces", "a b", "b is one word too many: traces RUN_DIR [options]"),
        ("traces", "a --iterations one", "--iterations: numbers with commas between them are wanted, got 'one'"),
        ("theory", "--group-size 99", "--group-size: a whole number between 2 and 16 is wanted, got '99'"),
    ],
)
def test_what_is_wrong_with_the_words_is_said_in_a_line(
    name: str, line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser(name).read(line.split())
    assert ended.value.code == 2
    answer = capsys.readouterr().err
    assert answer.startswith("error: ") and said in answer and answer.count("\n") == 1


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


def test_a_word_that_is_no_setting_is_left_to_those_who_know_settings() -> None:
    assert parser("online").read(["tiny", "seed", "algorithm=grpo"])["overrides"] == ["seed", "algorithm=grpo"]
    assert parser("evaluation").read(["runs/a=b/policy"])["policy"] == "runs/a=b/policy"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


RESULT = {
    "run_id": "tiny-sgpo-s0-1",
    "mlflow_run_id": "abc",
    "run_dir": "/runs/tiny-sgpo-s0-1",
    "iterations": 30,
    "final_metrics": {"eval/chains/avg_at_k": 0.94123, "eval/chains/length_mean": 69.0, "policy/loss": 1e-9},
}


def test_people_read_a_summary_and_programs_json(capsys: pytest.CaptureFixture[str]) -> None:
    terminal, pipe, asked = Terminal(), io.StringIO(), Terminal()
    cli.show(dict(RESULT), terminal, as_json=False)
    assert terminal.getvalue().splitlines() == [
        "run         tiny-sgpo-s0-1 (30 iterations)",
        "metric      eval/chains/avg_at_k 0.941",
        "folder      /runs/tiny-sgpo-s0-1",
        "MLflow      run abc",
        "responses   sgpo traces /runs/tiny-sgpo-s0-1",
    ]
    cli.show(dict(RESULT), pipe, as_json=False)
    cli.show(dict(RESULT), asked, as_json=True)
    assert json.loads(pipe.getvalue()) == json.loads(asked.getvalue()) == RESULT
    assert capsys.readouterr().err == ""


def test_a_text_of_the_results_own_is_for_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    cli.show({**RESULT, "text": "a table"}, terminal, as_json=False)
    assert terminal.getvalue() == "a table\n"
    cli.show({**RESULT, "text": "a table"}, pipe, as_json=False)
    assert json.loads(pipe.getvalue()) == RESULT and capsys.readouterr().err == "a table\n"


def test_what_has_failed_is_in_the_summary() -> None:
    sweep = {
        **RESULT,
        "failed": {"sgpo/s1": "the disk is on fire"},
        "report": "/r.html",
        "final_metrics": {"a/s0": 0.5},
    }
    assert "failed      sgpo/s1: the disk is on fire\nreport      /r.html" in summary(sweep)
    night = {**RESULT, "mlflow_run_id": "", "run_dir": "", "regressions": ["a@b on c"], "final_metrics": {"a": {}}}
    assert "regression  a@b on c" in summary(night) and "MLflow" not in summary(night)
