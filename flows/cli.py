"""From a command line to a result: `sgpo NAME ...`, which is `python -m flows NAME ...`, or `python -m flows.NAME ...`.

words ──▶ arguments ──▶ settings ──▶ GPUs? ──▶ import the flow (seconds) ──▶ what it needs is there? ──▶ run ──▶ result

Standard output carries the result alone: a summary on a terminal, one JSON object in a pipe or with --json. Everything
else goes to standard error. Exit status 2: a setting is wrong; 1: the run failed.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pkgutil import resolve_name
from threading import Timer
from typing import Any, NoReturn, TextIO, cast

from flows.commands import COMMANDS, Command, parser_of
from flows.overview import bash_completion, overview, shown
from sgpo_core.config.base import ConfigError
from sgpo_core.config.loading import to_yaml
from sgpo_core.config.suggestions import did_you_mean
from tasks.engines.guard import start_guard
from tasks.failures import PartlyFailed, end_as_terminated, is_prefects_silence, was_terminated
from tasks.imports import importing
from tasks.paths import home
from tasks.reports.summary import summary
from tasks.services.environment import prepare_process

_DELIVERED_WITHIN_S = 60.0
_FULL_DISK = ("no space left on device", "disk is full")  # the system's words, and SQLite's
_NO_ROOM = 2**20  # bytes
_left_with: list[int] = []  # the exit status, once there is one


def main(*name: str) -> NoReturn:
    """Runs the command of that name, or else the one that the first word of the command line names, and exits."""
    match [*name, *sys.argv[1:]]:
        case ["-h" | "--help"]:
            print(overview())
        case ["--completion", "bash"]:
            print(bash_completion())
        case [word, *line] if (known := word.replace("-", "_")) in COMMANDS:
            program = f"python -m flows.{known}" if name else f"sgpo {shown(known)}"
            given = parser_of(known, program).read(line)
            _leave(_run_or_say_why_not(COMMANDS[known], given))
        case ["--completion", *_]:
            print("error: there is a completion for bash alone: sgpo --completion bash", file=sys.stderr)
            sys.exit(2)
        case line:
            commands = [shown(command) for command in COMMANDS]
            meant = did_you_mean(line[0], commands) if line else ""
            wrong = f"no command {line[0]!r}{f': {meant}' if meant else ''}" if line else "COMMAND is missing"
            print(f"error: {wrong} (sgpo --help explains {', '.join(commands)})", file=sys.stderr)
            sys.exit(2)
    sys.exit()


def _run(command: Command, given: dict[str, Any]) -> None:
    """Checks everything that can be checked, runs, prints what comes back."""
    show_config, as_json = given.pop("show_config", False), given.pop("json", False)
    config = command.load(given) if command.load else None
    if config and show_config:
        with _until_nobody_reads():
            return print(to_yaml(config))
    if not command.is_flow:
        with _until_nobody_reads():
            _imported(command.run)(**given)
        return
    if command.has_gpus:
        command.has_gpus(config)
    stdout = _keep_stdout_clean()
    prepare_process()
    end_as_terminated()
    start_guard()
    if command.check:
        _imported(command.check)(config)
    try:
        show(_imported(command.run)(**given), stdout, as_json)
    except PartlyFailed as failed:
        show(failed.result, stdout, as_json)
        raise


def _imported(name: str) -> Callable[..., Any]:
    with importing():
        return cast(Callable[..., Any], resolve_name(name))


def show(result: dict[str, Any], stdout: TextIO, as_json: bool) -> None:
    """Prints a flow's result, for whom it is. A result may bring a `text` for people with it."""
    text = result.pop("text", "")
    if stdout.isatty() and not as_json:
        print(text or summary(result), file=stdout, flush=True)
    else:
        if text:
            print(text, file=sys.stderr)
        print(json.dumps(result), file=stdout, flush=True)


def _leave(status: int) -> NoReturn:
    """Ends the process, whose threads may still be at work for Prefect: for a server that has died they would try for
    minutes to deliver each event."""
    _left_with.append(status)
    late = Timer(_DELIVERED_WITHIN_S, os._exit, (status,))
    late.daemon = True
    late.start()
    sys.exit(status)


@atexit.register  # before anything large is imported: what was registered first is called last
def _leave_out_the_interpreters_end() -> None:
    """Which goes through all objects of all modules, for seconds."""
    if _left_with:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(_left_with[0])


def _run_or_say_why_not(command: Command, given: dict[str, Any]) -> int:
    """The exit status. Errors end in one line that says what to do; SGPO_TRACEBACK=1 shows the whole of an unexpected
    one."""
    again = "; the same command goes on from the last checkpoint" if command.is_flow else ""
    try:
        _run(command, given)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except PartlyFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped{again}", file=sys.stderr)
        return 130
    except BaseException as error:
        if was_terminated(error):
            print(f"terminated{again}", file=sys.stderr)
            return 143
        if not isinstance(error, Exception):
            raise
        if os.environ.get("SGPO_TRACEBACK"):
            raise
        print(f"error: {_advice(error)} (SGPO_TRACEBACK=1 shows where)", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _until_nobody_reads() -> Iterator[None]:
    """Where standard output is a pipe whose reader has seen enough (`| head`), the block ends the process, without a
    word, by the status that such an end has in a shell."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        output = select.poll()
        output.register(sys.stdout.fileno(), 0)  # asks for errors alone
        if not output.poll(0):  # it was another pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
        sys.exit(128 + signal.SIGPIPE)


def _keep_stdout_clean() -> TextIO:
    """Returns the real standard output; what libraries and child processes print goes to standard error."""
    real = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return real


def _advice(error: Exception) -> str:
    if is_prefects_silence(error):
        return f"Prefect's server does not answer ({error}): what was done is saved, and the same command goes on"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # An error that crossed a process boundary brings its traceback as text: what happened is the last line.
    message = lines[-1] if "Traceback" in str(error) or type(error).__name__.startswith("RayTaskError") else lines[0]
    if any(sign in str(error).lower() for sign in _FULL_DISK) or _without_room():
        return f"the disk is full ({message}): free some and give the same command again; what was written is whole"
    return message


def _without_room() -> bool:
    """Then other errors are of it, too: Prefect's server says nothing but that it has not started."""
    with suppress(OSError):
        return shutil.disk_usage(home()).free < _NO_ROOM
    return False
