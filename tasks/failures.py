"""Ends that are not the good one: what has failed in part, and what was terminated."""

from __future__ import annotations

from typing import Any


class PartlyFailed(RuntimeError):
    """Some of what a flow was to do has failed, as the message says; `result` is what it hands back of the rest."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def was_terminated(error: BaseException | None) -> bool:
    """Whether a SIGTERM is behind an error: Prefect raises TerminationSignal wherever the process is at the moment, and
    compiled code there may make another error of it."""
    from prefect.exceptions import TerminationSignal

    while error is not None:
        if isinstance(error, TerminationSignal):
            return True
        error = error.__cause__ or error.__context__
    return False
