"""What a sweep tries again, and what it does not."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal
from prefect.logging import disable_run_logger

from sgpo_core.config.sweep import load_sweep, sweep_runs
from tasks.failures import was_terminated
from tasks.sweeps import runs


def system_error() -> SystemError:
    """What compiled code makes of a SIGTERM that comes while it runs."""
    try:
        try:
            raise TerminationSignal(signal.SIGTERM)
        except TerminationSignal as stopped:
            raise SystemError("returned a result with an exception set") from stopped
    except SystemError as error:
        return error


def test_a_sigterm_behind_another_error_is_found() -> None:
    assert was_terminated(system_error()) and was_terminated(TerminationSignal(signal.SIGTERM))
    assert not was_terminated(SystemError("of its own")) and not was_terminated(None)


@pytest.mark.parametrize(("error", "tries"), [(RuntimeError("x"), 2), (system_error(), 1)])
def test_a_sweep_tries_again_what_failed_but_not_what_was_stopped(error: Exception, tries: int) -> None:
    config, tried = load_sweep("grpo-vs-sgpo-tiny", ["seeds=[0]", "attempts=2"]), []
    [first, *_] = sweep_runs(config)

    def online(*_: Any, **__: Any) -> dict[str, Any]:
        tried.append(1)
        raise error

    with disable_run_logger():
        if tries == 1:
            with pytest.raises(SystemError):
                runs._attempt(first, config, online, fresh=False)
        else:
            assert runs._attempt(first, config, online, fresh=False) is error
    assert len(tried) == tries


def test_what_only_one_arm_needs_is_checked_before_the_first_run() -> None:
    checked: list[str] = []
    runs.check_all(sweep_runs(load_sweep("grpo-vs-sgpo-7b")), lambda config: checked.append(config.asked_judge.name))
    assert sorted(checked) == ["llm", "rule"]
