"""The command line: what it answers before anything that takes seconds is imported, and what it hands to the flows."""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import pytest
from httpx import ConnectError

from flows import cli
from flows.commands import COMMANDS, about, page, parser_of
from flows.overview import bash_completion, overview
from sgpo_core.config.base import ConfigError
from tasks import gpus
from tasks.paths import writable_home
from tasks.reports.summary import summary
from tests.helpers import REPOSITORY, run_module

SLOW = {"prefect", "torch", "ray", "vllm", "transformers", "mlflow", "datasets", "deepspeed"}
# What has to be there beside the options, of each command.
EXAMPLES = {
    "evaluation": ["POLICY"],
    "judge_eval": [],
    "preflight": ["7b"],
    "publish": ["RUN"],
    "report": ["--sweep", "x"],
    "simulate": ["7b"],
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
    assert status == 0 and page(name).splitlines()[0] in said
    assert imported & SLOW == set()


def test_a_reader_that_has_seen_enough_ends_it_without_a_word() -> None:
    """As `| head -1` does."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "flows", "online", "tiny", "--show-config"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + 13, "")  # SIGPIPE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flows.online", "tiny", "samplng.group_size=4"], "did you mean sampling.group_size?"),
        (["flows.online", "tiny", "--frsh"], "there is no option --frsh: did you mean --fresh?"),
        (["flows", "online", "tiny", "seed=-1"], "seed=-1"),
        (["flows", "onlin", "tiny"], "no command 'onlin': did you mean online?"),
        (["flows", "judge-evl"], "no command 'judge-evl': did you mean judge-eval?"),
        (["flows", "zzz"], "no command 'zzz' (sgpo --help explains demo, online,"),
        (["flows", "--completion", "zsh"], "there is a completion for bash alone: sgpo --completion bash"),
        (["flows"], "COMMAND is missing (sgpo --help explains demo, online,"),
        (["flows.sweep", "grpo-vs-sgpo-tiny", "grid.algorithm=[grpo,sgop]"], "did you mean sgpo?"),
        (["flows.evaluation", "x", "eval.sets.chains.k=0"], "eval.sets.chains.k"),
    ],
)
def test_a_mistake_is_answered_before_anything_slow_is_imported(arguments: list[str], said: str) -> None:
    status, answer, imported = answered(*arguments)
    assert status == 2 and answer.startswith("error: ") and said in answer
    assert answer.count("\n") < 3
    assert imported & SLOW == set()


@pytest.mark.skipif(any(map(Path.exists, gpus._DEVICE_FILES)), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("command", "preset"),
    [("flows.online", "7b"), ("flows.offline", "7b-lora"), ("flows.sweep", "grpo-vs-sgpo-7b")],
)
def test_missing_gpus_are_named_before_anything_slow_is_imported(command: str, preset: str) -> None:
    status, answer, imported = answered(command, preset)
    number = 1 if preset == "7b-lora" else 8
    assert status == 2 and answer.startswith("error: preset 7b") and f" needs {number} GPUs: " in answer
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
        ("simulate", "7b --nodes one", "--nodes: numbers with commas between them are wanted, got 'one'"),
        ("theory", "--group-size 99", "--group-size: a whole number between 2 and 16 is wanted, got '99'"),
    ],
)
def test_what_is_wrong_with_the_words_is_said_in_a_line(
    name: str, line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments_of(name, line.split())
    assert ended.value.code == 2
    answer = capsys.readouterr().err
    assert answer.startswith("error: ") and said in answer and answer.count("\n") == 1


def arguments_of(name: str, line: list[str]) -> dict[str, Any]:
    """What a command's function gets."""
    given = parser_of(name, name).read(line)
    return {key: value for key, value in given.items() if key not in ("show_config", "json")}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_calls_takes_its_arguments(name: str) -> None:
    command = COMMANDS[name]
    run = resolve_name(command.run)
    inspect.signature(getattr(run, "fn", run)).bind(**arguments_of(name, EXAMPLES.get(name, [])))
    if command.check:
        inspect.signature(resolve_name(command.check)).bind("the settings")


@pytest.mark.parametrize(
    "line", ["tiny seed=1 --fresh", "--fresh tiny seed=1", "tiny --fresh seed=1", "seed=1 --fresh tiny"]
)
def test_options_stand_anywhere(line: str) -> None:
    assert arguments_of("online", line.split()) == {"preset": "tiny", "overrides": ["seed=1"], "fresh": True}


def test_an_option_may_stand_for_a_setting() -> None:
    given = arguments_of("offline", ["tiny", "--max-bad-rows", "7", "seed=1"])
    assert given["overrides"] == ["seed=1", "responses.max_bad_rows=7"]


def test_a_word_that_is_no_setting_is_left_to_those_who_know_settings() -> None:
    assert arguments_of("online", ["tiny", "seed", "algorithm=grpo"])["overrides"] == ["seed", "algorithm=grpo"]
    assert arguments_of("evaluation", ["runs/a=b/policy"])["policy"] == "runs/a=b/policy"


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


def test_the_overview_has_a_line_for_each_command() -> None:
    lines = overview().splitlines()
    for name in COMMANDS:
        [line] = [line for line in lines if line.startswith(f"  {name.replace('_', '-')} ")]
        assert line.endswith(about(name)) and len(line) <= 120


def completed(*words: str) -> list[str]:
    """What bash offers for the last of these words."""
    typed = f"COMP_WORDS=({' '.join(words)}) COMP_CWORD={len(words) - 1}"
    script = f"{bash_completion()}\n{typed}; _sgpo; echo ${{COMPREPLY[@]}}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_commands_presets_and_options() -> None:
    assert completed("sgpo", "ju") == ["judge-eval", "judge-training"]
    assert completed("sgpo", "online", "tin") == ["tiny"]
    assert completed("sgpo", "sweep", "judges-tiny", "--ru") == ["--runs-only"]
    assert completed("sgpo", "traces", "runs/") == []  # bash completes folders


def test_make_setup_writes_the_command(tmp_path: Path) -> None:
    """From another folder, which has a package of the same name."""
    venv, elsewhere = tmp_path / "venv", tmp_path / "else where"
    (venv / "bin").mkdir(parents=True)
    (elsewhere / "flows").mkdir(parents=True)
    (elsewhere / "flows/__init__.py").write_text("raise SystemExit('not ours')")
    (venv / "bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (venv / "bin/python").chmod(0o755)
    make = ["make", "-s", "-C", str(REPOSITORY), f"VENV={venv}", "EXTRA=cpu"]
    stamp = subprocess.run(
        [*make, "--eval", "stamp: ; @echo $(STAMP)", "stamp"], capture_output=True, check=True
    ).stdout
    Path(stamp.decode().strip()).touch()  # the environment is made already
    subprocess.run([*make, f"{venv}/bin/sgpo"], check=True)
    done = subprocess.run([f"{venv}/bin/sgpo", "--help"], cwd=elsewhere, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: sgpo COMMAND")


AT_WORK = """
import threading, time
from flows import cli
cli._DELIVERED_WITHIN_S = 0.5
threading.Thread(target=time.sleep, args=(600,)).start()
cli._leave(3)
"""


def test_the_end_does_not_wait_for_threads_without_end() -> None:
    """As Prefect's are that deliver events, one every few seconds, to a server that has died."""
    done = subprocess.run([sys.executable, "-c", AT_WORK], cwd=REPOSITORY, timeout=60, check=False)
    assert done.returncode == 3


def test_a_server_of_prefect_that_has_died_is_named() -> None:
    assert "Prefect's server does not answer (refused)" in cli._advice(ConnectError("refused"))


def test_on_a_full_disk_every_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli._advice(RuntimeError("Timed out")) == "Timed out"
    monkeypatch.setattr(cli.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert cli._advice(RuntimeError("Timed out")).startswith("the disk is full (Timed out): free some")


@pytest.mark.parametrize("name", ["mlflow.db", "prefect/prefect.db"])
def test_a_read_only_database_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    monkeypatch.setenv("SGPO_HOME", str(tmp_path))
    assert writable_home() == tmp_path
    # As root, whom no mode of a file keeps out, the answer of a read-only file system has to be made up.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / name)
    with pytest.raises(ConfigError, match=rf"{name} can't be written: make it writable"):
        writable_home()


@pytest.mark.parametrize(
    ("command", "setting", "where"),
    [
        ("judge_training smol", "data.source=missing.jsonl", ""),
        ("warm_start smol", "data.source=missing.jsonl", ""),
        ("online tiny", "eval.sets.chains.data.source=missing.jsonl", "eval.sets.chains: "),
        ("offline tiny", "data.source=missing.jsonl", ""),
        ("sweep grpo-vs-sgpo-tiny", 'overrides=["data.source=missing.jsonl"]', ""),
    ],
)
def test_data_that_is_not_there_is_named_before_prefects_server_starts(
    command: str, setting: str, where: str, tmp_path: Path
) -> None:
    name, preset = command.split()
    done = run_module(f"flows.{name}", preset, setting, home=tmp_path / "home")
    assert done.returncode == 2
    last = f"error: {where}data.source=missing.jsonl: there is no such file"
    assert done.stderr.splitlines()[-1] == last
    assert "Starting temporary server" not in done.stderr


@pytest.mark.parametrize("command", [["flows.online", "tiny"], ["tasks.services.stack", "up"]])
def test_a_home_that_can_not_be_written_is_named(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_module(*command, home=tmp_path / "file/home")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert f"SGPO_HOME={tmp_path}/file/home can't be used (Not a directory): choose another folder" in last
