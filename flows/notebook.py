"""The commands of `sgpo` as functions, for a notebook or a program of yours.

    from flows.notebook import metrics, responses, run, stop

    result = run("online", "tiny", "algorithm=grpo", "iterations=10")
    metrics(result)["eval/chains/avg_at_k"].dropna().plot()
    responses(result)[["response", "grade", "shaped_reward"]]
    stop()

Engines stay up from one `run` to the next, and end with `stop()` or with the process.
"""

from __future__ import annotations

import atexit
import signal
import threading
from contextlib import ExitStack, redirect_stderr, suppress
from functools import cache
from io import StringIO
from pkgutil import resolve_name
from typing import Any, cast

from flows.commands import COMMANDS, parser_of
from flows.overview import shown
from sgpo_core.config.base import ConfigError
from sgpo_core.config.loading import to_yaml
from sgpo_core.config.suggestions import did_you_mean
from tasks.engines.guard import start_guard
from tasks.failures import end_as_terminated
from tasks.reports.tables import metrics, responses
from tasks.services.environment import prepare_process

__all__ = ["metrics", "responses", "run", "stop"]

_engines = ExitStack()


def run(command: str, *words: str) -> dict[str, Any]:
    """Does what `sgpo COMMAND WORDS...` does, and returns the flow's result ({} for a command that is no flow and
    prints). Raises ConfigError for a wrong setting, before anything starts. After an error or an interruption the same
    call goes on from the last checkpoint."""
    name = command.replace("-", "_")
    if name not in COMMANDS:
        raise ConfigError(f"no command {command!r}: {did_you_mean(command, [shown(known) for known in COMMANDS])}")
    given = _read(name, words)
    show_config, _ = given.pop("show_config", False), given.pop("json", False)
    known = COMMANDS[name]
    config = known.load(given) if known.load else None
    if config and show_config:
        print(to_yaml(config))
        return {}
    if not known.is_flow:
        with suppress(SystemExit):  # some end with a status, for the shell
            resolve_name(known.run)(**given)
        return {}
    if known.has_gpus:
        known.has_gpus(config)
    _prepare()
    _keep_engines()
    if known.check:
        resolve_name(known.check)(config)
    try:
        result = cast(dict[str, Any], resolve_name(known.run)(**given))
    except BaseException:
        stop()  # nobody knows in what state they are
        raise
    if text := result.pop("text", ""):
        print(text)
    return result


def stop() -> None:
    """Ends the engines, which hold memory and GPUs. The next `run` starts its own."""
    _engines.close()
    _keep_engines.cache_clear()


def _read(name: str, words: tuple[str, ...]) -> dict[str, Any]:
    """The arguments by name. What ends a process in the shell is an error here."""
    said = StringIO()
    try:
        with redirect_stderr(said):
            return parser_of(name, f"sgpo {shown(name)}").read(words)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise ConfigError(said.getvalue().strip().removeprefix("error: ")) from None


@cache
def _prepare() -> None:
    prepare_process()
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        end_as_terminated()
    start_guard()


@cache
def _keep_engines() -> None:
    keep_engines = resolve_name("tasks.engines.cluster:keep_engines")  # after `_prepare`, which Prefect needs
    _engines.enter_context(keep_engines())
    atexit.register(stop)  # after Ray was imported, and so before it ends
