"""What Prefect shows of the flows: how a run is named, and how it says that something was wrong."""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

from prefect import runtime
from prefect.states import Failed

from sgpo_core.config.base import ConfigError, Settings
from tasks.failures import PartlyFailed

P = ParamSpec("P")
Result = dict[str, Any]
_SAY_ALL = (ConfigError, PartlyFailed)  # their message is for users


def named_by(load: Callable[[str, Sequence[str]], Settings], name: str) -> Callable[[], str]:
    """A flow run's name: `name`, in which {0.seed} stands for a setting of those that `load` makes of the parameters;
    the preset where they are wrong."""

    def run_name() -> str:
        given = runtime.flow_run.parameters
        try:
            return name.format(load(given["preset"], given["overrides"]))
        except ConfigError:
            return str(given["preset"])

    return run_name


def explained(function: Callable[P, Result]) -> Callable[P, Result]:
    """Between `@flow` and its function: where a setting is wrong, or a part has failed, the run ends in a state whose
    message is the one line that says so. Whoever has called the flow gets the same exception."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return function(*args, **kwargs)
        except _SAY_ALL as error:
            return Failed(data=error, message=str(error))

    # Prefect looks names of types up where a function is defined, which is here and not where `function` is.
    run.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return run


class _WithoutTraceback(logging.Filter):
    """Prefect logs the traceback of whatever ends the process of a deployment's run, twice."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], _SAY_ALL) and not os.environ.get("SGPO_TRACEBACK"):
            record.exc_info = None
        return True


for _logger in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_logger).addFilter(_WithoutTraceback())
